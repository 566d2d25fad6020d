"""Types of a face and its photo during restoring; the log stores a `authface.store.restore_line.Line` per face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import Detection
from authface.faces.geometry import Aligned, Side
from authface.imaging.png import Pixels
from authface.records import Box
from authface.restore.guard import NAMES, FaceDrift, FaceParts

PlacedBy = Literal["dlib68", "retinaface5", "marked", "whole"]


@dataclass(frozen=True)
class FaceResult:
    """One face: found, then cropped, then restored; `index` 0 is the photo's largest."""

    index: int
    box: Box
    score: float
    reason: str = ""
    """Why it stays as it is: `too_small`, `low_score`, `not_chosen`, `identity`, `parts` or what is wrong with it;
    empty: it is restored."""
    detail: str = ""
    """The reason in numbers: value, limit and setting."""
    seed: int = 0
    placed_by: PlacedBy = "dlib68"
    """Origin of the points that placed the crop; `marked`: a person marked a missed face; `whole`: the photo is the
    crop."""
    aligned: Aligned | None = None
    """The crop as the model sees it, and its position in the photo; None if there is none."""
    in_crop: Detection | None = None
    """The detection in the crop's coordinates; None: the photo was taken for a crop."""
    grey: bool = False
    """The photo is grey, and so is the result."""
    after: NDArray[np.uint8] | None = None
    """The (size, size, 3) crop restored, with its colours fixed."""
    drift: FaceDrift | None = None
    """Distance of `after` from `before`; None if it was not measured."""
    fidelity: float | None = None
    """The fidelity of a retry; None: that of the settings."""
    suspect: tuple[str, ...] = ()
    """Which of `right_eye`, `left_eye`, `mouth` are too little like those of `before`, the worst first: to be looked
    at."""
    tries: int = 1
    mask: NDArray[np.float32] | None = None
    """(size, size) 0..1 mask of the face in `after`; None: all of it."""

    @property
    def status(self) -> Literal["restored", "skipped"]:
        """Whether it is restored, or stays as it is for a `reason`."""
        return "skipped" if self.reason else "restored"

    @property
    def quad(self) -> NDArray[np.float64] | None:
        """(4, 2) top-left, bottom-left, bottom-right, top-right corner of the crop in the photo."""
        return None if self.aligned is None else self.aligned.quad

    @property
    def upscaled(self) -> bool:
        """The face has fewer pixels in the photo than the model works on."""
        return self.aligned is not None and self.aligned.upscaled

    @property
    def before(self) -> NDArray[np.uint8] | None:
        """The (size, size, 3) crop as the model saw it; None without one."""
        return None if self.aligned is None or self.after is None else self.aligned.rgb

    @property
    def identity(self) -> float | None:
        """Likeness of `after` to `before`, -1..1; None: not measured."""
        return None if self.drift is None else self.drift.identity

    @property
    def landmark_shift(self) -> float | None:
        """Mean shift of its 68 points, percent of the eyes' distance; None: not measured."""
        return None if self.drift is None else self.drift.landmark_shift

    @property
    def colour_shift(self) -> float | None:
        """Mean CIEDE2000 of the coarse tones; None: not measured."""
        return None if self.drift is None else self.drift.colour_shift

    @property
    def parts(self) -> FaceParts | None:
        """Likeness of each eye and of the mouth to those of `before`, 0..1; None: not measured."""
        return None if self.drift is None else self.drift.parts

    def facts(self) -> dict[str, Any]:
        """All fields but pixels, rounded, by the field names of the log's lines."""
        return {
            "face": self.index,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "box": tuple(round(value, 2) for value in self.box),
            "score": round(self.score, 4),
            "seed": self.seed,
            "placed_by": self.placed_by if self.quad is not None else "",
            "upscaled": self.upscaled,
            "quad": None if self.quad is None else tuple(round(float(value), 3) for value in self.quad.ravel()),
            "identity": _rounded(self.identity, 4),
            **{name: _rounded(None if self.parts is None else getattr(self.parts, name), 3) for name in NAMES},
            "suspect": self.suspect,
            "landmark_shift": _rounded(self.landmark_shift, 2),
            "colour_shift": _rounded(self.colour_shift, 2),
            "fidelity": self.fidelity,
            "tries": self.tries,
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


@dataclass(frozen=True)
class PhotoResult:
    """The photo, enlarged by the scale, with its restored faces, and all faces that were found."""

    rgb: Pixels
    faces: tuple[FaceResult, ...]
    background: Pixels
    """The photo at the same size with the original faces."""

    @cached_property
    def changed(self) -> bool:
        """Whether any pixel of a restored face changed."""
        return self.restored > 0 and not np.array_equal(self.rgb, self.background)

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return sum(face.status == "restored" for face in self.faces)


class Finder(Protocol):
    """Finds the faces of a photo and crops those that are to be restored; `FaceFinder` or `whole_photo`."""

    def __call__(self, rgb: NDArray[np.uint8], side: Side, content: str, seed: int) -> list[FaceResult]:
        """The faces of an upright (h, w, 3) uint8 photo, their crops as large as `side` says; see `face_seed`."""
        ...
