"""Precision and recall of the measured tags on faces whose truth was made, and images per second.

    python benchmarks/measured_tags.py FOLDER_OF_CROPS [LIMIT]

FOLDER_OF_CROPS holds FFHQ-aligned square crops, as `authface curate align` writes them (photoset/crops). Each
is changed twice for every tag, so that the tag is true of one and false of the other: relit, tinted,
desaturated, its background replaced, its skin smoothed, its lips painted, its irises moved. Closed eyes have no
such truth: `tests/annotate/test_eyes.py` paints a few.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.annotate.geometry import SHAPE, find_pose
from authface.annotate.measured import measure, tags
from authface.annotate.regions import LEFT_EYE, RIGHT_EYE, Regions, find_regions
from authface.annotate.settings import MeasuredSettings

Image = NDArray[np.uint8]
Change = Callable[[Regions, np.random.Generator], Image]
"""From the parts of a crop (256 px) to a changed crop of the same landmarks."""


@dataclass(frozen=True)
class Trial:
    """A tag, changes that make it true and changes that make it false."""

    tag: str
    true: tuple[Change, ...]
    false: tuple[Change, ...]


def linear(rgb: Image) -> NDArray[np.float64]:
    value = rgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64]) -> Image:
    light = np.clip(light, 0, 1)
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


def relit(stops: float) -> Change:
    """The skin's slow light made symmetric, then `stops` brighter on its right half than on its left."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        light = linear(regions.rgb)
        axis = float(regions.points[[27, 28, 29, 30, 33, 51, 8], 0].mean())
        turn = np.array([[-1, 0, 2 * axis], [0, 1, 0]], float)
        skin = regions.skin.astype(np.float64)
        slow = (cv2.GaussianBlur(light.mean(2) * skin, (0, 0), 14) + 1e-4) / (cv2.GaussianBlur(skin, (0, 0), 14) + 1e-2)
        mirrored = cv2.warpAffine(slow, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)
        ramp = np.tanh((np.arange(256) - axis) / 45)[None, :, None] / np.tanh(1)
        return encoded(0.8 * light * np.sqrt(mirrored / slow)[..., None] * 2 ** (ramp * stops / 2))

    return change


def tone(lightness: float | None = None, contrast: float = 1.0, chroma: float | None = None) -> Change:
    """Median L* and mean chroma set, contrast scaled around the median."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        lab = regions.lab.copy()
        middle = float(np.median(lab[..., 0]))
        lab[..., 0] = (lab[..., 0] - middle) * contrast + (middle if lightness is None else lightness)
        if chroma is not None:
            lab[..., 1:] *= chroma / max(float(np.hypot(lab[..., 1], lab[..., 2]).mean()), 1)
        return np.rint(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255).astype(np.uint8)

    return change


def tinted(stops: float) -> Change:
    """The skin brought to an average portrait's red over blue (1.22 stops), then moved by `stops`."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        light = linear(regions.rgb)
        skin = light[regions.skin].mean(0) + 1e-3
        move = stops + 1.22 - np.log2(skin[0] / skin[2])
        gains = 2 ** (move * np.array([0.5, 0, -0.5]))
        return encoded(light * gains / max(gains))

    return change


def toned(red: float, blue: float) -> Change:
    """Grey, its tones coloured: (1, 1) stays grey."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        grey = linear(regions.rgb) @ np.array([0.2126, 0.7152, 0.0722])
        return encoded(grey[..., None] * np.array([red, 1, blue]))

    return change


def colourful(regions: Regions, rng: np.random.Generator) -> Image:
    """Colour of at least two hues: the left third of the crop turned blue-green."""
    light = linear(tone(chroma=15)(regions, rng))
    light[:, :85] *= np.array([0.6, 1, 1.2])
    return encoded(light)


def before(backdrop: Callable[[np.random.Generator], Image]) -> Change:
    """Head and shoulders, cut out by an ellipse and a trapezium with a soft edge, before a backdrop."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        pose = find_pose(regions.points)
        mask = np.zeros((256, 256), np.float32)
        centre = (round(pose.centre[0]), round(pose.centre[1] - 0.12 * pose.scale))
        cv2.ellipse(mask, centre, (round(0.95 * pose.scale), round(1.3 * pose.scale)), 0, 0, 360, 1, -1)
        chin = round(regions.points[8, 1])
        cv2.fillPoly(mask, [np.array([[60, chin], [196, chin], [256, 256], [0, 256]], np.int32)], 1)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
        return encoded(mask * linear(regions.rgb) + (1 - mask) * linear(backdrop(rng)))

    return change


@functools.lru_cache(maxsize=1)
def _scenes() -> list[Image]:
    """Photos with sharp detail all over: a square of empty sky, or of a blurred part, would make a false truth."""
    from skimage import data

    grey = (data.coins(), data.brick(), data.grass(), data.gravel())
    motorcycle = data.stereo_motorcycle()[0]
    return [data.coffee(), motorcycle, *(np.stack([one] * 3, 2) for one in grey)]


