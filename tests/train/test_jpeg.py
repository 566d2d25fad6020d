"""JPEG by torch is OpenCV's, level by level."""

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.faces import scan
from authface.train.jpeg import jpeg, steps
from tests.train.test_canvas import images


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
