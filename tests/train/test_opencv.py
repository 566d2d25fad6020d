"""Torch does to a batch what OpenCV does to one image: resampling, filters, borders and JPEG, level by level."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.faces import scan
from authface.faces.degrade import gaussian_kernel
from authface.train.opencv import (
    area_weights,
    cubic_weights,
    filtered,
    jpeg,
    linear_weights,
    luminance,
    mirrored,
    repeated,
    resized,
    steps,
    taken,
)

Weights = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]
KINDS: dict[str, tuple[Weights, int]] = {
    "linear": (linear_weights, cv2.INTER_LINEAR),
    "cubic": (cubic_weights, cv2.INTER_CUBIC),
    "area": (area_weights, cv2.INTER_AREA),
}


def images(sizes: list[tuple[int, int]], beyond: int = 0) -> tuple[list[NDArray[np.float32]], torch.Tensor]:
    """Random images (height, width, 3) in 0..1, and their canvas; other numbers lie beyond for each `beyond`."""
    random = np.random.default_rng(len(sizes))
    made = [random.random((*size, 3), np.float32) for size in sizes]
    widest = max(max(size) for size in sizes)
    canvas = np.random.default_rng(beyond).normal(0, 100, (len(sizes), 3, widest, widest)).astype(np.float32)
    for plane, image in zip(canvas, made, strict=True):
        plane[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return made, torch.from_numpy(canvas)


def squares(sides: list[int], beyond: int = 0) -> tuple[list[NDArray[np.float32]], torch.Tensor]:
    """Square ones."""
    return images([(side, side) for side in sides], beyond)


def cut(canvas: torch.Tensor, place: int, side: int) -> NDArray[np.float32]:
    """(side, side, 3): an image of the canvas."""
    return np.asarray(canvas[place, :, :side, :side].permute(1, 2, 0))


@pytest.mark.parametrize("kind", KINDS)
@given(sides=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 120)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_resampling_is_opencvs(kind: str, sides: list[tuple[int, int]]) -> None:
    """Larger, smaller and as large, to 1e-5 of the range; INTER_AREA is another thing where it enlarges."""
    weights, how = KINDS[kind]
    before = [side for side, _ in sides]
    after = [min(pair) if kind == "area" else pair[1] for pair in sides]
    made, canvas = squares(before)
    sizes = torch.tensor(before), torch.tensor(after), canvas.shape[-1], max(after)
    out = resized(canvas, weights(*sizes))
    for place, side in enumerate(after):
        expected = cv2.resize(made[place], (side, side), interpolation=how)
        assert np.abs(cut(out, place, side) - expected).max() < 1e-5
    other = resized(squares(before, beyond=1)[1], weights(*sizes))
    assert all(np.array_equal(cut(out, place, side), cut(other, place, side)) for place, side in enumerate(after))


@pytest.mark.parametrize("kernel", [(3, 1.0, 2.0, 0.3), (21, 0.4, 5.0, 2.0), (41, 12.0, 9.0, -1.0)])
def test_filters_are_opencvs(kernel: tuple[int, float, float, float]) -> None:
    """Turned Gaussians, on faces smaller than the kernel too, each with its own."""
    made, canvas = squares([17, 64, 40])
    kernels = [gaussian_kernel(kernel[0], *kernel[1:]), gaussian_kernel(kernel[0], 2, 3, 1), np.eye(kernel[0])]
    stacked = torch.from_numpy(np.stack(kernels)).float()
    out = filtered(canvas, torch.tensor([17, 64, 40]), stacked)
    for place, side in enumerate((17, 64, 40)):
        expected = cv2.filter2D(made[place], -1, stacked[place].numpy())
        assert np.abs(cut(out, place, side) - expected).max() < 2e-5 * kernels[place].sum()
    assert torch.equal(filtered(canvas, torch.tensor([17, 64, 40]), torch.ones(3, 1, 1)), canvas)


@given(side=st.integers(1, 20), before=st.integers(0, 30), count=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_borders_are_opencvs(side: int, before: int, count: int) -> None:
    """Mirrored without the first pixel, however often, and repeated."""
    row = np.arange(side, dtype=np.int32)[None]
    after = max(0, count - before - side)
    length, ahead = torch.tensor([side]), torch.tensor([before])
    for found, border in (
        (mirrored(count, before, length), cv2.BORDER_REFLECT_101),
        (repeated(count, ahead, length), cv2.BORDER_REPLICATE),
    ):
        expected = cv2.copyMakeBorder(row, 0, 0, before, after, border)[0, :count]
        assert found[0].tolist() == expected.tolist()


def test_rows_and_columns_are_taken_of_each_image() -> None:
    _, canvas = images([(5, 7), (7, 6)])
    rows, columns = torch.tensor([[0, 4], [3, 3]]), torch.tensor([[6, 0, 1], [2, 5, 5]])
    out = taken(canvas, rows, columns)
    for place in range(2):
        assert torch.equal(out[place], canvas[place][:, rows[place]][:, :, columns[place]])


def test_luminance_is_opencvs() -> None:
    made, canvas = squares([9, 9])
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in made])
    assert np.abs(luminance(canvas)[:, 0].numpy() - expected).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(4, 70), st.integers(4, 70)), min_size=1, max_size=4),
    quality=st.integers(0, 100),
    beyond=st.integers(0, 3),
)
def test_noise_comes_out_as_by_opencv(sizes: list[tuple[int, int]], quality: int, beyond: int) -> None:
    """Images of any height and width, each at a quality of its own; what lies beyond them is not seen."""
    made, canvas = images(sizes, beyond)
    qualities = [(quality + 17 * place) % 101 for place in range(len(sizes))]
    heights, widths = (torch.tensor([size[axis] for size in sizes]) for axis in (0, 1))
    out = jpeg(canvas, heights, widths, torch.from_numpy(np.stack([steps(one) for one in qualities])))
    assert out.shape == canvas.shape and out.dtype == torch.float32
    for place, (height, width) in enumerate(sizes):
        found = out[place, :, :height, :width].permute(1, 2, 0).numpy()
        assert np.array_equal(found, scan.jpeg(made[place], qualities[place]))


@pytest.mark.parametrize("quality", [1, 25, 49, 50, 63, 75, 90, 95, 100])
def test_photos_come_out_as_by_opencv(quality: int) -> None:
    """A portrait and a cat; the levels of 8 bits are all equal."""
    for photo in (skimage.data.astronaut()[:160, 96:275], skimage.data.chelsea()[40:200, 60:239]):
        image = np.ascontiguousarray(photo).astype(np.float32) / 255
        canvas = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
        table = torch.from_numpy(steps(quality)[None])
        out = jpeg(canvas, torch.tensor([160]), torch.tensor([179]), table)[0]
        assert np.array_equal(out.permute(1, 2, 0).numpy(), scan.jpeg(image, quality))
