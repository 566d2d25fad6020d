"""A list that is corrected takes effect, and of several licences of one photo the strictest holds, in every run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.fetch import run as fetching
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import PhotoItem, PhotoSource
from authface.curate.settings import FetchSettings
from authface.records import Photo
from authface.store.journal import Tombstone, bury, item_hash
from authface.store.photoset import PhotoSet, Table
from authface.store.statements import is_stated, strictest, strictness
from tests.conftest import Done, authface
from tests.curate.conftest import Server

WEB = ("-O", "curate.fetch.web.allow_private_hosts=true", "-O", "curate.fetch.web.host_rate=500")


def listed(path: Path, *rows: tuple[str, ...], names: tuple[str, ...] = ("url", "author", "licence")) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def bring(root: Path, path: Path, *words: str, source: str = "urls") -> Done:
    return authface("curate", "fetch", root, "--from", source, path, *WEB, *words)


def licences(root: Path) -> dict[str, str]:
    """By the last word of their names: what holds of the kept photos."""
    return {row.source_id[-1]: row.licence for row in PhotoSet(root).photos if row.status == "kept"}


@pytest.fixture
def urls(server: Server, photos: list[bytes]) -> list[str]:
    """Addresses of three photos, and of a copy of the second."""
    return [server.serve(f"/{name}", photos[at]) for name, at in (("a", 0), ("b", 1), ("c", 2), ("d", 1))]


@pytest.mark.parametrize("new", ["CC BY-NC 4.0", "CC0", "", "unknown", "Rights managed"])
def test_a_corrected_list_takes_effect_once(urls: list[str], server: Server, tmp_path: Path, new: str) -> None:
    root, path = tmp_path / "set", tmp_path / "list.csv"
    first = bring(root, listed(path, (urls[0], "Ann", "CC BY 4.0"), (urls[1], "Bob", "CC BY 4.0")))
    assert first.returncode == 0, first.stderr
    listed(path, (urls[0], "Anna", new), (urls[1], "Bob", "CC BY 4.0"))
    done = bring(root, path)
    held = new or "unknown"
    assert done.returncode == 0 and f"1 CC BY 4.0 -> {held}" in done.stderr, done.stderr
    assert "another photographer" in done.stderr and "nothing to do" not in done.stdout
    assert licences(root) == {"a": held, "b": "CC BY 4.0"}
    (row,) = (one for one in PhotoSet(root).photos if one.source_id.endswith("a"))
    assert [one.licence for one in row.statements] == ["CC BY 4.0", held] and row.photographer == "Anna"
    assert row.statements[0].until == row.statements[1].at != "" == row.statements[1].until
    before = (root / "tables/photos/00000.parquet").read_bytes()
    again = bring(root, path)
    assert "nothing to do" in again.stdout and "licence" not in again.stderr
    assert (root / "tables/photos/00000.parquet").read_bytes() == before
    assert server.asked["/a"] == 1, "no photo is asked for again"
    assert json.loads(authface("status", root, "--json").stdout)["licences"] == {"disputed": 0, "corrected": 1}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_lists_the_strictest_holds_until_it_is_corrected(
    urls: list[str], tmp_path: Path, order: tuple[int, int]
) -> None:
    root = tmp_path / "set"
    lists = [
        listed(tmp_path / "one.csv", (urls[0], "", "CC BY 4.0"), (urls[1], "", "CC BY-NC 4.0")),
        listed(tmp_path / "two.csv", (urls[0], "", "CC BY-ND 4.0"), (urls[3], "", "CC BY 4.0")),
    ]
    for at in order:
        assert bring(root, lists[at]).returncode == 0
    held = licences(root)
    assert held.pop("a") == "CC BY-ND 4.0" and set(held.values()) == {"CC BY-NC 4.0"} and len(held) == 1
    assert "sources disagree about 2 photos" in authface("status", root).stdout
    done = authface("curate", "credits", root, "--all", "--format", "txt")
    assert "disagree about the licence of 2 photos" in done.stderr and "1 under ND licences" in done.stdout
    text = (root / "reports/credits.txt").read_text()
    assert text.count("stated: ") == 2 and "CC BY 4.0 (one.csv, since 20" in text and "(two.csv, since 20" in text
    assert str(tmp_path) not in text, "credits are published"
    assert "stated: " in authface("why", root, urls[0]).stdout
    listed(lists[1], (urls[0], "", "CC BY 4.0"), (urls[3], "", "CC BY 4.0"))
    listed(lists[0], (urls[0], "", "CC BY 4.0"), (urls[1], "", "CC BY 4.0"))
    for path in lists:
        bring(root, path)
    assert set(licences(root).values()) == {"CC BY 4.0"}
    assert json.loads(authface("status", root, "--json").stdout)["licences"] == {"disputed": 0, "corrected": 2}


def test_a_list_that_names_a_photo_twice_says_both(urls: list[str], tmp_path: Path) -> None:
    root, path = tmp_path / "set", tmp_path / "list.csv"
    for rows in ([(urls[0], "", "CC BY 4.0"), (urls[0], "", "CC BY-NC 4.0")], [(urls[0], "", "CC BY-NC 4.0")]):
        for order in (rows, rows[::-1]):
            bring(root, listed(path, *order))
            assert licences(root) == {"a": "CC BY-NC 4.0"}
            assert "nothing to do" in bring(root, path).stdout
    listed(path, (urls[0], "", "CC BY 4.0"), (urls[0], "", "CC BY-NC 4.0"))
    bring(root, path)
    bring(root, listed(path, (urls[0], "", "CC BY 4.0"), (urls[0], "", "CC0")))
    assert licences(root) == {"a": "CC BY 4.0"}, "nobody says NC any more"


def test_what_a_list_names_again_is_told_of_new_known_and_forgotten_photos(urls: list[str], tmp_path: Path) -> None:
    root, rows = tmp_path / "set", [(url, "", "CC0") for url in (urls[0], urls[0], urls[1], urls[1], urls[2])]
    path = listed(tmp_path / "list.csv", *rows)
    for _ in range(2):
        assert "skipped 2: 2 addresses that the list names again\n" in bring(root, path).stderr
    bury(PhotoSet(root), [Tombstone(photo="", item=item_hash("urls", urls[1]))])
    told = "skipped 4: 2 addresses that the list names again, 2 forgotten before\n"
    assert told in bring(root, path).stderr


def test_what_is_not_asked_for_withdraws_nothing(urls: list[str], photos: list[bytes], tmp_path: Path) -> None:
    root, plain, folder = tmp_path / "set", tmp_path / "list.txt", tmp_path / "photos"
    plain.write_text("\n".join(urls[:2]))
    folder.mkdir()
    (folder / "c").with_suffix(".jpg").write_bytes(photos[5])
    given_licence = ("-O", "curate.fetch.licence=CC BY 4.0")
    for path, source in ((plain, "urls"), (folder, "folder")):
        bring(root, path, *given_licence, source=source)
        assert "nothing to do" in bring(root, path, source=source).stdout, "the option was left out"
    assert set(licences(root).values()) == {"CC BY 4.0"}
    bring(root, listed(tmp_path / "more.csv", (urls[0], "Ann"), names=("url", "author")))
    assert set(licences(root).values()) == {"CC BY 4.0"}
    done = bring(root, folder, "-O", "curate.fetch.licence=unknown", source="folder")
    assert "1 CC BY 4.0 -> unknown" in done.stderr
    bring(root, plain, "-O", "curate.fetch.licence=CC0")
    assert sorted(licences(root).values()) == ["CC0", "CC0", "unknown"]


def test_a_json_list_that_lost_its_licence_withdraws_it(urls: list[str], tmp_path: Path) -> None:
    root, path = tmp_path / "set", tmp_path / "list.jsonl"
    rows = [{"url": url, "license": "CC BY 4.0"} for url in urls[:2]]
    path.write_text("\n".join(map(json.dumps, rows)))
    bring(root, path)
    del rows[0]["license"]
    path.write_text("\n".join(map(json.dumps, rows)))
    bring(root, path)
    assert licences(root) == {"a": "unknown", "b": "CC BY 4.0"}


def test_a_list_that_is_read_in_part_loosens_nothing(urls: list[str], tmp_path: Path) -> None:
    root, path = tmp_path / "set", tmp_path / "list.csv"
    bring(root, listed(path, (urls[0], "", "CC BY-NC 4.0")))
    listed(path, (urls[0], "", "CC BY 4.0"), (urls[1], "", "CC0"), (urls[2], "", "CC0"), (urls[0], "", "CC BY-NC 4.0"))
    done = bring(root, path, "--limit", "1")
    assert licences(root)["a"] == "CC BY-NC 4.0" and "1 licences stay until the list is read to its end" in done.stderr
    listed(path, (urls[0], "", "CC BY 4.0"), (urls[1], "", "CC0"), (urls[2], "", "CC0"))
    bring(root, path)
    assert licences(root)["a"] == "CC BY 4.0"


def test_a_photo_of_a_killed_run_has_the_licence_that_the_list_says_now(
    urls: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = tmp_path / "set", listed(tmp_path / "list.csv", (urls[0], "Ann", "CC BY 4.0"))
    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(fetching._KnownPhotos, "settle", lambda *_: exec("raise SystemError"))
        fetch_urls(root, path)
    assert not PhotoSet(root).photos.parts() and (root / "sources/fetched.jsonl").stat().st_size
    bring(root, listed(path, (urls[0], "Anna", "CC BY-NC 4.0")))
    (row,) = PhotoSet(root).photos
    assert (row.licence, row.photographer, server.asked["/a"]) == ("CC BY-NC 4.0", "Anna", 1)
    said = [(one.licence, bool(one.until)) for one in row.statements]
    assert said == [("CC BY 4.0", True), ("CC BY-NC 4.0", False)]


def fetch_urls(root: Path, path: Path) -> None:
    from authface.curate.fetch.sources import make_source

    web = {"allow_private_hosts": True, "host_rate": 500}
    wanted = FetchSettings.model_validate({"source": "urls", "path": str(path), "web": web})
    photoset = PhotoSet(root)
    with make_source(wanted, photoset) as origin:
        fetch(photoset, origin, wanted, Console(), workers=1, limit=0)


NAMES = ["a.jpg", "b.jpg", "c.jpg", "copy-of-a.jpg"]
TEXTS = ["CC0", "CC BY 4.0", "CC BY-SA 4.0", "CC BY-NC 4.0", "CC BY-ND 4.0", "ask", "unknown"]
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), max_size=6)
READS = st.lists(st.tuples(st.sampled_from(["one.csv", "two.csv"]), ROWS), min_size=1, max_size=4)


class Listing(PhotoSource):
    """Rows of a list whose photos lie in a folder."""

    def __init__(self, folder: Path, rows: list[tuple[str, str]]) -> None:
        super().__init__()
        self.folder, self.rows = folder, rows

    def items(self) -> Iterator[PhotoItem]:
        for name, licence in self.rows:
            photo = Photo(id="", source="urls", source_id=name, file="", licence=licence)
            yield PhotoItem(photo, path=str(self.folder / name))


@settings(deadline=None, max_examples=10)
@given(READS)
def test_whatever_lists_say_and_in_whatever_order(
    some: Path, tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    root = tmp_path_factory.mktemp("lists") / "set"
    photoset, said = PhotoSet(root), dict[tuple[str, str], set[str]]()
    for number, (path, rows) in enumerate(reads):
        wanted = FetchSettings(source="urls", path=str(some / path), part_rows=1 + number % 3)
        fetch(photoset, Listing(some, rows), wanted, Console(), workers=1, limit=0)
        before = photoset.photos.metas()
        again = fetch(photoset, Listing(some, rows), wanted, Console(), workers=1, limit=0)
        assert not again.made and not again.restated and before == photoset.photos.metas(), "nothing to do"
        said |= {(path, name): {text for other, text in rows if other == name} for name, _ in rows}
    for row in photoset.photos:
        same = {"a.jpg", "copy-of-a.jpg"} if "a.jpg" in row.source_id and row.status == "kept" else {row.source_id}
        right = strictest(text for (_, name), texts in said.items() if name in same for text in texts)
        assert row.licence == right or (is_stated(right) and strictness(row.licence) == strictness(right))


@pytest.fixture(scope="module")
def some(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small photos and a copy of the first, and two lists."""
    folder = tmp_path_factory.mktemp("some")
    for at, name in zip((0, 1, 2, 0), NAMES, strict=True):
        (folder / name).write_bytes(photos[at])
    for name in ("one.csv", "two.csv"):
        (folder / name).touch()
    return folder


