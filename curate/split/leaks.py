"""What a set shares with folders that it must not overlap, such as benchmarks: files, near duplicates, people.

The faces of these folders are found and embedded first; their rows lie in the set, in ``tables/against/<folder>``, in
256 parts by the content of the files, so a folder that grows costs little more than what is new in it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.fetch.sources.folder import LINKED, name_below, photo_files
from authface.curate.filter.duplicates import NearIndex, hash_codes
from authface.curate.filter.measure import face_hash
from authface.curate.filter.measures.quality import face_region
from authface.curate.settings import SplitSettings
from authface.curate.split.groups import SplitFaces, embedder_provenance
from authface.curate.split.likeness import Likeness, Vectors
from authface.curate.split.nearest import Faces, likest_others
from authface.engine.runner import PartInput
from authface.engine.workers import Step
from authface.errors import ImageError, UsageError, one_line
from authface.faces import detector, landmarks
from authface.faces.detector import RetinaFace
from authface.faces.identity import Embedder, SeenFace, make_embedder
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.records import Box, Rival
from authface.report import pages as report
from authface.store.photoset import PhotoSet, Provenance, Table

VERSION = 1
LEAST_SCORE = 0.9
"""Detections below this are not the faces that a benchmark is about."""
Kind = Literal["same_file", "near_duplicate", "same_person"]
LEAK_WORDS: Mapping[Kind, str] = {
    "same_file": "the same file",
    "near_duplicate": "nearly the same picture",
    "same_person": "perhaps the same person",
}
"""Kinds of leak, the gravest first."""
SHOWN = 100
"""Pairs of a kind on the page."""
PICTURE = 160
"""Side of the pictures on the page, pixels."""
_MARGIN = 0.35
"""Room around a face's box on the page, of its size."""
_BATCH = 4096
Compare = Callable[[Vectors], Likeness]
"""How alike each of (n, length) unit vectors is to others: `authface.curate.split.likeness.likeness_of` a cohort."""


@dataclass(frozen=True)
class RivalFile:
    """One file of a folder that the set must not overlap with."""

    path: str
    name: str
    """Its path below the folder, printable."""
    sha256: str
    """Empty where it could not be read."""


@dataclass
class FindRivals(Step[RivalFile, NDArray[np.uint8], list[Rival], Rival]):
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
        """The rows; a photo without a face has one row saying so."""
        none = Rival(id=f"{file.sha256}--1", file=file.name, status="rejected", reason="no_face", value=0, limit=1)
        return [replace(face, id=f"{file.sha256}-{index}", file=file.name) for index, face in enumerate(faces)] or [
            none
        ]

    def failed(self, file: RivalFile, reason: str, detail: str) -> list[Rival]:
        """The row of a file that is not a photo."""
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


def rival_parts(folder: Path, say: Callable[[str], None]) -> list[PartInput[RivalFile]]:
    """The folder's photos, partitioned by the first byte of their sha256; `say` as `rival_files` has it.

    Raises UsageError if there are none.
    """
    parts: dict[int, dict[str, RivalFile]] = {}
    for file in rival_files(folder, say):
        parts.setdefault(int(file.sha256[:2] or "0", 16), {}).setdefault(file.sha256 or file.name, file)
    if not parts:
        raise UsageError(f"--against {one_line(folder)}: no photos in there")
    return [_part(number, [files[key] for key in sorted(files)]) for number, files in sorted(parts.items())]


