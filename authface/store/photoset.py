"""The folder a dataset grows in: tables of parts, photos and crops named by content. One writer at a time.

A table is a folder of Parquet parts. A part is written beside its place and renamed, so a part that is
there is whole; its metadata holds how it was made (`PartMeta`), so a reader knows whether it is current. Who writes
holds a lock (`authface.store.lock`).
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from authface.backends import NAME
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.files import TEMPORARY, folders_below, is_local, replacing, write_errors, write_file
from authface.imaging.decode import read_bytes
from authface.records import Crop, Embedding, Face, FaceFeatures, Person, Photo, Row, Tags
from authface.store.lock import check_lease, write_lock
from authface.store.rows import arrow_schema, footer_of, plain, reading, row_reader, source_of, with_defaults

R = TypeVar("R", bound=Row)

REBUILD: Final = "rebuild"
"""Step of the tables that `annotate rebuild` writes: what another step made does not go with them."""
TO_FETCH: Final = "rebuild/urls.jsonl"
"""Photos that a rebuild still lacks, as ``curate fetch --from urls`` takes them."""
_META_KEY = b"authface"
_NO_CONTENT = frozenset({"tried_at", "asked_at", "statements"})
_STORE_REQUESTS = 32
"""Requests to an object store under way at once."""

_ADVICE = "move it away, run again"
"""What to do about a part that is none."""


@dataclass(frozen=True)
class Provenance:
    """How a step makes rows. If two of these differ, the rows may differ too."""

    step: str
    version: int
    settings: dict[str, Any]
    weights: dict[str, str]
    """Name and sha256 of every model the step uses."""

    def difference(self, new: Provenance) -> str:
        """What changed from here to `new`, in a few words; empty if nothing did."""
        if self.step != new.step:
            return f"made by {self.step}"
        changes = [
            f"{key} {one_line(self.settings.get(key), 40)} -> {one_line(new.settings.get(key), 40)}"
            for key in sorted(self.settings.keys() | new.settings.keys())
            if self.settings.get(key) != new.settings.get(key)
        ]
        if self.version != new.version:
            changes.append(f"version {self.version} -> {new.version} of the step")
        changes += [f"changed weights of {name}" for name in new.weights if self.weights.get(name) != new.weights[name]]
        return ", ".join(changes)


@dataclass(frozen=True, slots=True)
class PartMeta:
    """The metadata stored in a part."""

    provenance: Provenance
    inputs: str
    """Digest of the rows it was made from."""
    digest: str
    """Digest of its own rows."""
    counts: dict[str, int]
    """Rows by outcome: ``kept``, ``rejected: no_face``, ``failed: truncated``."""
    origins: str = ""
    """Digest of who made its photos and under which licences, where that was corrected; `digest` stays what it was."""


@dataclass(frozen=True)
class TableState:
    """What all parts of a table say of themselves, read once, in some 150 bytes a part."""

    digests: dict[int, str]
    """Of each part's rows, by number; empty where authface did not write it."""
    inputs: dict[int, str]
    """Digests of the rows that its parts were made from, by number."""
    contents: list[str]
    """Digests of its parts with whose photos they are and under which licences (`PartMeta.origins`)."""
    counts: Counter[str]
    """Rows by outcome."""
    settings: dict[str, Any]
    """With which the first part was made."""


