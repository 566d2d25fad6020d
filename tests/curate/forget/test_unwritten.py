"""Photos of a fetch that was killed before their part was written are found and forgotten, their files too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from authface.curate.fetch.ledger import FinishedPhoto
from authface.curate.forget.run import find_photos, forget
from authface.curate.forget.unwritten import FETCHED, unwritten_photos
from authface.records import Photo
from authface.store.journal import Forgotten, Journal
from authface.store.photoset import PhotoSet
from tests.curate.forget.test_run import command, mentions, names, photo

Furnished = Callable[[Path], PhotoSet]


@pytest.fixture
def killed(furnished: Furnished, tmp_path: Path) -> PhotoSet:
    """Its fetch was killed with two photos of Anna and one of Bob on the disk, and one that failed, in no part."""
    photoset = furnished(tmp_path / "set")
    (photoset.root / FETCHED).unlink()
    journal = Journal(photoset.root / FETCHED, FinishedPhoto)
    for number, by in enumerate(("Anna", "Bob", "Anna", "Anna")):
        data = f"bytes of {by}, {number}".encode()
        photo_id = hashlib.sha256(data).hexdigest() if number < 3 else ""
        row = Photo(
            id=photo_id, source="other", source_id=f"{by}/{number}.jpg", photographer=by,
            file=photoset.photo_file(photo_id, "jpg") if photo_id else "", status="kept" if photo_id else "failed",
            reason="" if photo_id else "timeout", page_url=f"https://example.org/{by}/{number}",
        )  # fmt: skip
        if photo_id:
            photoset.save(row.file, data)
        journal.append(FinishedPhoto(photo=row))
    return photoset


def test_a_photographers_photos_go_with_their_files(killed: PhotoSet) -> None:
    *anna, bob = sorted(unwritten_photos(killed), key=lambda row: row.photographer)
    killed.save("sources/other/list.json", f'{{"photos": [{{"name": "{anna[2].source_id}"}}]}}'.encode())
    done = command(killed, "--photographer", "ANNA")
    assert done.returncode == 0 and "3 photos, 2 files" in done.stdout, done.stderr
    assert mentions(killed.root, [word for row in anna for word in names(row) if word]) == []
    assert [killed.exists(row.file) for row in anna[:2]] == [False, False]
    assert unwritten_photos(killed) == [bob] and killed.exists(bob.file)
    known = Forgotten.of(killed)
    assert all(known.holds(source=row.source, source_id=row.source_id) for row in anna)


def test_one_of_them_goes_and_the_others_keep_their_lines(killed: PhotoSet) -> None:
    first, bob, *others = unwritten_photos(killed)
    forget(killed, find_photos(killed, [first.id[:8]], None), reason="")
    assert unwritten_photos(killed) == [bob, *others], "Anna has photos that stay"
    assert not killed.exists(first.file) and killed.exists(others[0].file)


def test_a_photo_of_the_same_name_in_another_source_keeps_its_line(killed: PhotoSet) -> None:
    gone = photo(killed, 0)
    *_, last = unwritten_photos(killed)
    Journal(killed.root / FETCHED, FinishedPhoto).append(
        FinishedPhoto(photo=Photo(id="a" * 64, source="other", source_id=gone.source_id, file="photos/aa/a.jpg"))
    )
    forget(killed, [gone], reason="")
    assert [row.source_id for row in unwritten_photos(killed)][-2:] == [last.source_id, gone.source_id]
