"""What goes to the hub: against a stand-in of its HTTP API on loopback, by the real client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from authface.annotate.export.publication import NO_DERIVATIVES, UNKNOWN, UNRECOGNISED, UNSPLASH, Publisher
from authface.annotate.export.run import export
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import AuthfaceError
from authface.records import now
from authface.review.reviews import Decision, decision_log
from authface.store.journal import dataset_ids
from authface.store.photoset import PhotoSet
from authface.store.statements import restated, rewrite
from tests.conftest import authface as typed

MakeSet = Callable[..., PhotoSet]
Run = Callable[..., Any]


@pytest.fixture
def authface(on_hub: Run) -> Run:
    """Runs `authface annotate` against the stand-in of the hub."""
    return lambda *words, **how: on_hub("annotate", *words, **how)


MIXED: list[dict[str, Any]] = [
    {"split": "test"},
    {"source": "unsplash", "licence": "Unsplash License"},
    {"source": "unsplash-lite", "licence": "CC0-1.0"},
    {"source": "urls", "file_url": "https://images.unsplash.com/photo-1"},
    {"licence": "unknown"},
    {"licence": "CC BY-ND 4.0"},
    {},
    {"page_url": "//unsplash.com/photos/abc"},
]


def crops_in(data: bytes) -> list[str]:
    """Ids of the rows of a Parquet file that hold an image."""
    table = pq.read_table(io.BytesIO(data))
    return table.column("id").to_pylist() if "image" in table.column_names else []


def test_what_may_be_passed_on_goes_with_pixels_and_the_rest_without(
    hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    export(photoset, ExportSettings(), Console())
    photos = list(photoset.photos)
    done = authface("push", photoset.root, "anna/faces", "--json")
    assert done.returncode == 0, done.stderr
    said, repo = json.loads(done.stdout), hub.repos["anna/faces"]
    assert repo.private and set(repo.files) == set(said["files"])
    assert said["without_pixels"] == {UNSPLASH: 4, UNKNOWN: 1, NO_DERIVATIVES: 1} and said["with_pixels"] == 2
    shown = {name.split("-")[0]: crops_in(data) for name, data in repo.files.items() if name.startswith("data/")}
    assert shown == {"data/test": [f"{photos[0].id}-0"], "data/train": [f"{photos[6].id}-0"]}
    sent = b"".join(hub.received)
    for number, crop in enumerate(photoset.crops):
        png = photoset.read(crop.file)
        assert (png[:400] in sent) == (number in {0, 6}), number
        assert photoset.read(photos[number].file)[100:400] not in sent
    manifest = [name for name in repo.files if name.startswith("manifest/")]
    rows = [row for name in manifest for row in pq.read_table(io.BytesIO(repo.files[name])).to_pylist()]
    assert {row["photo_id"] for row in rows} == {photo.id for photo in photos}
    assert all("image" not in row and row["quad"] and row["tags"] for row in rows)
    assert str(tmp_path) not in "".join(data.decode("utf-8", "ignore") for data in repo.files.values())
    card = repo.files["README.md"].decode()
    assert f"| {UNSPLASH} | 4 |" in card and "annotate rebuild" in card
    assert all(row["source_id"] == row["photo_id"] for row in rows if row["source"] in {"folder", "urls"})
    local = tmp_path / "cloned"
    for name, data in repo.files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(data)
    import datasets

    opened = datasets.load_dataset(str(local), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 1, "test": 1}
    whole = datasets.load_dataset(str(local), "manifest", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 7, "test": 1}
    assert set(dataset_ids(photoset.root / "exports" / "hub")) == {photo.id for photo in photos}
    again = authface("rebuild", "anna/faces", tmp_path / "new", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["drift"] == {"no_address": 7, "to_fetch": 1}
    unknown = authface("rebuild", "anna/nothing", tmp_path / "new")
    assert unknown.returncode == 1 and "no such repository" in unknown.stderr and unknown.stderr.count("\n") == 1


def test_all_of_it_may_go_and_replaces_what_was_there(
    hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", [{}, {"licence": "unknown"}])
    folder = export(photoset, ExportSettings(), Console()).folder
    hub.add("anna/faces", True, {"data/old.parquet": b"old", "manifest/old.parquet": b"old", "mine.txt": b"m"})
    done = authface("push", photoset.root, "anna/faces", "--i-hold-the-rights", "--names")
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del files["photo_ids.txt"], files["files.txt"]
    assert hub.repos["anna/faces"].files == files | {"mine.txt": b"m"}
    done = authface("push", photoset.root, "anna/faces", "--no-pixels")
    assert done.returncode == 0, done.stderr
    assert {name.partition("/")[0] for name in hub.repos["anna/faces"].files} == {
        "manifest", "mine.txt", "README.md", "authface.json"
    }  # fmt: skip


def test_nobody_changes_a_set_between_judging_and_sending(
    hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    export(photoset, ExportSettings(), Console())
    get, others = hub.get, list[str]()

    def asked(path: str) -> Any:
        """The hub's answer; meanwhile somebody else would correct a licence."""
        try:
            with photoset.lock():
                others.append("came between")
        except AuthfaceError:
            others.append("waits")
        return get(path)

    monkeypatch.setattr(hub, "get", asked)
    done = authface("push", photoset.root, "anna/faces")
    assert done.returncode == 0, done.stderr
    assert set(others) == {"waits"}
    with photoset.lock():
        done = authface("push", photoset.root, "anna/faces")
    assert done.returncode == 1 and "in use" in done.stderr


