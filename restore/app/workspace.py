"""The web page's work on a photo: find its faces, restore the chosen ones, show the results.

No web framework is used here; the model is behind the queue that the HTTP service has, too. Each photo has a folder of
its own, which goes with it; between two clicks its pixels lie there and not in memory, and while it waits for a worker
it is a file alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from authface.errors import AuthfaceError, UsageError, one_line
from authface.faces.looks import no_face_text
from authface.records import Box
from authface.restore.api import FoundFace, Progress, Restorer
from authface.restore.app.cards import face_cards
from authface.restore.model.restorer import IDENTITY
from authface.restore.picture import Restored, open_picture
from authface.restore.queue import Place, RestoreQueue, Waits
from authface.restore.settings import RestoreSettings

PREVIEW_SIDE = 1600
"""Longer side of the pictures on the page, pixels; the download has full size."""
JPEG_QUALITY = 90
CHOSEN, OTHER, UNFIT = (38, 166, 122), (255, 255, 255), (150, 150, 150)
"""Colours of the boxes: to be restored, left out, too small or unsure."""

KEPT_SECONDS = 3600
"""Seconds after which uploads and pictures of open pages are deleted."""
PHOTO_DELETED = "The photo is no longer here (photos are deleted after an hour): choose it again"
SMALL = "small.npy"
"""The photo for the page, in its folder."""


@dataclass(frozen=True)
class SentPhoto:
    """A photo's own copy of an uploaded file, which two tabs that send the same bytes would share."""

    own: Path
    folder: Path
    """Folder of all files made from it."""
    sent: Path
    """The uploaded file. A second upload is another file at the same path."""
    version: tuple[int, int]
    """Number and time of `sent`."""

    @classmethod
    def take(cls, sent: Path, root: Path) -> SentPhoto:
        """The upload with its own file in a new folder. Raises AuthfaceError if it is missing."""
        folder = Path(tempfile.mkdtemp(prefix="photo-", dir=root))
        own = folder / "upload" / sent.name
        own.parent.mkdir()
        try:
            version = _version(sent)
            try:
                os.link(sent, own)
            except OSError:  # a file system without links
                shutil.copyfile(sent, own)
        except FileNotFoundError as error:
            shutil.rmtree(folder)
            raise AuthfaceError(PHOTO_DELETED) from error
        return cls(own, folder, sent, version)

    def delete(self) -> None:
        """Delete its folder, and the uploaded file unless another tab has sent it since."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            if _version(self.sent) == self.version:
                self.sent.unlink()
        except FileNotFoundError:
            pass


def _version(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_ino, status.st_mtime_ns


@dataclass(frozen=True)
class UploadedPhoto:
    """A photo on the page."""

    upload: SentPhoto
    tab: str
    """The browser tab that shows it."""
    width: int
    height: int
    scale: float
    """Pixels of `small` per pixel of the photo."""
    icc: bytes
    faces: tuple[FoundFace, ...]
    """Without their crops."""
    marked: tuple[Box, ...] = ()
    """Boxes that a user drew around missed faces, pixels of the photo."""

    @property
    def folder(self) -> Path:
        """Folder of all files made from it."""
        return self.upload.folder

    @property
    def file(self) -> Path:
        """The file as uploaded."""
        if not self.upload.own.exists():
            raise AuthfaceError(PHOTO_DELETED)
        return self.upload.own

    def small(self) -> NDArray[np.uint8]:
        """(h, w, 3) for the page, in the photo's own colour space, whose profile is `icc`; read from its folder."""
        try:
            return np.asarray(np.load(self.folder / SMALL), np.uint8)
        except FileNotFoundError as error:
            raise AuthfaceError(PHOTO_DELETED) from error

    @property
    def fit(self) -> list[FoundFace]:
        """The faces that can be restored."""
        return [face for face in self.faces if not face.reason]

    def face_at(self, x: float, y: float) -> int | None:
        """Index of the smallest restorable face whose box holds a point of `small`."""
        hit = [face for face in self.fit if _holds(face.box, x / self.scale, y / self.scale)]
        return min(hit, key=lambda face: face.box[2] - face.box[0]).index if hit else None


@dataclass(frozen=True)
class PageResult:
    """A restored photo on the page: files to show and to download, a sentence, and HTML for each face."""

    before: Path
    after: Path
    changes: Path
    result: Path
    text: str
    cards: Markup


