"""`authface evaluate restoration` on real files: figures, cache, what is missing, what differs, the files it writes."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio

from authface.evaluate import works
from authface.evaluate.measure import FILE, ValueCache
from authface.evaluate.protocol import set_sha256
from authface.faces.degrade import PRESETS, degrade
from authface.imaging import decode as images

Command = Callable[..., tuple[int, str, str]]
PLAIN = "psnr,psnr_y,ssim,ssim_y,identity,landmarks,landmarks_px"


def degraded(faces: Path, folder: Path, name: str) -> Path:
    """A folder of JPEGs that a method could have made of the faces: another ending, the same names."""
    folder.mkdir()
    for number, path in enumerate(sorted(faces.iterdir())):
        rgb = degrade(images.read(path).rgb, number, PRESETS[name])
        (folder / f"{path.stem}.jpg").write_bytes(images.encode_jpeg(rgb, quality=100))
    return folder


@pytest.fixture
def mild(faces: Path, tmp_path: Path) -> Path:
    return degraded(faces, tmp_path / "mild", "mild")


@pytest.fixture
def heavy(faces: Path, tmp_path: Path) -> Path:
    return degraded(faces, tmp_path / "heavy", "heavy")


@pytest.fixture
def restoration(authface: Command, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """The command with ``--json``: exit code, the object, standard error."""

    def restoration(*words: object) -> tuple[int, dict[str, Any], str]:
        code, said, log = authface("restoration", *words, "-o", tmp_path / "report", "--workers", 1, "--json")
        return code, json.loads(said) if said else {}, log

    return restoration


def test_the_figures_of_the_files(
    restoration: Callable[..., Any], faces: Path, mild: Path, heavy: Path, tmp_path: Path
) -> None:
    words = ("--outputs", f"mild={mild}", "--outputs", f"heavy={heavy}", "--truth", faces, "--metrics", PLAIN)
    code, said, log = restoration(*words)
    assert code == 0 and "failed" not in log
    theirs = [
        peak_signal_noise_ratio(images.read(path).rgb, images.read(mild / f"{path.stem}.jpg").rgb)
        for path in sorted(faces.iterdir())
    ]
    psnr = said["means"]["mild"]["psnr"]
    assert psnr["mean"] == pytest.approx(np.mean(theirs), abs=1e-9) and psnr["count"] == 6
    assert psnr["low"] < psnr["mean"] < psnr["high"]
    table = pq.read_table(tmp_path / "report/restoration.parquet").to_pylist()
    assert [row["psnr"] for row in table if row["method"] == "mild"] == pytest.approx(theirs, abs=1e-9)
    assert {row["truth_sha256"] for row in table} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in faces.iterdir()
    }
    with (tmp_path / "report/restoration.csv").open(newline="") as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == [row["psnr"] for row in table]
    for name, mean in said["means"]["heavy"].items():
        worse = mean["mean"] > said["means"]["mild"][name]["mean"]
        assert worse == name.startswith("landmarks"), name
    found = {d["metric"]: d for d in said["differences"]}
    assert set(found) == set(PLAIN.split(",")) and found["psnr"]["first"] == "mild"
    assert found["psnr"]["mean"]["high"] < 0 and found["psnr"]["better"] == 0 and found["psnr"]["p"] == 0.03125
    assert json.loads((tmp_path / "report/restoration.json").read_text())["means"] == said["means"]


def test_the_protocol_says_how(restoration: Callable[..., Any], authface: Command, faces: Path, tmp_path: Path) -> None:
    authface("synth", faces, "-o", tmp_path / "set", "--degradation", "mild")
    low, clean = tmp_path / "set/degraded", tmp_path / "set/clean"
    _, said, _ = restoration("--outputs", low, "--truth", clean, "--metrics", "identity,psnr", "--seed", 4)
    how = said["protocol"]
    assert how["faces"] == 6 and how["seed"] == 4 and how["synth"]["degradation"] == "mild"
    assert "once, on the truth" in how["landmarks"] and "seed 4" in how["intervals"]
    assert set(how["weights"]) == {"retinaface", "dlib-68", "dlib-recognition"}
    assert all(len(sha256) == 64 for sha256 in how["weights"].values()) and how["versions"]["numpy"] == np.__version__
    files = [(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in clean.iterdir()]
    assert how["truth"]["set_sha256"] == set_sha256(files) == set_sha256(files[::-1])
    assert how["methods"]["degraded"]["set_sha256"] != how["truth"]["set_sha256"]


def test_a_second_run_reads_values_and_a_changed_file_is_measured(
    restoration: Callable[..., Any], faces: Path, mild: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--outputs", mild, "--truth", faces, "--metrics", "psnr,identity")
    _, first, _ = restoration(*words)
    (tmp_path / "renamed").mkdir()
    for path in mild.iterdir():
        shutil.copy(path, tmp_path / "renamed" / path.name)
    asked: list[str] = []
    measure = works.PlainWork._measure
    monkeypatch.setattr(
        works.PlainWork, "_measure", lambda self, loaded: (asked.append(loaded.job.pair.name), measure(self, loaded))[1]
    )
    _, again, _ = restoration("--outputs", tmp_path / "renamed", *words[2:])
    assert asked == [] and first["read_again"] == 0 and again["read_again"] == 12
    assert again["means"]["renamed"] == first["means"]["mild"]
    images_of = sorted(mild.iterdir())
    shutil.copy(images_of[0], images_of[3])
    _, changed, _ = restoration(*words)
    assert asked == [images_of[3].stem] and changed["means"] != first["means"]
    asked.clear()
    monkeypatch.setattr("authface.metrics.quality.VERSION", "next")
    _, newer, _ = restoration(*words)
    assert sorted(asked) == sorted(path.stem for path in images_of) and newer["read_again"] == 6


def test_a_broken_cache_is_said(restoration: Callable[..., Any], faces: Path, mild: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / FILE).write_bytes(b"no base of SQLite" * 100)
    code, _, log = restoration("--outputs", mild, "--truth", faces, "--metrics", "psnr")
    assert code == 1 and log.count("\n") <= 2 and "delete it" in log


def test_the_cache_keeps_numbers_as_they_are(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=50).tolist()
    with ValueCache(tmp_path) as values:
        values.put((str(n), value) for n, value in enumerate(numbers))
        values.put([("0", 2.0)])
    with ValueCache(tmp_path) as values:
        assert [values.get(str(n)) for n in range(50)] == [2.0, *numbers[1:]] and values.get("50") is None


def test_what_cannot_be_measured_is_a_row_with_its_reason(
    restoration: Callable[..., Any], faces: Path, mild: Path, tmp_path: Path, portrait: NDArray[np.uint8]
) -> None:
    (mild / "face1.jpg").write_bytes(images.encode_jpeg(portrait[:64, :64]))
    (mild / "face2.jpg").write_bytes(b"\xff\xd8torn")
    (faces / "face3.png").write_bytes(images.encode_png(np.full_like(portrait, 127)))
    code, said, log = restoration("--outputs", mild, "--truth", faces, "--metrics", "psnr,identity")
    assert code == 3 and "2 outputs failed" in log
    failed = {row["name"]: row for row in said["failed"]}
    assert set(failed) == {"face1", "face2"} and failed["face1"]["reason"] == "size"
    assert "the output has 64 x 64 px, its truth 128 x 128 px" in failed["face1"]["detail"]
    assert said["means"]["mild"]["psnr"]["count"] == 4 and said["means"]["mild"]["identity"]["count"] == 3
    rows = {row["name"]: row for row in pq.read_table(tmp_path / "report/restoration.parquet").to_pylist()}
    assert rows["face3"]["problems"].startswith("identity: no_face") and rows["face3"]["identity"] is None
    assert rows["face1"]["psnr"] is None and rows["face1"]["reason"] == "size"
    assert "face1" in (tmp_path / "report/restoration.html").read_text()


def test_nothing_measured_is_an_error(restoration: Callable[..., Any], faces: Path, mild: Path) -> None:
    for path in mild.iterdir():
        path.write_bytes(b"nothing")
    code, said, log = restoration("--outputs", mild, "--truth", faces, "--metrics", "psnr")
    assert code == 1 and said == {} and "nothing was measured: face0.jpg: not_an_image" in log


def test_missing_and_extra_outputs_stop_the_run(restoration: Callable[..., Any], faces: Path, mild: Path) -> None:
    (mild / "face4.jpg").rename(mild / "fase4.jpg")
    code, _, log = restoration("--outputs", mild, "--truth", faces)
    assert code == 2 and log.count("\n") == 1 and "lacks 1 images" in log and "face4" in log
    (faces / "face4.png").unlink()
    code, _, log = restoration("--outputs", mild, "--truth", faces)
    assert code == 2 and "has 1 images that the others lack: fase4" in log


def test_without_the_truth_the_input_says_whether_the_person_stayed(
    restoration: Callable[..., Any], faces: Path, mild: Path
) -> None:
    code, said, _ = restoration("--outputs", faces, "--inputs", mild, "--metrics", "identity_input")
    assert code == 0 and 0.9 < said["means"]["faces"]["identity_input"]["mean"] < 1
    code, _, log = restoration("--outputs", faces, "--metrics", "psnr")
    assert code == 2 and "psnr needs --truth DIR" in log


def test_processes_and_one_process_agree(
    authface: Command, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authface.evaluate.measure._INLINE", 2)
    words = ("--outputs", f"m={degraded(faces, tmp_path / 'm', 'medium')}", "--truth", faces, "--metrics", PLAIN)
    said = [
        json.loads(authface("restoration", *words, "-o", tmp_path / f"r{n}", "--workers", n, "--json")[1])["means"]
        for n in (1, 2)
    ]
    assert said[0] == said[1]


def test_the_report_is_one_page_with_the_worst_first(
    restoration: Callable[..., Any], faces: Path, mild: Path, tmp_path: Path
) -> None:
    name = ["-O", "evaluate.restoration.worst_by=psnr", "-O", "evaluate.restoration.worst=3"]
    _, said, _ = restoration("--outputs", mild, "--truth", faces, "--inputs", mild, "--metrics", "psnr,ssim", *name)
    page = (tmp_path / "report/restoration.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 9 and "http://" not in page and "https://" not in page
    values = {row["name"]: row["psnr"] for row in pq.read_table(tmp_path / "report/restoration.parquet").to_pylist()}
    worst = sorted(values, key=lambda face: values[face])[:3]
    places = [page.index(f"<bdi>{face}</bdi>") for face in worst]
    assert places == sorted(places) and f"<bdi>{sorted(values, key=lambda f: values[f])[3]}</bdi>" not in page
    assert f"{said['means']['mild']['psnr']['mean']:.2f} [" in page and "set_sha256" in page
    code, _, log = restoration(
        "--outputs", mild, "--truth", faces, "--metrics", "psnr", *name[:1], f"{name[1][:-4]}ssim"
    )
    assert code == 2 and "measured are psnr" in log
    assert restoration("--outputs", mild, "--metrics", "piqe", "--seed", "-1")[0] == 2


def test_a_dry_run_writes_nothing(authface: Command, mild: Path, tmp_path: Path) -> None:
    code, said, _ = authface("restoration", "--outputs", mild, "-o", tmp_path / "report", "--dry-run")
    assert code == 0 and "musiq" in said and "psnr" not in said and not (tmp_path / "report").exists()
