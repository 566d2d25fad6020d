"""The engine `ray` on two nodes of one machine: the tables of a local run, also when a node or a process dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authface.engine.crew import by_chunk
from authface.engine.ray import Cluster
from authface.errors import AuthfaceError, UsageError
from authface.store.photoset import PhotoSet
from tests import conftest
from tests.faults import lose_a_node, two_nodes

if "CI" in os.environ:
    import ray  # noqa: F401  an error where it is missing: the tests must not skip
else:
    pytest.importorskip("ray", reason="the extra ray is not installed")

PART_ROWS = 4
_FILTER = ("min_size=40", "max_pixelation=1", "max_sharpening=1")
SMALL = [word for limit in _FILTER for word in ("-O", f"curate.filter.{limit}")] + [
    "-O", "curate.align.size=128", "--debug"
]  # fmt: skip

WORK = """
import os, signal
from dataclasses import dataclass
from authface.errors import UsageError
from authface.engine.workers import Step
from authface.store.photoset import Provenance
from authface.records import Photo

@dataclass
class Work(Step):
    batch_size: int = 2
    broken: bool = False
    provenance = Provenance("work", 1, {}, {})

    def open(self):
        if self.broken:
            raise UsageError("the weights are missing: pull them")

    def load(self, row):
        if row == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    def step(self, batch):
        return batch

    def save(self, row, result):
        return [Photo(id=str(result), source=str(os.getpid()), source_id="", file="")]

    def failed(self, row, reason, detail):
        return [Photo(id=str(row), source="", source_id="", file="", status="failed", reason=reason, detail=detail)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "work_for_actors.py").write_text(WORK)
    return folder


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Any]:
    """Their processes can import what lies in `folder`."""
    with two_nodes(folder) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 60 photos in parts of 4: turned and shifted copies of the samples, a third with a face."""
    from PIL import Image

    from authface.curate.fetch.sources.folder import Samples

    photos, root = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("set") / "fetched"
    rng = random.Random(7)
    for index, item in zip(range(60), list(Samples().items()) * 10, strict=False):
        with Image.open(item.path) as image:
            turned = image.convert("RGB").rotate(rng.uniform(-20, 20), translate=(rng.randint(-9, 9), 0))
            turned.resize((360, 300)).save(photos / f"{index:02d}.jpg", quality=92)
    rows = f"curate.fetch.part_rows={PART_ROWS}"
    assert conftest.authface("curate", "fetch", root, "--from", "folder", photos, "-O", rows).returncode == 0
    return root


def authface(step: str, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "authface.cli", "curate", step, str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def calm(fetched: Path) -> Path:
    """The set filtered and aligned without Ray."""
    root = shutil.copytree(fetched, fetched.with_name("calm"))
    for step in ("filter", "align"):
        assert conftest.authface("curate", step, root, *SMALL, "--workers", "1").returncode == 0
    assert sum(crop.status == "kept" for crop in PhotoSet(root).crops) >= 8
    return root


def assert_same(ours: Path, theirs: Path, *names: str) -> None:
    """The same rows, digests and provenance in the same parts."""
    for name in names:
        table, other = (getattr(PhotoSet(root), name) for root in (ours, theirs))
        assert table.parts() == other.parts() == list(range(60 // PART_ROWS))
        assert list(table) == list(other)
        assert table.metas() == other.metas()


@pytest.fixture
def work_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.syspath_prepend(folder)
    return __import__("work_for_actors").Work


def rows_of(work: Any, chunks: list[list[int]]) -> dict[int, list[Any]]:
    return dict(by_chunk(work, iter(chunks), cluster=Cluster()))


def test_an_input_that_kills_every_process_fails_alone(nodes: Any, work_type: type) -> None:
    chunks = [[1, 2, 3], [], [10, 11, 12, 13, 14], [20]]
    made = rows_of(work_type(), chunks)
    expected = {number: rows for number, rows in enumerate(chunks) if rows}
    assert {number: [int(row.id) for row in rows] for number, rows in made.items()} == expected
    assert [(row.id, row.reason) for row in made[2] if row.status == "failed"] == [("13", "crashed")]
    assert len({row.source for rows in made.values() for row in rows}) > 2, "two nodes, and whom the 13 killed"


def test_missing_weights_reach_the_caller(nodes: Any, work_type: type) -> None:
    with pytest.raises(UsageError, match="weights are missing"):
        rows_of(work_type(broken=True), [[1], [2]])


def test_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch, work_type: type) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="RAY_ADDRESS=auto"):
        rows_of(work_type(), [[1]])
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(AuthfaceError, match="no Ray at nowhere"):
        rows_of(work_type(), [[1]])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'authface\[ray\]'"):
        rows_of(work_type(), [[1]])


def test_two_nodes_make_the_tables_of_a_local_run(nodes: Any, fetched: Path, calm: Path) -> None:
    root = shutil.copytree(fetched, fetched.with_name("nodes"))
    authface("filter", root, *SMALL, "--engine", "ray")
    done = authface("align", root, *SMALL, "--engine", "ray", "--json")
    assert_same(calm, root, "faces", "crops")
    assert json.loads(done.stdout)["made"] == 60 // PART_ROWS
    crops = [crop.file for crop in PhotoSet(calm).crops if crop.file]
    assert all(PhotoSet(calm).read(file) == PhotoSet(root).read(file) for file in crops)


def test_a_lost_node_costs_nothing_but_time(nodes: Any, fetched: Path, calm: Path) -> None:
    root = shutil.copytree(fetched, fetched.with_name("lost"))
    command = [sys.executable, "-m", "authface.cli", "curate", "filter", str(root), *SMALL, "--engine", "ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not PhotoSet(root).faces.parts():
            time.sleep(0.02)
        lose_a_node(nodes)
        assert run.poll() is None, "the node was lost too late"
        out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert_same(calm, root, "faces")
    assert "raylet" not in out + err
