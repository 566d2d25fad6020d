"""The formats an export is written in. Each is a folder; a row goes where its split says, or to `train`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self

import tomli_w

from authface.annotate.export import rows as dataset
from authface.annotate.export.shards import WHOLE, Shards
from authface.imaging import decode as images

if TYPE_CHECKING:
    import datasets

BLOCK = 512
"""A .tar file is padded to it."""


@dataclass(frozen=True)
class Place:
    """Where and how a format is written."""

    folder: Path
    """Where it is written now, an empty folder; it takes its place when it is whole."""
    final: Path
    """Where it will be."""
    key: str
    """Digest of the content."""
    shard_bytes: int
    size: int
    """Side of a crop, pixels."""


class Format(Protocol):
    """Takes rows one by one."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def add(self, row: dict[str, Any]) -> None:
        """One more row, as `authface.annotate.export.rows.features` has it."""


class Parquet:
    """``data/<split>-<key>-00000.parquet`` with the images inside."""

    FOLDER = "data"

    def __init__(self, place: Place) -> None:
        self._shards = Shards(place.folder / self.FOLDER, self.features().arrow_schema, place.key, place.shard_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shards.__exit__()

    @staticmethod
    def features() -> datasets.Features:
        """The typed columns."""
        return dataset.features()

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._shards.add(row, len(row["image"]["bytes"]) + len(json.dumps(without_pixels(row))))


class Manifest(Parquet):
    """``manifest/<split>-<key>-00000.parquet``: all but the pixels, of which it keeps the digest."""

    FOLDER = "manifest"

    @staticmethod
    def features() -> datasets.Features:
        """The typed columns."""
        return manifest_features()

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        entry = without_pixels(row) | {"pixels_sha256": pixels_sha256(images.decode(row["image"]["bytes"]).rgb)}
        self._shards.add(entry, len(json.dumps(entry)))


def manifest_features() -> datasets.Features:
    """The columns of a dataset without its images, and sha256 of a crop's pixels."""
    from datasets import Features, Value

    return Features(without_pixels(dataset.features()) | {"pixels_sha256": Value("string")})


def pixels_sha256(rgb: Any) -> str:
    """sha256 in hex of (h, w, 3) uint8 pixels, row by row, whatever file they come from."""
    return hashlib.sha256(rgb.tobytes()).hexdigest()


def without_pixels(row: dict[str, Any]) -> dict[str, Any]:
    """All of a row but its image."""
    return {name: value for name, value in row.items() if name != "image"}


class ImageFolder:
    """``<split>/<id>.png`` and ``<split>/metadata.jsonl``, as `datasets` reads an image folder."""

    def __init__(self, place: Place) -> None:
        self._folder = place.folder
        self._tables: dict[str, IO[str]] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        split = row["split"] or WHOLE
        folder, name = self._folder / split, f"{row['id']}.png"
        if split not in self._tables:
            folder.mkdir(parents=True)
            table = (folder / "metadata.jsonl").open("w", encoding="utf-8", newline="\n")
            self._tables[split] = self._files.enter_context(table)
        (folder / name).write_bytes(row["image"]["bytes"])
        self._tables[split].write(json.dumps({"file_name": name} | without_pixels(row)) + "\n")


class WebDataset:
    """``<split>-00000.tar`` and on: of each row a .png, its prompt as .txt and all else as .json, side by side."""

    def __init__(self, place: Place) -> None:
        self._folder, self._limit = place.folder, place.shard_bytes
        self._open: dict[str, tuple[int, tarfile.TarFile]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _number, shard in self._open.values():
            shard.close()

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        text = json.dumps(without_pixels(row))
        parts = {"png": row["image"]["bytes"], "txt": row["prompt"].encode(), "json": text.encode()}
        shard = self._shard(row["split"] or WHOLE, sum(len(data) + 2 * BLOCK for data in parts.values()))
        for ending, data in parts.items():
            member = tarfile.TarInfo(f"{row['id']}.{ending}")
            member.size, member.mode = len(data), 0o644
            shard.addfile(member, io.BytesIO(data))

    def _shard(self, split: str, size: int) -> tarfile.TarFile:
        number, shard = self._open.get(split, (-1, None))
        if shard is None or shard.offset + size > self._limit:
            if shard is not None:
                shard.close()
            number += 1
            shard = tarfile.open(self._folder / f"{split}-{number:05d}.tar", "w")  # noqa: SIM115  closed in __exit__
            self._open[split] = (number, shard)
        return shard


class Kohya:
    """``<split>/<id>.png`` with its prompt beside it in a .txt, and the dataset.toml that sd-scripts takes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._splits: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subset = {"image_dir": str((self._place.final / WHOLE).resolve()), "num_repeats": 1}
        config = {
            "general": {"caption_extension": ".txt", "shuffle_caption": False, "enable_bucket": False},
            "datasets": [{"resolution": self._place.size, "batch_size": 1, "subsets": [subset]}],
        }
        (self._place.folder / "dataset.toml").write_text(tomli_w.dumps(config), "utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        split = row["split"] or WHOLE
        folder = self._place.folder / split
        if split not in self._splits:
            folder.mkdir(parents=True)
            self._splits.add(split)
        (folder / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
        (folder / f"{row['id']}.txt").write_text(row["prompt"] + "\n", "utf-8")


FORMATS: Final[dict[str, Callable[[Place], Format]]] = {
    "dataset": Parquet,
    "imagefolder": ImageFolder,
    "webdataset": WebDataset,
    "kohya": Kohya,
    "manifest": Manifest,
}
