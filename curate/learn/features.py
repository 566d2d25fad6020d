"""Statistics of eyes, skin and hair in the photo's own pixels, of which `curate learn` learns what a reviewer keeps.

Three kinds, none of which says who a face is: texture of three places (contrast, noise, gradients, spectrum), natural
scene statistics of the whole face at two scales (BRISQUE: Mittal, Moorthy, Bovik 2012), and how alike in light and
colour the parts of the face are, relative to each other, which what covers a face disturbs. The embedding of a
recognition network is not among them: a model would learn whom a reviewer kept. Nor is the colour of skin.

A network over the same places (DINOv2, CLIP and whatever else timm has) runs only where it is named, its weights the
user's choice. A square is never resized: the network sees the photo's own pixels, reflected to the size it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.curate.filter.measures.quality import native_luma, noise_sigma
from authface.devices import pick_device
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.files import sha256_of_weights
from authface.records import Points5

Plane = NDArray[np.float32]
Vector = NDArray[np.float64]

LARGEST, SMALLEST = 160, 8
"""Side of a place of texture, pixels: of larger ones the middle is taken, smaller ones tell nothing (NaN)."""
TILE = 0.2
"""Side of a tile of `_PARTS`, in distances of the eyes."""
_TEXTURE_SIDE = 0.6
"""Side of a place of texture, in distances of the eyes."""
_PLACES = {
    "eyes": ((-0.5, 0.0), (0.5, 0.0)),
    "skin": ((-0.45, 0.65), (0.45, 0.65)),
    "hair": ((-0.35, -1.0), (0.35, -1.0)),
}
"""Places of texture by name; their centres in distances of the eyes from the middle between them: across, down."""
_PARTS = {
    "left_eye": (-0.5, 0.0),
    "right_eye": (0.5, 0.0),
    "forehead": (0.0, -0.55),
    "nose": (0.0, 0.5),
    "left_cheek": (-0.5, 0.65),
    "right_cheek": (0.5, 0.65),
    "mouth": (0.0, 1.1),
    "chin": (0.0, 1.55),
}
"""Parts that are held against each other, their centres likewise."""
_TEXTURE = (
    "contrast", "noise", "gradient", "edges", "curvature", "tails", "equal", "along_axes", "band1", "band2", "band3",
    "chroma_noise",
)  # fmt: skip
_SCENE = (
    "shape", "variance",
    *(f"{way}_{what}" for way in ("across", "down", "diagonal", "antidiagonal")
      for what in ("shape", "mean", "left", "right")),
)  # fmt: skip
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbours of a pixel whose products are taken, in the order of `_SCENE`."""

NAMES: tuple[str, ...] = (
    *(f"{place}_{what}" for place in _PLACES for what in _TEXTURE),
    *(f"scene{scale}_{what}" for scale in (1, 2) for what in _SCENE),
    *(f"{part}_light" for part in _PARTS),
    *(f"{part}_colour" for part in _PARTS),
    "sides_light",
    "sides_colour",
)
"""What each number of `face_statistics` is."""


@dataclass(frozen=True)
class _Frame:
    """Where a face's parts lie in a photo: from the middle of the eyes, in distances of the eyes."""

    middle: Vector
    across: Vector
    distance: float

    def window(self, photo: NDArray[np.uint8], place: tuple[float, float], side: float) -> NDArray[np.uint8]:
        """The square of `side` pixels about `place`, upright as the photo is, cut at its borders."""
        down = np.array([-self.across[1], self.across[0]])
        x, y = self.middle + self.distance * (place[0] * self.across + place[1] * down)
        x0, y0 = (max(round(float(centre) - side / 2), 0) for centre in (x, y))
        x1, y1 = (max(round(float(centre) + side / 2), 0) for centre in (x, y))
        return photo[y0:y1, x0:x1]


def face_statistics(rgb: NDArray[np.uint8], points5: Points5) -> Vector:
    """(len(NAMES),) statistics of a face in a (h, w, 3) uint8 photo; NaN where a place is outside or too small."""
    frame = _frame(points5)
    native = native_luma(rgb, points5)
    return np.concatenate([
        *(_texture_of(rgb, frame, centres) for centres in _PLACES.values()),
        _scene(native),
        _scene(_half(native)),
        _parts(rgb, frame),
    ])  # fmt: skip


def patches(rgb: NDArray[np.uint8], points5: Points5) -> list[NDArray[np.uint8]]:
    """Eyes, skin and hair, one square each in the photo's own pixels, for a network; may be empty at its borders."""
    frame = _frame(points5)
    side = min(max(_TEXTURE_SIDE * frame.distance, 2 * SMALLEST), LARGEST)
    return [frame.window(rgb, centres[0], side) for centres in _PLACES.values()]


def _frame(points5: Points5) -> _Frame:
    left, right = np.array(points5[0:2], np.float64), np.array(points5[2:4], np.float64)
    distance = max(float(np.hypot(*(right - left))), 1.0)
    return _Frame((left + right) / 2, (right - left) / distance, distance)


