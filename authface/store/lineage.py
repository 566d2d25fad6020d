"""Where the faces of a set were used: exported datasets, and trainings with the ids of their photos.

A set keeps ``uses.jsonl``; a training keeps ``training/sources.json`` (which datasets, no ids) with a copy in every
checkpoint, and ``training/photo_ids.txt``. Paths are written as they were: a folder that moved since is not found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from authface.errors import AuthfaceError, first_line, one_line
from authface.files import is_local, place, write_file
from authface.records import now
from authface.store.jsonl import Journal
from authface.store.parquet import read_text
from authface.store.photoset import PhotoSet

SOURCES = "sources.json"
PHOTO_IDS = "photo_ids.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One line of ``uses.jsonl``: one use of faces of the set."""

    kind: Literal["dataset", "training"]
    path: str
    """The folder, absolute."""
    key: str
    """The dataset's content key: `made_from` in its ``authface.json``."""
    rows: int
    at: str = ""
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class TrainingSource:
    """A dataset that a training read."""

    dataset: str
    """Its folder, absolute."""
    key: str
    """Its content key; empty where `annotate export` did not make it."""
    rows: int
    set: str = ""
    """The photo set it was exported from, absolute; empty where it does not lie in one."""
    at: str = ""


def record_use(photoset: PhotoSet, use: Use) -> None:
    """Add a line to the set's uses, unless the latest one for this folder is the same."""
    journal = _journal(photoset)
    last = next((old for old in reversed(journal.read()[0]) if old.path == use.path), None)
    if last is None or (last.kind, last.key, last.rows) != (use.kind, use.key, use.rows):
        journal.append(use)


def uses(photoset: PhotoSet) -> list[Use]:
    """All recorded uses of the set, oldest first."""
    return _journal(photoset).read()[0]


def record_training(training: Path, dataset: Path, photo_ids: Iterable[str]) -> None:
    """Record in the folder `training` which dataset it reads, and in the set from which the dataset was exported.

    A training that is resumed with another dataset names both. Raises AuthfaceError where the disk refuses.
    """
    ids = list(photo_ids)
    home = dataset.resolve().parent
    in_set = (home / "tables" / "photos").is_dir()
    source = TrainingSource(str(dataset.resolve()), dataset_key(dataset), len(ids), str(home) if in_set else "", now())
    before = training_sources(training)
    seen = (training / PHOTO_IDS).read_text("utf-8").split() if (training / PHOTO_IDS).is_file() else []
    if all((old.dataset, old.key, old.rows) != (source.dataset, source.key, source.rows) for old in before):
        write_file(training / PHOTO_IDS, "".join(f"{name}\n" for name in sorted({*seen, *ids})).encode())
        write_file(training / SOURCES, json.dumps([asdict(s) for s in (*before, source)], indent=1).encode())
    if in_set:
        use = Use(kind="training", path=str(training.resolve().parent), key=source.key, rows=source.rows, at=now())
        record_use(PhotoSet(home), use)


def training_sources(training: Path) -> list[TrainingSource]:
    """The datasets that a training recorded; none if it recorded nothing readable."""
    try:
        return [TrainingSource(**entry) for entry in json.loads((training / SOURCES).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def dataset_key(folder: Path) -> str:
    """The content key of an exported dataset; empty where it has none."""
    try:
        state: Any = json.loads((folder / "authface.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(state.get("made_from", "")) if isinstance(state, dict) else ""


def holders(photoset: PhotoSet, photo_ids: set[str]) -> Iterator[tuple[Use, int]]:
    """Every known dataset and training that contains some of the photos, and how many; deleted folders are left out."""
    places = {use.path: use for use in uses(photoset)}
    own = photoset.root / "dataset"
    if own.is_dir() and _address(own) not in places:
        places[_address(own)] = Use(kind="dataset", path=_address(own), key=dataset_key(own), rows=0)
    for use in places.values():
        held = photo_ids & (dataset_ids(place(use.path)) if use.kind == "dataset" else _trained_ids(place(use.path)))
        if held:
            yield use, len(held)


def dataset_ids(folder: Path) -> set[str]:
    """Ids of the photos in an export: from its list, or else from the id column of its files."""
    found: set[str] = set()
    try:
        if (folder / PHOTO_IDS).is_file():
            return set((folder / PHOTO_IDS).read_text("utf-8").split())
        for shard in sorted((folder / "data").glob("*.parquet")):
            found.update(row["photo_id"] for row in read_text(shard, ["photo_id"]))
    except (OSError, ValueError, AuthfaceError) as error:
        raise AuthfaceError(
            f"dataset {one_line(folder)} cannot be read ({first_line(error, 80)}): delete it, run again"
        ) from error
    return found


def _trained_ids(out: Path) -> set[str]:
    file = out / "training" / PHOTO_IDS
    return set(file.read_text("utf-8").split()) if file.is_file() else set()


def _address(path: Path) -> str:
    return str(path.resolve()) if is_local(path) else str(path)


def dataset_use(folder: Path, key: str, rows: int) -> Use:
    """The record of an export as a use of the set."""
    return Use(kind="dataset", path=_address(folder), key=key, rows=rows, at=now())


def _journal(photoset: PhotoSet) -> Journal[Use]:
    return Journal(photoset.root / "uses.jsonl", Use)
