"""Bad input is a row or one clear line; nothing is lost and nothing is copied twice."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.console import Console
from authface.curate.fetch.run import INLINE_ROWS, fetch
from authface.curate.fetch.sources.folder import Folder, Samples
from authface.curate.settings import FetchSettings
from authface.engine.runner import Summary
from authface.store.photoset import PhotoSet
from authface.store.statements import rewrite
from tests.conftest import authface


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it is side x side."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Every kind of trouble a folder can hold."""
    folder = tmp_path / "zoo"
    (folder / "sub folder" / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    jpeg = encoded(photo, "JPEG")
    frames = [Image.fromarray(rng.integers(0, 255, (60, 80), dtype=np.uint8)).convert("P") for _ in range(3)]
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "plain.jpg": jpeg,
        "text.jpg": b"this is a letter, not a photo",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "deep.png": encoded(Image.fromarray(rng.integers(0, 65535, (60, 80), dtype=np.uint16)), "PNG"),
        "print.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "palette.png": encoded(photo.convert("P"), "PNG", transparency=3),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "turned.jpg": encoded(photo, "JPEG", exif=turned, quality=80),
        "bomb.png": bomb(30_000),
        "a name with spaces.jpg": encoded(photo, "JPEG", quality=70),
        "имя-名前-😀.jpg": encoded(photo, "JPEG", quality=71),
        "line\nbreak.jpg": encoded(photo, "JPEG", quality=72),
        "-rf.jpg": encoded(photo, "JPEG", quality=73),
        "<script>alert(1)<!--.jpg": encoded(photo, "JPEG", quality=74),
        "sub folder/deeper/again.JPG": jpeg,
        "wrong-ending.png": encoded(photo, "JPEG", quality=77),
        "notes.txt": b"not looked at",
        ".hidden.jpg": b"not looked at",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(encoded(photo, "JPEG", quality=76))
    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


def bring(root: Path, folder: Path, **settings: object) -> Summary:
    values = FetchSettings(source="folder", path=str(folder), **settings)  # type: ignore[arg-type]
    source = Folder(folder, "somebody", "CC0")
    return fetch(PhotoSet(root), source, values, Console(), workers=1, limit=0)


def test_every_trouble_is_a_row_with_its_reason(zoo: Path, tmp_path: Path) -> None:
    bring(tmp_path / "set", zoo)
    rows = {row.source_id: row for row in PhotoSet(tmp_path / "set").photos}
    reasons = {name: row.reason for name, row in rows.items() if row.status != "kept"}
    assert reasons == {
        "text.jpg": "not_an_image",
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "moving.gif": "animated",
        "bomb.png": "too_large",
        "dangling.jpg": "unreadable",
        "pipe.jpg": "not_a_file",
        "sub folder/deeper/again.JPG": "duplicate",
    }
    kept = [row for row in rows.values() if row.status == "kept"]
    assert len(kept) == 12
    assert {"line\nbreak.jpg", "latin-\\xe9.jpg", "имя-名前-😀.jpg", "-rf.jpg"} <= {row.source_id for row in kept}
    assert (rows["turned.jpg"].width, rows["turned.jpg"].height) == (60, 80)
    assert rows["wrong-ending.png"].file.endswith(".jpg")
    assert all((row.photographer, row.licence) == ("somebody", "CC0") for row in rows.values())
    for row in kept:
        stored = tmp_path / "set" / row.file
        assert stored.stat().st_size == row.bytes
        assert stored.resolve().is_relative_to((tmp_path / "set" / "photos").resolve())


def test_the_bytes_are_the_source_s_and_a_second_run_adds_only_what_is_new(zoo: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    first = bring(root, zoo, part_rows=5)
    assert first.made == 4
    plain = next(row for row in PhotoSet(root).photos if row.source_id == "plain.jpg")
    assert (root / plain.file).read_bytes() == (zoo / "plain.jpg").read_bytes()
    assert bring(root, zoo).made == 0
    Image.new("RGB", (9, 9)).save(zoo / "new.png")
    before = list(PhotoSet(root).photos)
    assert bring(root, zoo).made == 1
    assert [row.source_id for row in list(PhotoSet(root).photos)[len(before) :]] == ["new.png"]


def test_archives_unpacked_by_one_time_do_not_take_each_other_s_names(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for name, side in (("one", 40), ("two", 30)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels[:side, :side]).save(tmp_path / name / "00001.png")
        os.utime(tmp_path / name / "00001.png", (0, 0))
    root = tmp_path / "set"
    for name, by in (("one", "A"), ("two", "B")):
        settings = FetchSettings(source="folder", path=str(tmp_path / name))
        fetch(PhotoSet(root), Folder(tmp_path / name, by, "CC0"), settings, Console(), workers=1, limit=0)
    assert [(row.width, row.photographer) for row in PhotoSet(root).photos] == [(40, "A"), (30, "B")]
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    assert bring(root, tmp_path / "elsewhere").made == bring(root, tmp_path / "two").made == 0


def test_a_failed_file_of_a_set_that_knew_no_sizes_is_the_same_file(tmp_path: Path) -> None:
    folder, root = tmp_path / "folder", tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "late.png")
    whole = (folder / "late.png").read_bytes()
    (folder / "late.png").write_bytes(bytes(len(whole)))
    (folder / "text.jpg").write_bytes(b"this is a letter")
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    bring(root, folder)
    photos = PhotoSet(root).photos
    assert [row.bytes for row in photos] == [len(whole), 16]
    rewrite(photos, 0, photos.rows(0), [replace(row, bytes=0) for row in photos])
    assert bring(root, folder).made == 0
    (folder / "late.png").write_bytes(whole)
    os.utime(folder / "late.png", (0, 0))
    assert bring(root, folder, retry="failed").made == 1
    rows = sorted((row.source_id, row.status, row.bytes, row.tries) for row in PhotoSet(root).photos)
    assert rows == [("late.png", "kept", len(whole), 0), ("text.jpg", "failed", 0, 2)]


def test_small_photos_are_refused_with_value_and_limit(zoo: Path, tmp_path: Path) -> None:
    bring(tmp_path / "set", zoo, min_long_side=81)
    rows = [row for row in PhotoSet(tmp_path / "set").photos if row.reason == "small_photo"]
    assert len(rows) == 13
    assert {(row.value, row.limit, row.file) for row in rows} == {(80, 81, "")}
    assert not (tmp_path / "set" / "photos").exists()


def test_samples_are_photos_that_ship_with_the_dependencies(tmp_path: Path) -> None:
    summary = fetch(PhotoSet(tmp_path), Samples(), FetchSettings(source="samples"), Console(), workers=1, limit=0)
    assert summary.counts == Counter(kept=6)
    assert {row.licence for row in PhotoSet(tmp_path).photos} == {"public domain", "CC0"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fetch", "--from", "folder", "EMPTY"], 1, "no photos in"),
        (["fetch", "--from", "folder", "GONE"], 2, "does not exist"),
        (["fetch", "--from", "folder"], 2, "give the folder"),
        (["fetch"], 2, "UNSPLASH_ACCESS_KEY"),
        (["fetch", "--from", "urls"], 2, "give the list"),
        (["fetch", "--from", "urls", "GONE"], 2, "does not exist"),
        (["fetch", "--from", "unsplash-lite", "EMPTY"], 2, "no photos.tsv"),
        (["fetch", "--from", "moon"], 2, "moon"),
        (["filter"], 2, "curate fetch"),
        (["filter", "-O", "curate.filter.min_sise=3"], 2, "min_size"),
        (["align", "-O", "curate.align.size=100"], 2, "multiple of 8"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "EMPTY").mkdir()
    done = authface("curate", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_folder_is_fetched_twice_and_its_own_outputs_are_no_photos(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name in ("zebra", "zoo"):  # after `photoset`: what a set holds would come first
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / f"{name}.jpg")
    first = authface("curate", "fetch", "--from", "folder", ".", cwd=tmp_path)
    assert first.returncode == 0 and "authface made" not in first.stderr
    original = next((tmp_path / "photoset" / "photos").glob("*/*.jpg"))
    crop = tmp_path / "photoset" / "crops" / original.parent.name / f"{original.stem}-0.png"
    export = tmp_path / "dataset" / "train" / "1.png"
    for picture in (crop, export):
        picture.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(picture)
    (tmp_path / "dataset" / "authface.json").write_text('{"made_from": "0"}')
    again = authface("curate", "fetch", "--from", "folder", ".", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stderr.count("4 pictures that authface made are no photos: 3 of a photo set, 1 of an export") == 1
    assert Counter(row.status for row in PhotoSet(tmp_path / "photoset").photos) == {"kept": 2}
    nothing = authface("curate", "fetch", "other", "--from", "folder", "photoset", cwd=tmp_path)
    assert nothing.returncode == 1
    assert "3 pictures that authface made" in nothing.stderr and "no photos in photoset" in nothing.stderr


def test_a_set_may_overlap_with_another_set(tmp_path: Path) -> None:
    from authface.curate.split.leaks import rival_files

    own = tmp_path / "other" / "photos" / "ab" / f"ab{62 * '0'}.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a photo")
    (tmp_path / "other" / "tables").mkdir()
    assert [file.path for file in rival_files(tmp_path / "other", print)] == [str(own)]
    assert list(Folder(tmp_path / "other", "", "").items()) == []


def test_one_process_counts_to_all_that_are_new(tmp_path: Path) -> None:
    """It counted to the rows that are looked at before processes are started: 4672/128."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(INLINE_ROWS + 2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number:03d}.png")
    done = authface("curate", "fetch", tmp_path / "set", "--from", "folder", str(folder), "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert f"{INLINE_ROWS + 2}/{INLINE_ROWS + 2} images" in done.stderr
