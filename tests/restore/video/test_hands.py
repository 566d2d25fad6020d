"""One video restored by several workers: byte for byte the result and the line of one process."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.restore.video.hands import Hired, in_order
from tests.conftest import PATIENCE, heed_ctrl_c
from tests.faults import lose_a_node, once
from tests.restore.video.films import film, scene

Command = Callable[..., tuple[int, str, str]]
SETTINGS = ("--fidelity", "0", "-O", "restore.batch=2", "-O", "restore.report=false", "-O", "restore.guard=false")
"""Of the built-in model, with all of its noise."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, an empty moment, another scene of two faces."""
    two = [np.ascontiguousarray(np.hstack([scene(i)[:, :96], scene(i)[:, 95::-1]])) for i in range(4)]
    empty = [np.full_like(two[0], 90)] * 3
    return film(tmp_path_factory.mktemp("film") / "clip.mp4", [*(scene(i) for i in range(5)), *empty, *two])


@pytest.fixture(scope="module")
def alone(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Restored by this process alone."""
    from typer.testing import CliRunner

    from authface.cli import app

    out = tmp_path_factory.mktemp("alone") / "out"
    done = CliRunner().invoke(app, ["restore", str(clip), "-o", str(out), "--device", "cpu", *SETTINGS])
    assert done.exit_code == 0, done.output
    line = told(out)
    assert line["frames"] == 12 and line["faces"] >= 9 and line["engine"] == "onnxruntime"
    return out


def told(out: Path) -> dict[str, Any]:
    """The log's line but for times."""
    (line,) = [json.loads(text) for text in (out / "restore.jsonl").read_text().splitlines()]
    return {**line, "made": "", "seconds": 0}


def same(out: Path, alone: Path) -> None:
    assert (out / "clip.mp4").read_bytes() == (alone / "clip.mp4").read_bytes()
    assert told(out) == told(alone)


def test_two_processes_make_what_one_makes_and_nothing_twice(
    clip: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    words = [clip, "-o", out, "--device", "cpu:2", *SETTINGS, "--json"]
    code, said, err = authface(*words)
    assert code == 0, err
    same(out, alone)
    spent = json.loads(said)["spent"]
    assert all(spent[name] > 0 for name in ("load", "read", "detect", "model", "paste", "encode"))
    assert not multiprocessing.active_children()
    code, said, _ = authface(*words)
    assert code == 0 and json.loads(said)["done_before"] == 1 and "model" not in json.loads(said)["spent"]


def test_a_worker_that_is_killed_costs_nothing(clip: Path, alone: Path, tmp_path: Path, authface: Command) -> None:
    out, killed = tmp_path / "out", list[int]()

    def kill() -> None:
        while len(multiprocessing.active_children()) < 2 or not list(out.glob(".tmp-*")):
            time.sleep(0.005)
        (first, *_) = multiprocessing.active_children()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        killed.append(first.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert authface(clip, "-o", out, "--device", "cpu:2", *SETTINGS)[0] == 0
    killer.join(10)
    assert killed
    same(out, alone)


def test_a_model_that_no_worker_can_load_ends_the_run_in_a_line(clip: Path, tmp_path: Path, authface: Command) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    code, _, err = authface(clip, "-o", tmp_path / "out", "--device", "cpu:2", "--model", tmp_path / "broken.onnx")
    assert code in {1, 2} and err.count("authface: ") == 1 and "broken.onnx" in err and "Traceback" not in err
    assert not list((tmp_path / "out").glob("*.mp4")) and not multiprocessing.active_children()


def children(pid: int) -> set[int]:
    """Processes that any thread of a process started."""
    found = set[int]()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended
            found |= {int(one) for one in listed.read_text().split()}
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_command_and_the_same_again_does_the_rest(
    clip: Path, alone: Path, tmp_path: Path, authface: Command, number: int
) -> None:
    long = film(tmp_path / "clip.mp4", [scene(i % 12) for i in range(600)])
    out = tmp_path / "out"
    words = ["-o", str(out), "--device", "cpu:2", *SETTINGS]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "authface.cli", "restore", str(long), *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    ) as run:
        deadline, workers = time.monotonic() + PATIENCE, set[int]()
        while len(workers) < 2 or not list(out.glob(".tmp-*")):
            assert run.poll() is None and time.monotonic() < deadline
            workers |= {pid for pid in children(run.pid) if "spawn_main" in _command(pid)}
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # as a terminal does
        else:
            run.send_signal(number)
        _, said = run.communicate(timeout=PATIENCE)  # to its end: no process has it open
    assert "Traceback" not in said
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (out / "clip.mp4").exists()
    assert authface(clip, *words)[0] == 0
    same(out, alone)
    assert {path.name for path in out.iterdir() if not path.is_dir()} == {"clip.mp4", "restore.jsonl"}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_actors_of_ray_make_what_one_process_makes(
    nodes: Any, clip: Path, alone: Path, tmp_path: Path, authface: Command
) -> None:
    out = tmp_path / "out"
    words = [clip, "-o", out, "--device", "cpu", "--engine", "ray", "--workers", 2, *SETTINGS, "--json"]
    code, _, err = authface(*words)
    assert code == 0, err
    same(out, alone)
    code, said, _ = authface(*words)
    assert code == 0 and json.loads(said)["done_before"] == 1


def test_a_lost_node_costs_nothing_but_time(
    nodes: Any, clip: Path, alone: Path, tmp_path: Path, authface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other node takes the place of the lost actor's: the one that is left does its work."""
    out, asked, ask = tmp_path / "out", list[None](), Hired.restore
    monkeypatch.setattr(Hired, "restore", lambda own, faces: (asked.append(None), ask(own, faces))[1])
    with once(lambda: len(asked) > 1, partial(lose_a_node, nodes)):
        code, _, err = authface(clip, "-o", out, "--device", "cpu", "--engine", "ray", *SETTINGS)
    assert code == 0 and "raylet" not in err, err
    same(out, alone)


def test_answers_keep_the_order_and_few_questions_are_open() -> None:
    open_now, most = 0, 0

    def asked() -> Iterator[tuple[int, Callable[[], int]]]:
        nonlocal open_now, most
        for number in range(20):
            open_now += 1
            most = max(most, open_now)
            yield number, lambda number=number: answered(number)

    def answered(number: int) -> int:
        nonlocal open_now
        open_now -= 1
        return 2 * number

    assert list(in_order(asked(), 3)) == [(number, 2 * number) for number in range(20)]
    assert most == 4 and open_now == 0
