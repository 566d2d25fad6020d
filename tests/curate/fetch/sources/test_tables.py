"""Lists as people send them: a bad row stands alone, no row swallows others, names are read as they were written."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from authface.cli import app
from authface.curate.fetch.sources import PhotoSource, make_source
from authface.curate.fetch.sources.unsplash import _name
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, UsageError
from authface.records import Photo
from authface.store.photoset import PhotoSet
from tests.curate.conftest import Server


def source(path: Path, kind: str = "urls", **settings: Any) -> PhotoSource:
    return make_source(FetchSettings(source=kind, path=str(path), **settings), PhotoSet(path.parent / "set"))


def listed(path: Path, data: bytes | str, **settings: Any) -> list[Photo]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return [item.photo for item in source(path, **settings).items()]


def told(photos: list[Photo]) -> list[str]:
    """Of each row the last part of its address, or the line that is bad."""
    return [photo.file_url[-5:] if photo.status == "kept" else photo.detail.partition(":")[0] for photo in photos]


def rows(delimiter: str, *special: str) -> str:
    """Six good rows with one or more of another kind behind the second."""
    good = [f"http://a/{n}.jpg{delimiter}Ana {n}{delimiter}CC0" for n in range(6)]
    return "\n".join([f"url{delimiter}author{delimiter}licence", *good[:2], *special, *good[2:]]) + "\n"


GOOD = [f"{n}.jpg" for n in range(6)]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize(
    "special",
    [
        'http://a/x.jpg,"unbalanced,CC0',
        'http://a/x.jpg,unbalanced,"CC0',
        '"http://a/x.jpg,Ana,CC0',
        'http://a/x.jpg,"""Ana,CC0',
        "http://a/x.jpg,Ana",
        "http://a/x.jpg",
        "http://a/x.jpg,Ana,Berlin,CC0",
    ],
)
def test_a_bad_row_is_a_row_of_its_own(ending: str, special: str, tmp_path: Path) -> None:
    delimiter = "\t" if "tsv" in ending else ","
    data = rows(delimiter, special.replace(",", delimiter)).encode()
    photos = listed(tmp_path / f"list{ending}", gzip.compress(data) if ending.endswith("gz") else data)
    assert told(photos) == [*GOOD[:2], "line 4", *GOOD[2:]]
    assert {photo.licence for photo in photos if photo.status == "kept"} == {"CC0"}
    assert photos[2].reason == "bad_line" and ":4#" in photos[2].source_id


def test_two_odd_quotes_do_not_make_one_row(tmp_path: Path) -> None:
    """The second would close the first, with as many fields as there are names."""
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        special = [f'http://a/x.jpg{delimiter}"open{delimiter}CC0', f'http://a/y.jpg{delimiter}19"{delimiter}CC0']
        assert told(listed(tmp_path / f"list{ending}", rows(delimiter, *special))) == [
            *GOOD[:2], "line 4", "y.jpg", *GOOD[2:]
        ]  # fmt: skip


def test_quotes_of_a_tsv_are_letters_unless_the_file_proves_them(tmp_path: Path) -> None:
    plain = 'url\tauthor\nhttp://a/1\t"Sunset" at noon\nhttp://a/2\tthe "fox"\nhttp://a/3\t"Q"\n'
    assert [photo.photographer for photo in listed(tmp_path / "a.tsv", plain)] == [
        '"Sunset" at noon', 'the "fox"', '"Q"'
    ]  # fmt: skip
    saved = 'url\tauthor\nhttp://a/1\t"Smith, Ana"\nhttp://a/2\tB\nhttp://a/3\t"the ""fox"""\n'
    assert [photo.photographer for photo in listed(tmp_path / "b.tsv", saved)] == ["Smith, Ana", "B", 'the "fox"']
    all_quoted = '"url"\t"author"\n"http://a/1"\t"Ana"\n"http://a/2"\t"open\n"http://a/3"\t"two\nlines"\n'
    photos = listed(tmp_path / "c.tsv", all_quoted)
    assert [(photo.file_url, photo.photographer) for photo in photos if photo.status == "kept"] == [
        ("http://a/1", "Ana"), ("http://a/3", "two lines")
    ]  # fmt: skip
    assert told(photos)[1] == "line 3"


