"""A photo that was refused, failed or left by a kill is asked for again: what lists said of it until then stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from authface.curate.fetch import run as fetching
from authface.records import Photo
from authface.store.photoset import PhotoSet
from tests.conftest import authface
from tests.curate.conftest import Server
from tests.curate.fetch.test_stated import bring, listed

LEVEL = "curate.fetch.opt_outs="


def the_row(root: Path) -> Photo:
    (row,) = PhotoSet(root).photos
    return row


def lists_of(tmp_path: Path, url: str) -> tuple[Path, Path]:
    strict = listed(tmp_path / "strict.csv", (url, "Ann", "CC BY-ND 4.0"))
    return strict, listed(tmp_path / "loose.csv", (url, "", "CC0"))


@pytest.mark.parametrize("again", ["loose.csv", "strict.csv", "silent.txt"])
def test_a_refused_photo_that_another_level_takes(
    server: Server, photos: list[bytes], tmp_path: Path, again: str
) -> None:
    root, url = tmp_path / "set", server.serve("/a", photos[0], X_Robots_Tag="noai")
    lists = lists_of(tmp_path, url)
    (tmp_path / "silent.txt").write_text(url)
    for path in lists:
        bring(root, path)
    before = the_row(root)
    assert (before.reason, before.licence, len(before.statements)) == ("opt_out_robots_tag", "CC BY-ND 4.0", 2)
    bring(root, tmp_path / again, "-O", LEVEL + "recorded")
    row = the_row(root)
    assert (row.status, row.licence, row.photographer) == ("kept", "CC BY-ND 4.0", "Ann"), "the strictest holds"
    assert row.statements == before.statements, "nothing is erased"
    assert "sources disagree about 1 photos" in authface("status", root).stdout


def test_a_refused_photo_whose_list_was_corrected(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    root, url, path = tmp_path / "set", server.serve("/a", photos[0], X_Robots_Tag="noai"), tmp_path / "list.csv"
    bring(root, listed(path, (url, "Ann", "CC BY-ND 4.0")))
    bring(root, listed(path, (url, "Ann", "CC BY 4.0")), "-O", LEVEL + "recorded")
    row = the_row(root)
    assert (row.status, row.licence) == ("kept", "CC BY 4.0")
    assert [(one.licence, bool(one.until)) for one in row.statements] == [("CC BY-ND 4.0", True), ("CC BY 4.0", False)]


def test_a_photo_that_failed_first(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    root, url = tmp_path / "set", server.url("/a")
    strict, loose = lists_of(tmp_path, url)
    bring(root, strict)
    assert the_row(root).status == "failed"
    server.serve("/a", photos[0])
    bring(root, loose, "--retry", "failed")
    row = the_row(root)
    assert (row.status, row.licence, row.photographer) == ("kept", "CC BY-ND 4.0", "Ann")


def test_a_photo_of_a_killed_run_that_another_list_names(
    server: Server, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = tmp_path / "set", server.serve("/a", photos[0])
    strict, loose = lists_of(tmp_path, url)
    with monkeypatch.context() as patch:
        patch.setattr(fetching._KnownPhotos, "settle", lambda *_: exec("raise SystemError"))
        bring(root, strict)
    assert not PhotoSet(root).photos.parts()
    bring(root, loose)
    row = the_row(root)
    assert (row.licence, row.photographer, len(row.statements), server.asked["/a"]) == ("CC BY-ND 4.0", "Ann", 2, 1)


def test_the_same_bytes_are_kept_once_at_every_level(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    root = tmp_path / "set"
    refused, free = server.serve("/a", photos[0], X_Robots_Tag="noai"), server.serve("/b", photos[0])
    first = listed(tmp_path / "first.csv", (refused, "Ann", "CC BY-ND 4.0"))
    second = listed(tmp_path / "second.csv", (free, "Bob", "CC0"))
    bring(root, first, "-O", LEVEL + "recorded")
    bring(root, first)
    assert the_row(root).status == "rejected"
    bring(root, second)
    bring(root, second, "-O", LEVEL + "recorded")
    rows = list(PhotoSet(root).photos)
    assert sorted(row.status for row in rows) == ["kept", "rejected"], "one row of each file is kept"
    assert [row.licence for row in rows if row.status == "kept"] == ["CC BY-ND 4.0"]


def test_a_kill_between_the_new_row_and_the_old(
    server: Server, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = tmp_path / "set", server.serve("/a", photos[0], X_Robots_Tag="noai")
    path = listed(tmp_path / "list.csv", (url, "Ann", "CC BY 4.0"))
    bring(root, path)
    with monkeypatch.context() as patch:
        patch.setattr(fetching.Retries, "settle", lambda *_: exec("raise SystemError"))
        bring(root, path, "-O", LEVEL + "recorded")
    assert len(list(PhotoSet(root).photos)) == 2
    bring(root, path, "-O", LEVEL + "recorded")
    assert the_row(root).status == "kept" and server.asked["/a"] == 2


def test_a_copy_stands_for_a_photo_that_is_refused(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    root = tmp_path / "set"
    refused, free = server.serve("/a", photos[0], X_Robots_Tag="noai"), server.serve("/b", photos[0])
    path = listed(tmp_path / "list.csv", (refused, "Ann", "CC BY-NC 4.0"), (free, "Bob", "CC BY 4.0"))
    bring(root, listed(tmp_path / "one.csv", (refused, "Ann", "CC BY-NC 4.0")), "-O", LEVEL + "recorded")
    bring(root, path, "-O", LEVEL + "recorded")
    assert {row.source_id[-1]: row.reason for row in PhotoSet(root).photos} == {"a": "", "b": "duplicate"}
    done = bring(root, path)
    assert "1 of them came under another name, too" in done.stderr
    rows = {row.source_id[-1]: row for row in PhotoSet(root).photos}
    assert (rows["a"].reason, rows["b"].status) == ("opt_out_robots_tag", "kept")
    assert rows["b"].licence == "CC BY-NC 4.0", "of names of the same bytes the strictest still holds"
    bring(root, path, "-O", LEVEL + "recorded")
    assert {row.source_id[-1]: row.reason for row in PhotoSet(root).photos} == {"a": "duplicate", "b": ""}
    assert server.asked["/a"] == server.asked["/b"] == 1


def test_a_list_of_a_set_of_an_earlier_version_is_known_once_it_was_read_again(
    server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    root, url = tmp_path / "set", server.serve("/a", photos[0])
    strict, loose = lists_of(tmp_path, url)
    bring(root, strict)
    table = PhotoSet(root).photos
    meta = table.meta(0)
    assert meta is not None
    table.write(0, [replace(the_row(root), statements=())], meta.provenance, meta.inputs)
    digest = meta.digest
    assert "nothing to do" in bring(root, strict).stdout, "it says what it said"
    bring(root, loose)
    row = the_row(root)
    assert (row.licence, [one.licence for one in row.statements]) == ("CC BY-ND 4.0", ["CC BY-ND 4.0", "CC0"])
    assert [Path(one.by).name for one in row.statements] == ["strict.csv", "loose.csv"]
    assert table.metas()[0].digest == digest, "no step begins anew"  # type: ignore[union-attr]


def test_a_photo_that_an_earlier_version_refused(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    root, url = tmp_path / "set", server.serve("/a", photos[0], X_Robots_Tag="noai")
    path = listed(tmp_path / "list.csv", (url, "Ann", "CC BY 4.0"))
    bring(root, path)
    table = PhotoSet(root).photos
    meta = table.meta(0)
    assert meta is not None
    earlier = replace(the_row(root), reason="opted_out", detail="X-Robots-Tag: noai", signals=(), asked_at="")
    table.write(0, [earlier], meta.provenance, meta.inputs)
    for level in ("strict", "stated"):
        bring(root, path, "-O", LEVEL + level)
    assert (the_row(root).reason, server.asked["/a"]) == ("opted_out", 1)
    bring(root, path, "-O", LEVEL + "recorded")
    assert (the_row(root).status, the_row(root).signals[0].said, server.asked["/a"]) == ("kept", "noai", 2)
