"""`annotate import authface-hq`: the authors' released faces, with their captions, as a photo set.

The release is folders of aligned pictures with a JSON file beside each: ``woman/woman_11010.png`` and
``woman/woman_11010_qwen.json``. The pictures become photos, and crops as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.annotate.captioners.released import CAPTION, PROBLEM, caption_of
from authface.console import Console
from authface.engine.runner import PartInput, Summary, append, parts_of, run
from authface.engine.workers import Step, inline
from authface.errors import ImageError, UsageError, one_line
from authface.faces import detector, landmarks
from authface.faces.geometry import whole_quad
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.store.journal import REASON, Forgotten, blank, bury, tombstone
from authface.store.photoset import PhotoSet, Provenance

SOURCE = "authface-hq"
LICENCE = "AuthFace-HQ: non-commercial; photos from Unsplash under the Unsplash License"
PHOTOS = Provenance(f"import {SOURCE}", 1, {}, {})
PART_ROWS = 500
MIN_SCORE = 0.5
"""Least confidence of a face: somebody has chosen these pictures already."""
MOST_CAPTION_BYTES = 1_000_000
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class ReleasePicture:
    """One picture of the release, and its caption's file, which may be missing."""

    name: str
    """Path below the release's folder, with slashes."""
    picture: str
    caption: str
    as_of: str
    """ISO 8601 time of the picture's last change."""


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    photos: Summary
    faces: Summary
    crops: Summary
    before: int
    """Pictures that the set held already."""
    recaptioned: int
    """Of these, the ones whose caption was read anew: it came, or was mended, since."""


def release_pictures(folder: Path, say: Callable[[str], None]) -> Iterator[ReleasePicture]:
    """The pictures below a folder by their path; what is hidden is passed over.

    Each folder that is a link, which might lead back, or cannot be listed is passed over, too, and named to `say`.
    Raises UsageError for no folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{one_line(folder)} is no folder: give that of the unpacked release, with woman/ and man/ in it"
        )
    for top, folders, names in os.walk(folder, onerror=lambda error: say(f"passed over: {one_line(error)}")):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for link in (path for name in folders if (path := Path(top, name)).is_symlink()):
            say(f"passed over: {one_line(link)} is a link to a folder: copy it, or import that folder by itself")
        for name in sorted(names):
            path = Path(top) / name
            if name.startswith(".") or path.suffix.lower() not in _ENDINGS:
                continue
            captions = (path.with_name(f"{path.stem}_qwen.json"), path.with_name(f"{path.stem}.json"))
            caption = next((str(file) for file in captions if file.is_file()), "")
            relative = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
            yield ReleasePicture(relative, str(path), caption, _changed(path))


def import_faces(photoset: PhotoSet, folder: Path, console: Console, *, limit: int = 0) -> Imported:
    """Bring the pictures in that the set does not hold, as photos, faces and crops, and of those that it holds the
    captions that have changed; the caller holds the set's lock.

    Raises UsageError where there are none, AuthfaceError where the disk refuses.
    """
    known = {(photo.source_id, photo.as_of) for photo in photoset.photos if photo.source == SOURCE}
    forgotten = Forgotten.of(photoset)
    found = [
        picture
        for picture in release_pictures(folder, console.log)
        if not forgotten.holds(source=SOURCE, source_id=picture.name)
    ]
    if not found:
        raise UsageError(f"{one_line(folder)} holds no pictures ({', '.join(sorted(_ENDINGS))})")
    new = [picture for picture in found if (picture.name, picture.as_of) not in known]
    photos = append(
        PHOTOS,
        partial(inline, ReleasePhotos(photoset.root, forgotten)),
        islice(iter(new), limit or None),
        target=photoset.photos,
        console=console,
        part_rows=PART_ROWS,
        total=min(len(new), limit or len(new)),
        finish=_Duplicates(photoset).reject,
    )
    names = {name for name, _ in known}
    recaptioned = _read_captions_anew(photoset, {one.name: one for one in found if one.name in names})
    ours = {n for n, meta in photoset.photos.metas().items() if meta and meta.provenance.step == PHOTOS.step}
    root = photoset.root
    faces = run(ReleaseFaces(root), _of(ours, parts_of(photoset.photos)), photoset.measured, console, prune=False)
    _keep_all(photoset, ours)
    crops = run(ReleaseCrops(root), _of(ours, parts_of(photoset.faces)), photoset.crops, console, prune=False)
    return Imported(photos, faces, crops, len(found) - len(new), recaptioned)


def _of(numbers: set[int], parts: list[PartInput[Any]]) -> list[PartInput[Any]]:
    return [part for part in parts if part.number in numbers]


def _changed(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except (OSError, ValueError, OverflowError):
        return ""


class _Duplicates:
    """The photos the set holds: of equal files the first is kept; of one that was forgotten no name is left."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._photoset = photoset
        self._ids = {photo.id for photo in photoset.photos if photo.status == "kept"}

    def reject(self, rows: list[Photo]) -> list[Photo]:
        """The rows of a part."""
        bury(self._photoset, [tombstone(row, "the same bytes", done=True) for row in rows if row.reason == REASON])
        return [blank(row.source) if row.reason == REASON else self._reject(row) for row in rows]

    def _reject(self, row: Photo) -> Photo:
        if row.status != "kept":
            return row
        if row.id in self._ids:
            return replace(row, status="rejected", reason="duplicate", detail="the same bytes are in the set")
        self._ids.add(row.id)
        return row