def test_a_row_of_several_lines_that_is_quoted_properly_is_one(tmp_path: Path) -> None:
    text = 'url,note,licence\r\nhttp://a/1.jpg,"a\r\nsee http://b, with ""more"", and\r\n\r\n",CC0\r\nhttp://a/2.jpg,,CC0\r\n'
    first, second = listed(tmp_path / "list.csv", text)
    assert (first.file_url, first.licence, second.file_url) == ("http://a/1.jpg", "CC0", "http://a/2.jpg")
    assert json.loads(first.extra)["note"] == 'a\r\nsee http://b, with "more", and\r\n\r\n'


def test_lines_of_json_stand_alone(tmp_path: Path) -> None:
    text = '{"author": "no address"}\nnot json\n{"url": "http://a/1.jpg"}\n[1]\n{"Image URL": "http://a/2.jpg"}\n{}\n'
    assert told(listed(tmp_path / "list.jsonl", text)) == ["line 1", "line 2", "1.jpg", "line 4", "2.jpg", "line 6"]
    with pytest.raises(UsageError, match="of link"):
        listed(tmp_path / "none.jsonl", '{"link": "http://a/1"}\n' * 3)


def test_a_value_of_parquet_that_is_no_text_is_its_rows_fault(tmp_path: Path) -> None:
    raw = pa.array([b"Ana", b"\xff\xfe", b"Bob"], pa.binary())
    names = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    table = pa.table({"URL": ["http://a/1.jpg", "http://a/2.jpg", "http://a/3.jpg"], "Author": names})
    pq.write_table(table, tmp_path / "list.parquet")
    photos = [item.photo for item in source(tmp_path / "list.parquet").items()]
    assert told(photos) == ["1.jpg", "line 2", "3.jpg"] and photos[2].photographer == "Bob"


def test_a_command_goes_on_past_bad_rows_and_ends_with_3(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    good = [server.serve(f"/{n}.jpg", photos[n]) for n in range(3)]
    path = tmp_path / "list.tsv"
    path.write_text(f'url\tauthor\n{good[0]}\tA\n{good[1]}\t"B\n{good[2]}\tC\nshort\n')
    command = ["curate", "fetch", str(tmp_path / "set"), "--from", "urls", str(path)]
    result = CliRunner().invoke(app, [*command, "-O", "curate.fetch.web.allow_private_hosts=true"])
    assert result.exit_code == 3, result.output
    assert sorted((photo.status, photo.photographer) for photo in PhotoSet(tmp_path / "set").photos) == [
        ("failed", ""), ("failed", ""), ("kept", "A"), ("kept", "C")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [
        "Image URL,Photographer Name,License", "URL,Author,LICENCE", "image-url,creator,license_name",
        "imageUrl,Credit,licenseType", "OriginalURL,dc:creator,Rights", "\ufeffUrl , Artist,Licence Name",
        "Photo_Image_URL;Byline;license short name",
    ],
)  # fmt: skip
def test_columns_are_known_in_their_usual_spellings(head: str, tmp_path: Path) -> None:
    sign = ";" if ";" in head else ","
    (photo,) = listed(tmp_path / "list.csv", f"{head}{sign}Note\nhttp://a/1.jpg,Jürgen,CC0,x\n".replace(",", sign))
    assert (photo.file_url, photo.photographer, photo.licence) == ("http://a/1.jpg", "Jürgen", "CC0")
    assert json.loads(photo.extra) == {"Note": "x"}
    values = dict(zip(head.strip("\ufeff").split(sign), ("http://a/1.jpg", "Jürgen", "CC0"), strict=True))
    assert [(p.file_url, p.photographer, p.licence) for p in listed(tmp_path / "list.jsonl", json.dumps(values))] == [
        ("http://a/1.jpg", "Jürgen", "CC0")
    ]


def test_what_fills_no_field_is_kept_in_extra(tmp_path: Path) -> None:
    text = "url,author,Photographer,page_url,licence,licence\nhttp://a/1,A,B,7,CC0,CC-BY-ND\n"
    (photo,) = listed(tmp_path / "list.csv", text)
    assert (photo.photographer, photo.licence) == ("B", "CC0")
    assert json.loads(photo.extra) == {"author": "A", "page_url": "7", "licence (6)": "CC-BY-ND"}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_names_are_read_in_every_usual_encoding(encoding: str, ending: str, tmp_path: Path) -> None:
    sign = "\t" if ending == ".tsv" else ","
    names = ["Jürgen Größe", "Zoë", "Ana"]
    if ending == ".jsonl":
        lines = [json.dumps({"url": f"http://a/{name[0]}", "author": name}, ensure_ascii=False) for name in names]
    else:
        lines = [f"url{sign}author", *(f"http://a/{name[0]}{sign}{name}" for name in names)]
    photos = listed(tmp_path / f"list{ending}", "\r\n".join(lines).encode(encoding))
    assert [photo.photographer for photo in photos] == names


def test_a_guess_of_the_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("url,author\nhttp://a/1,Jürgen\n".encode("latin-1"))
    result = CliRunner().invoke(
        app,
        ["curate", "fetch", str(tmp_path / "set"), "--from", "urls", str(path), "-O", "curate.fetch.web.attempts=1"],
    )
    assert "read as Windows-1252" in result.output


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("Иван Петров", "cp1251"), ("カメラマン", "shift-jis"), ("张伟摄影", "gbk"), ("Дмитрий", "koi8-r")],
)
def test_lines_of_another_encoding_are_refused_one_by_one(name: str, encoding: str, tmp_path: Path) -> None:
    data = rows(",", f"http://a/x.jpg,{name},CC0").encode(encoding)
    assert told(listed(tmp_path / "list.csv", data)) == [*GOOD[:2], "line 4", *GOOD[2:]]
    both = rows(",", "http://a/x.jpg,Jürgen,CC0").encode() + "http://a/y.jpg,Jürgen,CC0\n".encode("latin-1")
    assert told(listed(tmp_path / "list.csv", both)) == [*GOOD[:2], "x.jpg", *GOOD[2:], "line 9"]
    assert told(listed(tmp_path / "list.txt", b"http://a/1.jpg\nhttp://a/\xd0\xd1\xd2\xd3.jpg\n")) == [
        "1.jpg",
        "line 2",
    ]


