"""The cleaner: it keeps any shape, begins as the identity, and large faces in tiles are what they are in one go."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from authface.models import graphs as module
from authface.models.cleaner import Cleaner, clean, make_cleaner, takes_noise, with_noise
from authface.models.graphs import GRID, OVERLAP, TILE, _fade, _starts

CPU = torch.device("cpu")
CHANNELS = (16, 16)


def busy() -> Cleaner:
    """A small cleaner whose last layer is not zero: it changes every pixel a little."""
    net = make_cleaner(0, CHANNELS)
    torch.nn.init.normal_(net.conv_out.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return Cleaner(net).eval()


def portrait(height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.resize(data.astronaut()[:256, 96:352], (width, height), interpolation=cv2.INTER_CUBIC))


def test_a_new_cleaner_leaves_every_face_as_it_is() -> None:
    """And it is stock diffusers, the same for the same seed, with the caller's random numbers untouched."""
    from diffusers import UNet2DModel

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    nets = [make_cleaner(seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert type(nets[0]) is UNet2DModel
    first, again, other = (net.conv_in.weight for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)
    face = portrait(48, 64)
    levels = clean(Cleaner(nets[0]), face, CPU)
    assert levels.dtype == np.float32 and np.abs(levels - face).max() < 1e-3


BUSY = busy()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90))
def test_any_shape_stays_as_it_is(height: int, width: int) -> None:
    """Odd sides too, and such as are smaller than what the network halves."""
    levels = clean(BUSY, portrait(height, width), CPU)
    assert levels.shape == (height, width, 3) and np.isfinite(levels).all()


def test_what_is_padded_is_seen_at_the_edges_only() -> None:
    """A face of an odd side is cleaned as the same face padded by hand: the last row is repeated."""
    face = portrait(61, 61)
    padded = np.pad(face, ((0, 3), (0, 3), (0, 0)), mode="edge")
    np.testing.assert_allclose(clean(BUSY, face, CPU), clean(BUSY, padded, CPU)[:61, :61], atol=1e-3)


def test_half_precision_works_on_the_change_alone() -> None:
    """Of a bfloat16 network the sum is still float32: a face that it does not change is not rounded."""
    net = make_cleaner(0, CHANNELS).to(torch.bfloat16)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    made = Cleaner(net)(images)
    assert made.dtype == torch.float32 and torch.equal(made, images)


def hearing() -> Cleaner:
    """`busy`, given a plane of noise that it hears."""
    net = with_noise(busy().net)
    torch.nn.init.normal_(net.conv_in.weight[:, 12:], std=0.1, generator=torch.Generator().manual_seed(1))
    return Cleaner(net).eval()


def test_a_network_that_is_given_noise_ignores_it_at_first() -> None:
    net = busy().net
    wider = with_noise(net)
    assert takes_noise(wider) and not takes_noise(net) and with_noise(wider) is wider
    face = portrait(61, 48)
    before, after = clean(Cleaner(net), face, CPU, 0.7), clean(Cleaner(wider), face, CPU, 0.7, seed=3)
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_texture_is_made_of_a_seed_s_noise_and_grows_with_perception() -> None:
    """Without perception there is none: the cleaned face is the mean of what it may have been."""
    cleaner, face = hearing(), portrait(61, 48)
    assert np.array_equal(clean(cleaner, face, CPU, 0, seed=1), clean(cleaner, face, CPU, 0, seed=2))
    apart = [
        np.abs(clean(cleaner, face, CPU, perception, seed=1) - clean(cleaner, face, CPU, perception, seed=2)).mean()
        for perception in (0.3, 0.9)
    ]
    assert 0 < apart[0] < apart[1]
    assert np.array_equal(clean(cleaner, face, CPU, 0.5, seed=1), clean(cleaner, face, CPU, 0.5, seed=1))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    noise, each = torch.randn(2, 1, 32, 32), torch.tensor([0.0, 0.8])
    both = cleaner(images, each, noise)
    alone = [cleaner(images[i : i + 1], float(each[i]), noise[i : i + 1])[0] for i in range(2)]
    assert torch.allclose(both, torch.stack(alone), atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 20_000))
def test_tiles_cover_every_pixel_and_share_an_overlap(length: int) -> None:
    starts = list(_starts(length))
    assert starts[0] == 0 and starts[-1] + TILE >= length
    if length > TILE:
        assert starts[-1] < length and not any(start % GRID for start in starts)
        assert all(0 < b - a <= TILE - OVERLAP for a, b in pairwise(starts))


@given(st.integers(1, 2 * TILE))
def test_no_weight_of_a_seam_is_zero(length: int) -> None:
    fade = _fade(length)
    assert fade.shape == (length,) and float(fade.min()) > 0 and float(fade.max()) <= 1
    assert np.array_equal(fade, fade[::-1])


def test_tiles_of_a_cleaner_that_sees_little_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """So no pixel is left out, moved or weighed twice."""

    class Sharper(torch.nn.Module):
        """Sees 3 x 3 pixels, so that no seam is further than that from what it needs."""

        def forward(self, images: torch.Tensor, perception: float, noise: None) -> torch.Tensor:
            mean = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
            return images + 0.5 * (images - mean)

    Sharper.net = make_cleaner(0, CHANNELS)

    for name, value in {"WHOLE": 100, "TILE": 96, "OVERLAP": 32, "GRID": 16}.items():
        monkeypatch.setattr(module, name, value)
    face = portrait(301, 187)
    tiled = clean(Sharper(), face, CPU)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "WHOLE", 1000)
    whole = clean(Sharper(), face, CPU)  # type: ignore[arg-type]
    # At a tile's own edge the mean is of fewer pixels, and weighs 1 / (2 OVERLAP) beside its neighbour's whole one.
    assert np.abs(tiled - whole).max() < 1.5
    assert np.abs(tiled - whole).mean() < 0.02


def test_large_faces_in_tiles_are_about_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an even texture the mean difference is 4 % of what is changed, 45 % where tiles begin off the grid.

    Not nothing: the group norms see a tile in place of the face, and the network sees beyond its edges.
    """
    for name, value in {"WHOLE": 200, "TILE": 192, "OVERLAP": 64, "GRID": 16}.items():
        monkeypatch.setattr(module, name, value)
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 300, (330, 325, 3)), (0, 0), 2)
    face = np.clip(128 + grain, 0, 255).astype(np.uint8)
    for cleaner, perception in ((BUSY, 0.0), (hearing(), 0.5)):  # the noise is drawn for the face, not for the tile
        monkeypatch.setattr(module, "WHOLE", 200)
        tiled = clean(cleaner, face, CPU, perception, seed=4)
        monkeypatch.setattr(module, "WHOLE", 400)
        whole = clean(cleaner, face, CPU, perception, seed=4)
        assert tiled.shape == face.shape
        changed, apart = np.abs(whole - face).mean(), np.abs(tiled - whole).mean()
        assert changed > 1 and 0 < apart < 0.08 * changed