def _texture_of(rgb: NDArray[np.uint8], frame: _Frame, centres: tuple[tuple[float, float], ...]) -> Vector:
    """The texture of a place, the mean of those of its squares that lie in the photo."""
    side = min(_TEXTURE_SIDE * frame.distance, LARGEST)
    squares = [frame.window(rgb, centre, side) for centre in centres]
    seen = [_texture(square) for square in squares if min(square.shape[:2]) >= SMALLEST]
    return np.mean(seen, axis=0) if seen else np.full(len(_TEXTURE), np.nan)


def _texture(square: NDArray[np.uint8]) -> Vector:
    """The numbers of `_TEXTURE`, most of them logarithms, so that a factor is a step."""
    luma, red, blue = cv2.split(cv2.cvtColor(square, cv2.COLOR_RGB2YCrCb).astype(np.float32))
    across, down = cv2.Scharr(luma, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(luma, cv2.CV_32F, 0, 1) / 32
    square_across, square_down = across * across, down * down
    steep = square_across + square_down
    slope, power = np.sqrt(steep), float(steep.mean()) + 0.01
    bent = np.square(cv2.Laplacian(luma, cv2.CV_32F))
    blurred = [luma, *(cv2.GaussianBlur(luma, (0, 0), sigma) for sigma in (0.7, 1.4, 2.8))]
    bands = [_log(float((finer - coarser).std())) for finer, coarser in zip(blurred[:-1], blurred[1:], strict=True)]
    chroma = [plane - cv2.GaussianBlur(plane, (0, 0), 1.4) for plane in (red, blue)]
    four_angles = 1 - 8 * square_across * square_down / np.maximum(steep * steep, 1e-6)  # their cosine
    return np.array([
        _log(float(luma.std()) / max(float(luma.mean()), 16.0) * 128),
        _log(noise_sigma(luma)),
        _log(float(np.median(slope))),
        _log(float(np.quantile(slope, 0.99))) - _log(float(np.median(slope))),
        _log(float(bent.mean()) / power),
        _log(float((bent * bent).mean()) / (float(bent.mean()) + 0.01) ** 2),
        float((np.abs(np.diff(luma, axis=1)) < 0.5).mean()),
        float((four_angles * steep).mean()) / power,
        *(band - bands[-1] for band in bands[:-1]),
        bands[-1],
        _log(float(np.hypot(chroma[0].std(), chroma[1].std()))),
    ])  # fmt: skip


def _log(value: float) -> float:
    return math.log(max(value, 0.0) + 0.05)


def _half(grey: Plane) -> Plane:
    height, width = (max(length // 2, 1) for length in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) if grey.size else grey


def _scene(grey: Plane) -> Vector:
    """(18,) BRISQUE's statistics of (h, w) luma 0..255: of locally normalised luma, and of products of neighbours."""
    if min(grey.shape) < 2 * SMALLEST:
        return np.full(len(_SCENE), np.nan)
    mean = cv2.GaussianBlur(grey, (7, 7), 7 / 6)
    deviation = np.sqrt(np.abs(cv2.GaussianBlur(grey * grey, (7, 7), 7 / 6) - mean * mean))
    normal = (grey - mean) / (deviation + 1)
    found = [_shape(float((normal**2).mean()) / max(float(np.abs(normal).mean()), 1e-6) ** 2), float(normal.var())]
    height, width = normal.shape
    for down, across in _STEPS:
        first = normal[: height - down, max(0, -across) : width - max(0, across)]
        second = normal[down:, max(0, across) : width - max(0, -across)]
        found += _skewed(first * second)
    return np.array(found)


def _skewed(products: Plane) -> list[float]:
    """Shape, mean, left and right deviation of an asymmetric generalised Gaussian, by its moments."""
    below, above = products[products < 0], products[products > 0]
    left = math.sqrt(float((below**2).mean())) if below.size else 1e-3
    right = math.sqrt(float((above**2).mean())) if above.size else 1e-3
    ratio = left / max(right, 1e-6)
    spread = float((products**2).mean()) / max(float(np.abs(products).mean()), 1e-6) ** 2
    shape = _shape(spread * (ratio**2 + 1) ** 2 / ((ratio**3 + 1) * (ratio + 1)))
    return [shape, float(products.mean()), left, right]


def _shape(spread: float) -> float:
    """The logarithm of the shape a of a generalised Gaussian whose E[x^2] / E[|x|]^2 is `spread`."""
    shapes, spreads = _shapes()
    return float(np.interp(-spread, -spreads, shapes))


@lru_cache(1)
def _shapes() -> tuple[Vector, Vector]:
    """Logarithms of shapes from 0.2 to 10 and G(1/a) G(3/a) / G(2/a)^2 of each, which falls."""
    shapes = np.linspace(math.log(0.2), math.log(10), 400)
    spreads = [
        math.exp(math.lgamma(1 / a) + math.lgamma(3 / a) - 2 * math.lgamma(2 / a)) for a in np.exp(shapes).tolist()
    ]
    return shapes, np.array(spreads)


def _parts(rgb: NDArray[np.uint8], frame: _Frame) -> Vector:
    """Light and colour of each part against the middle of all parts, and how far the cheeks and the eyes differ."""
    tiles = [frame.window(rgb, place, max(TILE * frame.distance, 3.0)) for place in _PARTS.values()]
    colours = np.array([_colour(tile) for tile in tiles])
    if np.isnan(colours).all():
        return np.full(2 * len(_PARTS) + 2, np.nan)
    light = np.log(colours[:, 0] + 8)
    light = light - np.nanmedian(light)
    apart = np.hypot(*(colours[:, at] - np.nanmedian(colours[:, at]) for at in (1, 2)))
    at = {name: index for index, name in enumerate(_PARTS)}
    pairs = [(at["left_eye"], at["right_eye"]), (at["left_cheek"], at["right_cheek"])]
    sides = max(abs(float(light[one] - light[other])) for one, other in pairs)
    hues = max(float(np.hypot(*(colours[one, 1:] - colours[other, 1:]))) for one, other in pairs)
    return np.array([*light, *apart, sides, hues])


def _colour(tile: NDArray[np.uint8]) -> tuple[float, ...]:
    """Mean luma, red and blue difference of a tile; NaN of an empty one."""
    if tile.size == 0:
        return (math.nan,) * 3
    return tuple(float(mean) for mean in cv2.mean(cv2.cvtColor(tile, cv2.COLOR_RGB2YCrCb))[:3])


PLACES = ("eyes", "skin", "hair")
SIDE = 224
"""Side that networks see where they may be told one, pixels: a multiple of 14, 16 and 32."""
_LOCAL = "local-dir:"


def weights_of(network: str) -> dict[str, str]:
    """What the numbers of a network depend on: the sha256 of a local folder's weights, else timm's release."""
    if not network:
        return {}
    need(f"curate.learn.network {one_line(network, 60)}", "train", "timm", "torch")
    if network.startswith(_LOCAL):
        file = Path(network.removeprefix(_LOCAL)) / "model.safetensors"
        if not file.is_file():
            raise UsageError(f"curate.learn.network {one_line(network)}: there is no {one_line(file)}")
        return {network: sha256_of_weights(file)}
    import timm

    return {network: f"timm {timm.__version__}"}


class PatchNetwork:
    """A network of timm's with its weights on a device. Raises UsageError for an unknown name, else AuthfaceError."""

    def __init__(self, name: str, device: str) -> None:
        import timm

        self._device = pick_device(device)
        if not name.startswith(_LOCAL) and not timm.list_models(name.partition(".")[0]):
            raise UsageError(f"curate.learn.network {one_line(name, 60)}: timm has no such network")
        try:
            self._model, self._side = _made(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise AuthfaceError(
                f"curate.learn.network {one_line(name, 60)} cannot be loaded: {one_line(error, 200)}; run once with a "
                f"network, or name a folder with config.json and model.safetensors: {_LOCAL}FOLDER"
            ) from error
        self._model.eval().to(self._device)
        config = timm.data.resolve_model_data_config(self._model)
        self._mean, self._deviation = (np.array(config[key], np.float32) * 255 for key in ("mean", "std"))

    def __call__(self, faces: Sequence[Sequence[NDArray[np.uint8]]]) -> list[NDArray[np.float64]]:
        """Of each face's squares (`features.patches`) the network's numbers, one square's after the other's."""
        import torch

        squares = np.stack([self._seen(square) for face in faces for square in face])
        with torch.inference_mode():
            out = self._model(torch.from_numpy(squares).to(self._device)).float().cpu().numpy()
        return [row.astype(np.float64).ravel() for row in out.reshape(len(faces), len(PLACES), -1)]

    def _seen(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3, side, side): the middle of the square, reflected beyond its borders."""
        height, width = square.shape[:2]
        if min(height, width) == 0:
            return np.zeros((3, self._side, self._side), np.float32)
        y, x = max(height - self._side, 0) // 2, max(width - self._side, 0) // 2
        square = square[y : y + self._side, x : x + self._side]
        down, across = self._side - square.shape[0], self._side - square.shape[1]
        around = (down // 2, down - down // 2, across // 2, across - across // 2)
        whole = cv2.copyMakeBorder(square, *around, cv2.BORDER_REFLECT)
        normal = (whole.astype(np.float32) - self._mean) / self._deviation
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _made(name: str) -> tuple[Any, int]:
    """The network without its head, and the side it sees: a transformer has to be told, others take any."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0, img_size=SIDE), SIDE
    except TypeError:
        return timm.create_model(name, pretrained=True, num_classes=0), SIDE
