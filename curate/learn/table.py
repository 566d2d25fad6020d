"""The table `features`, and what of it and of the measures a model reads: one row of numbers a face."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.filter.measure import ANGLES, LIMITS
from authface.curate.filter.measure import VERSION as MEASURED_VERSION
from authface.curate.learn.features import NAMES, PLACES, PatchNetwork, face_statistics, patches, weights_of
from authface.engine.runner import parts_of, run
from authface.engine.workers import Step
from authface.errors import AuthfaceError, ImageError, UsageError, one_line, shell_word
from authface.imaging import decode as images
from authface.records import Face, FaceFeatures
from authface.store.photoset import PhotoSet, Provenance

VERSION = 1
MEASURES = tuple(dict.fromkeys(limit.measure for limit in LIMITS if limit.measure != "size"))
"""Measures of `records.Face` that a model reads: all that a limit judges, of angles the size. `size` is read as its
logarithm."""

Rgb = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class FaceTable:
    """Some faces and what is known of each, row by row."""

    ids: tuple[str, ...]
    photo_ids: tuple[str, ...]
    hashes: tuple[str, ...]
    """As `Face.hash`."""
    values: Matrix
    """(faces, columns) of `columns`; NaN where something could not be measured."""

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> FaceTable:
        """Some of the faces, by their place."""
        at = [int(row) for row in rows]
        named = ([names[row] for row in at] for names in (self.ids, self.photo_ids, self.hashes))
        ids, photos, hashes = map(tuple, named)
        return FaceTable(ids, photos, hashes, self.values[at])


@dataclass(frozen=True)
class _Seen:
    statistics: Matrix
    patches: list[Rgb]


@dataclass
class TakeFeatures(Step[Face, _Seen, Matrix, FaceFeatures]):
    """The step from a photo set's table `measured` to `features`: it depends on no limit and on no decision."""

    root: Path
    network: str = ""
    device: str = "cpu"
    batch_size: int = 8
    _network: PatchNetwork | None = None
    _photo: Callable[[str], Rgb] | None = None

    @property
    def provenance(self) -> Provenance:
        """The network, if one was named."""
        return Provenance("features", VERSION, {"network": self.network}, weights_of(self.network))

    def open(self) -> None:
        """Load the network."""
        self._network = PatchNetwork(self.network, self.device) if self.network else None
        self._photo = lru_cache(2)(self._decoded)  # the faces of one photo follow one another

    def load(self, face: Face) -> _Seen:
        """The statistics of a face, and what a network sees of it. Raises ImageError."""
        assert self._photo is not None
        if face.points5 is None:
            raise ImageError("no_face", "the face has no points")
        rgb = self._photo(face.photo_file)
        return _Seen(face_statistics(rgb, face.points5), patches(rgb, face.points5) if self._network else [])

    def step(self, batch: Sequence[_Seen]) -> Sequence[Matrix]:
        """All numbers of each face."""
        if self._network is None:
            return [seen.statistics for seen in batch]
        looked = self._network([seen.patches for seen in batch])
        return [np.concatenate([seen.statistics, more]) for seen, more in zip(batch, looked, strict=True)]

    def save(self, face: Face, values: Matrix) -> list[FaceFeatures]:
        """The row."""
        return [FaceFeatures(id=face.id, photo_id=face.photo_id, values=tuple(values.tolist()))]

    def failed(self, face: Face, reason: str, detail: str) -> list[FaceFeatures]:
        """The row of a face whose photo could not be read again."""
        return [FaceFeatures(id=face.id, photo_id=face.photo_id, status="failed", reason=reason, detail=detail)]

    def _decoded(self, file: str) -> Rgb:
        return images.decode(PhotoSet(self.root).read(file)).rgb


def take_features(photoset: PhotoSet, network: str, console: Console, *, workers: int = 1, device: str = "cpu") -> None:
    """Bring the table `features` up to date with `measured`; the caller holds the set's lock.

    Raises UsageError where the measures are of an earlier version.
    """
    check_measured(photoset)
    step = TakeFeatures(photoset.root, network, device)
    run(step, parts_of(photoset.measured), photoset.features, console, workers=workers)


def check_measured(photoset: PhotoSet) -> None:
    """Raise UsageError where faces were measured by another version: its numbers mean something else."""
    versions = {meta.provenance.version for meta in photoset.measured.metas().values() if meta is not None}
    if versions - {MEASURED_VERSION}:
        where = one_line(photoset.root)
        raise UsageError(
            f"the faces of {where} were measured by another version: run authface curate filter {shell_word(where)}"
        )


def columns(photoset: PhotoSet) -> tuple[str, ...]:
    """What the numbers of the set's faces are: measures, statistics, and those of a network by their number."""
    return column_names(*_width_and_network(photoset))


def column_names(width: int = len(NAMES), network: str = "") -> tuple[str, ...]:
    """The same, of rows of `width` numbers in the table `features`."""
    each, more = divmod(width - len(NAMES), len(PLACES))
    if each < 0 or more or bool(each) != bool(network):
        raise AuthfaceError("the table features is of another version: run authface curate learn again")
    deep = (f"{network}:{place}:{at}" for place in PLACES for at in range(each))
    return ("size", *MEASURES, *NAMES, *deep)


def face_parts(photoset: PhotoSet, wanted: Collection[str] | None = None) -> Iterator[FaceTable]:
    """The faces of each part that could be measured and have features, or of those the `wanted`, in order."""
    for part in photoset.features.parts():
        yield face_part(photoset, part, wanted)


def face_part(photoset: PhotoSet, part: int, wanted: Collection[str] | None = None) -> FaceTable:
    """The faces of one part, as `face_parts` gives them."""
    features = {
        face: values
        for face, values in photoset.features.columns(part, ["id", "values"])
        if values is not None and (wanted is None or face in wanted)
    }
    names = ["id", "photo_id", "hash", "size", *MEASURES]
    rows = [row for row in photoset.measured.columns(part, names) if row[0] in features]
    measures = np.array([[np.nan if one is None else one for one in row[3:]] for row in rows], np.float64)
    if not rows:
        return FaceTable((), (), (), np.empty((0, 0)))
    measures[:, 0] = np.log(np.maximum(measures[:, 0], 1))
    for at, name in enumerate(MEASURES, 1):
        if name in ANGLES:
            measures[:, at] = np.abs(measures[:, at])
    ids, photos, hashes = (tuple(row[at] for row in rows) for at in range(3))
    return FaceTable(ids, photos, hashes, np.hstack([measures, np.array([features[face] for face in ids])]))


def together(tables: Sequence[FaceTable]) -> FaceTable:
    """Several tables as one."""
    full = [table for table in tables if table.ids]
    if not full:
        return FaceTable((), (), (), np.empty((0, len(column_names()))))
    widths = {table.values.shape[1] for table in full}
    if len(widths) > 1:
        raise AuthfaceError(f"the parts of features differ in their columns ({one_line(widths)}): take them anew")
    ids, photos, hashes = (
        tuple(name for table in full for name in getattr(table, field)) for field in ("ids", "photo_ids", "hashes")
    )
    return FaceTable(ids, photos, hashes, np.concatenate([table.values for table in full]))


def _width_and_network(photoset: PhotoSet) -> tuple[int, str]:
    """Numbers in a row of `features`, and the network that made the last of them."""
    for part in photoset.features.parts():
        meta = photoset.features.meta(part)
        for (values,) in photoset.features.columns(part, ["values"]):
            if values is not None and meta is not None:
                return len(values), str(meta.provenance.settings.get("network", ""))
    return len(NAMES), ""
