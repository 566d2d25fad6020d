"""Detectors by name."""

from __future__ import annotations

from authface.errors import UsageError, one_line
from authface.faces import detector, resnet
from authface.faces.detector import Detector, RetinaFace
from authface.faces.resnet import ResNetRetinaFace

NAMES = ("retinaface", "retinaface-resnet50")
"""`retinaface` has a MobileNet-0.25 body and is built in; the other's weights are downloaded once."""


def make_detector(name: str, min_score: float) -> Detector:
    """The detector called `name`. Raises UsageError for another name, AuthfaceError where its weights are missing."""
    if name == "retinaface":
        return RetinaFace(min_score)
    if name == "retinaface-resnet50":
        return ResNetRetinaFace(min_score)
    raise _unknown(name)


def weights_sha256(name: str) -> str:
    """Hex sha256 of a detector's weights; raises as `make_detector`."""
    if name == "retinaface":
        return detector.weights_sha256()
    if name == "retinaface-resnet50":
        return resnet.weights_sha256()
    raise _unknown(name)


def _unknown(name: str) -> UsageError:
    return UsageError(f"no detector {one_line(name)}: there are {', '.join(NAMES)}")