@dataclass
class ReleasePhotos(Step[ReleasePicture, tuple[Photo, bytes], tuple[Photo, bytes], Photo]):
    """The step over the release's pictures: bytes into the set, captions into the rows."""

    root: Path
    forgotten: Forgotten
    batch_size: int = 8

    provenance = PHOTOS

    def load(self, picture: ReleasePicture) -> tuple[Photo, bytes]:
        """The row and the file. Raises ImageError."""
        data = images.read_bytes(Path(picture.picture))
        decoded = images.decode(data)
        photo_id = hashlib.sha256(data).hexdigest()
        if self.forgotten.holds(photo_id=photo_id):
            return replace(self._row(picture), id=photo_id, status="rejected", reason=REASON), b""
        height, width = decoded.rgb.shape[:2]
        file = PhotoSet(self.root).photo_file(photo_id, images.EXTENSIONS[decoded.format])
        row = replace(
            self._row(picture),
            id=photo_id,
            file=file,
            width=width,
            height=height,
            bytes=len(data),
            format=decoded.format,
        )
        return replace(row, extra=json.dumps(_caption(picture), ensure_ascii=False)), data

    def save(self, picture: ReleasePicture, fetched: tuple[Photo, bytes]) -> list[Photo]:
        """The row, its file written."""
        photo, data = fetched
        photoset = PhotoSet(self.root)
        if photo.reason != REASON and not photoset.exists(photo.file):
            photoset.save(photo.file, data)
        return [photo]

    def failed(self, picture: ReleasePicture, reason: str, detail: str) -> list[Photo]:
        """The row of a picture that cannot be read."""
        return [replace(self._row(picture), status="failed", reason=reason, detail=detail)]

    def _row(self, picture: ReleasePicture) -> Photo:
        return Photo(id="", source=SOURCE, source_id=picture.name, file="", licence=LICENCE, as_of=picture.as_of)


def _caption(picture: ReleasePicture) -> dict[str, str]:
    if not picture.caption:
        return {PROBLEM: one_line(f"no {Path(picture.picture).stem}_qwen.json beside the picture")}
    try:
        return {CAPTION: caption_of(images.read_bytes(Path(picture.caption), max_bytes=MOST_CAPTION_BYTES))}
    except (ImageError, ValueError) as error:
        return {PROBLEM: one_line(f"{Path(picture.caption).name}: {error}")}


def _read_captions_anew(photoset: PhotoSet, pictures: Mapping[str, ReleasePicture]) -> int:
    """Write the captions of pictures that the set holds, by name, into their rows where they differ; how many did.

    A file that is gone, or broken since, takes no caption away. Of a picture with other bytes than before only the
    photo that came last is the caption's.
    """
    table = photoset.photos
    latest = {photo.source_id: photo.id for photo in table if photo.source == SOURCE and photo.id}

    def mended(row: Photo) -> Photo:
        picture = pictures.get(row.source_id)
        if picture is None or (row.source, row.status, row.id) != (SOURCE, "kept", latest.get(row.source_id)):
            return row
        caption, held = _caption(picture), json.loads(row.extra or "{}")
        if caption == held or (CAPTION in held and CAPTION not in caption):
            return row
        return replace(row, extra=json.dumps(caption, ensure_ascii=False))

    count = 0
    for number, meta in table.metas().items() if pictures else ():
        if meta is None or meta.provenance.step != PHOTOS.step:
            continue
        before = table.rows(number)
        after = [mended(row) for row in before]
        if after != before:
            count += sum(old != new for old, new in zip(before, after, strict=True))
            table.write(number, after, meta.provenance, meta.inputs)
    return count