def test_a_dry_run_says_what_would_go_and_asks_nobody(
    hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    export(photoset, ExportSettings(), Console())
    before = sorted(photoset.root.rglob("*"))
    done = authface("push", photoset.root, "anna/faces", "--dry-run")
    assert done.returncode == 0 and "nothing was sent" in done.stdout
    assert f"4  without pixels: {UNSPLASH}" in done.stdout and "8 rows, 2 with pixels" in done.stdout
    assert not hub.received and not hub.repos and sorted(photoset.root.rglob("*")) == before


def test_what_is_wrong_is_one_line(hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    root = photoset.root

    def told(words: str, code: int, *flags: str, name: str = "anna/faces", **how: Any) -> None:
        done = authface("push", root, name, *flags, **how)
        errors = [line for line in done.stderr.splitlines() if not line.startswith(("push: ", "publication: "))]
        assert done.returncode == code and len(errors) == 1, done.stderr
        assert words in done.stderr

    told("run authface annotate export", 2)
    export(photoset, ExportSettings(), Console())
    told("write OWNER/faces", 2, name="faces")
    told("hf auth login", 2, token="")
    told("does not accept the token", 1, token="hf_" + "b" * 34)
    told("HF_HUB_OFFLINE", 1, offline=True)
    told("check the connection", 1, endpoint="http://127.0.0.1:9")
    hub.add("anna/faces", False, {})
    told("--public", 2)
    assert hub.repos["anna/faces"].files == {}
    hub.broken = True
    told("may not write", 1, "--public")
    crop = next(iter(photoset.crops))
    decision_log(photoset, "anna").append(Decision(id=crop.id, verdict="reject", at=now("microseconds")))
    told("older than what the set holds", 2)


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC0-1.0", ""), ("CC BY 4.0", ""), ("public domain", ""), ("", UNKNOWN), ("Unknown", UNKNOWN),
        ("CC-BY-NC-ND-4.0", NO_DERIVATIVES), ("Attribution-NoDerivs", NO_DERIVATIVES),
        ("The Unsplash License", UNSPLASH),
        ("© Anna, all rights reserved", UNRECOGNISED), ("research only", UNRECOGNISED), ("NaN", UNRECOGNISED),
        ("Rights managed", UNRECOGNISED), ("cc_by_nd_4.0", NO_DERIVATIVES), ("Editorial use only", UNRECOGNISED),
        ("InC", UNRECOGNISED), ("Legend of Andes", UNRECOGNISED), ("cc_by_nc_4.0", ""), ("PD-USGov", ""),
    ],
)  # fmt: skip
def test_what_a_licence_says(licence: str, reason: str) -> None:
    origin = {"source": "folder", "licence": licence, "page_url": "", "file_url": "http://[bad"}
    assert Publisher().withholds(origin) == reason
    owner = Publisher(rights=True).withholds(origin)
    assert owner == ("" if reason in {UNKNOWN, UNRECOGNISED} else reason)
    assert Publisher(rights=True).withholds(origin | {"source": "unsplash"}) == UNSPLASH
    assert Publisher(rights=True).withholds(origin | {"page_url": "https://unsplash.com/photos/x"}) == UNSPLASH
    assert Publisher(pixels=False).withholds(origin) != ""


