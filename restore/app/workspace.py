"""What the web page does with a photo: find its faces, restore the chosen ones, show what became of each.

No web framework is used here; the model is behind the queue that the HTTP service has, too. Each photo has a folder of
its own, which goes with it.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from authface.errors import UsageError, one_line
from authface.faces.identity import usual_products
from authface.imaging.decode import encode_jpeg
from authface.records import Box
from authface.restore.api import FoundFace, Progress, Restorer
from authface.restore.finder import none_found
from authface.restore.model.restorer import IDENTITY
from authface.restore.picture import open_picture
from authface.restore.queue import Place, QueueStopped, RestoreQueue
from authface.restore.result import Restored
from authface.restore.settings import RestoreSettings
from authface.restore.types import FaceResult

PREVIEW_SIDE = 1600
"""Longer side of the pictures on the page, pixels; the download has all of them."""
JPEG_QUALITY = 90
CARD_SIDE = 192
"""Side of a face, pixels."""
REASONS = {
    "too_small": "too small to restore",
    "low_score": "perhaps no face",
    "not_chosen": "not chosen",
    "identity": "every attempt changed the person too much, so the photo was kept",
}
"""Why a face stays as it was, in words for people; `FaceResult.reason` is the key."""
CHOSEN, OTHER, UNFIT = (38, 166, 122), (255, 255, 255), (150, 150, 150)
"""Colours of the boxes: to be restored, left out, too small or unsure."""


@dataclass(frozen=True)
class UploadedPhoto:
    """A photo on the page."""

    file: Path
    """As it was uploaded."""
    folder: Path
    width: int
    height: int
    small: NDArray[np.uint8]
    """(h, w, 3) for the page, in the photo's own colour space, whose profile is `icc`."""
    icc: bytes
    faces: tuple[FoundFace, ...]
    marked: tuple[Box, ...] = ()
    """Boxes that a person drew around faces that were missed, pixels of the photo."""

    @property
    def fit(self) -> list[FoundFace]:
        """The faces that can be restored."""
        return [face for face in self.faces if face.crop is not None]

    @property
    def scale(self) -> float:
        """Pixels of `small` per pixel of the photo."""
        return float(self.small.shape[1]) / self.width

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
    """The queue in front of the model and the folder where photos wait; `root` is emptied by whoever made it."""

    queue: RestoreQueue
    root: Path
    _places: dict[Path, Place] = field(default_factory=dict)
    """By the folder of the photo that is worked on."""

    @property
    def restorer(self) -> Restorer:
        """A restorer of the queue's, for its settings."""
        return self.queue.restorer

    def open(self, file: Path) -> UploadedPhoto:
        """A new photo with its faces. Raises ImageError for one that cannot be used, or is too large."""
        with self.queue.enter() as place:
            picture = open_picture(file, self.queue.limits.pixels)
            faces = place.submit(lambda restorer: restorer.find(picture)).result()
        folder = Path(tempfile.mkdtemp(prefix="photo-", dir=self.root))
        height, width = picture.photo.rgb.shape[:2]
        return UploadedPhoto(file, folder, width, height, _fitted(picture.photo.rgb), picture.photo.icc, faces)

    def mark(self, upload: UploadedPhoto, corner: tuple[int, int], other: tuple[int, int]) -> UploadedPhoto:
        """The photo with a face in the box between two points of `small`. Raises UsageError for too small a box."""
        low = [min(pair) / upload.scale for pair in zip(corner, other, strict=True)]
        high = [max(pair) / upload.scale for pair in zip(corner, other, strict=True)]
        least = self.restorer.settings.min_face
        if max(high[0] - low[0], high[1] - low[1]) < max(least, 1) or min(high[0] - low[0], high[1] - low[1]) < 1:
            raise UsageError(f"a face of less than {least:g} px: click two opposite corners of the box around it")
        marked: tuple[Box, ...] = (*upload.marked, (low[0], low[1], high[0], high[1]))
        with self.queue.enter() as place:
            picture = open_picture(upload.file, self.queue.limits.pixels)
            faces = place.submit(lambda restorer: restorer.find(picture, marked=marked)).result()
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
        grain: float = 0,
        progress: Progress | None = None,
    ) -> PageResult:
        """The photo with the chosen faces restored. Raises as `Restorer.restore` does, QueueFull, QueueStopped."""
        settings = self.restorer.settings
        guarded = {"min_identity": min_identity} if settings.guard else {}
        changed = {"preset": preset, "fidelity": fidelity, "upscale": upscale, "grain": grain, **guarded}

        def save(made: Restored) -> tuple[Restored, Path]:
            name = f"{upload.file.stem[:100] or 'photo'}.restored{made.ending}"
            return made, made.save(upload.folder / name)

        with self.queue.enter() as place:
            self._places[upload.folder] = place
            future = place.restore(upload.file, changed, save, only=chosen, marked=upload.marked, progress=progress)
            try:
                made, result = future.result()
            except CancelledError as error:
                raise QueueStopped("stopped before it began: nothing was changed") from error
            finally:
                self._places.pop(upload.folder, None)
        return PageResult(
            _write(upload.folder, "before", upload.small, upload.icc),
            _write(upload.folder, "after", _fitted(made.image, upload.small.shape[1::-1]), upload.icc),
            _write(upload.folder, "changes", made.change_map()),
            result,
            result_text(made),
            face_cards(made.faces, settings.identity),
        )

    def stop(self, upload: UploadedPhoto | None) -> None:
        """End the work on a photo at its next step."""
        if upload is not None and (place := self._places.get(upload.folder)) is not None:
            place.stop()

    def forget(self, upload: UploadedPhoto | None) -> None:
        """Delete a photo's files, the uploaded one too."""
        if upload is not None:
            shutil.rmtree(upload.folder, ignore_errors=True)
            upload.file.unlink(missing_ok=True)


