"""`authface evaluate challenge` on files: a swapped face, sets, the list of faces, what is missing, a second run."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from authface.curate.fetch.sources.folder import Samples
from authface.evaluate import works
from authface.evaluate.challenge import run as challenge_run
from authface.evaluate.challenge.rules import TERMS
from authface.evaluate.challenge.run import find_faces, read_list
from authface.evaluate.images import Method
from authface.imaging import decode as images
from tests.authface.faces.test_identity import network
from tests.evaluate.conftest import save

Command = Callable[..., tuple[int, str, str]]
DLIB = ("-O", "evaluate.challenge.identity=dlib", "-O", "evaluate.challenge.least={CelebA = 0.93, LFW-Test = 0.93}")


@pytest.fixture
def challenge(authface: Command, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """The command with ``--json``: exit code, the object, standard error."""

    def challenge(*words: object) -> tuple[int, dict[str, Any], str]:
        code, said, log = authface("challenge", *words, "-o", tmp_path / "report", "--workers", 1, "--json")
        return code, json.loads(said) if said else {}, log

    return challenge


@pytest.fixture(scope="session")
def stranger() -> NDArray[np.uint8]:
    """(128, 128, 3): another person's face."""
    path = next(item.path for item in Samples().items() if Path(item.path).stem == "grace_hopper")
    rgb = images.read(Path(path)).rgb
    side = min(rgb.shape[:2])
    return np.ascontiguousarray(cv2.resize(rgb[:side, :side], (128, 128), interpolation=cv2.INTER_AREA))


