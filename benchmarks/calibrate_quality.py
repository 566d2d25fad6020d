"""How well each measure of `curate filter` orders faces that were degraded by known amounts.

    python benchmarks/calibrate_quality.py FOLDER [--faces 300] [--every N]

FOLDER holds portraits; the sharpest of one in N are taken as clean. For each measure and degradation: the share of
pairs (less degraded, more degraded) of one face in the right order, the share of pairs of a clean face and a degraded
one of any face, medians by level, and what the default limit refuses of the clean faces and at each level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measure import LIMITS
from authface.curate.filter.measures import quality
from authface.curate.filter.measures.quality import piqe
from authface.curate.settings import FilterSettings
from authface.errors import ImageError
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.records import Points5

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A clean face in its photo."""

    rgb: Rgb
    points: Points5
    scale: float


def rounded(values: NDArray[np.floating]) -> Rgb:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def blur(face: Sample, sigma: float) -> Rgb:
    """Sigma in pixels of the region."""
    return np.asarray(cv2.GaussianBlur(face.rgb, (0, 0), sigma / face.scale))


def grain(face: Sample, sigma: float) -> Rgb:
    rng = np.random.default_rng(7)
    return rounded(face.rgb + rng.normal(0, sigma, face.rgb.shape[:2])[..., None])


def salt_and_pepper(face: Sample, share: float) -> Rgb:
    drawn = np.random.default_rng(7).random(face.rgb.shape[:2])
    out = face.rgb.copy()
    out[drawn < share / 2] = 0
    out[drawn > 1 - share / 2] = 255
    return out


def jpeg(face: Sample, quality_level: float) -> Rgb:
    """The picture moved by some pixels, so that its own grid and the new one differ, then compressed."""
    moved = cv2.warpAffine(face.rgb, np.array([[1, 0, 3], [0, 1, 5]], np.float32), face.rgb.shape[1::-1], borderMode=2)
    seen: Any = cv2.imdecode(cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, int(quality_level)])[1], 1)
    return np.asarray(np.roll(seen, (-5, -3), axis=(0, 1)))


def bilateral(face: Sample, strength: float) -> Rgb:
    return np.asarray(cv2.bilateralFilter(face.rgb, 9, strength, 2.5 / face.scale))


def median(face: Sample, size: float) -> Rgb:
    return np.asarray(cv2.medianBlur(face.rgb, int(size)))


def beauty(face: Sample, share: float) -> Rgb:
    """Skin smoothed as phones do, eyes and mouth kept; `share` of it is mixed in."""
    sigma = 4 / face.scale
    soft = cv2.bilateralFilter(face.rgb, -1, 45, sigma).astype(np.float32)
    kept = np.zeros(face.rgb.shape[:2], np.float32)
    points = np.reshape(face.points, (5, 2))
    for x, y in (points[0], points[1], (points[3] + points[4]) / 2):
        cv2.circle(kept, (round(x), round(y)), round(18 / face.scale), 1.0, -1)
    weight = share * (1 - cv2.GaussianBlur(kept, (0, 0), 4 / face.scale))[..., None]
    return rounded(face.rgb + weight * (soft - face.rgb))


def gain(face: Sample, factor: float) -> Rgb:
    """Light times `factor`, clipped: linear light by sRGB's exponent."""
    return rounded(255 * np.clip((face.rgb / 255.0) ** 2.2 * factor, 0, 1) ** (1 / 2.2))


def crushed(face: Sample, black: float) -> Rgb:
    """Contrast raised about the middle until `black` and its counterpart clip."""
    return rounded((face.rgb - black) * (255 / (255 - 2 * black)))


def enlarged(face: Sample, factor: float, how: int = cv2.INTER_CUBIC) -> Rgb:
    height, width = face.rgb.shape[:2]
    small = cv2.resize(face.rgb, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=how))


def enlarged_jpeg(face: Sample, factor: float) -> Rgb:
    """Enlarged with Lanczos's filter, then saved."""
    grown = enlarged(face, factor, cv2.INTER_LANCZOS4)
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", grown, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], 1))


@dataclass(frozen=True)
class Trial:
    """A measure, a degradation, its levels from mild to strong, and whether the measure rises with it."""

    measure: str
    make: Callable[[Sample, float], Rgb]
    levels: tuple[float, ...]
    rises: bool = True


