"""All rows of what is forgotten go: of a run that was stopped, and of the same bytes under another name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authface.curate.forget import run as forgetting
from authface.curate.forget.run import find_photos, forget
from authface.errors import UsageError
from authface.store.journal import Forgotten, tombstones
from authface.store.photoset import PhotoSet
from tests.curate.forget.test_run import Stop, command, mentions, names, photo

Furnished = Callable[[Path], PhotoSet]


def stop(*_: object) -> None:
    raise Stop


@pytest.mark.parametrize("number", [0, 6], ids=["a photo", "a photo without bytes"])
def test_a_stopped_run_is_finished_without_a_name(
    furnished: Furnished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    photoset = furnished(tmp_path / "set")
    gone = photo(photoset, number)
    photoset.remember("curate.fetch", {"photographer": gone.photographer, "source": "folder"})
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_forget_settings", stop)
        with pytest.raises(Stop):
            forget(photoset, [gone], reason="asked for", photographer=gone.photographer)
    done = command(photoset, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["photos"] == [gone.id or gone.source_id]
    assert mentions(photoset.root, names(gone)) == []
    assert all(stone.done for stone in tombstones(photoset))


def test_a_stopped_run_takes_no_other_photo_of_that_name(
    furnished: Furnished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photoset = furnished(tmp_path / "set")
    gone, broken = photo(photoset, 0), photo(photoset, 6)
    meta = photoset.photos.meta(2)
    assert meta is not None
    photoset.photos.write(2, [replace(broken, source_id=gone.source_id)], meta.provenance, "")
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_forget_settings", stop)
        with pytest.raises(Stop):
            forget(photoset, [gone], reason="")
    forget(photoset, [], reason="")
    assert photo(photoset, 6).source_id == gone.source_id, "another version of it, as a first run leaves it"


def test_the_same_bytes_go_under_every_name(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    first, second = photo(photoset, 4), photo(photoset, 5)
    forget(photoset, find_photos(photoset, [second.source_id], None), reason="")
    assert mentions(photoset.root, [*names(first), *names(second)]) == []
    known = Forgotten.of(photoset)
    assert known.holds(source=first.source, source_id=first.source_id)


def test_who_made_the_same_bytes_is_not_kept_out(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    asked, same, other = photo(photoset, 5), photo(photoset, 4), photo(photoset, 1)
    photos = find_photos(photoset, [other.source_id], asked.photographer)
    forget(photoset, photos, reason="", photographer=asked.photographer)
    assert mentions(photoset.root, names(same)) == []
    known = Forgotten.of(photoset)
    assert known.holds(source=asked.source, source_id="new", photographers=[asked.photographer_url])
    for by in (same, other):
        assert not known.holds(source=by.source, source_id="new", photographers=[by.photographer])
        assert not known.holds(source=asked.source, source_id="new", photographers=[by.photographer])


def test_nobody_is_no_photographer(furnished: Furnished, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no photo by"):
        find_photos(furnished(tmp_path / "set"), [], "")
