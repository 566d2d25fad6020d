"""A set made again from its manifest: the same rows, and what has changed or gone since is named."""

from __future__ import annotations

import json
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authface.annotate.export.run import export
from authface.annotate.rebuild.manifest import DatasetManifest, Entry, _entry, open_manifest
from authface.annotate.rebuild.run import rebuild
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.curate.fetch.run import fetch as run_fetch
from authface.curate.fetch.sources import make_source
from authface.curate.filter.run import filter_photos
from authface.curate.settings import FetchSettings, FilterSettings
from authface.errors import UsageError
from authface.imaging import decode as images
from authface.inspect.status import next_step
from authface.store.journal import bury, tombstone
from authface.store.numbers import NumberMap, text_number
from authface.store.photoset import PhotoSet
from tests import conftest
from tests.conftest import Done

MakeSet = Callable[..., PhotoSet]


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a server on loopback and the files it has, which tests may change."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", files
    server.shutdown()
    thread.join()
    server.server_close()


def authface(*words: object, code: int = 0) -> Done:
    done = conftest.authface(*words)
    assert done.returncode == code, done.stderr
    return done


def rebuilt(manifest: Path, root: Path) -> dict[str, Any]:
    """What a run says."""
    photoset = PhotoSet(root)
    with photoset.lock():
        done = rebuild(photoset, open_manifest(str(manifest)), Console(), workers=1)
    return {"rows": done.rows, "crops": done.crops, "to_fetch": done.to_fetch, "drift": dict(done.drift)}