@dataclass
class Workspace:
    """The queue in front of the model and the folder of waiting photos; the caller deletes `root`."""

    queue: RestoreQueue
    root: Path
    _owners: dict[Place, tuple[str, Path]] = field(default_factory=dict)
    """Tab and folder of the photos that wait or are being restored."""

    @property
    def restorer(self) -> Restorer:
        """One of the queue's restorers, for its settings."""
        return self.queue.restorer

    def open(self, file: Path, tab: str = "", waits: Waits | None = None) -> UploadedPhoto:
        """A new photo with its faces. Raises ImageError for one that cannot be used or is too large, which is deleted.

        Also raises QueueFull, and QueueStopped if its tab is closed. `waits` is called with the number of photos ahead.
        """
        upload = SentPhoto.take(file, self.root)

        def look(restorer: Restorer) -> UploadedPhoto:
            picture = open_picture(upload.own, self.queue.limits.pixels)
            faces = tuple(replace(face, crop=None) for face in restorer.find(picture))
            small = _fitted(picture.photo.rgb)
            np.save(upload.folder / SMALL, small)
            height, width = picture.photo.rgb.shape[:2]
            return UploadedPhoto(upload, tab, width, height, small.shape[1] / width, picture.photo.icc, faces)

        try:
            with self._place(tab, upload.folder) as place:
                return place.result(place.submit(look), waits)
        except BaseException:
            upload.delete()
            raise

    @contextmanager
    def _place(self, tab: str, folder: Path) -> Iterator[Place]:
        """A place in the queue that is released with its tab or its photo."""
        with self.queue.enter() as place:
            self._owners[place] = tab, folder
            try:
                yield place
            finally:
                del self._owners[place]

    def mark(
        self, upload: UploadedPhoto, corner: tuple[int, int], other: tuple[int, int], waits: Waits | None = None
    ) -> UploadedPhoto:
        """The photo with a face in the box between two points of `small`. Raises UsageError for too small a box."""
        low = [min(pair) / upload.scale for pair in zip(corner, other, strict=True)]
        high = [max(pair) / upload.scale for pair in zip(corner, other, strict=True)]
        least = self.restorer.settings.min_face
        if max(high[0] - low[0], high[1] - low[1]) < max(least, 1) or min(high[0] - low[0], high[1] - low[1]) < 1:
            raise UsageError(f"a face of less than {least:g} px: click two opposite corners of the box around it")
        marked: tuple[Box, ...] = (*upload.marked, (low[0], low[1], high[0], high[1]))

        def look(restorer: Restorer) -> tuple[FoundFace, ...]:
            faces = restorer.find(open_picture(upload.file, self.queue.limits.pixels), marked=marked)
            return tuple(replace(face, crop=None) for face in faces)

        with self._place(upload.tab, upload.folder) as place:
            faces = place.result(place.submit(look), waits)
        return replace(upload, faces=faces, marked=marked)

    def with_boxes(self, upload: UploadedPhoto, chosen: Collection[int]) -> Path:
        """The photo with a numbered box around each face."""
        return _write(upload.folder, "faces", _boxes(upload, set(chosen)), upload.icc)

    def restore(
        self,
        upload: UploadedPhoto,
        chosen: Collection[int],
        *,
        preset: str,
        fidelity: float,
        upscale: int,
        min_identity: float,
        min_parts: float = 0,
        grain: float = 0,
        progress: Progress | None = None,
        waits: Waits | None = None,
    ) -> PageResult:
        """The photo with the chosen faces restored. Raises as `Restorer.restore` does, QueueFull, QueueStopped.

        `waits` is called with the number of photos ahead, `progress` with the finished steps.
        """
        settings = self.restorer.settings
        guarded = {"min_identity": min_identity, "min_parts": min_parts} if settings.guard else {}
        changed = {"preset": preset, "fidelity": fidelity, "upscale": upscale, "grain": grain, **guarded}

        def save(made: Restored) -> PageResult:
            small = upload.small()
            name = f"{upload.file.stem[:100] or 'photo'}.restored{made.ending}"
            return PageResult(
                _write(upload.folder, "before", small, upload.icc),
                _write(upload.folder, "after", _fitted(made.image, small.shape[1::-1]), upload.icc),
                _write(upload.folder, "changes", made.change_map()),
                made.save(upload.folder / name),
                result_text(made),
                face_cards(made.faces, settings.identity),
            )

        with self._place(upload.tab, upload.folder) as place:
            work = place.restore(upload.file, changed, save, only=chosen, marked=upload.marked, progress=progress)
            return place.result(work, waits)

    def stop(self, upload: UploadedPhoto | None) -> None:
        """Cancel the work on a photo at its next step."""
        if upload is not None:
            for place, (_, folder) in list(self._owners.items()):
                if folder == upload.folder:
                    place.stop()

    def leave(self, tab: str) -> None:
        """Cancel all work of a tab that was closed or lost its connection. Its photo stays for its hour."""
        for place, (owner, _) in list(self._owners.items()):
            if owner == tab:
                place.stop()

    def forget(self, upload: UploadedPhoto | None) -> None:
        """Delete a photo's files, including the uploaded one, and cancel the work on it."""
        if upload is not None:
            self.stop(upload)
            upload.upload.delete()


