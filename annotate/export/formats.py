"""The formats an export is written in. Each is a folder; a row goes where its split says, or to `train`.

All of them write in constant memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from authface.annotate.export import rows as dataset
from authface.annotate.export.rows import Feature, schema_of, value
from authface.errors import AuthfaceError, ImageError, one_line
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.decode import EXTENSIONS
from authface.imaging.keywords import embedded, sidecar
from authface.store.photoset import PhotoSet

SHARD_KEY = 16
"""Digits of the content's digest in the shards' names and in the card's pattern of them. `datasets` keys its cache by
the card's patterns alone: without it, any two folders of one name would open as the one that came first."""
GROUP_ROWS = 100
"""Rows with pixels of a Parquet row group at most, the unit that readers fetch."""
MANIFEST_GROUP_ROWS = 2000
"""Rows without pixels. What a file says at its end of a group stays in memory while it is written: some 0.3 MB each."""
HELD_ROWS = 100
"""Rows held as Python objects; those behind them in a group are packed in Arrow's columns."""
GROUP_BYTES = 16_000_000
"""Bytes of a row group at most, but for a single larger row."""
DEFAULT_SPLIT = "train"
"""Split of rows that have none."""
BLOCK = 512
"""A .tar file is padded to it."""


@dataclass(frozen=True)
class ExportTarget:
    """Where, of what and how a format is written."""

    photoset: PhotoSet
    folder: Path
    """Where it is written now, an empty folder; it takes its place when it is whole."""
    final: Path
    """Where it will be."""
    key: str
    """Digest of the content."""
    shard_bytes: int
    size: int
    """Side of a crop, pixels."""


class Format(ABC):
    """Takes rows one by one, inside a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def add(self, row: dict[str, Any]) -> None:
        """Write one more row, as `authface.annotate.export.rows.features` has it."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class Shards:
    """Rows into ``<folder>/<split>-<key>-00000.parquet`` and on: each file of at most `limit` bytes, in groups of at
    most `group` rows."""

    def __init__(self, folder: Path, schema: pa.Schema, key: str, limit: int, group: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema, self._key = folder, schema, key[:SHARD_KEY]
        self._limit, self._group = limit, group
        self._open: dict[str, _Shard] = {}

    def close(self) -> None:
        """Close the files."""
        for shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any], size: int) -> None:
        """One more row of the split that its column `split` names; `size` is at least what it takes in bytes."""
        split = row["split"] or DEFAULT_SPLIT
        shard = self._open.get(split)
        if shard is None or shard.written + size > self._limit:
            number = 0
            if shard is not None:
                shard.close()
                number = shard.number + 1
            path = self._folder / f"{split}-{self._key}-{number:05d}.parquet"
            shard = self._open[split] = _Shard(path, self._schema, self._group, number)
        shard.add(row, size)