def fetch(root: Path, source: str, path: Path) -> None:
    """As `curate fetch --from` does."""
    web = {"allow_private_hosts": True, "attempts": 1}
    given = FetchSettings.model_validate({"source": source, "path": str(path), "web": web})
    photoset = PhotoSet(root)
    with photoset.lock(), make_source(given, photoset) as origin:
        run_fetch(photoset, origin, given, Console(), workers=1, limit=0)


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of an exported dataset by id, numbers rounded as float32 allows."""

    def near(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, dict):
            return {name: near(inner) for name, inner in value.items()}
        return [near(inner) for inner in value] if isinstance(value, list) else value

    shards = [pq.read_table(shard).to_pylist() for shard in sorted((folder / "data").glob("*.parquet"))]
    return {row["id"]: near(row) for shard in shards for row in shard}


def drift(root: Path) -> dict[str, list[str]]:
    """Ids by kind."""
    found: dict[str, list[str]] = {}
    for line in (root / "rebuild" / "drift.jsonl").read_text().splitlines():
        found.setdefault(json.loads(line)["kind"], []).append(json.loads(line)["id"])
    return found


def test_a_set_comes_back_from_the_web_row_by_row(
    make_set: MakeSet, web: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    address, files = web
    sources = [{"split": "val"}, {"source": "unsplash", "licence": "Unsplash License"}, {}, {}, {}]
    urls = [{"file_url": f"{address}/{number}.jpg"} for number in range(5)]
    photoset = make_set(tmp_path / "set", [one | url for one, url in zip(sources, urls, strict=True)], part_rows=3)
    photos = list(photoset.photos)
    for number, photo in enumerate(photos):
        files[f"/{number}.jpg"] = photoset.read(photo.file)
    files["/3.jpg"] = images.encode_jpeg(np.full((96, 96, 3), 90, np.uint8))
    del files["/4.jpg"]
    whole = export(photoset, ExportSettings(), Console()).folder
    manifest = export(photoset, ExportSettings(format="manifest"), Console()).folder
    new = tmp_path / "new"
    first = rebuilt(manifest, new)
    assert (first["to_fetch"], first["crops"], first["drift"]) == (5, 0, {"to_fetch": 5})
    fetch(new, "urls", new / "rebuild" / "urls.jsonl")
    second = rebuilt(manifest, new)
    assert (second["crops"], second["drift"]) == (3, {"changed": 1, "gone": 1})
    assert drift(new) == {"changed": [f"{photos[3].id}-0"], "gone": [f"{photos[4].id}-0"]}
    assert (new / "rebuild" / "urls.jsonl").read_text() == ""
    again = PhotoSet(new)
    assert {(p.source, p.licence) for p in again.photos if p.id == photos[1].id} == {("unsplash", "Unsplash License")}
    export(again, ExportSettings(), Console())
    expected = rows(whole)
    found = {name: row | {"asked_at": ""} for name, row in rows(new / "dataset").items()}
    assert found == {f"{p.id}-0": expected[f"{p.id}-0"] for p in photos[:3]}
    assert rebuilt(manifest, new)["crops"] == 3


def test_photos_from_a_folder_serve_as_well_and_none_is_lost_on_the_way(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}, {}, {}, {"split": "test"}])
    manifest = export(photoset, ExportSettings(format="manifest"), Console()).folder
    photos = list(photoset.photos)
    mine = tmp_path / "mine"
    mine.mkdir()
    for number, photo in enumerate(photos[:3]):
        (mine / f"holiday {number}.jpeg").write_bytes(photoset.read(photo.file))
    new = PhotoSet(tmp_path / "new")
    assert rebuilt(manifest, new.root)["drift"] == {"no_address": 4}
    fetch(new.root, "folder", mine)
    assert next_step(new) == f"authface annotate rebuild MANIFEST {new.root}"
    with pytest.raises(UsageError, match="are a manifest's"):
        filter_photos(new, FilterSettings(), Console())
    assert rebuilt(manifest, new.root)["crops"] == 3
    with pytest.raises(UsageError, match="are a manifest's"):
        filter_photos(new, FilterSettings(), Console())
    (mine / "late.jpg").write_bytes(photoset.read(photos[3].file))
    fetch(new.root, "folder", mine)
    bury(new, [tombstone(photos[0], "asked", done=True)])
    assert rebuilt(manifest, new.root) == {"rows": 4, "crops": 4, "to_fetch": 0, "drift": {}}
    theirs = {crop.id: crop for crop in new.crops}
    for crop in photoset.crops:
        assert new.read(theirs[crop.id].file) == photoset.read(crop.file)
        assert np.allclose(theirs[crop.id].landmarks or (), crop.landmarks or (), atol=1e-3)
    assert {person.id: person.split for person in new.people} == {p.id: p.split for p in photoset.people}


def test_pictures_that_were_imported_aligned_come_back_as_they_were(aligned: dict[str, Any], tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    for name, (rgb, _) in aligned.items():
        (release / f"{name}.png").write_bytes(images.encode_png(rgb))
        (release / f"{name}_qwen.json").write_text(json.dumps("smiling"))
    photoset = PhotoSet(tmp_path / "set")
    authface("annotate", "import", "authface-hq", release, photoset.root)
    manifest = export(photoset, ExportSettings(format="manifest"), Console()).folder
    new = PhotoSet(tmp_path / "new")
    fetch(new.root, "folder", release)
    assert rebuilt(manifest, new.root) == {"rows": 2, "crops": 2, "to_fetch": 0, "drift": {}}
    assert sorted(new.read(crop.file) for crop in new.crops) == sorted(photoset.read(c.file) for c in photoset.crops)


def altered(manifest: Path, out: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A manifest with other rows."""
    tables = [pq.read_table(path) for path in sorted(manifest.glob("manifest/*.parquet"))]
    found = [row for table in tables for row in table.to_pylist()]
    change(found)
    out.mkdir()
    pq.write_table(pa.Table.from_pylist(found, schema=tables[0].schema), out / "rows.parquet")
    return out


def test_other_pixels_bad_rows_and_forgotten_photos_are_named(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}] * 6)
    made = export(photoset, ExportSettings(format="manifest"), Console()).folder

    def change(found: list[dict[str, Any]]) -> None:
        found[0]["pixels_sha256"] = "0" * 64
        found[1] |= {"pixels_sha256": "0" * 64, "retouched": True}
        found[2]["quad"] = [5000.0 + value for value in found[2]["quad"]]
        found[3]["tags"][0]["annotator"] = "../../etc"
        found.append(found[4])

    manifest = altered(made, tmp_path / "other", change)
    ids = [row["id"] for row in pq.read_table(manifest / "rows.parquet").to_pylist()]
    new = PhotoSet(tmp_path / "new")
    with new.lock():
        bury(new, [tombstone(next(p for p in photoset.photos if f"{p.id}-0" == ids[5]), "asked")])
    fetch(new.root, "folder", shutil.copytree(photoset.root / "photos", tmp_path / "mine"))
    done = authface("annotate", "rebuild", manifest, new.root, code=3)
    assert "3 of 7 crops" in done.stdout and "drift.jsonl" in done.stderr
    assert new.annotators() == ["llava", "measured"]
    assert drift(new.root) == {
        "bad_row": [ids[3]], "repeated": [ids[4]], "pixels": [ids[0]], "retouched": [ids[1]], "failed": [ids[2]],
    }  # fmt: skip
    assert "photo that this set was told to forget" in done.stdout
    assert not any(ids[5][:64] in file.read_text("utf-8", "replace") for file in (new.root / "rebuild").iterdir())