def rival_files(folder: Path, say: Callable[[str], None]) -> Iterator[RivalFile]:
    """Every photo below the folder, whoever made it; `say` tells of folders there that are not looked into.

    Raises UsageError if it is no folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"--against {one_line(folder)}: {what}; give a folder of photos")
    # Photos of sets and exports too: another set is what this one may overlap with.
    ignored = Counter[str]()
    for path, problem in photo_files(folder.resolve(), ignored):
        if problem:
            say(f"--against {one_line(path)}: {problem}")
            continue
        try:
            sha256 = hashlib.sha256(images.read_bytes(path)).hexdigest()
        except ImageError:
            sha256 = ""
        yield RivalFile(str(path), name_below(folder.resolve(), path), sha256)
    if ignored[LINKED]:
        say(f"--against {one_line(folder)}: passed over {ignored[LINKED]:,} {LINKED}")


def _part(number: int, files: list[RivalFile]) -> PartInput[RivalFile]:
    told = hashlib.sha256("\n".join(f"{file.sha256} {file.name}" for file in files).encode()).hexdigest()
    return PartInput(number, len(files), told, partial(list[Any], files))


@dataclass(frozen=True)
class Leak:
    """A face of the set and what it shares with a folder: the gravest kind of overlap, with the nearest face there."""

    face: str
    kind: Kind
    value: float
    """Bits in which near duplicates differ, or likeness (`authface.curate.split.groups`); 0 for the same file."""
    limit: float
    folder: str
    file: str
    """Below the folder, printable."""
    rival: str
    """Id of their face."""
    box: Box | None


def find_leaks(
    ours: SplitFaces, theirs: Sequence[tuple[str, Rival]], compare: Compare, radius: int, same_person: float
) -> dict[str, Leak]:
    """Leaks by the id of our face. `theirs` are rows with the name of their folder, faceless photos too."""
    found: dict[str, Leak] = {}
    people = _people(ours, theirs, compare, same_person)
    for leaks in (people, _duplicates(ours, theirs, radius), _files(ours, theirs)):
        found.update((leak.face, leak) for leak in leaks)  # the graver kind comes later and wins
    return found


def _files(ours: SplitFaces, theirs: Sequence[tuple[str, Rival]]) -> Iterator[Leak]:
    first: dict[str, tuple[str, Rival]] = {}
    for folder, rival in theirs:
        first.setdefault(rival.id[:64], (folder, rival))
    for face in ours.ids:
        if (photo := face.rpartition("-")[0]) in first:
            yield _leak(face, "same_file", 0, 0, *first[photo])


def _duplicates(ours: SplitFaces, theirs: Sequence[tuple[str, Rival]], radius: int) -> Iterator[Leak]:
    rivals = [pair for pair in theirs if pair[1].hash]
    index = NearIndex(hash_codes([rival.hash for _, rival in rivals]), radius)
    hashed = np.flatnonzero(ours.hashed)
    for start in range(0, len(hashed), _BATCH):
        batch = hashed[start : start + _BATCH]
        rows, numbers, bits = index.search(ours.hashes[batch])
        order = np.lexsort((numbers, bits, rows))
        for at in order[np.unique(rows[order], return_index=True)[1]].tolist():  # the nearest of each
            yield _leak(ours.ids[int(batch[rows[at]])], "near_duplicate", int(bits[at]), radius, *rivals[numbers[at]])


def _people(ours: SplitFaces, theirs: Sequence[tuple[str, Rival]], compare: Compare, least: float) -> Iterator[Leak]:
    rivals = [pair for pair in theirs if pair[1].embedding is not None]
    if not rivals or not len(ours.vectors):
        return
    vectors = np.array([rival.embedding for _, rival in rivals], np.float32)
    known, asked = Faces(vectors, compare(vectors)), Faces(ours.vectors, compare(ours.vectors))
    for row, number, value in zip(*(column.tolist() for column in likest_others(asked, known, least)), strict=True):
        yield _leak(ours.ids[row], "same_person", value, least, *rivals[number])


def _leak(face: str, kind: Kind, value: float, limit: float, folder: str, rival: Rival) -> Leak:
    return Leak(face, kind, value, limit, folder, rival.file, rival.id, rival.box)


def write_page(
    photoset: PhotoSet, leaks: Mapping[str, Leak], identity: Mapping[str, str], paths: Mapping[str, str]
) -> Path:
    """Write ``reports/leaks.html``: counts, and pairs side by side, one a person of ours; returns its path.

    `identity` names the person of each of our faces, `paths` are their files by sha256.
    """
    path = photoset.root / "reports" / "leaks.html"
    gravest = sorted(leaks.values(), key=_gravity)
    people: dict[str, Leak] = {}
    for leak in gravest:
        people.setdefault(identity.get(leak.face) or leak.face, leak)
    counts = Counter(leak.kind for leak in gravest)
    summary = [(f"in {name}", f"{n:,} faces of the set") for name, n in Counter(k.folder for k in gravest).items()]
    summary += [(LEAK_WORDS[kind], f"{counts[kind]:,} faces of the set") for kind in LEAK_WORDS if counts[kind]]
    summary.append(("people of the set concerned", f"{len(people):,}"))
    cells = {
        kind: [_cell(photoset, leak, paths) for leak in [k for k in people.values() if k.kind == kind][:SHOWN]]
        for kind in LEAK_WORDS
    }
    report.contact_sheet(
        path,
        "What the set shares with other folders",
        summary,
        (
            report.SheetGroup(
                LEAK_WORDS[kind],
                f"Left ours, right theirs; one pair a person, the {SHOWN} nearest first.",
                len(cells[kind]),
                cells[kind],
            )
            for kind in LEAK_WORDS
            if cells[kind]
        ),
    )
    return path


def _gravity(leak: Leak) -> tuple[int, float, str]:
    nearness = -leak.value if leak.kind == "same_person" else leak.value
    return (list(LEAK_WORDS).index(leak.kind), nearness, leak.face)


def _cell(photoset: PhotoSet, leak: Leak, paths: Mapping[str, str]) -> report.Cell:
    """Our crop beside their face, as far as they can be read."""
    ours = _picture(photoset.root / photoset.crop_file(leak.face), None)
    theirs = _picture(Path(paths[leak.rival[:64]]), _around(leak.box))
    said = {"same_file": "", "near_duplicate": f", {leak.value:.0f} bits apart, limit {leak.limit:.0f}"}
    said["same_person"] = f", likeness {leak.value:.1f}, limit {leak.limit:.1f}"
    name = leak.face[:10] + leak.face[64:]
    return report.Cell(np.hstack([ours, theirs]), name, f"{leak.folder}: {one_line(leak.file, 60)}{said[leak.kind]}")


def _picture(path: Path, box: Box | None) -> NDArray[np.uint8]:
    """(160, 160, 3) the part of a photo in the middle of a light square, or the square alone."""
    square = np.full((PICTURE, PICTURE, 3), 240, np.uint8)
    with suppress(ImageError):
        seen = images.preview(path, PICTURE, box)
        top, left = (PICTURE - seen.shape[0]) // 2, (PICTURE - seen.shape[1]) // 2
        square[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return square


def _around(box: Box | None) -> Box | None:
    """The box with some room, made square."""
    if box is None:
        return None
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = (0.5 + _MARGIN) * max(box[2] - box[0], box[3] - box[1])
    return (x - half, y - half, x + half, y + half)