class _Shard:
    """One file that is being written."""

    def __init__(self, path: Path, schema: pa.Schema, group: int, number: int) -> None:
        self.number = number
        self.written = 0
        """Bytes at most."""
        self._schema, self._most = schema, group
        self._writer = _writer(path, schema)
        self._rows: list[dict[str, Any]] = []
        self._packed: list[pa.Table] = []
        self._count, self._held = 0, 0

    def add(self, row: dict[str, Any], size: int) -> None:
        if self._count and (self._count == self._most or self._held + size > GROUP_BYTES):
            self._flush()
        self._rows.append(row)
        self._count += 1
        self._held += size
        self.written += size
        if len(self._rows) == HELD_ROWS:
            self._pack()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _pack(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._packed.append(pa.Table.from_pylist(rows, schema=self._schema))

    def _flush(self) -> None:
        self._pack()
        packed, self._packed, self._count, self._held = self._packed, [], 0, 0
        if packed:
            self._writer.write_table(pa.concat_tables(packed))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer that packs all but PNG, which is packed already, and whose index lets readers fetch single pages."""
    image = "image.bytes"
    words = [name for name in _leaves(schema) if name != image]
    packed = dict.fromkeys(words, "zstd") | ({image: "none"} if "image" in schema.names else {})
    return pq.ParquetWriter(path, schema, compression=packed, use_dictionary=words, write_page_index=True)


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns of a Parquet file of that schema."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [columns.column(at).path for at in range(len(columns))]


class DatasetFormat(Format):
    """``data/<split>-<key>-00000.parquet`` with the images inside."""

    FOLDER = "data"
    GROUP = GROUP_ROWS

    def __init__(self, target: ExportTarget) -> None:
        schema = schema_of(self.features())
        self._shards = Shards(target.folder / self.FOLDER, schema, target.key, target.shard_bytes, self.GROUP)

    def close(self) -> None:
        """Close what is open."""
        self._shards.close()

    @staticmethod
    def features() -> Feature:
        """The typed columns."""
        return dataset.features()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        self._shards.add(row, len(row["image"]["bytes"]) + len(json.dumps(without_pixels(row))))


class ManifestFormat(DatasetFormat):
    """``manifest/<split>-<key>-00000.parquet``: all but the pixels, of which it keeps the digest."""

    FOLDER = "manifest"
    GROUP = MANIFEST_GROUP_ROWS

    @staticmethod
    def features() -> Feature:
        """The typed columns."""
        return manifest_features()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        entry = without_pixels(row) | {"pixels_sha256": pixels_sha256(images.decode(row["image"]["bytes"]).rgb)}
        self._shards.add(entry, len(json.dumps(entry)))


def manifest_features() -> Feature:
    """The columns of a dataset without its images, and sha256 of a crop's pixels."""
    return without_pixels(dataset.features()) | {"pixels_sha256": value("string")}


def pixels_sha256(rgb: Any) -> str:
    """sha256 in hex of (h, w, 3) uint8 pixels, row by row, whatever file they come from."""
    return hashlib.sha256(rgb.tobytes()).hexdigest()


def without_pixels(row: dict[str, Any]) -> dict[str, Any]:
    """All of a row but its image."""
    return {name: value for name, value in row.items() if name != "image"}


class ImageFolderFormat(Format):
    """``<split>/<id>.png`` and ``<split>/metadata.jsonl``, as `datasets` reads an image folder."""

    def __init__(self, target: ExportTarget) -> None:
        self._folder = target.folder
        self._tables: dict[str, IO[str]] = {}
        self._files = ExitStack()

    def close(self) -> None:
        """Close what is open."""
        self._files.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        split = row["split"] or DEFAULT_SPLIT
        folder, name = self._folder / split, f"{row['id']}.png"
        if split not in self._tables:
            folder.mkdir(parents=True)
            table = (folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n")
            self._tables[split] = self._files.enter_context(table)
        (folder / name).write_bytes(row["image"]["bytes"])
        self._tables[split].write(json.dumps({"file_name": name} | without_pixels(row)) + "\n")


class WebDatasetFormat(Format):
    """``<split>-00000.tar`` and on: of each row a .png, its prompt as .txt and all else as .json, side by side.

    What `datasets` guesses by the first rows, such as that a column without a value has none, the card tells.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._folder, self._limit = target.folder, target.shard_bytes
        self._open: dict[str, tuple[int, tarfile.TarFile]] = {}

    def close(self) -> None:
        """Close what is open."""
        for _number, shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        text = json.dumps(without_pixels(row))
        parts = {"png": row["image"]["bytes"], "txt": row["prompt"].encode(), "json": text.encode()}
        shard = self._shard(row["split"] or DEFAULT_SPLIT, sum(len(data) + 2 * BLOCK for data in parts.values()))
        for ending, data in parts.items():
            member = tarfile.TarInfo(f"{row['id']}.{ending}")
            member.size, member.mode = len(data), 0o644
            shard.addfile(member, io.BytesIO(data))

    @staticmethod
    def features() -> Feature:
        """The columns that `datasets` makes of the files of a row."""
        whole = dataset.features()
        names = {name: value("string") for name in ("__key__", "__url__")}
        return {"png": whole["image"], "txt": whole["prompt"], "json": without_pixels(whole), **names}

    def _shard(self, split: str, size: int) -> tarfile.TarFile:
        number, shard = self._open.get(split, (-1, None))
        if shard is None or shard.offset + size > self._limit:
            if shard is not None:
                shard.close()
            number += 1
            shard = tarfile.open(self._folder / f"{split}-{number:05d}.tar", "w")  # noqa: SIM115  closed in __exit__
            self._open[split] = (number, shard)
        return shard


def write_kohya_config(folder: Path, final: Path, size: int) -> None:
    """Write `folder`/dataset.toml for an export that lies at `final`: sd-scripts takes no path relative to the file."""
    subset = {"image_dir": str((final / DEFAULT_SPLIT).resolve()), "num_repeats": 1}
    config = {
        "general": {"caption_extension": ".txt", "shuffle_caption": False, "enable_bucket": False},
        "datasets": [{"resolution": size, "batch_size": 1, "subsets": [subset]}],
    }
    write_file(folder / "dataset.toml", tomli_w.dumps(config).encode())


def renew_kohya_config(folder: Path, size: int) -> None:
    """Correct where `folder`/dataset.toml says that its images are; all else in it is its user's by now."""
    path, images = folder / "dataset.toml", str((folder / DEFAULT_SPLIT).resolve())
    try:
        config = tomllib.loads(path.read_text("utf-8"))
        (subset,) = [one for entry in config["datasets"] for one in entry["subsets"]]
        if subset["image_dir"] == images:
            return
        subset["image_dir"] = images
    except (OSError, ValueError, KeyError, TypeError):
        write_kohya_config(folder, folder, size)
    else:
        write_file(path, tomli_w.dumps(config).encode())


CREDITS = "credits.jsonl"
"""In an export whose files hold no columns: of each the photo's source, photographer and licence."""
CREDITED = ("source", "source_id", "page_url", "photographer", "photographer_url", "licence", "terms")


class _Credits:
    """Writes `CREDITS`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / CREDITS).open("w", encoding="utf-8", newline="\n")

    def add(self, file: str, row: Mapping[str, Any]) -> None:
        """Write the line of a file, named from the export's folder."""
        told = {"file": file} | {name: row[name] for name in CREDITED if row.get(name)}
        self._file.write(json.dumps(told, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class KohyaFormat(Format):
    """``<split>/<id>.png`` with its prompt beside it in a .txt, `CREDITS`, and the dataset.toml of sd-scripts."""

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._splits: set[str] = set()
        self._credits = _Credits(target.folder)

    def close(self) -> None:
        """Close what is open."""
        self._credits.close()
        write_kohya_config(self._target.folder, self._target.final, self._target.size)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        split = row["split"] or DEFAULT_SPLIT
        folder = self._target.folder / split
        if split not in self._splits:
            folder.mkdir(parents=True)
            self._splits.add(split)
        (folder / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
        (folder / f"{row['id']}.txt").write_text(row["prompt"] + "\n", "utf-8")
        self._credits.add(f"{split}/{row['id']}.png", row)


NAME_LENGTH = 48
"""Characters of a photo's own name that its copy keeps."""
ID_LENGTH = 12
"""Digits of its sha256 that keep names apart."""


@dataclass
class _Photo:
    """A photo, and what is said of its faces that were exported."""

    id: str
    file: str
    copy: str
    """Where it goes, below the export's folder."""
    words: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


class FilesFormat(Format):
    """``<split>/<name>-<id>.jpg`` and `CREDITS`: tags of a photo's faces are its keywords, their prompts its caption.

    The photo's bytes are those of the original but for XMP and, in a JPEG, IPTC. A file of another format than JPEG,
    PNG and WebP, or one whose bytes must not move, is copied as it is, with ``<its name>.xmp`` beside it.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._photo: _Photo | None = None
        self._credits = _Credits(target.folder)

    def add(self, row: dict[str, Any]) -> None:
        """Note one more face; a photo is written when the next one begins, for its faces come one after the other."""
        if self._photo is None or self._photo.id != row["photo_id"]:
            self._write()
            self._photo = self._begun(row)
            self._credits.add(self._photo.copy, row)
        self._photo.words += [tag["name"] for tag in row["tags"] if tag["name"] not in self._photo.words]
        self._photo.prompts.append(row["prompt"])

    def close(self) -> None:
        """Write the last photo."""
        try:
            self._write()
        finally:
            self._credits.close()

    def _write(self) -> None:
        photo, self._photo = self._photo, None
        if photo is None:
            return
        caption = "; ".join(prompt for prompt in photo.prompts if prompt)
        data = self._read(photo)
        path = self._target.folder / photo.copy
        path.parent.mkdir(parents=True, exist_ok=True)
        made = embedded(data, photo.words, caption)
        path.write_bytes(data if made is None else made)
        if made is None:
            path.with_name(f"{path.name}.xmp").write_bytes(sidecar(photo.words, caption))

    def _read(self, photo: _Photo) -> bytes:
        try:
            return self._target.photoset.read(photo.file)
        except ImageError as error:
            again = f"run authface curate fetch {one_line(self._target.photoset.root)} with its source again"
            raise AuthfaceError(f"original {one_line(photo.file)}: {one_line(error)}; {again}") from error

    def _begun(self, row: dict[str, Any]) -> _Photo:
        ending = EXTENSIONS[row["photo"]["format"]]
        name = _safe(PurePosixPath(row["source_id"].replace("\\", "/")).stem)
        copy = f"{row['split'] or DEFAULT_SPLIT}/{name}{'-' if name else ''}{row['photo_id'][:ID_LENGTH]}.{ending}"
        return _Photo(row["photo_id"], self._target.photoset.photo_file(row["photo_id"], ending), copy)


def _safe(name: str) -> str:
    """Letters and digits of any language, ``-`` and ``_`` of a name that came from outside."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name).strip("_")[:NAME_LENGTH]