def scene(blur: float) -> Callable[[np.random.Generator], Image]:
    """A random square of a photo, sharp at 256 px, then blurred by `blur` px."""

    def backdrop(rng: np.random.Generator) -> Image:
        photo = _scenes()[rng.integers(len(_scenes()))]
        side = int(rng.integers(256, min(photo.shape[:2])))
        y, x = (int(rng.integers(0, room - side + 1)) for room in photo.shape[:2])
        square = cv2.resize(photo[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(square, (0, 0), blur) if blur else square

    return backdrop


def plain(rgb: tuple[int, int, int]) -> Callable[[np.random.Generator], Image]:
    """One colour with a slow gradient of a tenth and noise of 2."""

    def backdrop(rng: np.random.Generator) -> Image:
        fall = np.linspace(1, 0.9, 256)[:, None, None]
        return np.clip(np.array(rgb) * fall + rng.normal(0, 2, (256, 256, 1)), 0, 255).astype(np.uint8)

    return backdrop


def skin_of(grain: float) -> Change:
    """The skin smoothed as retouching does; then `grain` (L*) of texture of about a pixel laid over it."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        rgb = regions.rgb.astype(np.float32)
        smooth = cv2.GaussianBlur(rgb, (0, 0), 3)
        noise = rng.normal(0, 1, (256, 256)).astype(np.float32)
        pores = cv2.GaussianBlur(noise, (0, 0), 0.7) - cv2.GaussianBlur(noise, (0, 0), 2)
        mask = cv2.GaussianBlur(regions.skin.astype(np.float32), (0, 0), 1.5)[..., None]
        return np.clip(rgb + mask * (smooth - rgb + grain * 2.55 * pores[..., None] / pores.std()), 0, 255).astype(
            np.uint8
        )

    return change


def lips_of(redness: float) -> Change:
    """The lips' a* set to the cheeks' plus `redness`."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        lab = regions.lab.copy()
        target = float(np.median(lab[..., 1][regions.cheeks])) + redness
        mask = cv2.GaussianBlur(regions.lips.astype(np.float32), (0, 0), 1)
        lab[..., 1] += mask * (target - float(np.median(lab[..., 1][regions.lips])))
        return np.rint(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255).astype(np.uint8)

    return change


def gazing(aside: float) -> Change:
    """Both irises moved to the right by `aside` halves of the eye's width; the lids and what is around them stay."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        y, x = np.mgrid[:256, :256].astype(np.float32)
        move = np.zeros((256, 256), np.float32)
        for eye in (LEFT_EYE, RIGHT_EYE):
            lids = regions.points[eye]
            half, middle = np.hypot(*(lids[3] - lids[0])) / 2, lids.mean(0)
            across, down = (x - middle[0]) / half, (y - middle[1]) / (0.8 * half)
            move += aside * half * np.clip(2 - 2 * across**2, 0, 1) * np.clip(2 - 2 * down**2, 0, 1)
        return cv2.remap(regions.rgb, x - move.astype(np.float32), y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    return change


def shadowed(blur: float) -> Change:
    """The shadow of something round over a part of the face, 1.8 stops deep, its edge blurred by `blur` px."""

    def change(regions: Regions, rng: np.random.Generator) -> Image:
        y, x = np.mgrid[:256, :256]
        (across, down), scale = regions.pose.centre, regions.pose.scale
        angle, radius, reach = rng.uniform(0, 2 * np.pi), 1.2 * scale, rng.uniform(0.9, 1.4) * scale
        shadow = np.hypot(x - across - reach * np.cos(angle), y - down - reach * np.sin(angle)) < radius
        depth = cv2.GaussianBlur(shadow.astype(np.float32), (0, 0), blur)
        return encoded(linear(regions.rgb) * 2 ** (-1.8 * depth)[..., None])

    return change


def filled(regions: Regions, rng: np.random.Generator) -> Image:
    """The skin's light drawn towards its median, to a third of its distance in stops, as a large fill light does."""
    light = linear(regions.rgb)
    stops = np.log2(light.mean(2) + 1e-3)
    middle = float(np.median(stops[regions.skin])) if regions.skin.any() else 0.0
    mask = cv2.GaussianBlur(regions.skin.astype(np.float32), (0, 0), 4)
    return encoded(light * 2 ** (mask * (middle - stops) * 2 / 3)[..., None])


COLOURS = {"white": (252, 252, 252), "black": (14, 14, 15), "grey": (125, 125, 125),
           "red": (190, 25, 30), "blue": (60, 130, 215), "green": (30, 150, 60)}  # fmt: skip
_OTHER = {"white": "grey", "black": "white", "grey": "blue", "red": "green", "blue": "red", "green": "black"}

# Grain of 3.5 L* gives sharp portraits the skin texture of unretouched ones, a measure of 0.15 to 0.25.
TRIALS = [
    Trial("light from the left", (relit(-1.6),), (relit(1.6), relit(0))),
    Trial("light from the right", (relit(1.6),), (relit(-1.6), relit(0))),
    Trial("low key", (tone(lightness=14),), (tone(lightness=40), tone(lightness=60))),
    Trial("high key", (tone(lightness=86),), (tone(lightness=60), tone(lightness=40))),
    Trial("low contrast", (tone(lightness=50, contrast=0.5),), (tone(lightness=50),)),
    Trial("high contrast", (tone(lightness=50, contrast=3),), (tone(lightness=50, contrast=0.9),)),
    Trial("warm tones", (tinted(1.6),), (tinted(0), tinted(-1.6))),
    Trial("cool tones", (tinted(-1.6),), (tinted(0), tinted(1.6))),
    Trial("black and white", (toned(1, 1),), (colourful, toned(1.3, 0.6))),
    Trial("toned monochrome", (toned(1.3, 0.6), toned(0.7, 1.3)), (colourful, toned(1, 1))),
    Trial("vivid colours", (tone(chroma=42),), (tone(chroma=15),)),
    Trial("muted colours", (tone(chroma=5.5),), (tone(chroma=15),)),
    Trial("shallow depth of field", (before(scene(5)),), (before(scene(0)), before(plain(COLOURS["grey"])))),
    Trial("background in focus", (before(scene(0)),), (before(scene(5)), before(plain(COLOURS["blue"])))),
    Trial("plain background", tuple(before(plain(c)) for c in COLOURS.values()), (before(scene(0)), before(scene(4)))),
    *(
        Trial(f"{name} background", (before(plain(rgb)),), (before(plain(COLOURS[_OTHER[name]])), before(scene(0))))
        for name, rgb in COLOURS.items()
    ),
    Trial("detailed skin texture", (skin_of(3.5),), (skin_of(0),)),
    Trial("smooth skin", (skin_of(0),), (skin_of(3.5),)),
    Trial("red lipstick", (lips_of(30),), (lips_of(8),)),
]
"""What each tag is tried on; the tags of pose and mouth are made of landmarks, see `turned` and the tests."""

GAZE_TRIALS = [
    Trial("looking to the left", (gazing(-0.6),), (gazing(0), gazing(0.6))),
    Trial("looking to the right", (gazing(0.6),), (gazing(0), gazing(-0.6))),
    Trial("looking at the camera", (gazing(0),), (gazing(-0.6), gazing(0.6))),
]
LIGHT_TRIALS = [
    Trial("hard light", (shadowed(1.2),), (shadowed(14), filled)),
    Trial("soft light", (filled,), (shadowed(1.2),)),
]
"""Apart, because their recall is low by intent, and because not every unchanged portrait looks at the camera."""


def turned(yaw: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points of a face of its own (depth and breadth off by a tenth, landmarks by a pixel) turned by `yaw` degrees."""
    shape = np.array(SHAPE) * rng.normal(1, 0.1, 3) + rng.normal(0, 0.01, (len(SHAPE), 3))
    angle = np.radians(yaw)
    x = shape[:, 0] * np.cos(angle) + shape[:, 2] * np.sin(angle)
    return np.stack([x, shape[:, 1]], 1) * 92 + 128


def crops(folder: Path, limit: int) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Crops with their landmarks, found anew."""
    from authface import images
    from authface.faces.detector import RetinaFace
    from authface.faces.landmarks import Dlib68

    detector, landmarker = RetinaFace(0.6), Dlib68()
    files = sorted(folder.rglob("*.png"))
    for file in files[:: max(1, len(files) // limit)][:limit]:
        rgb = images.read(file).rgb
        if found := detector.detect(rgb):
            yield rgb, landmarker.landmarks(rgb, found[0])


def score(trial: Trial, faces: list[Regions], limits: MeasuredSettings) -> tuple[float, float, int]:
    """Precision, recall and the number of changed crops."""
    rng = np.random.default_rng(0)
    hits = misses = false = 0
    for regions in faces:
        for changes, truth in ((trial.true, True), (trial.false, False)):
            change = changes[rng.integers(len(changes))]
            rgb = change(regions, rng)
            found = trial.tag in {tag.name for tag in tags(measure(rgb, regions.points), limits)}
            hits += truth and found
            misses += truth and not found
            false += found and not truth
    return hits / max(hits + false, 1), hits / max(hits + misses, 1), 2 * len(faces)


def main() -> None:
    folder, limit = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200
    cv2.setNumThreads(1)
    faces = list(crops(folder, limit))
    start = time.perf_counter()
    for rgb, points in faces:
        tags(measure(rgb, points), MeasuredSettings())
    rate = len(faces) / (time.perf_counter() - start)
    regions = [find_regions(rgb, points) for rgb, points in faces]
    print(f"{'tag':<26}precision  recall    crops")
    for trial in [*TRIALS, *GAZE_TRIALS, *LIGHT_TRIALS]:
        precision, recall, count = score(trial, regions, MeasuredSettings())
        print(f"{trial.tag:<26}{precision:9.3f}{recall:8.3f}{count:9d}", flush=True)
    print(f"{rate:.0f} images/s on one thread, {faces[0][0].shape[0]} px, without decoding")


if __name__ == "__main__":
    main()