def waiting_text(ahead: int) -> str:
    """The state of a waiting photo, in a sentence."""
    return "Waiting: " + ("1 photo is" if ahead == 1 else f"{ahead} photos are") + " before yours"


def faces_text(upload: UploadedPhoto, settings: RestoreSettings) -> str:
    """Size and number of faces of a photo, in a sentence."""
    size = f"{upload.width} x {upload.height} px"
    if not upload.faces:
        none = no_face_text(upload.width, upload.height, settings.min_face)
        return f"{size}: {none}. A larger scan may help; faces turned far away or covered are not seen."
    fit, other = len(upload.fit), len(upload.faces) - len(upload.fit)
    left = f", {other} more too small or unsure" if other else ""
    return f"{size}: {_faces(fit)} found{left}. Click a face to leave it out or take it in."


def face_choices(upload: UploadedPhoto) -> list[tuple[str, int]]:
    """The restorable faces as choices: a name for people, and the index."""
    return [(f"{face.index + 1} · {round(face.box[3] - face.box[1])} px high", face.index) for face in upload.fit]


def result_text(made: Restored) -> str:
    """The result, in a sentence."""
    height, width = made.image.shape[:2]
    kept = sum(face.reason == "identity" for face in made.faces)
    left = f"; {kept} left as in the photo, since every attempt changed the person too much" if kept else ""
    return f"{_faces(made.restored)} restored, {width} x {height} px{left}."


def _faces(count: int) -> str:
    return "1 face" if count == 1 else f"{count} faces"


def _holds(box: tuple[float, float, float, float], x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _fitted(rgb: NDArray[np.uint8], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The picture at a size (width, height), or at most `PREVIEW_SIDE` px."""
    height, width = rgb.shape[:2]
    scale = min(1.0, PREVIEW_SIDE / max(height, width))
    size = size or (max(1, round(width * scale)), max(1, round(height * scale)))
    return rgb if size == (width, height) else np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _boxes(upload: UploadedPhoto, chosen: set[int]) -> NDArray[np.uint8]:
    picture = upload.small()
    thick = max(2, round(max(picture.shape[:2]) / 350))
    for face in reversed(upload.faces):
        colour = UNFIT if face.reason else CHOSEN if face.index in chosen else OTHER
        x0, y0, x1, y1 = (round(value * upload.scale) for value in face.box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), thick + 2, cv2.LINE_AA)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
        if not face.reason:
            _tag(picture, str(face.index + 1), (x0, y0), colour, thick)
    return picture


def _tag(picture: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: tuple[int, ...], thick: int) -> None:
    """Draw a number on a patch of the box's colour in its upper left corner."""
    size = 0.28 * thick
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    x, y = max(0, corner[0]), max(0, corner[1])
    pad = 2 * thick
    cv2.rectangle(picture, (x, y), (x + width + 2 * pad, y + height + 2 * pad), colour, -1)
    dark = (20, 20, 20) if sum(colour) > 500 else (255, 255, 255)
    cv2.putText(
        picture,
        text,
        (x + pad, y + pad + height),
        cv2.FONT_HERSHEY_SIMPLEX,
        size,
        dark,
        max(1, thick // 2),
        cv2.LINE_AA,
    )


def _write(folder: Path, name: str, rgb: NDArray[np.uint8], icc: bytes = b"") -> Path:
    """Write a JPEG for the page under a new name, so that no browser shows an older one."""
    with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".jpg", dir=folder, delete=False) as file:
        profile = {"icc_profile": icc} if icc[16:20] == b"RGB " else {}
        Image.fromarray(rgb).save(file, "JPEG", quality=JPEG_QUALITY, **profile)
    return Path(file.name)


def model_line(restorer: Restorer) -> str:
    """The model and its device, in a sentence."""
    model = restorer.model
    if model == IDENTITY:
        return (
            "Trial mode: no model is loaded, so faces are found but stay as they are. Start again with --model FOLDER."
        )
    return f"Model {one_line(Path(model).name if Path(model).exists() else model, 60)} on {restorer.device_name}."
