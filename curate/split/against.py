"""Faces of folders that the set must not overlap with, such as benchmarks: found, embedded, compared with ours.

Their rows lie in the set, in ``tables/against/<folder>``, in 256 parts by the content of the files: a folder that
grows costs what is new in it, and some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.fetch.sources.folder import Folder
from authface.curate.filter.duplicates import face_hash
from authface.curate.filter.measures.quality import face_region
from authface.curate.settings import SplitSettings
from authface.curate.split.embed import embedder_provenance
from authface.engine.runner import PartInput
from authface.errors import ImageError, UsageError, one_line
from authface.faces import detector, landmarks
from authface.faces.detector import RetinaFace
from authface.faces.identity import Embedder, SeenFace, make_embedder
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.records import Rival
from authface.store.photoset import PhotoSet, Provenance, Table

VERSION = 1
LEAST_SCORE = 0.9
"""Detections under this are no faces that a benchmark is about."""


@dataclass(frozen=True)
class RivalFile:
    """One file of such a folder."""

    path: str
    name: str
    """Its path below the folder, printable."""
    sha256: str
    """Empty where it could not be read."""


@dataclass
class FindRivals:
    """The step from files to the rows of their faces."""

    settings: SplitSettings
    batch_size: int = 2
    _detector: RetinaFace | None = field(default=None)
    _landmarker: Dlib68 | None = field(default=None)
    _embedder: Embedder | None = field(default=None)

    @property
    def provenance(self) -> Provenance:
        """The identity network, the detector and the landmarks' predictor."""
        own = embedder_provenance("against", VERSION, self.settings)
        found = {"retinaface": detector.weights_sha256(), "dlib-68": landmarks.weights_sha256()}
        return replace(own, weights=own.weights | found)

    def open(self) -> None:
        """Load the networks."""
        self._detector, self._landmarker = RetinaFace(LEAST_SCORE), Dlib68()
        self._embedder = make_embedder(self.settings.embedder, self.settings.arcface)

    def load(self, file: RivalFile) -> NDArray[np.uint8]:
        """The photo's pixels. Raises ImageError."""
        return images.read(Path(file.path)).rgb

    def step(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[list[Rival]]:
        """The faces of each photo, without ids."""
        return [self._faces(rgb) for rgb in batch]

    def save(self, file: RivalFile, faces: list[Rival]) -> list[Rival]:
        """The rows; a photo without a face has one that says so."""
        none = Rival(id=f"{file.sha256}--1", file=file.name, status="rejected", reason="no_face", value=0, limit=1)
        return [replace(face, id=f"{file.sha256}-{index}", file=file.name) for index, face in enumerate(faces)] or [
            none
        ]

    def failed(self, file: RivalFile, reason: str, detail: str) -> list[Rival]:
        """The row of a file that is no photo."""
        return [Rival(id=f"{file.sha256}--1", file=file.name, status="failed", reason=reason, detail=detail)]

    def _faces(self, rgb: NDArray[np.uint8]) -> list[Rival]:
        assert self._detector and self._landmarker and self._embedder
        found = self._detector.detect(rgb)
        seen = [SeenFace(rgb, self._landmarker.landmarks(rgb, detection)) for detection in found]
        vectors = self._embedder.embed(seen)
        regions = [face_region(rgb, detection.points5).luma for detection in found]
        return [
            Rival(
                id="",
                file="",
                box=detection.box,
                hash=face_hash(np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB))),
                embedding=tuple(vector.tolist()),
            )
            for detection, luma, vector in zip(found, regions, vectors, strict=True)
        ]


def against_table(photoset: PhotoSet, folder: Path) -> Table[Rival]:
    """The table of one folder, named by a hash of its path."""
    name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Table(photoset.root / "tables" / "against" / name, Rival)


def rival_parts(folder: Path) -> list[PartInput[RivalFile]]:
    """The folder's photos in parts by the first byte of their sha256. Raises UsageError where there are none."""
    parts: dict[int, dict[str, RivalFile]] = {}
    for file in rival_files(folder):
        parts.setdefault(int(file.sha256[:2] or "0", 16), {}).setdefault(file.sha256 or file.name, file)
    if not parts:
        raise UsageError(f"--against {one_line(folder)}: no photos in there")
    return [_part(number, [files[key] for key in sorted(files)]) for number, files in sorted(parts.items())]


def rival_files(folder: Path) -> Iterator[RivalFile]:
    """Every photo below the folder. Raises UsageError where it is none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"--against {one_line(folder)}: {what}; give a folder of photos")
    for item in Folder(folder, "", "").items():
        try:
            sha256 = hashlib.sha256(images.read_bytes(Path(item.path))).hexdigest()
        except ImageError:
            sha256 = ""
        yield RivalFile(item.path, item.photo.source_id, sha256)


def _part(number: int, files: list[RivalFile]) -> PartInput[RivalFile]:
    told = hashlib.sha256("\n".join(f"{file.sha256} {file.name}" for file in files).encode()).hexdigest()
    return PartInput(number, len(files), told, partial(list[Any], files))