def test_a_swapped_face_fails_the_gate(
    challenge: Callable[..., Any],
    authface: Command,
    empty_hub: Path,
    faces: Path,
    stranger: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    restored = tmp_path / "restored"
    shutil.copytree(faces, restored)
    save(restored / "face3.png", stranger)
    save(restored / "face4.png", np.full_like(stranger, 127))
    words = ("--outputs", f"good={faces}", "--outputs", f"bad={restored}", "--inputs", faces, "--set", "CelebA-Test")
    code, said, log = challenge(*words, *DLIB)
    assert code == 0, log
    good, bad = (said["methods"][name]["identity"] for name in ("good", "bad"))
    assert good["failures"] == 0 and good["sets"][0]["mean"] == pytest.approx(1, abs=1e-6)
    assert bad["sets"][0]["below"] == ["CelebA/face3"] and bad["sets"][0]["unseen"] == ["CelebA/face4"]
    assert (bad["failures"], bad["verdict"], bad["failures_by_script"]) == (2, "passed", None)
    page = (tmp_path / "report/challenge.html").read_text()
    _, text, _ = authface("challenge", *words, *DLIB, "-o", tmp_path / "report", "--workers", 1)
    assert "bad fails the gate with CelebA/face3, CelebA/face4\n" in text and "good fails" not in text
    assert "bad: faces that fail" in page and page.count("data:image/jpeg;base64,") == 4
    assert said["methods"]["good"]["score"] is None and set(said["methods"]["good"]["missing"]) == set(TERMS)
    assert set(said["unmeasured"]) == set(TERMS) and log.count("is not measured") == len(TERMS)
    with (tmp_path / "report/challenge.csv").open(newline="") as file:
        rows = {(row["method"], row["name"]): row for row in csv.DictReader(file)}
    assert float(rows["bad", "CelebA/face3"]["identity_input"]) < 0.93
    assert rows["bad", "CelebA/face4"]["problems"].startswith("identity_input: no_face")


def test_twice_and_by_sets(
    challenge: Callable[..., Any], empty_hub: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sub-folder a set; what was measured is read, a changed face is measured."""
    for name, numbers in (("CelebA", (0, 1)), ("LFW-Test", (2, 3, 4))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(faces / f"face{number}.png", tmp_path / "in" / name)
    words = ("--outputs", tmp_path / "in", "--inputs", tmp_path / "in", *DLIB)
    _, first, _ = challenge(*words)
    gates = first["methods"]["in"]["identity"]["sets"]
    assert [(gate["set"], gate["faces"]) for gate in gates] == [("CelebA", 2), ("LFW-Test", 3)]
    assert "without CelebChild-Test" in first["short_of_the_challenge"] and first["read_again"] == 0
    asked: list[str] = []
    measure = works.PlainWork._measure
    monkeypatch.setattr(
        works.PlainWork, "_measure", lambda self, loaded: (asked.append(loaded.job.pair.name), measure(self, loaded))[1]
    )
    shutil.copy(faces / "face5.png", tmp_path / "in/CelebA/face0.png")
    _, again, _ = challenge(*words)
    assert asked == ["CelebA/face0"] and again["read_again"] == 4
    code, _, log = challenge(*words[:2], "--outputs", f"flat={faces}", *words[2:])
    assert code == 2 and "has other sets" in log
    (tmp_path / "in/CelebA").rename(tmp_path / "in/FFHQ")
    code, _, log = challenge(*words)
    assert code == 2 and "no set FFHQ" in log and log.count("\n") == 1


def test_whole_scores_are_sums_of_means(
    challenge: Callable[..., Any], empty_hub: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every term there: the networks' values are given, the rest is as it runs."""
    given = {"niqe": 4.0, "clipiqa": 0.7, "musiq": 75.0, "maniqa": 0.6, "qalign": 4.5}

    def learned(measured: Any, metrics: Any, *_: Any) -> None:
        for number, outcome in enumerate(measured.outcomes.values()):
            outcome.values |= {metric.name: given[metric.name] * (1 + (-0.1) ** (number % 2)) / 2 for metric in metrics}

    from authface.evaluate.measure import SetValue

    monkeypatch.setattr(challenge_run, "measure_learned", learned)
    monkeypatch.setattr(
        challenge_run, "measure_sets",
        lambda found, metrics, names, *_: {name: {"fid_ffhq_basicsr": SetValue(6, 40.0)} for name in names},
    )  # fmt: skip
    _, said, _ = challenge("--outputs", faces, "--inputs", faces, "--set", "CelebA", *DLIB)
    found = said["methods"]["faces"]
    share = (1 + 0.45) / 2
    expected = share * (0.7 + 0.6 + 0.75 + 0.9) + (10 - 4 * share) / 10 + 0.6
    assert found["score"] == pytest.approx(expected) and found["missing"] == {}
    assert found["sets"]["CelebA"]["musiq"]["count"] == 6


def test_the_challenges_list_and_a_network_of_ones_own(
    challenge: Callable[..., Any], empty_hub: Path, faces: Path, tmp_path: Path
) -> None:
    """AdaFace's limits and file; the list says the set of each face and where it is, so none is looked for."""
    columns = [f"{p}_{a}" for p in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for a in "xy"]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "dataset", *columns])
        for number in range(6):
            on = "Wider-Test" if number % 2 else "CelebA"
            writer.writerow([f"face{number}", on, 45, 60, 80, 60, 64, 76, 50, 92, 78, 92])
    onnx = network(tmp_path / "ada.onnx", "n", 3, 112, 112)
    restored = tmp_path / "restored"
    shutil.copytree(faces, restored)
    for name in ("face1", "face2"):  # a negative: what was light is dark
        save(restored / f"{name}.png", 255 - images.read(faces / f"{name}.png").rgb)
    words = ["--outputs", restored, "--inputs", faces, "-O", f"evaluate.challenge.points={tmp_path}/list.csv"]
    words += ["-O", f"evaluate.challenge.identity_weights={onnx}", "-O"]
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    code, said, log = challenge(*words, f"evaluate.challenge.identity_sha256={digest}")
    assert code == 0, log
    identity = said["methods"]["restored"]["identity"]
    assert [(gate["set"], gate["least"], gate["below"]) for gate in identity["sets"]] == [
        ("CelebA", 0.5, ["CelebA/face2"]), ("WIDER-Test", 0.3, ["WIDER-Test/face1"]),
    ]  # fmt: skip
    assert identity["failures_by_script"] == 2
    assert said["protocol"]["weights"]["adaface-recognition"] == digest
    code, _, log = challenge(*words, f"evaluate.challenge.identity_sha256={'0' * 64}")
    assert code == 2 and "get the file again" in log
    method, listed = Method("restored", restored), read_list(tmp_path / "list.csv")
    assert find_faces([method], faces, "", listed, 2).sets == {
        "CelebA/face0": "CelebA", "WIDER-Test/face1": "WIDER-Test", "CelebA/face2": "CelebA",
        "WIDER-Test/face3": "WIDER-Test",
    }, "so many of each set"  # fmt: skip


def test_what_is_missing_or_wrong_is_a_line(challenge: Callable[..., Any], empty_hub: Path, faces: Path) -> None:
    words = ("--outputs", faces, "--inputs", faces, "--set", "LFW")
    code, _, log = challenge(*words)
    assert code == 1 and "adaface_ir50_ms1mv2.ckpt" in log and "nothing was measured: no weights for" in log
    for more, said in (
        (("-O", "evaluate.challenge.identity=dlib"), "the rules' limits are AdaFace's"),
        (("-O", 'evaluate.challenge.metrics=["psnr"]'), "psnr is no term"),
        (("-O", "evaluate.challenge.points=missing.csv", "-O", "evaluate.challenge.identity_weights=x"), "is no list"),
        (("-O", "evaluate.challenge.identity_weights=missing.onnx"), "no file missing.onnx"),
    ):
        code, _, log = challenge(*words, *more)
        assert code == 2 and said in log, log
    code, _, log = challenge(*words[:4])
    assert code == 2 and "of which set is face0" in log