def test_stopped_at_any_write_nothing_is_looser_and_the_next_run_ends_as_an_undisturbed_one(
    some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = FetchSettings(source="urls", path=str(some / "one.csv"), part_rows=1)
    first = [("a.jpg", "CC BY 4.0"), ("b.jpg", "CC BY-ND 4.0"), ("copy-of-a.jpg", "CC BY-NC 4.0")]
    second = [("a.jpg", "CC0"), ("b.jpg", "CC BY 4.0"), ("copy-of-a.jpg", "CC BY-SA 4.0"), ("c.jpg", "CC0")]
    put, sets, stop_at = Table.put, list[list[Photo]](), 0
    while len(sets) < 2 or sets[-1] != sets[0]:
        photoset, writes = PhotoSet(tmp_path / f"set{stop_at}"), 0

        def stopping(table: Any, *arguments: Any, stop_at: int = stop_at) -> None:
            nonlocal writes
            writes += 1
            if writes == stop_at:
                raise SystemError
            put(table, *arguments)

        fetch(photoset, Listing(some, first), wanted, Console(), workers=1, limit=0)
        monkeypatch.setattr(Table, "put", stopping)
        with nullcontext() if stop_at == 0 else suppress(SystemError):
            fetch(photoset, Listing(some, second), wanted, Console(), workers=1, limit=0)
        monkeypatch.setattr(Table, "put", put)
        if writes != stop_at:  # it was not stopped
            sets.append(timeless(photoset))
        elif stop_at:
            assert licences_of(photoset)["a.jpg"] in {"CC BY-NC 4.0", "CC BY-SA 4.0"}
            fetch(photoset, Listing(some, second), wanted, Console(), workers=1, limit=0)
            assert timeless(photoset) == sets[0] and stop_at < 20
        stop_at += 1
    assert stop_at > 4


def licences_of(photoset: PhotoSet) -> dict[str, str]:
    return {row.source_id: row.licence for row in photoset.photos if row.status == "kept"}


def timeless(photoset: PhotoSet) -> list[Photo]:
    """The rows, by name, without when something was said or asked."""
    found = []
    for row in photoset.photos:
        statements = tuple(replace(one, at="", until=one.until and "then") for one in row.statements)
        found.append(replace(row, statements=statements, asked_at=row.asked_at and "then"))
    return sorted(found, key=lambda row: row.source_id)