@dataclass
class ReleaseFaces(Step[Photo, NDArray[np.uint8], Any, Face]):
    """The step over the imported photos: the largest face of each."""

    root: Path
    batch_size: int = 4
    _detector: Any = field(default=None, repr=False)

    @property
    def provenance(self) -> Provenance:
        """The detector."""
        return Provenance(
            "faces of aligned pictures", 1, {"min_score": MIN_SCORE}, {"retinaface": detector.weights_sha256()}
        )

    def open(self) -> None:
        """Load the detector."""
        self._detector = detector.RetinaFace(MIN_SCORE)

    def load(self, photo: Photo) -> NDArray[np.uint8]:
        """The photo's pixels. Raises ImageError."""
        return images.read(self.root / photo.file).rgb

    def step(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """The largest face of each, or None."""
        return [next(iter(self._detector.detect(rgb)), None) for rgb in batch]

    def save(self, photo: Photo, found: Any) -> list[Face]:
        """The row."""
        if found is None:
            return [replace(_face_row(photo, -1), status="rejected", reason="no_face", limit=MIN_SCORE)]
        row = _face_row(photo, 0)
        return [replace(row, box=found.box, score=found.score, points5=found.points5, size=found.long_side)]

    def failed(self, photo: Photo, reason: str, detail: str) -> list[Face]:
        """The row of a photo that cannot be read."""
        return [replace(_face_row(photo, -1), status="failed", reason=reason, detail=detail)]


def _face_row(photo: Photo, index: int) -> Face:
    return Face(id=f"{photo.id}-{index}", photo_id=photo.id, photo_file=photo.file, index=index)


def _keep_all(photoset: PhotoSet, parts: set[int]) -> None:
    """Bring the table `faces` up to date: `measured` as it is, for no limit is put to faces that somebody chose."""
    everything = Provenance("all faces of aligned pictures", 1, {}, {})
    for part in sorted(parts):
        measured, judged = photoset.measured.meta(part), photoset.faces.meta(part)
        if measured and not (judged and (judged.provenance, judged.inputs) == (everything, measured.digest)):
            photoset.faces.write(part, photoset.measured.rows(part), everything, measured.digest)


@dataclass
class ReleaseCrops(Step[Face, tuple[Face, NDArray[np.uint8]], tuple[Crop, NDArray[np.uint8]], Crop]):
    """The step over the imported faces: the whole picture is the crop."""

    root: Path
    batch_size: int = 4
    overwrites_files: bool = True
    _landmarker: Any = field(default=None, repr=False)

    @property
    def provenance(self) -> Provenance:
        """The predictor of landmarks."""
        return Provenance("crops of aligned pictures", 1, {}, {"dlib-68": landmarks.weights_sha256()})

    def open(self) -> None:
        """Load the predictor."""
        self._landmarker = landmarks.Dlib68()

    def load(self, face: Face) -> tuple[Face, NDArray[np.uint8]]:
        """The photo's pixels. Raises ImageError."""
        return face, images.read(self.root / face.photo_file).rgb

    def step(self, batch: Sequence[tuple[Face, NDArray[np.uint8]]]) -> Sequence[tuple[Crop, NDArray[np.uint8]]]:
        """Landmarks, and the place of the crop: all of the photo."""
        return [(self._crop(face, rgb), rgb) for face, rgb in batch]

    def save(self, face: Face, made: tuple[Crop, NDArray[np.uint8]]) -> list[Crop]:
        """The row, the crop written unless it is refused."""
        crop, rgb = made
        if crop.status != "kept":
            return [crop]
        photoset = PhotoSet(self.root)
        photoset.save(photoset.crop_file(face.id), images.encode_png(rgb))
        return [replace(crop, file=photoset.crop_file(face.id))]

    def failed(self, face: Face, reason: str, detail: str) -> list[Crop]:
        """The row of a face whose photo cannot be read."""
        row = Crop(id=face.id, photo_id=face.photo_id, file="", size=0)
        return [replace(row, status="failed", reason=reason, detail=detail)]

    def _crop(self, face: Face, rgb: NDArray[np.uint8]) -> Crop:
        height, width = rgb.shape[:2]
        row = Crop(id=face.id, photo_id=face.photo_id, file="", size=width)
        if width != height:
            return replace(row, status="rejected", reason="not_square", value=width / height, limit=1.0)
        assert face.box is not None and face.score is not None and face.points5 is not None  # of every kept face
        points = self._landmarker.landmarks(rgb, detector.Detection(face.box, face.score, face.points5))
        return replace(
            row,
            quad=tuple(whole_quad(width).ravel().tolist()),
            to_photo=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            to_crop=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            landmarks=tuple(points.ravel().tolist()),
            disagreement=landmarks.disagreement(points, face.points5),
            pad_fraction=0.0,
        )
