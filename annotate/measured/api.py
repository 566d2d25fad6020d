"""The measured annotator for programs: the tags of one aligned face, given its pixels alone."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from authface.annotate.measured.tagger import measure, tags
from authface.annotate.settings import MeasuredSettings
from authface.errors import ImageError
from authface.faces.detector import RetinaFace
from authface.faces.landmarks import Dlib68
from authface.records import Tag


class Tagger:
    """Finds the face of an image and measures its tags, by the thresholds of `annotate tags --with measured`.

    The networks are loaded at the first image. `min_score` 0..1 is the least confidence of the detector.
    """

    def __init__(self, limits: MeasuredSettings | None = None, min_score: float = 0.5) -> None:
        self.limits = limits or MeasuredSettings()
        self.min_score = min_score

    def __call__(self, rgb: NDArray[np.uint8]) -> tuple[Tag, ...]:
        """The tags of an aligned (s, s, 3) face, in the vocabulary's order. Raises ImageError (`no_face`)."""
        detector, landmarks = self._networks
        faces = detector.detect(rgb)
        if not faces:
            raise ImageError("no_face", f"no face of a score over {self.min_score} in it")
        return tags(measure(rgb, landmarks.landmarks(rgb, faces[0])), self.limits)

    @cached_property
    def _networks(self) -> tuple[RetinaFace, Dlib68]:
        return RetinaFace(self.min_score), Dlib68()
