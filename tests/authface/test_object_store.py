"""A store that answers 503: what it was asked is asked again, and a row is never called broken for it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authface import object_store
from authface.errors import AuthfaceError
from authface.files import place
from authface.store import lock
from authface.store.photoset import PhotoSet
from tests.conftest import authface
from tests.faults import Store, store

SMALL = ["-O", "curate.filter.min_size=40", "-O", "curate.align.size=128"]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that can be away; a lease is taken at once."""
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.0)
    with store() as found:
        yield found


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "fetched"
    assert authface("curate", "fetch", root, "--from", "samples").returncode == 0
    return root


@pytest.fixture(scope="module")
def calm(fetched: Path) -> PhotoSet:
    root = shutil.copytree(fetched, fetched.with_name("calm"))
    for step in ("filter", "align"):
        assert authface("curate", step, root, *SMALL).returncode == 0
    return PhotoSet(root)


def test_every_kind_of_request_outlasts_it_here_and_where_the_path_is_sent(away: Store) -> None:
    root = place(f"{away.address}/set")
    (root / "file").write_bytes(b"all")
    requests: list[Callable[[], object]] = [
        (root / "file").read_bytes,
        (root / "file").exists,
        lambda: [path.name for path in root.iterdir()],
        lambda: (root / "other").write_bytes(b"more"),
        lambda: (root / "other").unlink(),
        lambda: pickle.loads(pickle.dumps(root / "file")).read_bytes(),
    ]
    for request in requests:
        root.fs.invalidate_cache()
        away.refuse(after=0, seconds=0.3)
        request()
        assert away.refused, request
    assert (root / "file").read_bytes() == b"all" and not (root / "other").exists()


def test_a_set_is_that_of_a_calm_run(away: Store, fetched: Path, calm: PhotoSet) -> None:
    root = place(f"{away.address}/set")
    root.fs.put(str(fetched), root.path, recursive=True)
    for step, after in (("filter", 0), ("align", 15)):
        away.refuse(after=after, seconds=0.5)
        done = authface("curate", step, root, *SMALL)
        assert done.returncode == 0, done.stderr
        assert away.refused
    made = PhotoSet(root)
    for name in ("photos", "faces", "crops"):
        assert list(getattr(made, name)) == list(getattr(calm, name))
        assert getattr(made, name).metas() == getattr(calm, name).metas()
    crops = [crop.file for crop in calm.crops if crop.file]
    assert crops and all(made.read(file) == calm.read(file) for file in crops)
    assert not made.exists(".lock")


def test_one_that_stays_away_ends_the_run_in_a_line_and_breaks_no_row(
    away: Store, fetched: Path, calm: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place(f"{away.address}/set")
    root.fs.put(str(fetched), root.path, recursive=True)
    monkeypatch.setattr(object_store, "PATIENCE", 0.3)
    away.refuse(after=25, seconds=1e6)
    done = authface("curate", "filter", root, *SMALL)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "the object store answers 503, for" in done.stderr and "run the same command again" in done.stderr
    away.answer()
    assert not PhotoSet(root).faces.parts()
    monkeypatch.undo()
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.0)  # the run could not give it back
    assert authface("curate", "filter", root, *SMALL).returncode == 0
    assert list(PhotoSet(root).faces) == list(calm.faces)


def test_a_lease_that_cannot_be_read_is_not_taken_for_none(away: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place(f"{away.address}/set")
    monkeypatch.setattr(object_store, "PATIENCE", 0.1)
    away.refuse(after=0, seconds=1e6)
    with pytest.raises(AuthfaceError, match="answers 503"), lock.write_lock(root):
        pass


def test_what_a_store_says_of_a_request_is_not_asked_again(away: Store) -> None:
    with pytest.raises(FileNotFoundError):
        place(f"{away.address}/nothing").read_bytes()