def test_names_are_stored_without_escapes(tmp_path: Path) -> None:
    text = "url,author\nhttp://a/1,\u200bAna\u00a0Maria\u2028B\ufeff\nhttp://a/2,\u06a9\u062a\u0627\u0628\u200c\u0647\u0627\n"
    assert [photo.photographer for photo in listed(tmp_path / "list.csv", text)] == [
        "Ana Maria B", "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627"
    ]  # fmt: skip


def test_nothing_that_is_listed_goes_missing_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"url\nhttp://a/1\nhttp://a/1\n{'data:' + 'x' * 9000}y\n{'data:' + 'x' * 9000}z\n")
    photos = [item.photo for item in source(path).items()]
    assert len({photo.source_id for photo in photos}) == 3
    before = listed(path, "url,a\nhttp://a/1\n")[0].source_id
    assert listed(path, "url,a\nhttp://a/2\n")[0].source_id != before, "a wrongly mended line is another row"


@pytest.mark.parametrize("ending", [".txt.gz", ".csv.gz", ".parquet.gz"])
def test_a_damaged_archive_is_one_clear_error(ending: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"url\n" + b"".join(b"http://a/%d.jpg\n" % n for n in range(2000))))
    for at in range(40, 400, 7):
        packed[at] ^= 0x55
    with pytest.raises(AuthfaceError, match="cannot read"):
        listed(tmp_path / f"list{ending}", bytes(packed))