@pytest.mark.parametrize(
    ("source", "name", "sent"),
    [
        ("folder", "Anna Meyer.jpg", "0f"), ("urls", "patients.csv:3", "0f"), ("archive", "x/Anna.jpg", "0f"),
        ("urls", "file:///home/anna/a.jpg", "0f"), ("urls", "https://example.org/a.jpg", "https://example.org/a.jpg"),
        ("unsplash", "a1b2", "a1b2"),
    ],
)  # fmt: skip
def test_names_of_local_files_stay_at_home(source: str, name: str, sent: str) -> None:
    row = {"source": source, "source_id": name, "photo_id": "0f", "page_url": "file:///home/anna", "file_url": "",
           "photographer_url": "https://example.org"}  # fmt: skip
    out = Publisher().sent(row)
    assert out["source_id"] == sent and out["page_url"] == "" and out["photographer_url"] == "https://example.org"
    assert Publisher(names=True).sent(row) == row


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://example.org/a.jpg", True), ("http://8.8.8.8/a.jpg", True), ("http://[2001:4860:4860::8888]/a", True),
        ("http://192.168.1.7/jane.jpg", False), ("http://127.0.0.1:8000/a", False), ("http://[::1]/a", False),
        ("http://127.1/a", False), ("http://192.168.257/a", False), ("http://0x7f.0x1/a", False),
        ("http://nas.home.arpa/a", False), ("http://fritz.box/a", False), ("https://me:secret@example.org/a", False),
        ("http://nas/jane.jpg", False), ("http://printer.local/a", False), ("http://localhost./a", False),
        ("file:///home/jane/a.jpg", False), ("//example.org/a", False), ("http://[", False), ("", False),
    ],
)  # fmt: skip
def test_addresses_of_machines_at_home_stay_there(address: str, public: bool) -> None:
    row = {"source": "urls", "source_id": address, "photo_id": "ab" * 32, "file_url": address, "page_url": "",
           "photographer_url": ""}  # fmt: skip
    sent = Publisher().sent(row)
    assert (sent["source_id"], sent["file_url"]) == ((address, address) if public else ("ab" * 32, ""))


def test_a_dry_run_says_how_many_addresses_have_a_query(
    hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    queried = {"source": "urls", "file_url": "https://example.org/a?X-Amz-Signature=abc"}
    export(photoset := make_set(tmp_path / "set", [{}, queried]), ExportSettings(), Console())
    said = authface("push", photoset.root, "anna/faces", "--dry-run").stdout
    assert "1  rows with an address that has a query" in said


def test_a_dry_run_says_what_becomes_of_names(hub: Any, authface: Run, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{}, {"licence": "Rights managed"}])
    export(photoset, ExportSettings(), Console())
    said = authface("push", photoset.root, "anna/faces", "--dry-run").stdout
    assert "2  rows with names or paths of local files: they stay here" in said
    assert "1  of licence 'Rights managed'" in said and "--i-hold-the-rights" in said
    assert "go out as they are" in authface("push", photoset.root, "anna/faces", "--dry-run", "--names").stdout


def test_a_corrected_licence_reaches_the_dataset_and_what_is_published(make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", [{"licence": "CC BY-NC 4.0"}, {"licence": "CC BY-SA 4.0"}])
    first = typed("annotate", "export", photoset.root, "--json")
    assert json.loads(first.stdout)["conditions"] == {"NC": 1, "SA": 1}, first.stderr
    told = typed("annotate", "export", photoset.root).stdout
    assert "is up to date" in told and "licences: 1 faces under NC, 1 faces under SA" in told
    assert "Of these 1 under NC, 1 under SA" in (photoset.root / "dataset/README.md").read_text()
    crops = [photoset.crops.meta(part) for part in photoset.crops.parts()]
    before = photoset.photos.rows(0)
    after = [restated(before[0], ["CC BY-ND 4.0"], "", "2026", whole=True), *before[1:]]
    rewrite(photoset.photos, 0, before, after)
    assert "next: authface annotate export" in typed("status", photoset.root).stdout
    assert "1 photos were corrected" in typed("status", photoset.root).stdout
    refused = typed("annotate", "push", photoset.root, "anna/faces", "--dry-run")
    assert refused.returncode == 2 and "older than what the set holds" in refused.stderr
    assert " written: " in typed("annotate", "export", photoset.root).stdout
    sent = json.loads(typed("annotate", "push", photoset.root, "anna/faces", "--dry-run", "--json").stdout)
    assert sent["without_pixels"] == {NO_DERIVATIVES: 1} and sent["with_pixels"] == 1
    assert crops == [photoset.crops.meta(part) for part in photoset.crops.parts()], "no step begins anew"
    assert "is up to date" in typed("annotate", "export", photoset.root).stdout