TRIALS = (
    Trial("sharpness", blur, (0.7, 1.0, 1.5, 2.2, 3.2), rises=False),
    Trial("noise", grain, (2, 4, 8, 16)),
    Trial("pepper", salt_and_pepper, (0.001, 0.003, 0.01, 0.03, 0.1)),
    Trial("blockiness", jpeg, (60, 40, 25, 15, 8)),
    Trial("smoothing", bilateral, (10, 20, 40, 80)),
    Trial("smoothing", median, (3, 5, 7, 9)),
    Trial("smoothing", beauty, (0.25, 0.5, 0.75, 1.0)),
    Trial("exposure", gain, (0.6, 0.35, 0.2, 0.1, 0.05), rises=False),
    Trial("exposure", gain, (1.4, 2, 3, 5)),
    Trial("clipped", gain, (2, 3, 5, 8)),
    Trial("clipped", crushed, (30, 50, 70, 90)),
    Trial("resolution", enlarged, (1.5, 2, 3, 4), rises=False),
    Trial("resolution", enlarged_jpeg, (1.5, 2, 3, 4), rises=False),
    Trial("piqe", blur, (0.7, 1.0, 1.5, 2.2, 3.2)),
    Trial("piqe", grain, (4, 8, 16, 32)),
    Trial("piqe", jpeg, (40, 25, 15, 8)),
)

MEASURES: dict[str, Callable[[quality.FaceRegion], float]] = {
    "sharpness": quality.sharpness,
    "noise": quality.noise,
    "pepper": quality.pepper,
    "smoothing": quality.smoothing,
    "blockiness": quality.blockiness,
    "exposure": lambda region: quality.exposure(region)[0],
    "clipped": lambda region: quality.exposure(region)[1],
    "resolution": quality.resolution,
    "piqe": lambda region: piqe(region.luma),
}


def samples(paths: Iterable[Path], count: int) -> list[Sample]:
    """The sharpest faces of the photos that hold a single sure one, at their own size or smaller in the region."""
    detector = RetinaFace(0.98)
    found: list[tuple[float, Sample]] = []
    for path in paths:
        try:
            rgb = images.read(path).rgb
        except ImageError:
            continue
        faces = detector.detect(rgb)
        if len(faces) == 1:
            region = quality.face_region(rgb, faces[0].points5)
            found.append((quality.sharpness(region), Sample(rgb, faces[0].points5, region.scale)))
    found.sort(key=lambda pair: -pair[0])
    return [sample for _, sample in found[:count]]


def values(trial: Trial, faces: list[Sample]) -> NDArray[np.float64]:
    """(faces, 1 + levels) the measure of each face, clean and at each level; rising where it should."""
    take = MEASURES[trial.measure]
    rows = []
    for face in faces:
        pictures = [face.rgb, *(trial.make(face, level) for level in trial.levels)]
        rows.append([take(quality.face_region(picture, face.points)) for picture in pictures])
    return np.array(rows)


def told(trial: Trial, table: NDArray[np.float64]) -> str:
    """One line of figures and one of medians and refusals."""
    ordered = table if trial.rises else -table
    levels = range(ordered.shape[1])
    same = [(ordered[:, a] < ordered[:, b]).mean() for a in levels for b in levels if a < b]
    cross = [(ordered[:, :1] < ordered[:, at]).mean() for at in levels[1:]]
    refused = []
    for at in levels:
        broken = np.zeros(len(table), bool)
        for limit in LIMITS:
            if limit.measure == trial.measure:
                bound = getattr(FilterSettings(), limit.setting)
                broken |= table[:, at] < bound if limit.least else table[:, at] > bound
        refused.append(broken.mean())
    name = f"{trial.measure} by {trial.make.__name__} {', '.join(f'{level:g}' for level in trial.levels)}"
    return (
        f"{name}\n  same face {np.mean(same):.1%} (worst pair of levels {min(same):.1%}), clean against any face's "
        f"degraded {np.mean(cross):.1%} (by level {', '.join(f'{share:.1%}' for share in cross)})\n"
        f"  medians {', '.join(f'{value:.3g}' for value in np.median(table, axis=0))}; refused by the default limit: "
        f"clean {refused[0]:.1%}, then {', '.join(f'{share:.0%}' for share in refused[1:])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faces", type=int, default=300)
    parser.add_argument("--every", type=int, default=5, help="take one photo in so many")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    faces = samples(sorted(asked.folder.glob("*.jpg"))[:: asked.every], asked.faces)
    sys.stdout.write(
        f"{len(faces)} clean faces, {np.median([face.scale for face in faces]):.2f} region px a photo px\n"
    )
    for trial in TRIALS:
        sys.stdout.write(told(trial, values(trial, faces)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
