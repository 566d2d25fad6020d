"""What software did to the pixels: enlarged them, sharpened them beyond what a lens draws.

Both are judged of the face's `traces`: logistic regressions, whose coefficients ``benchmarks/fit_processing.py`` fits
to portraits of known truth. 0.5 lies beyond what the unharmed portraits of 98 in 100 persons have, so that little
of a clean set is refused: it is no probability for a set of which half is harmed. ``benchmarks/enlargements.py`` counts
on other portraits what the limits find. A lack of detail, whatever its cause, is
`authface.curate.filter.measures.artefacts.resolution`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import cv2
import numpy as np

from authface.curate.filter.measures.quality import EYE_DISTANCE, FaceRegion
from authface.curate.filter.measures.traces import NAMES, Values, traces

FIRST, SECOND = NAMES.index("repeat1"), NAMES.index("repeat2")
SECOND_WEIGHT = 0.7
"""Of repeating second differences (bilinear and bicubic kernels) beside repeating first ones (repeated pixels)."""
REPETITION_HALF = 0.14
"""Repetition, amplitude in logarithms, at which `pixelation` is 0.5: hardly a photo that was never enlarged has it."""
CROP_EYES = 128.0
"""Distance of the eyes, pixels, in a crop of 512: larger faces are looked at in this size too."""


@dataclass(frozen=True)
class FaceTraces:
    """`traces` of a face; None where it is too small or has no edges."""

    native: Values | None
    """In the photo's own pixels."""
    crop: Values | None
    """In the size of a crop, of a face that is larger."""


@dataclass(frozen=True)
class _Odds:
    """A logistic regression of the numbers of `traces`."""

    intercept: float
    coefficients: tuple[float, ...]

    def probability(self, found: Values | None) -> float:
        if found is None:
            return 0.0
        return 1 / (1 + exp(-min(max(self.intercept + float(np.dot(found, self.coefficients)), -30.0), 30.0)))


ENLARGED = _Odds(
    6.04,
    (
        -0.041, 0.022, -0.452, -0.329, -0.267, 0.337, 0.317, 0.597, 4.995, -12.691, -1.085, 15.868, 0.345, -4.032,
        -19.417, -1.256, -1.162, -0.408, 0.177,
    ),
)  # fmt: skip
"""Of an enlargement by a smooth kernel, 1.5 times or more; coefficients in the order of `NAMES`."""
SHARPENED = _Odds(
    -19.47,
    (
        0.638, 0.199, 0.55, 0.326, 0.141, -0.186, 0.38, -2.23, -6.207, -2.273, 2.791, 4.218, -0.024, -20.663, 8.078,
        8.012, 3.177, -2.631, 0.427,
    ),
)  # fmt: skip
"""Of unsharp masks and of the sharpening of phones."""
SHARPENED_ENLARGEMENT = _Odds(
    -0.00,
    (
        -0.462, -0.45, 0.146, -0.085, 0.545, 1.069, 0.537, 8.701, 1.464, -14.759, 5.339, 15.207, 0.525, -20.794,
        -30.414, 5.373, 6.55, -0.716, 0.614,
    ),
)  # fmt: skip
"""Of an enlargement that was sharpened."""


def face_traces(region: FaceRegion) -> FaceTraces:
    """What `pixelation` and `sharpening` judge."""
    shrink = CROP_EYES / EYE_DISTANCE * region.scale
    crop = None
    if shrink < 1 and min(region.native.shape) > 0:
        small = cv2.resize(region.native, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        crop = traces(np.asarray(small, dtype=np.float32))
    return FaceTraces(traces(region.native), crop)


def pixelation(found: FaceTraces) -> float:
    """How surely the pixels were enlarged, into squares or by a smooth kernel, 0..1; 0 where nothing tells.

    The larger of two: how strongly rows and columns repeat, r / (r + `REPETITION_HALF`), as of squares; and the
    probability of an enlargement by a bilinear, bicubic or Lanczos kernel 1.5 times or more.
    """
    if found.native is None:
        return 0.0
    repeated = max(0.0, float(found.native[FIRST]), SECOND_WEIGHT * float(found.native[SECOND]))
    return max(repeated / (repeated + REPETITION_HALF), ENLARGED.probability(found.native))


def sharpening(found: FaceTraces) -> float:
    """How surely edges were sharpened beyond what a lens draws, 0..1; 0 where nothing tells.

    The larger of two: the probability of an unsharp mask or of a phone's sharpening, of a large face in the size of a
    crop too, and that of an enlargement which was sharpened.
    """
    masked = max(SHARPENED.probability(found.native), SHARPENED.probability(found.crop))
    return max(masked, SHARPENED_ENLARGEMENT.probability(found.native))
