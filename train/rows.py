"""The rows of a dataset folder. Parquet shards as `annotate export` writes them are read where they lie: an image by
its place in the file, other columns alone. What `datasets` opens besides is read from the copy that it makes."""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from authface.errors import AuthfaceError, UsageError, first_line, one_line, shell_word
from authface.files import replacing

STATE = "authface.json"
"""What an export says of itself."""
TRAINED = ("dataset", "imagefolder")
"""Formats of exports that the trainings read; `datasets` takes the types of a webdataset from its first rows alone."""
IMAGE = "image.bytes"
"""Path of the encoded images in a Parquet file."""
ENTRY = np.dtype([("offset", "<i8"), ("length", "<i8"), ("sha256", "u1", 32)])
"""Of one image: where its bytes begin in its shard, how many there are, and their digest."""
_PREFIX = 36
"""Bytes of an image, its length before them, that are looked for before all are compared."""


class NoRowsError(UsageError):
    """A split that is there and holds nothing."""


class Rows(Protocol):
    """The rows of one split."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """A column other than `image`, as a whole."""
        ...

    def image(self, index: int) -> bytes:
        """The encoded image of a row. Raises OSError."""
        ...

    def lengths(self, count: int) -> list[int | None]:
        """Bytes of the first `count` images, None for one that lies in a file of its own."""
        ...

    def digest(self, index: int) -> bytes:
        """sha256 of a row's encoded image. Raises OSError."""
        ...

    def unindexed(self) -> list[Shard]:
        """What is still to be read through, `index`, before `digest` and `image` cost one image each."""
        ...


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Raise what the system or pyarrow say about reading a shard as an AuthfaceError of one line."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise AuthfaceError(f"cannot read {one_line(path)}: {first_line(error, 120)}; export it anew") from error


@dataclass(frozen=True)
class Shard:
    """A Parquet file whose images are stored as they are. `index` reads it through once, on whichever process."""

    path: Path
    rows: int
    key: str
    """sha256 of its size and footer, which holds the place and size of everything in it; names its index."""

    @property
    def index_path(self) -> Path:
        """Where its index lies: an array of `ENTRY`, which all processes of a machine map."""
        import datasets

        return Path(datasets.config.HF_DATASETS_CACHE) / "authface-index" / f"{self.key}.npy"

    def index(self) -> None:
        """Read the file, a row group at a time, and write its index, whole or not at all. Raises AuthfaceError."""
        with _read_errors(self.path):
            entries = np.array(list(self._found()), ENTRY)
        with replacing(self.index_path) as temporary, temporary.open("wb") as file:
            np.save(file, entries)

    def _found(self) -> Iterator[tuple[int, int, Any]]:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            opened = pq.ParquetFile(self.path)
            for group in range(opened.num_row_groups):
                chunk = _image_chunk(opened.metadata, group)
                assert chunk is not None  # `_shard` took the file
                at, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
                for image in _images(opened.read_row_group(group, [IMAGE])):
                    at = _place(whole, image, at, end)
                    if at < 0:
                        raise AuthfaceError(f"{one_line(self.path)} is broken in row group {group}: export it anew")
                    yield at, len(image), np.frombuffer(hashlib.sha256(image).digest(), np.uint8)
                    at += len(image)


def _images(table: pa.Table) -> Iterator[memoryview]:
    for chunk in pc.struct_field(table.column("image"), "bytes").chunks:
        yield from (memoryview(value.as_buffer()).cast("B") for value in chunk)


def _place(whole: mmap.mmap, image: memoryview, at: int, end: int) -> int:
    """Where `image` begins in a Parquet column of plain byte arrays, at or behind `at`; -1 where it is not.

    A value is its length in four bytes and its bytes; page headers lie between some of them.
    """
    start = len(image).to_bytes(4, "little") + image[: _PREFIX - 4].tobytes()
    while (at := whole.find(start, at, end)) >= 0:
        if whole[at + 4 : at + 4 + len(image)] == image:
            return at + 4
        at += 1
    return -1


@functools.lru_cache(maxsize=4096)
def _entries(shard: Shard) -> NDArray[Any]:
    """The index of a shard, mapped; made first where it is missing."""
    if not shard.index_path.is_file():
        shard.index()
    try:
        found: NDArray[Any] = np.load(shard.index_path, mmap_mode="r" if shard.rows else None)
    except (OSError, ValueError):
        found = np.empty(0)
    if found.dtype != ENTRY or len(found) != shard.rows:
        raise AuthfaceError(f"{one_line(shard.index_path)} is broken: delete it and run again")
    return found