def test_each_part_reads_its_own_row_groups(make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many whole reads of a manifest as there are parts would be hours for a million photos."""
    photoset = make_set(tmp_path / "set", [{}] * 12)
    made = export(photoset, ExportSettings(format="manifest"), Console()).folder
    whole = pa.concat_tables(pq.read_table(path) for path in sorted((made / "manifest").glob("*.parquet")))
    for number in range(2):
        pq.write_table(whole.slice(6 * number, 6), tmp_path / f"{number}.parquet", row_group_size=2)
    manifest = DatasetManifest([tmp_path / f"{number}.parquet" for number in range(2)])
    ids = whole.column("photo_id").to_pylist()
    part_of = {photo: at // 4 for at, photo in enumerate(ids)}
    groups = manifest.groups(NumberMap((text_number(photo), part) for photo, part in part_of.items()))
    assert groups == {0: [(0, 0), (0, 1)], 1: [(0, 2), (1, 0)], 2: [(1, 1), (1, 2)]}
    for part, where in groups.items():
        wanted = {photo for photo in ids if part_of[photo] == part}
        assert [row.photo_id for row in manifest.entries(wanted, where)] == ids[4 * part : 4 * part + 4]
    assert manifest.groups(NumberMap([(text_number("x"), 0)])) == {} and len(manifest) == 12


def test_a_set_of_its_own_and_what_is_no_manifest_are_refused(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}])
    manifest = export(photoset, ExportSettings(format="manifest"), Console()).folder
    done = authface("annotate", "rebuild", manifest, photoset.root, code=2)
    assert "rebuild into another set" in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(UsageError, match="holds no manifest"):
        open_manifest(str(photoset.root))
    with pytest.raises(UsageError, match="no column"):
        open_manifest(str(photoset.root / "tables" / "photos" / "00000.parquet"))
    with pytest.raises(UsageError, match="give a folder"):
        open_manifest(str(tmp_path / "nowhere" / "at all"))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.floats(), max_size=9),
    st.dictionaries(st.sampled_from(["index", "box", "points5", "name"]), st.integers(), max_size=3),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*Entry.model_fields]), value=JUNK)
def test_any_row_is_an_entry_or_says_what_is_wrong(name: str, value: Any, make_set: MakeSet, tmp_path: Path) -> None:
    if not (tmp_path / "set").exists():
        export(make_set(tmp_path / "set", [{}]), ExportSettings(format="manifest"), Console())
    (path,) = (tmp_path / "set").glob("exports/manifest/manifest/*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    good = _entry(row)
    assert isinstance(good, Entry)
    found = _entry(row | {name: value})
    if isinstance(found, Entry):
        assert found.id.startswith(found.photo_id) and np.isfinite(found.quad).all()
    else:
        assert name in found.detail or "row" in found.detail
    assert len(list(DatasetManifest([path]).entries({good.photo_id}, [(0, 0)]))) == 1


def test_what_lacks_is_written_as_it_is_found(make_set: MakeSet, tmp_path: Path) -> None:
    """Rows that lack are no more in memory than their photos' ids."""
    photoset = make_set(tmp_path / "set", [{"file_url": "https://example.org/a.jpg"}])
    (made,) = export(photoset, ExportSettings(format="manifest"), Console()).folder.glob("manifest/*.parquet")
    one = pq.read_table(made)
    (tmp_path / "many").mkdir()
    peaks = []
    for count in (1_000, 11_000):
        ids = [f"{number:064x}" for number in range(count)]
        rows = pa.concat_tables([one] * count).set_column(one.column_names.index("photo_id"), "photo_id", [ids])
        pq.write_table(rows, tmp_path / "many" / "rows.parquet", row_group_size=500)
        tracemalloc.start()
        done = rebuilt(tmp_path / "many", tmp_path / f"new-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done["drift"] == {"to_fetch": count} and done["to_fetch"] == count
    assert (peaks[1] - peaks[0]) / 10_000 < 800, "bytes a row"
    listed = (tmp_path / "new-11000" / "rebuild" / "urls.jsonl").read_text().splitlines()
    assert [json.loads(line)["photo_id"] for line in listed] == ids
