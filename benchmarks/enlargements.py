"""What the limits of `curate filter` find of enlargements, sharpening and smoothing whose truth is known.

    python benchmarks/enlargements.py FOLDER... [--faces 100] [--half report] [--restored 0]

FOLDER holds portraits, a person a photo. Originals: photos drawn from it of which the largest face passes the filter,
is large enough to be shrunk and shows no former pixels (`MOST_TRACE`, `LEAST_DETAIL`). The defaults were set on the
half `choose`, every other photo by name. Each original is made anew without harm (shrunk, sharpened as for the web,
soft, with grain, saved twice) and harmed: shrunk to a small photo and enlarged 1.3 to 6 times by four kernels,
sharpened by many radii, as a phone does it, smoothed as a face app does it; all at a face of 130 px or more, JPEG of
quality 60 to 95.
`--restored 40`: of so many, shrunk 3 and 5 times, also what the built-in model makes, as networks enlarge.

A line tells, of one harm: what each of the three limits finds, any of them with Wilson's 95 % interval, what the other
limits refuse, what is refused in all, and the precision of the three if one face in twenty, or in two, were such.
False alarms are counted among the unharmed that the other limits keep.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from calibrate_quality import Sample, beauty, rounded
from numpy.typing import NDArray
from PIL import Image

from authface.curate.filter.measure import LIMITS, broken, judge_alone, measure_faces
from authface.curate.filter.measures import processing, quality
from authface.curate.settings import FilterSettings
from authface.errors import ImageError
from authface.faces.detector import Detection, RetinaFace
from authface.imaging import decode as images
from authface.metrics.stats import wilson
from authface.records import Face

Rgb = NDArray[np.uint8]
Draw = np.random.Generator

KERNELS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}  # fmt: skip
SHRINKING = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.HAMMING)
FACTORS = (1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
MASKS = ((1.0, 1.0), (2.0, 0.7), (2.0, 1.0), (2.0, 2.0), (3.0, 1.5), (4.0, 3.0))
"""Amount and sigma of unsharp masking."""
LEAST_FACE, MOST_FACE = 130.0, 320.0
SPARE = 1.6
"""Originals are shrunk at least this much, so that what was done to them before is gone."""
LEAST_SIZE = LEAST_FACE * SPARE
MOST_TRACE, LEAST_DETAIL = 0.1, 0.75
"""Largest repetition of rows and columns, and least resolution of an original."""
HALVES = {"choose": slice(0, None, 2), "report": slice(1, None, 2), "both": slice(None)}
UNHARMED = ("shrunk", "web", "soft", "grain", "twice")
OURS = ("pixelated", "enlarged", "over_sharpened")
SHARES = (0.05, 0.5)
"""Of harmed faces among all, for which precision is told."""


@dataclass(frozen=True)
class Portrait:
    """A photo with the place of its face."""

    rgb: Rgb
    face: Detection

    @property
    def size(self) -> float:
        x0, y0, x1, y1 = self.face.box
        return max(x1 - x0, y1 - y0)

    def resized(self, factor: float, how: Image.Resampling) -> Portrait:
        height, width = self.rgb.shape[:2]
        side = max(8, round(width * factor)), max(8, round(height * factor))
        scale = np.array([side[0] / width, side[1] / height])
        moved = [
            tuple(((np.reshape(p, (-1, 2)) + 0.5) * scale - 0.5).ravel()) for p in (self.face.box, self.face.points5)
        ]
        rgb = np.asarray(Image.fromarray(self.rgb).resize(side, how))
        return Portrait(rgb, Detection(moved[0], self.face.score, moved[1]))

    def after(self, change: Callable[[Rgb], Rgb]) -> Portrait:
        return Portrait(change(self.rgb), self.face)

    def cut(self, x: int, y: int) -> Portrait:
        moved = [tuple(np.array(p) - [x, y] * (len(p) // 2)) for p in (self.face.box, self.face.points5)]
        return Portrait(self.rgb[y:, x:], Detection(moved[0], self.face.score, moved[1]))

    def saved(self, draw: Draw, least: float = 60) -> Portrait:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(draw.uniform(least, 95))]
        return self.after(lambda rgb: np.asarray(cv2.imdecode(cv2.imencode(".jpg", rgb, quality)[1], 1)))


@dataclass(frozen=True)
class Known:
    """A detector that knows the face."""

    face: Detection

    def detect(self, rgb: Rgb) -> list[Detection]:
        return [self.face]

    @staticmethod
    def weights_sha256() -> str:
        return ""


def measured(portrait: Portrait) -> Face:
    return measure_faces(portrait.rgb, Known(portrait.face))[0]


def shrunk(portrait: Portrait, draw: Draw) -> Portrait:
    """With a face of `LEAST_FACE` px up to what was there."""
    side = draw.uniform(LEAST_FACE, portrait.size / SPARE)
    return portrait.resized(side / portrait.size, SHRINKING[draw.integers(len(SHRINKING))])


def enlarged(portrait: Portrait, factor: float, how: Image.Resampling, draw: Draw) -> Portrait:
    """A small photo, saved as a good JPEG in half of the cases, enlarged so many times; not saved."""
    side = draw.uniform(LEAST_FACE, min(portrait.size / SPARE * factor, MOST_FACE))
    small = portrait.resized(side / factor / portrait.size, SHRINKING[draw.integers(len(SHRINKING))])
    return (small.saved(draw, 75) if draw.random() < 0.5 else small).resized(factor, how)


def masked(amount: float, sigma: float) -> Callable[[Rgb], Rgb]:
    """Unsharp masking."""
    return lambda rgb: rounded(rgb + amount * (rgb - cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), sigma)))


def phone(draw: Draw) -> Callable[[Rgb], Rgb]:
    """Denoised, local contrast lifted, edges sharpened, as of small sensors."""
    noise, amount, sigma = draw.uniform(8, 20), draw.uniform(1.2, 2.5), draw.uniform(0.8, 1.6)

    def change(rgb: Rgb) -> Rgb:
        calm = cv2.bilateralFilter(rgb, 5, noise, 2).astype(np.float32)
        return masked(amount, sigma)(rounded(calm + 0.3 * (calm - cv2.GaussianBlur(calm, (0, 0), 8))))

    return change


def app(portrait: Portrait, share: float) -> Portrait:
    """Skin smoothed, eyes and mouth kept."""
    left, right = np.reshape(portrait.face.points5, (5, 2))[:2]
    sample = Sample(portrait.rgb, portrait.face.points5, 64 / float(np.hypot(*(right - left))))
    return portrait.after(lambda _: beauty(sample, share))


def unharmed(portrait: Portrait, draw: Draw) -> Iterator[tuple[str, Portrait]]:
    """What happens to photos and is no harm."""
    noise = draw.normal(0, draw.uniform(1, 4), (*portrait.rgb.shape[:2], 1))
    changes: dict[str, Callable[[Rgb], Rgb]] = {
        "shrunk": lambda rgb: rgb,
        "web": masked(draw.uniform(0.3, 0.6), draw.uniform(0.5, 0.8)),
        "soft": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), draw.uniform(0.4, 0.9))),
        "grain": lambda rgb: rounded(rgb + noise[: rgb.shape[0], : rgb.shape[1]]),
    }
    for name, change in changes.items():
        yield name, shrunk(portrait, draw).after(change).saved(draw)
    yield "twice", shrunk(portrait, draw).saved(draw).cut(5, 3).saved(draw)


def harmed(portrait: Portrait, draw: Draw) -> Iterator[tuple[str, Portrait]]:
    """Each harm, by its name with its strength."""
    for name, how in KERNELS.items():
        for factor in FACTORS:
            yield f"{name} x {factor:g}", enlarged(portrait, factor, how, draw).saved(draw)
    for factor in FACTORS[1:-1]:
        kernel = list(KERNELS.values())[1 + draw.integers(3)]
        change = masked(draw.uniform(1, 2.5), draw.uniform(1, 2.5))
        yield f"sharpened x {factor:g}", enlarged(portrait, factor, kernel, draw).after(change).saved(draw)
    for amount, sigma in MASKS:
        name = f"unsharp mask {amount:g}, {sigma:g} px"
        yield name, shrunk(portrait, draw).after(masked(amount, sigma)).saved(draw)
    yield "phone", shrunk(portrait, draw).after(phone(draw)).saved(draw)
    for share in (0.5, 1.0):
        yield f"face app {share:g}", app(shrunk(portrait, draw), share).saved(draw)


def restored(portraits: Sequence[Portrait], draw: Draw) -> Iterator[tuple[str, Portrait]]:
    """By the built-in model, of small photos that were enlarged."""
    from authface import Restorer

    restorer = Restorer()
    for portrait in portraits:
        for factor in (3.0, 5.0):
            grown = enlarged(portrait, factor, KERNELS["bicubic"], draw)
            found = restorer.restore(grown.rgb)
            if any(face.status == "restored" for face in found.faces):
                yield f"restored x {factor:g}", Portrait(np.asarray(found.image), grown.face).saved(draw)


def originals(folder: Path, half: slice) -> Iterator[Portrait]:
    """As the module says, in an order drawn once."""
    detector = RetinaFace(0.6)
    paths = sorted(folder.glob("*.jpg"))[half]
    for at in np.random.default_rng(0).permutation(len(paths)):
        try:
            rgb = images.read(paths[at]).rgb
        except ImageError:
            continue
        if not (faces := detector.detect(rgb)):
            continue
        portrait = Portrait(rgb, faces[0])
        face = measured(portrait)
        clean = repeats(portrait) < MOST_TRACE and (face.resolution or 0) >= LEAST_DETAIL
        if portrait.size >= LEAST_SIZE and clean and not refused(face)[1]:
            yield portrait


def repeats(portrait: Portrait) -> float:
    """How strongly former pixels show, of first and of second differences."""
    grey = processing.middle(quality.native_luma(portrait.rgb, portrait.face.points5))
    if min(grey.shape) < processing.LEAST_SIDE:
        return 0.0
    first = processing.repetition(grey, 1, processing.FIRST_CAP)[0]
    return max(first, 0.7 * processing.repetition(grey, 2, processing.SECOND_CAP)[0])


def refused(face: Face) -> tuple[list[str], list[str]]:
    """The reasons of ours, and of all other limits, that speak against a face."""
    if judge_alone(face, 1, FilterSettings()).status == "failed":
        return [], ["failed"]
    reasons = [limit.reason for limit, _, _ in broken(face, FilterSettings())]
    return [r for r in reasons if r in OURS], [r for r in reasons if r not in OURS]


def told(name: str, faces: Sequence[Face], alarms: tuple[int, int]) -> str:
    """One line of a harm; `alarms` of all unharmed."""
    verdicts = [refused(face) for face in faces]
    each = [np.mean([reason in ours for ours, _ in verdicts]) for reason in OURS]
    found = sum(bool(ours) for ours, _ in verdicts)
    recall, (low, high) = found / len(faces), wilson(found, len(faces))
    other = np.mean([bool(others) for _, others in verdicts])
    whole = np.mean([bool(ours or others) for ours, others in verdicts])
    false = alarms[0] / max(alarms[1], 1)
    precision = [p * recall / max(p * recall + (1 - p) * false, 1e-9) for p in SHARES]
    return (
        f"{name:22} {len(faces):5} {' '.join(f'{share:6.1%}' for share in each)}  {recall:6.1%} "
        f"[{low:4.0%} {high:4.0%}]  {other:6.1%} {whole:6.1%}  {' '.join(f'{share:6.1%}' for share in precision)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--faces", type=int, default=100, help="originals of each folder")
    parser.add_argument("--half", choices=HALVES, default="report")
    parser.add_argument("--restored", type=int, default=0, help="originals of which the built-in model restores two")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    drawn = (islice(originals(folder, HALVES[asked.half]), asked.faces) for folder in asked.folders)
    portraits = [portrait for each in drawn for portrait in each]
    good: dict[str, list[Face]] = {}
    bad: dict[str, list[Face]] = {}
    for seed, portrait in enumerate(portraits):
        draw = np.random.default_rng(seed)
        for kinds, pictures in ((good, unharmed(portrait, draw)), (bad, harmed(portrait, draw))):
            for name, picture in pictures:
                kinds.setdefault(name, []).append(measured(picture))
    for name, picture in restored(portraits[: asked.restored], np.random.default_rng(0)) if asked.restored else ():
        bad.setdefault(name, []).append(measured(picture))
    kept = {name: [face for face in faces if not refused(face)[1]] for name, faces in good.items()}
    judged = [face for faces in kept.values() for face in faces]
    alarms = sum(bool(refused(face)[0]) for face in judged), len(judged)
    low, high = wilson(*alarms)
    sys.stdout.write(
        f"{len(portraits)} originals, half {asked.half}. False alarms: {alarms[0]} of {alarms[1]} unharmed "
    )
    sys.stdout.write(f"[{low:.1%} {high:.1%}]: ")
    sys.stdout.write(
        ", ".join(f"{n} {sum(bool(refused(f)[0]) for f in k)} of {len(k)}" for n, k in kept.items()) + "\n"
    )
    for limit in (limit for limit in LIMITS if limit.reason in OURS):
        values = np.array([limit.value(face) for face in judged], float)
        ends = np.quantile(values, (0.002, 0.01, 0.5) if limit.least else (0.5, 0.99, 0.998))
        bound = getattr(FilterSettings(), limit.setting)
        quantiles = "0.2 %, 1 %, half" if limit.least else "half, 99 %, 99.8 %"
        sys.stdout.write(f"{limit.setting} = {bound:g}; of the unharmed {quantiles}: {np.round(ends, 3)}\n")
    sys.stdout.write(f"{'':22} faces  {'  '.join(OURS)}  any [95 %]  others  in all  precision at 5 %, 50 %\n")
    for name, faces in bad.items():
        sys.stdout.write(told(name, faces, alarms))


if __name__ == "__main__":
    main()