class Table(Generic[R]):
    """The rows of one kind, in parts numbered from 0."""

    def __init__(self, folder: Path, row_type: type[R]) -> None:
        self.folder = folder
        self.row_type = row_type

    def parts(self) -> list[int]:
        """Numbers of the parts that are done, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self.folder.glob("*.parquet") if _is_part(path.name))

    def rows(self, part: int) -> list[R]:
        """The rows of one part."""
        table, read = self.arrow(part), row_reader(self.row_type)
        with self._reading(part):
            return [read(values) for values in table.to_pylist()]

    def columns(self, part: int, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Some columns of one part, row by row."""
        table = self.arrow(part, names)
        with self._reading(part):
            return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))

    def __iter__(self) -> Iterator[R]:
        for part in self.parts():
            yield from self.rows(part)

    def meta(self, part: int) -> PartMeta | None:
        """The part's metadata; None if there is no such part or authface did not write it."""
        try:
            values = json.loads(pq.read_metadata(footer_of(self._path(part))).metadata[_META_KEY])
            values["counts"] = {sys.intern(name): rows for name, rows in values["counts"].items()}
            return PartMeta(Provenance(**values.pop("provenance")), **values)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowInvalid):
            return None

    def metas(self) -> dict[int, PartMeta | None]:
        """The metadata of every part, by number."""
        return dict(self.each_meta())

    def each_meta(self) -> Iterator[tuple[int, PartMeta | None]]:
        """Number and metadata of every part. Parts that were made alike share one provenance, of some 10 kB."""
        parts = self.parts()
        shared: Provenance | None = None
        with ThreadPoolExecutor(_STORE_REQUESTS) as pool:
            metas = map(self.meta, parts) if is_local(self.folder) else pool.map(self.meta, parts)
            for part, meta in zip(parts, metas, strict=True):
                if meta is not None and meta.provenance == shared:
                    meta = replace(meta, provenance=shared)
                yield part, meta
                shared = meta.provenance if meta is not None else shared

    def state(self) -> TableState:
        """What all parts say of themselves."""
        found = TableState({}, {}, [], Counter(), {})
        for part, meta in self.each_meta():
            found.digests[part] = found.inputs[part] = ""
            if meta is not None:
                if not found.contents:
                    found.settings.update(meta.provenance.settings)
                # What one part was made from is, as a rule, the digest of another: both are one text.
                found.digests[part], found.inputs[part] = sys.intern(meta.digest), sys.intern(meta.inputs)
                found.contents.append(found.digests[part] + meta.origins)
                found.counts.update(meta.counts)
        return found

    def counts(self) -> Counter[str]:
        """Rows of all parts by outcome."""
        total: Counter[str] = Counter()
        for _, meta in self.each_meta():
            if meta:
                total.update(meta.counts)
        return total

    def write(self, part: int, rows: Sequence[R], provenance: Provenance, inputs: str) -> None:
        """Write one part atomically. Raises AuthfaceError where the disk refuses."""
        values = [plain(row) for row in rows]
        meta = PartMeta(provenance, inputs, digest_of(values), dict(Counter(outcome(row) for row in rows)))
        self.put(part, pa.Table.from_pylist(values, schema=arrow_schema(self.row_type)), meta)

    def arrow(self, part: int, names: Sequence[str] | None = None) -> pa.Table:
        """All columns of one part as stored, or those named; a part written by an earlier version may lack some."""
        with self._reading(part), pq.ParquetFile(source_of(self._path(part))) as file:
            rows = file.read([name for name in file.schema_arrow.names if names is None or name in names])
            rows.validate(full=True)  # of text, that it is UTF-8
            rows = rows if names is None else with_defaults(rows, self.row_type, names)
        own = arrow_schema(self.row_type).names
        if lacking := [name for name in names or () if name in own and name not in rows.column_names]:
            raise AuthfaceError(f"{one_line(self._path(part))} has no column {', '.join(lacking)}: {_ADVICE}")
        return rows

    def schema(self, part: int) -> pa.Schema:
        """Names and types of the columns of one part."""
        with self._reading(part):
            return pq.read_schema(source_of(self._path(part)))

    def put(self, part: int, rows: pa.Table, meta: PartMeta) -> None:
        """Write one part as given, atomically. Raises AuthfaceError where the disk refuses."""
        check_lease(self._path(part))
        marked = rows.replace_schema_metadata({_META_KEY: json.dumps(asdict(meta))})
        with replacing(self._path(part), durable=True) as temporary:
            # Hardly a value repeats: without dictionaries a table of crops is 18 % smaller and written 3 times as fast.
            pq.write_table(marked, temporary, compression="zstd", use_dictionary=False)

    def remove(self, part: int) -> None:
        """Delete one part."""
        with write_errors(self._path(part)):
            self._path(part).unlink(missing_ok=True)

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:05d}.parquet"

    def _reading(self, part: int) -> AbstractContextManager[None]:
        return reading(self._path(part), _ADVICE)


