"""The Fréchet distance against its closed forms, and moments against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from authface.metrics.quality import Moments, frechet_distance


def test_moments_are_numpys_however_they_come() -> None:
    vectors = np.random.default_rng(0).normal(3, 2, (101, 5)).astype(np.float32)
    moments = Moments(5)
    for part in (vectors[:1], vectors[1:1], vectors[1:60], vectors[60:]):
        moments.add(part)
    assert moments.count == 101
    assert np.allclose(moments.mean, vectors.astype(float).mean(axis=0), atol=1e-12)
    assert np.allclose(moments.covariance, np.cov(vectors.astype(float), rowvar=False), atol=1e-12)


def test_the_frechet_distance_has_its_closed_form() -> None:
    """Of Gaussians with one set of axes it is |m1 - m2|^2 + sum (s1 - s2)^2, s the deviations along them."""
    random = np.random.default_rng(2)
    axes = np.linalg.qr(random.normal(size=(7, 7)))[0]
    s1, s2 = random.uniform(0.1, 3, 7), random.uniform(0.1, 3, 7)
    m1, m2 = random.normal(size=7), random.normal(size=7)
    first, second = ((m, (axes * s**2) @ axes.T) for m, s in ((m1, s1), (m2, s2)))
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_any_gaussians_is_that_of_the_matrix_root() -> None:
    random = np.random.default_rng(3)
    features = [random.normal(size=(60, 12)) @ random.normal(size=(12, 12)) + n for n in range(2)]
    (m1, c1), (m2, c2) = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in features]
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance((m1, c1), (m2, c2)) == pytest.approx(expected, rel=1e-9)
    few = Moments(12)
    few.add(features[0][:4])
    value = frechet_distance((few.mean, few.covariance), (m2, c2))
    assert np.isfinite(value) and value > 0, "of fewer images than features the covariance is singular"
