"""Photos restored by several processes, or actors of Ray: byte for byte the results and lines of one process."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.conftest import Install
from tests.faults import grown, kill_a_worker, lose_a_node, once, take_back
from tests.restore.video.films import film, scene

Command = Callable[..., tuple[int, str, str]]
SETTINGS = ("--fidelity", "0", "--seed", "5", "-O", "restore.batch=2", "-O", "restore.report=false")
"""Of the built-in model, with all of its noise; two photos a batch."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces in photos of several sizes, one of two faces, one of none, a broken file, a copy of a photo."""
    folder = tmp_path_factory.mktemp("photos")
    face = data.astronaut()[:300, 60:400]
    for number in range(6):
        Image.fromarray(np.roll(face, 7 * number, 1)[: 300 - 8 * number].copy()).save(folder / f"{number}.png")
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(folder / "two.jpg", quality=95)
    Image.fromarray(data.astronaut()[300:420, :120].copy()).save(folder / "none.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "0 copy.png").write_bytes((folder / "0.png").read_bytes())
    return folder


def made(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "restore.jsonl"}


def told(out: Path) -> list[dict[str, object]]:
    """The log but for times and what hangs on them, in the order of its photos."""
    lines = [json.loads(line) for line in (out / "restore.jsonl").read_text().splitlines()]
    return sorted(
        ({**line, "made": "", "traits": []} for line in lines), key=lambda line: (line["target"], line["face"] or 0)
    )


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Restored by this process alone."""
    from typer.testing import CliRunner

    from authface.cli import app

    out = tmp_path_factory.mktemp("alone") / "out"
    done = CliRunner().invoke(app, ["restore", str(photos), "-o", str(out), "--device", "cpu", *SETTINGS])
    assert done.exit_code == 3, done.output
    assert len(made(out)) == 9 and len(told(out)) == 11
    return out


def same(out: Path, alone: Path) -> None:
    assert made(out) == made(alone)
    assert told(out) == told(alone)


def test_two_processes_make_what_one_makes_and_nothing_twice(
    photos: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    words = [photos, "-o", out, "--device", "cpu:2", *SETTINGS, "--json"]
    code, said, err = authface(*words)
    assert code == 3, err
    same(out, alone)
    first = json.loads(said)
    assert (first["photos"], first["restored"], first["faces"], first["no_face"]) == (10, 8, 9, 1)
    assert first["spent"]["model"] > 0 and first["spent"]["detect"] > 0, "of all workers together"
    assert first["engine"] == "onnxruntime" and first["failed"][0]["source"].endswith("broken.jpg")
    assert err.count("broken.jpg: failed (") == 1 and err.count("none.png: no face") == 1
    (out / "3.png").unlink()
    (out / "1.png").write_bytes(b"somebody's")
    code, said, err = authface(*words)
    assert code == 3 and json.loads(said)["done_before"] == 8, "but for the broken one and what is gone"
    assert (out / "3.png").read_bytes() == made(alone)["3.png"] and (out / "1.png").read_bytes() == b"somebody's"
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_costs_nothing(photos: Path, alone: Path, tmp_path: Path, authface: Command) -> None:
    out = tmp_path / "out"
    with once((out / "restore.jsonl").exists, kill_a_worker):
        assert authface(photos, "-o", out, "--device", "cpu:2", *SETTINGS)[0] == 3
    same(out, alone)


def test_a_job_that_is_taken_back_goes_on_where_it_was(
    photos: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    """SIGTERM, as a scheduler warns with, and SIGKILL, which is all that some give; no line is lost or there twice."""
    out = tmp_path / "out"
    words = ["restore", photos, "-o", out, "--device", "cpu:2", *SETTINGS]
    code, said = take_back(words, grown(out / "restore.jsonl"), signal.SIGTERM)
    assert code == 130 and said.splitlines()[-1].endswith("run the same command again to go on"), said
    assert take_back(words, grown(out / "restore.jsonl"), signal.SIGKILL)[0] == -signal.SIGKILL
    assert authface(*words[1:])[0] == 3
    same(out, alone)


def test_a_full_disk_and_a_file_in_the_way_are_what_they_are_alone(
    photos: Path, tmp_path: Path, authface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "0.png").write_bytes(b"not ours")
    words = [photos / "0.png", photos / "1.png", "-o", out, "--device", "cpu:2", *SETTINGS, "--model", "identity"]
    code, _, err = authface(*words)
    assert code == 3 and "0.png: failed (target_exists)" in err and (out / "0.png").read_bytes() == b"not ours"
    assert (out / "1.png").exists()

    def full(path: Path, content: bytes) -> None:
        from authface.errors import AuthfaceError

        raise AuthfaceError(f"cannot write {path}: no space left on the device")

    monkeypatch.setattr("authface.restore.outcome.write_file", full)
    code, _, err = authface(*words, "--overwrite")
    assert code == 1 and err.count("no space left") == 1
    assert not multiprocessing.active_children()


def test_a_model_that_no_worker_can_load_ends_the_run_in_a_line(
    photos: Path, tmp_path: Path, authface: Command
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    code, _, err = authface(photos, "-o", tmp_path / "out", "--device", "cpu:2", "--model", tmp_path / "broken.onnx")
    assert (
        code in {1, 2} and [line for line in err.splitlines() if line.startswith("authface: ")] == err.splitlines()[-1:]
    )
    assert "broken.onnx" in err and "Traceback" not in err
    assert not (tmp_path / "out" / "0.png").exists()


COUNTED = """
import os
from pathlib import Path
from authface.restore.model.restorer import Identity

class Counted(Identity):
    @classmethod
    def make(cls, settings, device):
        with (Path(__file__).parent / "loads").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        return super().make(settings, device)
"""


@pytest.mark.parametrize("device", ["cpu", "cpu:2"])
def test_photos_and_a_film_in_one_command_load_the_model_once(
    photos: Path, tmp_path: Path, authface: Command, install: Install, device: str
) -> None:
    install("counted", "[authface.restorers]\ncounted = counted:Counted\n", COUNTED)
    clip = film(tmp_path / "clip.mp4", [scene(i) for i in range(6)])
    words = [photos / "two.jpg", photos / "0.png", photos / "1.png", clip, "--model", "counted", "--device", device]
    code, said, err = authface(*words, "-o", tmp_path / "out", *SETTINGS[2:], "--json")
    assert code == 0, err
    assert json.loads(said)["restored"] == 3 and json.loads(said)["videos"][0]["faces"] >= 5
    loads = (tmp_path / "packages" / "loads").read_text().split()
    assert len(loads) == len(set(loads)) == int(device.partition(":")[2] or 1)


def test_actors_of_ray_make_what_one_process_makes(
    nodes: Any, photos: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    words = [photos, "-o", out, "--device", "cpu", "--engine", "ray", "--workers", 2, *SETTINGS, "--json"]
    code, said, err = authface(*words)
    assert code == 3, err
    same(out, alone)
    assert json.loads(said)["faces"] == 9
    code, said, _ = authface(*words)
    assert code == 3 and json.loads(said)["done_before"] == 9


def test_a_lost_node_costs_nothing_but_time(
    nodes: Any, photos: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    with once((out / "restore.jsonl").exists, partial(lose_a_node, nodes)):
        code, _, err = authface(photos, "-o", out, "--device", "cpu", "--engine", "ray", *SETTINGS)
    assert code == 3 and "raylet" not in err, err
    same(out, alone)


def test_the_pages_of_a_large_run_are_those_of_one_process(tmp_path: Path, authface: Command) -> None:
    """Workers know that the run has an album, and make its pictures; it lists photos as they were named."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    face = Image.fromarray(data.astronaut()[20:180, 150:310]).resize((64, 64))
    names = [f"{number:02d}.png" for number in range(61)]
    for number, name in enumerate(names):
        face.rotate(number / 10).save(folder / name)
    code, _, err = authface(folder, "-o", out, "--aligned", "--device", "cpu:2", "-O", "restore.guard=false")
    assert code == 0, err
    pages = out / "restore.html.files"
    assert len(list(pages.rglob("*-photo.jpg"))) == len(names)
    text = (pages / "all-0001.html").read_text()
    places = [text.index(f">{name}") for name in names]
    assert places == sorted(places)