class PhotoSet:
    """A photo set on disk; see `authface.records` for its rows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        tables = root / "tables"
        self.photos = Table(tables / "photos", Photo)
        self.measured = Table(tables / "measured", Face)
        self.features = Table(tables / "features", FaceFeatures)
        self.faces = Table(tables / "faces", Face)
        self.crops = Table(tables / "crops", Crop)
        self.people = Table(tables / "people", Person)
        self.embeddings = Table(tables / "embeddings", Embedding)

    def tags(self, annotator: str) -> Table[Tags]:
        """The table of one annotator; the name must be a valid backend name."""
        if not NAME.fullmatch(annotator):
            raise UsageError(f"annotator {one_line(annotator)!r}: use lower-case letters, digits, '-', '_' and '.'")
        return Table(self.root / "tables" / "tags" / annotator, Tags)

    def annotators(self) -> list[str]:
        """Names of the annotators that have tags in the set."""
        folder = self.root / "tables" / "tags"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def tables(self) -> dict[str, Table[Any]]:
        """Every table that has parts, by its path below ``tables``: ``photos``, ``tags/measured``."""
        top = self.root / "tables"
        folders = {folder for folder, names in folders_below(top) if any(map(_is_part, names))}
        known = {table.folder: table for table in vars(self).values() if isinstance(table, Table)}
        named = {folder.relative_to(top).as_posix(): folder for folder in folders}
        # A folder that is no attribute holds tags, or rows of a later version, which are read as columns only.
        return {name: known.get(folder) or Table(folder, Tags) for name, folder in sorted(named.items())}

    @classmethod
    def open(cls, root: Path) -> PhotoSet:
        """The photo set at `root`. Raises UsageError if there is none."""
        photoset = cls(root)
        if not photoset.photos.parts():
            raise UsageError(
                f"no photo set at {one_line(root)}: begin with "
                f"authface curate fetch {shell_word(root)} --from folder PATH"
            )
        return photoset

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the set for writing; deletes unfinished files of killed runs. Raises AuthfaceError if it is locked."""
        with write_lock(self.root):
            for left in (self.root / "tables").glob(f"**/{TEMPORARY}*"):
                left.unlink(missing_ok=True)
            yield

    def photo_file(self, photo_id: str, ending: str) -> str:
        """Path of an original, relative to the set."""
        return f"photos/{photo_id[:2]}/{photo_id}.{ending}"

    def crop_file(self, face_id: str) -> str:
        """Path of an aligned face, relative to the set."""
        return f"crops/{face_id[:2]}/{face_id}.png"

    def save(self, relative: str, data: bytes) -> None:
        """Write a photo or a crop atomically."""
        check_lease(self.root / relative)
        write_file(self.root / relative, data)

    def read(self, relative: str) -> bytes:
        """The bytes of a photo or a crop. Raises ImageError (`unreadable`, `not_a_file`, `too_large`)."""
        return read_bytes(self.root / relative)

    def exists(self, relative: str) -> bool:
        """Whether the file exists in the set."""
        return (self.root / relative).is_file()

    def delete(self, relative: str) -> None:
        """Delete a file if it exists. Raises AuthfaceError where the disk refuses."""
        with write_errors(self.root / relative):
            (self.root / relative).unlink(missing_ok=True)

    def remembered(self, section: str) -> dict[str, Any]:
        """The settings that a stage was last run with; empty where the set's recipe.toml does not say them."""
        table: Any = self._recipe()
        for key in section.split("."):
            table = table.get(key) if isinstance(table, dict) else None
        return table if isinstance(table, dict) else {}

    def remember(self, section: str, settings: dict[str, Any]) -> None:
        """Save the resolved settings of a stage in the set's recipe.toml."""
        inner = tables = self._recipe()
        *above, last = section.split(".")
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = _without_none(settings)
        write_file(self.root / "recipe.toml", tomli_w.dumps(tables).encode())

    def _recipe(self) -> dict[str, Any]:
        try:
            return tomllib.loads((self.root / "recipe.toml").read_text("utf-8"))
        except (OSError, ValueError):
            return {}


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and name.removesuffix(".parquet").isdecimal()


def outcome(row: Row) -> str:
    """The row's outcome as reports count it: ``kept`` or ``rejected: reason``."""
    return f"{row.status}: {row.reason}" if row.reason else row.status


def digest(rows: Sequence[Row]) -> str:
    """sha256 of the rows in hex."""
    return digest_of([plain(row) for row in rows])


def digest_of(rows: Sequence[dict[str, Any]]) -> str:
    """sha256 in hex of rows as plain values, without what no later step depends on: when photos were tried or asked."""
    text = json.dumps([_content(row) for row in rows], sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(row: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in row.items() if name not in _NO_CONTENT}
    if row.get("signals"):
        row["signals"] = [one | {"at": ""} for one in row["signals"]]
    return row


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value
