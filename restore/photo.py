"""One photo: its faces restored and put back. Pixels in, pixels out; no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import Detection
from authface.faces.geometry import Aligned, resize_square
from authface.faces.paste import paste_all
from authface.imaging.bitdepth import Pixels
from authface.records import Box
from authface.restore.background import Upscaler, lanczos
from authface.restore.guard import Drift, Guard
from authface.restore.model.restorer import Restorer
from authface.restore.retries import Attempt, restore_faces
from authface.restore.settings import RestoreSettings

if TYPE_CHECKING:
    from authface.restore.finder import Finder

PlacedBy = Literal["dlib68", "retinaface5", "whole"]


@dataclass(frozen=True)
class FaceResult:
    """What became of one face; `index` 0 is the photo's largest."""

    index: int
    box: Box
    score: float
    status: Literal["restored", "skipped"]
    reason: str = ""
    """Why a face was skipped: `too_small`, `low_score`, `not_chosen`, `identity`, or what was wrong with it."""
    detail: str = ""
    """The reason in numbers: value, limit and setting."""
    seed: int = 0
    placed_by: PlacedBy = "dlib68"
    """Whose points placed the crop; `whole`: the photo is the crop."""
    upscaled: bool = False
    """The face has fewer pixels in the photo than the model works on."""
    quad: NDArray[np.float64] | None = None
    """(4, 2) top-left, bottom-left, bottom-right, top-right corner of the crop in the photo."""
    before: NDArray[np.uint8] | None = None
    after: NDArray[np.uint8] | None = None
    """The (size, size, 3) crop as the model saw it, and restored with its colours fixed."""
    drift: Drift | None = None
    """How far `after` is from `before`; None where it was not measured."""
    fidelity: float | None = None
    """The fidelity of a further try; None: the settings' own."""
    tries: int = 1

    @property
    def identity(self) -> float | None:
        """Likeness of `after` to `before`, -1..1; None: not measured."""
        return None if self.drift is None else self.drift.identity

    @property
    def landmark_shift(self) -> float | None:
        """How far its 68 points moved, percent of the eyes' distance; None: not measured."""
        return None if self.drift is None else self.drift.landmark_shift

    @property
    def colour_shift(self) -> float | None:
        """Mean CIEDE2000 of the coarse tones; None: not measured."""
        return None if self.drift is None else self.drift.colour_shift


@dataclass(frozen=True)
class PhotoResult:
    """The photo, larger by the scale, with its restored faces, and all faces that were found."""

    rgb: Pixels
    faces: tuple[FaceResult, ...]
    background: Pixels
    """The photo, as large, with the faces as they were."""

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return sum(face.status == "restored" for face in self.faces)


@dataclass(frozen=True)
class Found:
    """A face that is to be restored, cut out: `face` lacks only its result."""

    face: FaceResult
    aligned: Aligned
    seen: Detection | None = None
    """The detection in the crop's coordinates; None: the photo was taken for a crop."""
    grey: bool = False
    """The photo has no colour, so the result gets none."""


@dataclass(frozen=True)
class Search:
    """What was found in one photo: the faces to restore, and those that stay as they are with the reason."""

    found: tuple[Found, ...]
    skipped: tuple[FaceResult, ...] = ()


def square_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest square around an (h, w, 3) photo, which lies in its middle; its reflection fills the rest."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    border = cv2.BORDER_REFLECT if min(height, width) == 1 else cv2.BORDER_REFLECT_101
    square = cv2.copyMakeBorder(rgb, top, side - height - top, left, side - width - left, border)
    return np.asarray(square, np.uint8)


def _replace(rgb: Pixels, aligned: Aligned, restored: NDArray[np.uint8]) -> Pixels:
    """The restored crop at the photo's own size, shape and depth; an unchanged crop leaves the photo as it is."""
    if np.array_equal(restored, aligned.rgb):
        return rgb
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = restored if rgb.dtype == np.uint8 else restored.astype(np.uint16) * np.uint16(257)
    return resize_square(square, side)[top : top + height, left : left + width]


def restore_photo(
    rgb: NDArray[np.uint8],
    finder: Finder,
    restorer: Restorer,
    settings: RestoreSettings,
    content: str,
    seed: int = 0,
    guard: Guard | None = None,
    upscaler: Upscaler = lanczos,
) -> PhotoResult:
    """An upright (h, w, 3) uint8 photo with its faces restored.

    `content` is the hash of the photo's file, from which each face's noise is drawn (`face_seed`). A grey photo
    stays grey, pixels outside of the faces do not change. Raises ImageError where `rgb` is of another shape or type.
    """
    search = finder(rgb, restorer.side, content, seed)
    attempts = restore_faces(restorer, search.found, settings, guard)
    return finish(rgb, search, attempts, settings.upscale, upscaler)


def finish(
    rgb: Pixels, search: Search, attempts: Sequence[Attempt], scale: int = 1, upscaler: Upscaler = lanczos
) -> PhotoResult:
    """Put the restored crops into the (h, w, 3) photo of 8 or 16 bits, but those whose input stays.

    With a `scale` the photo is enlarged by `upscaler` and the crops are put into the larger one, from the model's own
    pixels.
    """
    out = background = upscaler(rgb, scale) if scale > 1 else rgb
    faces = list(search.skipped)
    pasted: list[tuple[Aligned, NDArray[np.uint8]]] = []
    masks: list[NDArray[np.float32] | None] = []
    for one, attempt in reversed(list(zip(search.found, attempts, strict=True))):
        face = replace(one.face, before=one.aligned.rgb, after=attempt.crop, drift=attempt.drift)
        face = replace(face, fidelity=attempt.fidelity, tries=attempt.tries)
        if attempt.refused:
            face = replace(face, status="skipped", reason="identity", detail=attempt.refused)
        elif one.face.placed_by == "whole":
            out = _replace(out, one.aligned, attempt.crop)
        else:
            pasted.append((one.aligned, attempt.crop))
            masks.append(attempt.mask)
        faces.append(face)
    faces.sort(key=lambda face: face.index)
    if pasted:
        out = paste_all(out, pasted, upscale=scale, masks=masks)
    return PhotoResult(out, tuple(faces), background)
