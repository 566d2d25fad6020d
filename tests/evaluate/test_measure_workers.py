"""`evaluate restoration` and `challenge` by two processes, or actors of Ray: the figures of one, also when some die."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from authface.evaluate.catalogue import FILES
from authface.evaluate.measure import FILE
from tests.evaluate.challenge.test_run import DLIB
from tests.evaluate.conftest import point_to, save
from tests.faults import kill_a_worker, once, take_back, two_nodes

Command = Callable[..., tuple[int, str, str]]
NIQE = ("-O", 'evaluate.challenge.metrics=["niqe"]')


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A torch home with the few numbers that niqe needs, for the processes that begin here too."""
    home = tmp_path_factory.mktemp("home")
    (numbers,) = FILES["niqe"]
    (home / "hub" / numbers).parent.mkdir(parents=True)
    savemat(home / "hub" / numbers, {"mu_prisparam": np.ones((1, 36)), "cov_prisparam": np.eye(36)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        point_to(home / "hub", patch)
        yield home


@pytest.fixture(scope="module")
def nodes(home: Path) -> Iterator[Any]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture
def measured(portrait: NDArray[np.uint8], tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    """Makes folders of so many outputs and their truth, of 256 px, all different."""

    def make(count: int) -> tuple[Path, Path]:
        face = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_CUBIC)
        for number in range(count):
            rgb = np.ascontiguousarray(np.roll(face, number, axis=1))
            save(tmp_path / "truth" / f"{number:03d}.png", rgb)
            save(tmp_path / "outputs" / f"{number:03d}.png", cv2.GaussianBlur(rgb, (0, 0), 1 + number / count))
        return tmp_path / "outputs", tmp_path / "truth"

    return make


def figures(authface: Command, words: Sequence[object], out: Path) -> tuple[dict[str, Any], bytes]:
    """What a run says that did not fail, but for what is of this run alone; and its table."""
    code, said, err = authface(*words, "-o", out, "--json")
    assert code == 0, err
    told = json.loads(said)
    return told["means" if words[0] == "restoration" else "methods"], (out / f"{words[0]}.csv").read_bytes()


@pytest.mark.parametrize("command", ["restoration", "challenge"])
@pytest.mark.parametrize("how", [["--device", "cpu:2"], ["--device", "cpu", "--engine", "ray"]])
def test_two_workers_measure_what_one_does(
    home: Path,
    authface: Command,
    measured: Callable[[int], tuple[Path, Path]],
    tmp_path: Path,
    how: list[str],
    command: str,
    request: pytest.FixtureRequest,
) -> None:
    """What runs on the CPU alone, and a network of pyiqa's on each device."""
    if "ray" in how:
        request.getfixturevalue("nodes")
    outputs, truth = measured(9)
    words: list[object] = [command, "--outputs", outputs]
    words += ["--truth", truth, "--metrics", "psnr,piqe"] if command == "restoration" else ["--inputs", truth]
    words += [] if command == "restoration" else ["--set", "CelebA", *DLIB, *NIQE]
    one, two = (figures(authface, [*words, *by], tmp_path / by[-1]) for by in (["--device", "cpu"], how))
    found = one[0]["outputs"]
    if command == "challenge":
        assert found["figures"]["niqe"]["count"] == found["identity"]["sets"][0]["faces"] == 9
    else:
        assert set(found) == {"psnr", "piqe"}
    assert one == two


@pytest.mark.parametrize(
    ("command", "more", "quick"),
    [("restoration", ("--metrics", "psnr,piqe"), 80), ("challenge", ("--set", "CelebA", *NIQE), 0)],
)
def test_a_job_that_is_taken_back_and_a_worker_that_is_killed_leave_the_figures_of_a_calm_run(
    home: Path,
    authface: Command,
    measured: Callable[[int], tuple[Path, Path]],
    tmp_path: Path,
    command: str,
    more: tuple[str, ...],
    quick: int,
) -> None:
    """SIGTERM amid the work of two; the same command goes on, and loses one of them to SIGKILL.

    `quick` values are of what this process measures itself, before.
    """
    outputs, truth = measured(80)
    words: list[object] = [command, "--outputs", outputs, *more]
    words += ["--truth", truth] if command == "restoration" else []
    calm, out = figures(authface, [*words, "--device", "cpu"], tmp_path / "calm"), tmp_path / "out"
    typed = [*words, "--device", "cpu:2"]
    code, said = take_back(["evaluate", *typed, "-o", out], lambda: held(out) > quick, signal.SIGTERM)
    assert code == 130 and said.splitlines()[-1].endswith("run the same command again to go on"), said
    done = held(out)
    assert quick < done < quick + 80
    with once(lambda: held(out) > done, kill_a_worker):
        assert figures(authface, typed, out) == calm


def held(out: Path) -> int:
    """How many values a run has kept so far."""
    if not (out / FILE).exists():
        return 0
    with closing(sqlite3.connect(f"file:{out / FILE}?mode=ro", uri=True, timeout=60)) as base:
        try:
            return int(base.execute("select count(*) from held").fetchone()[0])
        except sqlite3.OperationalError:  # no table yet
            return 0
