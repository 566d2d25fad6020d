"""Journals of a set, a JSON record a line, that only grow: where its faces were used, and what it must forget.

``uses.jsonl`` names exported datasets and trainings; a training keeps ``training/sources.json`` (which datasets, no
ids) with a copy in every checkpoint, and ``training/photo_ids.txt``. Paths are written as they were: a folder that
moved since is not found. ``forgotten.jsonl`` holds hashes alone, so that no later fetch brings a photo back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from authface.errors import AuthfaceError, first_line, one_line
from authface.files import TEMPORARY, former_folder, is_local, place, replacing, write_errors, write_file
from authface.records import Photo, now
from authface.store.lock import file_lock
from authface.store.photoset import PhotoSet
from authface.store.rows import read_text

T = TypeVar("T")


class Journal(Generic[T]):
    """Records of one type, oldest first. A line cut short by a kill is skipped and does not affect the others."""

    def __init__(self, path: Path, record: type[T]) -> None:
        self.path = path
        self._adapter = TypeAdapter(record)

    def read(self) -> tuple[list[T], int]:
        """The records, and the number of lines that could not be read."""
        records, torn = [], 0
        for line in self._bytes().splitlines():
            try:
                records.append(self._adapter.validate_json(line))
            except ValidationError:
                torn += 1
        return records, torn

    def append(self, record: T) -> None:
        """Append one record; it is on the disk when this returns. Raises AuthfaceError if the disk refuses.

        Others may append and `drop` meanwhile; on an object store the last of those who write at once wins.
        """
        with file_lock(self.path):
            self._append(record)

    def _append(self, record: T) -> None:
        line = self._adapter.dump_json(record) + b"\n"
        if not is_local(self.path):  # an object store cannot append
            with write_errors(self.path):
                before = self._bytes()
            write_file(self.path, before + _end_of_line(before) + line)
            return
        if not self.path.exists():
            with replacing(self.path, durable=True) as new:
                new.touch()
        with write_errors(self.path), self.path.open("a+b") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            file.write(_end_of_line(file.read(1)) + line)
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, records: Sequence[T]) -> None:
        """Replace the whole file: only to forget records, never because somebody changed their mind.

        What others append since it was read is lost: where they may, `drop` is for it.
        """
        write_file(self.path, b"".join(self._adapter.dump_json(record) + b"\n" for record in records))

    def drop(self, unwanted: Callable[[T], bool]) -> int:
        """Forget the `unwanted` records and return how many; what others append meanwhile waits, and is kept."""
        if not self.path.is_file():
            return 0
        with file_lock(self.path):
            records, _ = self.read()
            left = [record for record in records if not unwanted(record)]
            if len(left) < len(records):
                self.rewrite(left)
        return len(records) - len(left)

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else b""


def _end_of_line(before: bytes) -> bytes:
    """The line break missing from `before` if a kill cut its last line; else empty."""
    return b"" if before.endswith(b"\n") or not before else b"\n"


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
    journal = _use_lines(photoset)
    last = next((old for old in reversed(journal.read()[0]) if old.path == use.path), None)
    if last is None or (last.kind, last.key, last.rows) != (use.kind, use.key, use.rows):
        journal.append(use)


def uses(photoset: PhotoSet) -> list[Use]:
    """All recorded uses of the set, oldest first."""
    return _use_lines(photoset).read()[0]


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


def begun_exports(folder: Path) -> tuple[Path, Path]:
    """Where an export is written before it takes the place of `folder`, and where the former one lies meanwhile."""
    return folder.with_name(f"{TEMPORARY}{folder.name}"), former_folder(folder)


def holders(photoset: PhotoSet, photo_ids: set[str]) -> Iterator[tuple[Use, int]]:
    """Every known dataset and training that contains some of the photos, and how many; deleted folders are left out.

    So are exports that a kill cut short within the set, for what is unfinished there goes with every `curate forget`.
    """
    places = {use.path: use for use in uses(photoset)}
    own = photoset.root / "dataset"
    if own.is_dir() and _address(own) not in places:
        places[_address(own)] = Use(kind="dataset", path=_address(own), key=dataset_key(own), rows=0)
    home = photoset.root.resolve() if is_local(photoset.root) else photoset.root
    for use in [use for use in places.values() if use.kind == "dataset"]:
        for left in begun_exports(place(use.path)):
            if left.parent not in (home, home / "exports"):
                places[str(left)] = replace(use, path=str(left))
    for use in places.values():
        of = dataset_ids(place(use.path)) if use.kind == "dataset" else _trained_ids(place(use.path))
        if held := photo_ids.intersection(of):
            yield use, len(held)


def dataset_ids(folder: Path) -> Iterator[str]:
    """Ids of the photos in an export, one by one: from its list, or else from the id column of its files."""
    try:
        if (folder / PHOTO_IDS).is_file():
            yield from _listed(folder / PHOTO_IDS)
            return
        for shard in sorted((folder / "data").glob("*.parquet")):
            yield from (row["photo_id"] for row in read_text(shard, ["photo_id"]))
    except (OSError, ValueError, AuthfaceError) as error:
        raise AuthfaceError(
            f"dataset {one_line(folder)} cannot be read ({first_line(error, 80)}): delete it, run again"
        ) from error


def _trained_ids(out: Path) -> Iterator[str]:
    file = out / "training" / PHOTO_IDS
    if file.is_file():
        yield from _listed(file)


def _listed(file: Path) -> Iterator[str]:
    with file.open("r", encoding="utf-8") as lines:
        for line in lines:
            yield from line.split()


def _address(path: Path) -> str:
    return os.path.realpath(path) if is_local(path) else str(path)  # of a link to itself, too


def dataset_use(folder: Path, key: str, rows: int) -> Use:
    """The record of an export as a use of the set."""
    return Use(kind="dataset", path=_address(folder), key=key, rows=rows, at=now())


def _use_lines(photoset: PhotoSet) -> Journal[Use]:
    return Journal(photoset.root / "uses.jsonl", Use)


REASON = "forgotten"
"""Reason of the rows that replace forgotten ones in a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """One line of ``forgotten.jsonl``: what is left of a forgotten photo, so that it is never fetched again."""

    photo: str
    """sha256 of the photo's bytes in hex; empty where only its item or its photographer is known."""
    item: str = ""
    """sha256 of the source and the photo's name in it; see `item_hash`."""
    photographer: str = ""
    """sha256 of a photographer whose photos must never be fetched again; see `photographer_hash`."""
    at: str = ""
    """ISO 8601, UTC."""
    reason: str = ""
    done: bool = False
    """Nothing of it is left in the set; until then `curate forget` resumes where it was stopped."""