def found_text(upload: UploadedPhoto, settings: RestoreSettings) -> str:
    """Size and number of faces of a photo, in a sentence."""
    size = f"{upload.width} x {upload.height} px"
    if not upload.faces:
        none = none_found(upload.width, upload.height, settings)
        return f"{size}: {none}. A larger scan may help; faces turned far away or covered are not seen."
    fit, other = len(upload.fit), len(upload.faces) - len(upload.fit)
    left = f", {other} more too small or unsure" if other else ""
    return f"{size}: {_faces(fit)} found{left}. Click a face to leave it out or take it in."


def face_choices(upload: UploadedPhoto) -> list[tuple[str, int]]:
    """The restorable faces as choices: a name for people, and the index."""
    return [(f"{face.index + 1} · {round(face.box[3] - face.box[1])} px high", face.index) for face in upload.fit]


def result_text(made: Restored) -> str:
    """What was done, in a sentence."""
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
    picture = np.ascontiguousarray(upload.small.copy())
    thick = max(2, round(max(picture.shape[:2]) / 350))
    for face in reversed(upload.faces):
        colour = UNFIT if face.crop is None else CHOSEN if face.index in chosen else OTHER
        x0, y0, x1, y1 = (round(value * upload.scale) for value in face.box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), (0, 0, 0), thick + 2, cv2.LINE_AA)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
        if face.crop is not None:
            _tag(picture, str(face.index + 1), (x0, y0), colour, thick)
    return picture


def _tag(picture: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: tuple[int, ...], thick: int) -> None:
    """A number on a patch of the box's colour in its upper left corner."""
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
    """A JPEG for the page under a new name, so that no browser shows an older one."""
    with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".jpg", dir=folder, delete=False) as file:
        profile = {"icc_profile": icc} if icc[16:20] == b"RGB " else {}
        Image.fromarray(rgb).save(file, "JPEG", quality=JPEG_QUALITY, **profile)
    return Path(file.name)


def model_line(restorer: Restorer) -> str:
    """Which model works, where, and that nothing leaves."""
    model = restorer.model
    if model == IDENTITY:
        return (
            "Trial mode: no model is loaded, so faces are found but stay as they are. Start again with --model FOLDER."
        )
    return f"Model {one_line(Path(model).name if Path(model).exists() else model, 60)} on {restorer.device_name}."


def face_cards(faces: Sequence[FaceResult], recogniser: str) -> Markup:
    """HTML of the faces that were tried: before, after, and how far they are apart; then why others stay."""
    tried = [face for face in faces if face.before is not None and face.after is not None]
    html = Markup("").join(_card(face, recogniser) for face in tried)
    if any(face.identity is not None for face in tried):
        scale = f"Likeness, as {recogniser} sees it: 1 is the face in the photo, strangers have about "
        html += Markup('<p class="left">{}{:.2f}.</p>').format(scale, usual_products(recogniser)[0])
    untouched = Counter(face.reason for face in faces if face.before is None)
    if untouched:
        reasons = ", ".join(f"{count} {REASONS.get(reason, reason)}" for reason, count in untouched.items())
        html += Markup('<p class="left">Left as in the photo: {}</p>').format(reasons)
    return Markup('<div class="faces">{}</div>').format(html)


def _card(face: FaceResult, recogniser: str) -> Markup:
    assert face.before is not None and face.after is not None
    note = REASONS.get(face.reason, face.reason) if face.reason else ""
    return Markup(
        '<figure><div><img src="{}" alt="face {number} before"><img src="{}" alt="face {number} after"></div>'
        "<figcaption><b>Face {number}</b>{}<dl>{}</dl></figcaption></figure>"
    ).format(
        _inline(face.before),
        _inline(face.after),
        Markup('<p class="kept">{}</p>').format(note) if note else "",
        Markup("").join(
            Markup('<div title="{}"><dt>{}</dt><dd>{}</dd></div>').format(meaning, name, value)
            for name, value, meaning in _figures(face, recogniser)
        ),
        number=face.index + 1,
    )


def _figures(face: FaceResult, recogniser: str) -> list[tuple[str, Markup | str, str]]:
    """Name, value and meaning of what was measured of a face."""
    rows: list[tuple[str, Markup | str, str]] = []
    if face.identity is not None:
        strangers = usual_products(recogniser)[0]
        meter = Markup('{:.3f} <meter min="{:.3f}" max="1" value="{:.3f}"></meter>')
        rows.append(("Likeness", meter.format(face.identity, strangers, face.identity), "More is nearer to the photo."))
    elif face.drift is not None:
        rows.append(("Likeness", "not measurable", "The recogniser does not see a face here."))
    if face.landmark_shift is not None:
        rows.append(("Features moved", f"{face.landmark_shift:.1f} %", "Of the distance of the eyes, on average."))
    if face.colour_shift is not None:
        rows.append(("Colours moved", f"{face.colour_shift:.1f}", "CIEDE2000: 1 is just visible side by side."))
    if face.tries > 1:
        rows.append(("Attempts", str(face.tries), "Tried again closer to the photo, since the likeness was too low."))
    return rows


def _inline(crop: NDArray[np.uint8]) -> str:
    method = cv2.INTER_AREA if len(crop) > CARD_SIDE else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(crop, (CARD_SIDE, CARD_SIDE), interpolation=method), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, quality=JPEG_QUALITY)).decode()
