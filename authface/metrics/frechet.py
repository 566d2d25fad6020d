"""Fréchet distance of two Gaussians, and the mean and covariance of features that come one batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    Array = NDArray[np.float64]


class Moments:
    """Mean and covariance of vectors, added batch by batch: memory does not grow (Chan et al. 1979)."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros(length)
        self._scatter: Array = np.zeros((length, length))

    def add(self, vectors: NDArray[np.floating]) -> None:
        """(n, length) more."""
        batch = np.asarray(vectors, np.float64)
        if not len(batch):
            return
        mean = batch.mean(axis=0)
        centred, apart = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred + np.outer(apart, apart) * (self.count * len(batch) / total)
        self.mean += apart * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """(length, length), with n - 1 as numpy.cov has it; of two vectors or more."""
        return self._scatter / (self.count - 1)


def frechet_distance(first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
    """|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two means and covariances (Heusel et al. 2017, equation 6).

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    complex numbers and no offset where a covariance is singular, as it is of fewer images than features.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ cov2 @ root
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum()
    apart = mean1 - mean2
    return float(apart @ apart + np.trace(cov1) + np.trace(cov2) - 2 * roots)