class ShardRows:
    """Rows of Parquet shards, read in place: no process reads an image that is not asked for, none is copied."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = tuple(shards)
        self._ends = np.cumsum([shard.rows for shard in shards])
        self.names = tuple(pq.read_schema(shards[0].path).names)
        self._columns: dict[str, pa.ChunkedArray] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def column(self, name: str) -> pa.ChunkedArray:
        """Read at the first call, without the images."""
        if name not in self._columns:
            parts = []
            for shard in self._shards:
                with _read_errors(shard.path):
                    parts.append(pq.read_table(shard.path, columns=[name], partitioning=None))
            self._columns[name] = pa.concat_tables(parts).column(name)
        return self._columns[name]

    def image(self, index: int) -> bytes:
        """One read of so many bytes."""
        shard, entry = self._entry(index)
        with shard.path.open("rb", buffering=0) as file:
            file.seek(entry["offset"])
            data = file.read(entry["length"])
        if len(data) != entry["length"]:
            raise OSError(f"{one_line(shard.path)} has become shorter")
        return data

    def lengths(self, count: int) -> list[int | None]:
        """From the index."""
        found: list[int | None] = np.concatenate([_entries(shard)["length"] for shard in self._shards])[:count].tolist()
        return found

    def digest(self, index: int) -> bytes:
        """From the index."""
        return bytes(self._entry(index)[1]["sha256"])

    def unindexed(self) -> list[Shard]:
        """The shards that no run has read through."""
        return [shard for shard in self._shards if not shard.index_path.is_file()]

    def _entry(self, index: int) -> tuple[Shard, Any]:
        at = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[at]
        return shard, _entries(shard)[index - (int(self._ends[at]) - shard.rows)]


class CopiedRows:
    """Rows of any dataset that `datasets` opens: it copies them into its own files at first."""

    def __init__(self, found: Any) -> None:
        self._found = found
        # A row of one column costs a tenth of a whole one: the images of the others are not touched.
        self._images = found.select_columns(["image"])
        self.names = tuple(found.column_names)

    def __len__(self) -> int:
        return len(self._found)

    def column(self, name: str) -> pa.ChunkedArray:
        """From the copy."""
        return self._found.data.column(name)

    def image(self, index: int) -> bytes:
        """From the copy, or from the file that it names."""
        image = self._images[index]["image"] or {}
        data: bytes | None = image.get("bytes")
        if data is None and not image.get("path"):
            raise OSError("the row has none")
        return data if data is not None else Path(image["path"]).read_bytes()

    def lengths(self, count: int) -> list[int | None]:
        """From the copy."""
        images = self._found.data.column("image").slice(0, count)
        found: list[int | None] = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
        return found

    def digest(self, index: int) -> bytes:
        """Reads the image."""
        return hashlib.sha256(self.image(index)).digest()

    def unindexed(self) -> list[Shard]:
        """Nothing."""
        return []


def open_rows(folder: Path, split: str) -> Rows:
    """The rows of a dataset's split. Raises UsageError where `folder` holds no such dataset."""
    import datasets

    if not folder.is_dir():
        raise UsageError(
            f"no dataset at {one_line(folder)}: make one with authface annotate export, or name its folder"
        )
    _check_export(folder)
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(str(folder))
        files = (builder.config.data_files or {}).get(split) if builder.info.builder_name == "parquet" else None
        if files and not any(pq.read_metadata(file).num_rows for file in files):  # which `datasets` cannot read
            raise NoRowsError(_empty(folder, split))
        shards = [_shard(Path(file)) for file in files or []]
        found: Rows
        if shards and None not in shards:
            found = ShardRows([shard for shard in shards if shard is not None])
        else:
            copied = datasets.load_dataset(str(folder), split=split)
            if "image" not in copied.column_names:
                raise UsageError(_unfit(folder, len(copied), copied.column_names))
            found = CopiedRows(copied.cast_column("image", datasets.Image(decode=False)))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UsageError(f"{one_line(folder)} is no dataset with a split {split}: {first_line(error, 160)}") from error
    if not len(found):
        raise NoRowsError(_empty(folder, split))
    return found


def _empty(folder: Path, split: str) -> str:
    return f"{one_line(folder)}: its split {one_line(split, 60)} holds no faces: export it anew"


def _unfit(folder: Path, rows: int, names: Sequence[str]) -> str:
    return f"{one_line(folder)}: {rows} rows, columns {list(names)}; a column image is needed"


def _shard(path: Path) -> Shard | None:
    """A Parquet file, None where its images are packed, or not in it. Raises OSError and pyarrow's ValueError."""
    metadata = pq.read_metadata(path)
    if not all(_is_plain(_image_chunk(metadata, group)) for group in range(metadata.num_row_groups)):
        return None
    with path.open("rb") as file:
        size = file.seek(-8, 2) + 8
        file.seek(-8 - int.from_bytes(file.read(4), "little"), 2)
        key = hashlib.sha256(f"1 {size}\n".encode() + file.read()).hexdigest()
    return Shard(path, metadata.num_rows, key)


def _image_chunk(metadata: pq.FileMetaData, group: int) -> pq.ColumnChunkMetaData | None:
    columns = metadata.row_group(group)
    return next((c for at in range(columns.num_columns) if (c := columns.column(at)).path_in_schema == IMAGE), None)


def _is_plain(chunk: pq.ColumnChunkMetaData | None) -> bool:
    """Whether all images lie in the file, byte for byte."""
    if chunk is None or chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return False
    return chunk.statistics is not None and chunk.statistics.null_count == 0 and "PLAIN" in chunk.encodings


def _check_export(folder: Path) -> None:
    """Raise UsageError where a folder is neither an export nor Parquet shards as one has them: any folder of pictures
    would open as a dataset without prompts, a photo set as its uncut originals."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        form = str(state["settings"]["format"])
    except (OSError, ValueError, KeyError, TypeError):
        form = ""
    if form in TRAINED or (not form and any(found for at in ("", "data") for found in (folder / at).glob("*.parquet"))):
        return
    if form:
        raise UsageError(f"{one_line(folder)} is an export for {one_line(form, 20)}: train on authface annotate export")
    homes = (folder, *list(folder.resolve().parents)[:3])
    meant = next((home / "dataset" for home in homes if (home / "dataset" / STATE).is_file()), None)
    photoset = next((home for home in homes if (home / "tables" / "photos").is_dir()), None)
    if meant is not None:
        next_step = f"did you mean {one_line(meant)}?"
    else:
        next_step = f"run authface annotate export {shell_word(photoset or 'SET')} first, and name the folder it writes"
    raise UsageError(f"{one_line(folder)} is no exported dataset (no {STATE}, no Parquet files): {next_step}")