def test_a_row_of_the_data_set_with_an_odd_quote_takes_no_others_along(tmp_path: Path) -> None:
    folder = tmp_path / "lite"
    folder.mkdir()
    head = "photo_id\tphoto_image_url\tphoto_description\n"
    lines = [
        "a\thttp://a/a\tx\n",
        'b\thttp://a/b\t"open\n',
        "c\thttp://a/c\tx\n",
        "d\n",
        'e\thttp://a/e\t"two\nlines"\n',
    ]
    (folder / "photos.tsv000").write_text(head + "".join(lines))
    (folder / "keywords.tsv000").write_text(
        'photo_id\tkeyword\nz\t"open\n' + "".join(f"{name}\tface\n" for name in "abce")
    )
    lite = {"keywords": ["face"], "min_confidence": 0}
    origin = source(folder, "unsplash-lite", lite=lite)
    assert [(photo.status, photo.file_url) for photo in (item.photo for item in origin.items())] == [
        ("kept", "http://a/a"), ("failed", ""), ("kept", "http://a/c"), ("kept", "http://a/e")
    ]  # fmt: skip
    assert origin.ignored == {"without one of the keywords": 1, "lines of the keywords that cannot be read": 1}
    everything = source(folder, "unsplash-lite", lite={"keywords": []})
    assert sum(item.photo.reason == "bad_line" for item in everything.items()) == 2
    with zipfile.ZipFile(tmp_path / "lite.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photos.tsv000", head + "".join(f"{n}\thttp://a/{n}\tx\n" for n in range(5000)))
    damaged = bytearray((tmp_path / "lite.zip").read_bytes())
    damaged[200:260] = bytes(60)
    (tmp_path / "lite.zip").write_bytes(damaged)
    with pytest.raises(AuthfaceError, match="cannot read"):
        list(source(tmp_path / "lite.zip", "unsplash-lite", lite={"keywords": []}).items())


def test_a_value_that_is_nested_too_deep_is_a_bad_line(tmp_path: Path) -> None:
    for depth in (500, 900):
        deep = "[" * depth + "]" * depth
        line = f'{{"url": "http://a/x.jpg", "author": {deep}}}'
        good = [f'{{"url": "http://a/{n}.jpg", "author": ["Ana"]}}' for n in range(6)]
        photos = listed(tmp_path / "list.jsonl", "\n".join([*good[:2], line, *good[2:]]))
        assert told(photos) == [*GOOD[:2], "line 3", *GOOD[2:]]
        assert photos[2].reason == "bad_line" and photos[0].photographer == "Ana"


PIECES = st.sampled_from(
    ['"', '""', ",", "\t", ";", "\n", "\r\n", "\r", "x", "é", "\\", "http://a/9.jpg", "{", "}", "#", "\ufeff"]
)


@pytest.mark.parametrize(
    ("value", "name"), [("Ana\u00a0B\u200b", "Ana B"), (None, ""), ({"x": 1}, ""), ("J\ud800", "J\ufffd")]
)
def test_names_of_the_api_are_stored_without_escapes(value: object, name: str) -> None:
    assert _name(value) == name


@given(
    ending=st.sampled_from([".csv", ".tsv", ".jsonl"]),
    changes=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 40), st.lists(PIECES, max_size=3)), max_size=4),
    cut=st.integers(0, 5),
)
@example(ending=".tsv", changes=[(3, 15, ['"'])], cut=0)
def test_every_address_of_a_list_comes_out_or_its_line_is_named(
    ending: str, changes: list[tuple[int, int, list[str]]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is put in or cut out below the line of names."""
    sign = "\t" if ending == ".tsv" else ","
    lines = [sign.join((f"http://a/{n}.jpg", f"Ana {n}", "CC0")) for n in range(8)]
    if ending == ".jsonl":
        lines = [json.dumps({"url": f"http://a/{n}.jpg", "author": f"Ana {n}"}) for n in range(8)]
    for at, column, pieces in changes:
        lines[at] = lines[at][:column] + "".join(pieces) + lines[at][column + cut :]
    text = "\n".join(([sign.join(("url", "author", "licence"))] if ending != ".jsonl" else []) + lines)
    try:
        photos = listed(tmp_path_factory.getbasetemp() / f"changed{ending}", text)
    except UsageError:
        assert ending == ".jsonl"
        return
    said = "\n".join(f"{photo.file_url} {photo.photographer} {photo.licence} {photo.extra}" for photo in photos)
    bad = {int(found[1]) for photo in photos if (found := re.match(r"line (\d+):", photo.detail))}
    for number, line in enumerate(io.StringIO(text, newline="").readlines(), 1):
        for address in re.findall(r"http://a/\d\.jpg", line):
            assert number in bad or address in said, (number, line)
