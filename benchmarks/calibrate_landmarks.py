"""Fit the map from RetinaFace's detections to dlib's boxes and print what it buys: landmark error by kind of box.

    python benchmarks/calibrate_landmarks.py FOLDER [--every N]

FOLDER holds portraits. Fitted on the even-numbered faces, measured on the odd; the reference are the landmarks from
the boxes of dlib's own frontal detector. Prints the constants of authface/faces/landmarks.py and the quantiles of
`disagreement`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.faces.landmarks import Dlib68, disagreement, dlib_box, weights_file
from authface.imaging import decode as images

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One portrait with one face by both detectors."""

    path: Path
    detection: Detection
    hog: Boxes
    """(4,) dlib's box."""


def samples(paths: Iterable[Path], detector: RetinaFace) -> list[Sample]:
    hog: Any = dlib.get_frontal_face_detector()
    found = []
    for path in paths:
        try:
            rgb = images.read(path).rgb
        except ImageError:
            continue
        ours, theirs = detector.detect(rgb), hog(rgb, 1)
        if len(ours) == len(theirs) == 1:
            box = theirs[0]
            found.append(Sample(path, ours[0], np.array([box.left(), box.top(), box.right(), box.bottom()], float)))
    return found


def fit(chosen: list[Sample]) -> tuple[float, float, float]:
    """SIDE, CENTRE_ACROSS and CENTRE_DOWN: a median, and least squares over both coordinates of the centre."""
    boxes = np.array([s.detection.box for s in chosen])
    points = np.array([s.detection.points5 for s in chosen]).reshape(-1, 5, 2)
    hog = np.array([s.hog for s in chosen])
    side = float(np.median((hog[:, 2] - hog[:, 0]) / np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
    across = points[:, 1] - points[:, 0]
    down = (points[:, 3] + points[:, 4] - points[:, 0] - points[:, 1]) / 2
    terms = np.stack([np.stack([-across[:, 1], across[:, 0]], axis=1), down], axis=2).reshape(-1, 2)
    target = ((hog[:, :2] + hog[:, 2:]) / 2 - points.mean(axis=1)).reshape(-1)
    scale = np.repeat(hog[:, 2] - hog[:, 0], 2)
    turned, straight = np.linalg.lstsq(terms / scale[:, None], target / scale, rcond=None)[0]
    return side, float(turned), float(straight)


def variants(sample: Sample) -> dict[str, Boxes]:
    """The boxes to compare, by name."""
    box, hog = np.array(sample.detection.box), sample.hog
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    centre, side = (hog[:2] + hog[2:]) / 2, float(hog[2] - hog[0])
    even = 0.94 * float(np.sqrt(half.prod()))
    return {
        "RetinaFace's box as it is": box,
        "made square, 0.94 of its mean side": np.concatenate([middle - even, middle + even]),
        "this map": dlib_box(sample.detection),
        "dlib's box, 10 % larger": np.concatenate([centre - 0.55 * side, centre + 0.55 * side]),
    }


def errors(chosen: list[Sample]) -> dict[str, list[float]]:
    """Mean distance to the landmarks from dlib's own box, over that of the eyes, by kind of box."""
    predictor: Any = dlib.shape_predictor(str(weights_file()))
    table: dict[str, list[float]] = {}
    for sample in chosen:
        rgb = images.read(sample.path).rgb

        def points(box: Boxes, rgb: NDArray[np.uint8] = rgb) -> NDArray[np.float64]:
            shape = predictor(rgb, dlib.rectangle(*(int(v) for v in np.rint(box))))
            return np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float64)

        truth = points(sample.hog)
        eyes = float(np.hypot(*(truth[36:42].mean(axis=0) - truth[42:48].mean(axis=0))))
        for name, box in variants(sample).items():
            table.setdefault(name, []).append(float(np.hypot(*(points(box) - truth).T).mean()) / eyes)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=12, help="take one photo in so many")
    asked = parser.parse_args()
    found = samples(sorted(asked.folder.glob("*.jpg"))[:: asked.every], RetinaFace())
    say = sys.stdout.write
    say(f"{len(found)} portraits with one face by both detectors\n")
    say("SIDE {:.3f}, CENTRE_ACROSS {:.3f}, CENTRE_DOWN {:.3f}\n".format(*fit(found[::2])))
    for name, values in errors(found[1::2]).items():
        say(
            f"{name:36} median {np.median(values):.4f} mean {np.mean(values):.4f} p95 {np.quantile(values, 0.95):.4f}\n"
        )
    predictor = Dlib68()
    away = [disagreement(predictor.landmarks(images.read(s.path).rgb, s.detection), s.detection.points5) for s in found]
    quantiles = (0.5, 0.9, 0.95, 0.99, 0.995, 1.0)
    say("disagreement " + ", ".join(f"{q:.1%}: {np.quantile(away, q):.3f}" for q in quantiles) + "\n")


if __name__ == "__main__":
    main()
