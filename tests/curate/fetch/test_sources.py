"""Lists of addresses and the Unsplash data set: every format, any bytes, no download before the choice."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authface.console import Console
from authface.curate.fetch.ledger import FinishedPhoto
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import PhotoItem, PhotoSource, camera, make_source, parse_positive
from authface.curate.fetch.sources.folder import Folder
from authface.curate.settings import FetchSettings
from authface.errors import UsageError
from authface.records import Camera, Photo
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet
from tests.curate.conftest import Server

WEB = {"allow_private_hosts": True, "host_rate": 500, "backoff_seconds": 0.01, "attempts": 2}
TABLES = st.sampled_from([".csv", ".tsv", ".jsonl"])


def source(kind: str, path: Path, **settings: Any) -> PhotoSource:
    return make_source(wanted(kind, path, **settings), PhotoSet(path.parent / "set"))


def wanted(kind: str, path: Path, **settings: Any) -> FetchSettings:
    return FetchSettings(**{"source": kind, "path": str(path), "web": WEB} | settings)


def bring(root: Path, settings: FetchSettings) -> list[Photo]:
    photoset = PhotoSet(root)
    with make_source(settings, photoset) as origin:
        fetch(photoset, origin, settings, Console(), workers=1, limit=0)
    return list(photoset.photos)


TABLE = [
    {"url": "http://a.test/1.jpg", "author": "Ana", "license": "CC0-1.0", "id": "7", "tags": 'x "y", z'},
    {"url": "http://a.test/2.jpg", "author": "", "license": "", "id": "", "tags": "line\nbreak"},
]


def written(folder: Path, ending: str) -> Path:
    path = folder / f"list{ending}"
    text = io.StringIO()
    if ending.startswith((".csv", ".tsv")):
        writer = csv.DictWriter(text, list(TABLE[0]), delimiter="\t" if ".tsv" in ending else ",")
        writer.writeheader()
        writer.writerows(TABLE)
    elif ending.startswith(".jsonl"):
        text.write("\n".join(json.dumps(row) for row in TABLE))
    data = text.getvalue().encode("utf-8-sig")
    if ending.startswith(".parquet"):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(TABLE), buffer)
        data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz", ".parquet.gz"])
def test_every_kind_of_table_says_the_same(ending: str, tmp_path: Path) -> None:
    first, second = (item.photo for item in source("urls", written(tmp_path, ending), licence="mine").items())
    assert (first.source_id, first.file_url) == ("http://a.test/1.jpg",) * 2
    assert (first.photographer, first.licence) == ("Ana", "CC0-1.0")
    assert json.loads(first.extra) == {"id": "7", "tags": 'x "y", z'}
    assert (second.photographer, second.licence, json.loads(second.extra)) == ("", "mine", {"tags": "line\nbreak"})


def test_links_that_run_scripts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url,page_url,author_url\nhttp://a.test/1,javascript:alert(1),https://a.test/ana\n")
    (item,) = source("urls", path).items()
    assert (item.photo.page_url, item.photo.photographer_url) == ("", "https://a.test/ana")


def test_a_plain_list_may_hold_notes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# a note\n\nhttp://a.test/1.jpg  \r\nnot an address\n")
    assert [item.url for item in source("urls", path).items()] == ["http://a.test/1.jpg", "not an address"]


def test_a_table_without_addresses_says_which_columns_it_has(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("name,link\na,http://a.test/1.jpg\n")
    with pytest.raises(UsageError, match=r"url_column=NAME, of name, link"):
        list(source("urls", path).items())
    assert [item.url for item in source("urls", path, url_column="link").items()] == ["http://a.test/1.jpg"]
    (tmp_path / "list.docx").touch()
    with pytest.raises(UsageError, match=r"\.docx"):
        list(source("urls", tmp_path / "list.docx").items())


@given(
    data=st.binary(max_size=300),
    ending=TABLES | st.just(".txt"),
    head=st.sampled_from([b"", b"url\n", b"url,a\n", b'{"url": 1}\n']),
)
def test_any_bytes_are_items_or_one_clear_error(
    data: bytes, ending: str, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(head + data)
    try:
        items = list(source("urls", path).items())
    except UsageError as error:
        assert str(error).isprintable()
        return
    for item in items:
        assert item.photo.source_id and item.photo.source_id.isprintable()
        assert item.photo.status != "kept" or item.url
        assert not item.photo.extra or json.loads(item.photo.extra)


@given(rows=st.lists(st.fixed_dictionaries({"url": st.text(min_size=1), "note": st.text()}), max_size=5), ending=TABLES)
@example(rows=[{"url": "\r", "note": ""}], ending=".csv")
def test_what_was_written_is_read(
    rows: list[dict[str, str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{ending}"
    text = io.StringIO()
    if ending == ".jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(
            text, ["url", "note"], delimiter="\t" if ending == ".tsv" else ",", quoting=csv.QUOTE_ALL
        )
        writer.writeheader()
        writer.writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
    if ending != ".jsonl":  # a line of blanks is no row of a table
        rows = [row for row in rows if row["url"].strip() or row["note"].strip()]
    items = list(source("urls", path).items())
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        if row["url"].strip() and row["url"].isprintable():
            assert item.url == row["url"].strip()


def test_photos_of_a_list_come_once_with_their_mishaps(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    good = [server.serve(f"/{n}.jpg", photos[n], Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT") for n in range(3)]
    lines = [
        *good, good[0], server.serve("/copy.jpg", photos[0]), server.url("/gone.jpg"),
        server.serve("/page", b"<html>", Content_Type="text/html; charset=x"),
        server.serve("/cut.jpg", photos[4][:9000]),
        server.serve("/no.jpg", photos[5], X_Robots_Tag="noai"), "ftp://a.test/1.jpg", "http://169.254.169.254/a",
        "https://plus.unsplash.com/premium_photo-1?w=9", server.serve("/empty.jpg", b""),
    ]  # fmt: skip
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    settings = wanted("urls", path, photographer="me", part_rows=5)
    rows = sorted(bring(tmp_path / "set", settings), key=lambda row: lines.index(row.source_id))
    rows[0], rows[3] = sorted((rows[0], rows[3]), key=lambda row: row.reason)  # of two copies the one that came first
    assert [(row.status, row.reason) for row in rows] == [
        ("kept", ""), ("kept", ""), ("kept", ""), ("rejected", "duplicate"), ("failed", "dead_link"),
        ("failed", "not_an_image"), ("failed", "truncated"), ("rejected", "opt_out_robots_tag"),
        ("failed", "bad_address"), ("rejected", "bad_address"), ("rejected", "premium"), ("failed", "empty"),
    ]  # fmt: skip
    assert (tmp_path / "set" / rows[0].file).read_bytes() == photos[0]
    assert set(server.asked.values()) == {1}
    settled = dict.fromkeys(server.asked, 1) | {"/page": 2, "/cut.jpg": 2, "/empty.jpg": 2}
    again = bring(tmp_path / "set", settings)
    assert Counter((row.source_id, row.reason) for row in again) == Counter((row.source_id, row.reason) for row in rows)
    assert dict(server.asked) == settled, "a second run asks for nothing but for what may pass"


def test_rows_that_a_killed_run_left_get_a_part_whatever_comes_next(
    server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(server.serve(f"/{n}.jpg", photos[n]) for n in range(4)))
    rows = sorted(bring(tmp_path / "whole", wanted("urls", path)), key=lambda row: row.source_id)
    left = Journal(tmp_path / "set" / "sources" / "fetched.jsonl", FinishedPhoto)
    for row in (rows[2], rows[0]):
        left.append(FinishedPhoto(photo=row))
        PhotoSet(tmp_path / "set").save(row.file, (tmp_path / "whole" / row.file).read_bytes())
    left.append(FinishedPhoto(photo=rows[3]))  # its bytes were lost: it is asked for again
    with left.path.open("ab") as file:
        file.write(b'{"photo": {"id": "torn')
    settings = wanted("urls", path)
    photoset = PhotoSet(tmp_path / "set")
    with make_source(settings, photoset) as origin:
        fetch(photoset, origin, settings, Console(), workers=1, limit=1)
    assert [row.source_id for row in photoset.photos] == [rows[0].source_id], "a limit counts them too"
    empty = tmp_path / "empty"
    empty.mkdir()
    fetch(photoset, Folder(empty, "", ""), FetchSettings(source="folder"), Console(), workers=1, limit=0)
    assert {row.source_id for row in photoset.photos} == {rows[n].source_id for n in (0, 2)}
    server.asked.clear()
    assert len(bring(tmp_path / "set", settings)) == 4
    assert server.asked == {"/1.jpg": 1, "/3.jpg": 1}


PHOTOS = [
    "photo_id", "photo_url", "photo_image_url", "photo_submitted_at", "photo_featured", "photo_width", "photo_height",
    "photo_description", "photographer_username", "photographer_first_name", "photographer_last_name",
    "exif_camera_make", "exif_iso", "exif_aperture_value",
]  # fmt: skip
KEYWORDS = ["photo_id", "keyword", "ai_service_1_confidence", "ai_service_2_confidence", "suggested_by_user"]


def tsv(names: list[str], rows: list[list[object]], head: bool = True) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t")
    writer.writerows([names, *rows] if head else rows)
    return text.getvalue().encode()


def photo(name: str, url: str, **changes: object) -> list[object]:
    values: dict[str, object] = dict.fromkeys(PHOTOS, "") | {
        "photo_id": name, "photo_image_url": url, "photo_width": 6000, "photo_height": 8000,
        "photo_description": 'a "quoted"\nline\twith all', "photographer_username": "ana_b",
        "exif_camera_make": "Leica",
        "photographer_first_name": "Ana", "photographer_last_name": "B", "exif_iso": 100, "exif_aperture_value": "2.8",
    }  # fmt: skip
    return list((values | changes).values())


@pytest.fixture
def data_set(server: Server, photos: list[bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "lite"
    folder.mkdir()
    address = [server.serve(f"/{n}", photos[n]) for n in range(8)]
    parts = [
        tsv(PHOTOS, [
            photo("yes", address[0]), photo("other", address[1]), photo("noisy", address[2], exif_iso="6400"),
            photo("small", address[3], photo_width=800, photo_height=600), photo("unsure", address[4]),
        ]),
        tsv(PHOTOS, [
            photo("premium", "https://plus.unsplash.com/premium_photo-2"), photo("user", address[5], exif_iso=""),
            photo("flat", address[6], exif_aperture_value="22"), photo("bad", ""), ["short"], [],
        ], head=False),
    ]  # fmt: skip
    for number, part in enumerate(parts):
        (folder / f"photos.tsv00{number}").write_bytes(part)
    chosen = ["yes", "noisy", "small", "premium", "flat", "bad"]
    keywords = [[name, "Portrait", "91.2", "", "f"] for name in chosen] + [["other", "tree", "99", "99", "t"]]
    keywords += [["unsure", "portrait", "12.5", "20", "f"], ["user", "face", "", "", "t"]]
    (folder / "keywords.tsv000").write_bytes(tsv(KEYWORDS, keywords))  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_the_data_set_is_chosen_from_before_anything_is_downloaded(
    packed: bool, server: Server, data_set: Path, tmp_path: Path
) -> None:
    path = data_set
    if packed:
        path = tmp_path / "lite.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in data_set.iterdir():
                archive.write(file, f"unsplash-lite/{file.name}")
    lite = {"keywords": ["portrait", "face"], "min_confidence": 50, "max_iso": 800, "max_aperture": 16}
    rows = bring(tmp_path / "set", wanted("unsplash-lite", path, min_long_side=1000, lite=lite))
    assert {row.source_id: (row.status, row.reason, row.value, row.limit) for row in rows} == {
        "yes": ("rejected", "small_photo", 360, 1000),  # the file is not what the data set says
        "noisy": ("rejected", "iso", 6400, 800),
        "small": ("rejected", "small_photo", 800, 1000),
        "premium": ("rejected", "premium", None, None),
        "user": ("rejected", "small_photo", 360, 1000),
        "flat": ("rejected", "aperture", 22, 16),
        "bad": ("failed", "bad_line", None, None),
    }
    assert {row.source_id: row.queries for row in rows if row.queries != ("portrait",)} == {"user": ("face",)}
    assert set(server.asked) == {"/0", "/5"}
    first = next(row for row in rows if row.source_id == "yes")
    assert first.photographer == "Ana B" and first.photographer_url == "https://unsplash.com/@ana_b"
    assert "no redistribution" in first.licence and "TERMS.md" in first.terms
    assert first.camera == Camera(make="Leica", iso=100, aperture=2.8)
    assert json.loads(first.extra)["photo_description"] == 'a "quoted"\nline\twith all'


def test_a_large_data_set_is_read_in_flat_memory(tmp_path: Path) -> None:
    for count in (2_000, 40_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "photos.tsv000").write_bytes(
            tsv(PHOTOS, [photo(f"p{n}", f"http://a.test/{n}") for n in range(count)])
        )
        (folder / "keywords.tsv000").write_bytes(tsv(KEYWORDS, [["p7", "face", "99", "", "f"]]))
        origin = source("unsplash-lite", folder)
        tracemalloc.start()
        assert [item.photo.source_id for item in origin.items()] == ["p7"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000
        assert origin.ignored["without one of the keywords"] == count - 1


def test_the_camera_is_read_from_the_file(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Nikon\0", "Z 9"
    inner = exif.get_ifd(0x8769)
    inner[0x829A], inner[0x829D], inner[0x8827], inner[0x920A] = 1 / 250, 2.8, 400, 85.0
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (40, 31)).save(tmp_path / "b.jpg")
    photoset = PhotoSet(tmp_path / "set")
    settings = FetchSettings(source="folder", path=str(tmp_path))
    fetch(photoset, Folder(tmp_path, "", ""), settings, Console(), workers=1, limit=0)
    first, second = (row.camera for row in photoset.photos)
    assert second is None and first is not None
    assert (first.make, first.model, first.iso, first.aperture, first.focal_length) == ("Nikon", "Z 9", 400, 2.8, 85)
    assert first.exposure == pytest.approx(1 / 250)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated")
@given(st.binary(max_size=200), st.booleans())
def test_any_exif_block_is_a_camera_or_none(data: bytes, headed: bool) -> None:
    found = camera((b"Exif\0\0MM\0*\0\0\0\x08" if headed else b"") + data)
    assert found is None or isinstance(found, Camera)


@given(st.none() | st.text() | st.floats() | st.integers() | st.tuples(st.floats()) | st.booleans())
def test_any_value_is_a_positive_number_or_none(value: object) -> None:
    number = parse_positive(value)
    assert number is None or 0 < number < float("inf")


def test_an_item_is_small() -> None:
    assert not hasattr(PhotoItem(Photo(id="", source="", source_id="", file="")), "__dict__")