@dataclass(frozen=True)
class Forgotten:
    """Hashes of all forgotten photos and photographers; small enough to send to every worker."""

    photos: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    photographers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, photoset: PhotoSet) -> Forgotten:
        """The hashes in the set's tombstones; empty if there are none."""
        stones = tombstones(photoset)
        return cls(
            frozenset(stone.photo for stone in stones) - {""},
            frozenset(stone.item for stone in stones) - {""},
            frozenset(stone.photographer for stone in stones) - {""},
        )

    def holds(
        self, *, photo_id: str = "", source: str = "", source_id: str = "", photographers: Iterable[str] = ()
    ) -> bool:
        """Whether a photo is forgotten: by the sha256 of its bytes, its name in its source, or its photographer.

        `photographers` are the photographer's name and page, as far as they are known.
        """
        if photo_id in self.photos:
            return True
        if self.items and source and item_hash(source, source_id) in self.items:
            return True
        return bool(self.photographers) and any(
            photographer_hash(source, name) in self.photographers for name in photographers if name
        )


def item_hash(source: str, source_id: str) -> str:
    """sha256 in hex of a photo's name in its source."""
    return _hash("item", source, source_id)


def photographer_hash(source: str, name: str) -> str:
    """sha256 in hex of a photographer's name or page within a source, without its query and case."""
    return _hash("photographer", source, name.partition("?")[0].rstrip("/").casefold())


def tombstones(photoset: PhotoSet) -> list[Tombstone]:
    """All tombstones of the set, oldest first."""
    return _burials(photoset).read()[0]


def bury(photoset: PhotoSet, stones: Sequence[Tombstone]) -> None:
    """Add the tombstones that are new; the caller holds the set's lock."""
    before = tombstones(photoset)
    known = {(stone.photo, stone.item, stone.photographer) for stone in before}
    new = [stone for stone in stones if (stone.photo, stone.item, stone.photographer) not in known]
    if new:
        _burials(photoset).rewrite([*before, *new])


def close(photoset: PhotoSet) -> None:
    """Mark every tombstone as done: nothing that they name is left in the set."""
    _burials(photoset).rewrite([replace(stone, done=True) for stone in tombstones(photoset)])


def tombstone(photo: Photo, reason: str, *, done: bool = False) -> Tombstone:
    """The tombstone of a photo; `done` where nothing of it came into the set."""
    item = item_hash(photo.source, photo.source_id)
    return Tombstone(photo=photo.id, item=item, at=now(), reason=reason, done=done)


def blank(source: str) -> Photo:
    """The row that replaces a forgotten photo: it keeps only the source's name."""
    return Photo(id="", source=source, source_id="", file="", status="rejected", reason=REASON)


def _burials(photoset: PhotoSet) -> Journal[Tombstone]:
    return Journal(photoset.root / "forgotten.jsonl", Tombstone)


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "backslashreplace")).hexdigest()
