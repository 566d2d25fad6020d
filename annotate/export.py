"""`annotate export`: a photo set's kept crops as a Hugging Face dataset folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface import images
from authface.annotate.card import Composition, card
from authface.annotate.rows import Sample, row, samples
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.files import TEMPORARY, write_errors
from authface.photoset import PhotoSet

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

VERSION = 1
GROUP_BYTES = 32 << 20
"""Images held in memory before they are written as a row group; the hub's viewer reads one at a time."""
_META_KEY = b"authface"


@dataclass(frozen=True)
class Exported:
    """The dataset as it lies there; `written` is False where it was up to date."""

    folder: Path
    rows: int
    shards: int
    bytes: int
    written: bool


def features() -> Features:
    """Columns of the dataset. Points and boxes are pixels of the crop, its first pixel's centre at (0, 0)."""
    from datasets import Features, Image, List, Value

    text, number = Value("string"), Value("float32")
    box = List(number, length=3)
    quality = dict.fromkeys(("size", "score", "sharpness", "noise", "piqe", "pad_fraction"), number)
    return Features(
        {
            "image": Image(),
            "prompt": text,
            "tags": List({"name": text, "group": text, "confidence": number}),
            "annotator": text,
            "landmarks": List(List(number, length=2), length=68),
            "roi": {"left_eye": box, "right_eye": box, "mouth": box},
            "quality": {**quality, "upscaled": Value("bool")},
            **dict.fromkeys(("photographer", "licence", "terms", "source", "page_url", "photo_id", "id"), text),
        }
    )


def export(photoset: PhotoSet, settings: ExportSettings, console: Console, *, limit: int = 0) -> Exported:
    """Write ``SET/dataset``; the caller holds the set's lock. Does nothing where its inputs have not changed.

    Raises UsageError where crops or tags are missing, AuthfaceError where a crop cannot be read or the disk refuses.
    """
    annotators = _annotators(photoset, settings)
    folder = photoset.root / "dataset"
    identity = _identity(photoset, annotators, settings, limit)
    if (there := _current(folder, identity)) is not None:
        return there
    with write_errors(folder):
        for left in photoset.root.glob(f"{TEMPORARY}dataset-*"):
            shutil.rmtree(left)
    temporary = photoset.root / f"{TEMPORARY}dataset-{secrets.token_hex(6)}"
    composition = Composition()
    with write_errors(folder):
        try:
            (temporary / "data").mkdir(parents=True)
            chosen = samples(photoset, annotators, settings)
            shards = _write(temporary, photoset, chosen, composition, settings, identity, console, limit)
            if not composition.faces:
                raise AuthfaceError(f"no crop of {one_line(photoset.root)} has tags: {_advice(photoset)}")
            (temporary / "README.md").write_text(card(photoset, settings, composition), "utf-8")
            _swap(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    untagged = photoset.crops.counts()["kept"] - composition.faces
    if untagged and not limit:
        console.log(f"export: {untagged} kept crops have no tags and were left out: {_advice(photoset)}")
    return Exported(folder, composition.faces, shards, _bytes(folder), True)


def _annotators(photoset: PhotoSet, settings: ExportSettings) -> tuple[str, ...]:
    where, there = one_line(photoset.root), photoset.annotators()
    if not photoset.crops.counts()["kept"]:
        raise UsageError(f"{where} has no kept crops to export: run authface curate align {where}")
    if not there:
        raise UsageError(f"{where} has no tags: {_advice(photoset)} first")
    if missing := [name for name in settings.annotators if name not in there]:
        raise UsageError(f"{where} has no tags by {one_line(missing[0])}: there are {', '.join(there)}")
    return settings.annotators or tuple(there)


def _advice(photoset: PhotoSet) -> str:
    return f"run authface annotate tags {one_line(photoset.root)} --with measured"


def _identity(photoset: PhotoSet, annotators: tuple[str, ...], settings: ExportSettings, limit: int) -> str:
    """sha256 of all that the dataset is made from: every part's own digest, the settings, this code's version."""
    tables: list[Any] = [photoset.photos, photoset.faces, photoset.crops, *map(photoset.tags, annotators)]
    digests = [(number, meta.digest) for table in tables for number in table.parts() if (meta := table.meta(number))]
    text = json.dumps([VERSION, settings.fingerprint(), annotators, digests, limit])
    return hashlib.sha256(text.encode()).hexdigest()


def _current(folder: Path, identity: str) -> Exported | None:
    """The dataset that is there, if it is whole and made of the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((folder / "data").glob("train-*-of-*.parquet"))
    if not files or not (folder / "README.md").is_file():
        return None
    try:
        found = [pq.read_metadata(file) for file in files]
    except (OSError, pa.ArrowInvalid):
        return None
    whole = files[-1].stem.endswith(f"-of-{len(files):05d}")
    same = all((meta.metadata or {}).get(_META_KEY) == identity.encode() for meta in found)
    if not (whole and same):
        return None
    return Exported(folder, sum(meta.num_rows for meta in found), len(files), _bytes(folder), False)


def _write(
    temporary: Path,
    photoset: PhotoSet,
    chosen: Iterator[Sample],
    composition: Composition,
    settings: ExportSettings,
    identity: str,
    console: Console,
    limit: int,
) -> int:
    """Write the shards below `temporary` and count what is in them; returns their number."""
    schema = features().arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), _META_KEY: identity.encode()})
    shards = _Shards(temporary / "data", schema, settings.shard_megabytes * 1_000_000)
    total = photoset.crops.counts()["kept"]
    with console.progress("export", min(total, limit) if limit else total, "images") as tick:
        for sample in chosen:
            try:
                image = images.read_bytes(photoset.root / sample.crop.file)
            except ImageError as error:
                where = one_line(photoset.root)
                raise AuthfaceError(
                    f"crop {one_line(sample.crop.file)}: {one_line(error)}; run authface curate align {where}"
                ) from error
            shards.add(row(sample, image), len(image))
            composition.add(sample)
            tick()
            if composition.faces == limit:
                break
    return shards.close()


class _Shards:
    """Rows into Parquet files of at most `most` bytes of images, a row group in memory at a time."""

    def __init__(self, folder: Path, schema: pa.Schema, most: int) -> None:
        self._folder, self._schema, self._most = folder, schema, most
        self._writer: Any = None
        self._rows: list[dict[str, Any]] = []
        self._held = self._written = self._count = 0

    def add(self, values: dict[str, Any], size: int) -> None:
        """Take one row whose image has `size` bytes."""
        if self._written + self._held + size > self._most and self._written + self._held:
            self._end()
        self._rows.append(values)
        self._held += size
        if self._held >= GROUP_BYTES:
            self._flush()

    def close(self) -> int:
        """Write what is held and give the files their final names; returns how many there are."""
        self._end()
        for number in range(self._count):
            name = self._folder / f"train-{number:05d}-of-{self._count:05d}.parquet"
            (self._folder / f"{number:05d}.parquet").rename(name)
        return self._count

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        if self._writer is None:
            # PNG does not shrink twice; the other columns are small.
            self._writer = pq.ParquetWriter(
                self._folder / f"{self._count:05d}.parquet", self._schema, compression="none"
            )
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._held
        self._rows, self._held = [], 0

    def _end(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer, self._written = None, 0
            self._count += 1


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`: a kill leaves the old dataset, the new one or none, never a mixture."""
    old = new.with_name(new.name + "-old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
