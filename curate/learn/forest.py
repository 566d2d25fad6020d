"""A forest of decision trees as plain arrays: NumPy grows none, but reads what scikit-learn grew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ROWS = 1000
"""Faces that go down the trees at a time: memory stays flat."""
_KINDS = {
    **dict.fromkeys(("roots", "column", "left", "right"), ("int32", 1)),
    "threshold": ("float64", 1),
    "shares": ("float32", 2),
}
"""Type and dimensions of each array of a forest."""
_SLACK = 1e-3
"""By how much the shares of a node may miss 1."""


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees one after the other; below a node lie nodes of greater numbers, so every way ends."""

    roots: NDArray[np.int32]
    """(trees,) first node of each tree."""
    column: NDArray[np.int32]
    """(nodes,) the column that is asked; -1 in a leaf."""
    threshold: NDArray[np.float64]
    """(nodes,) to the left where the column is at most this."""
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    """(nodes,) the nodes below; in a leaf itself."""
    shares: NDArray[np.float32]
    """(nodes, classes) of the decided faces of a leaf that are of each class; rows of sum 1."""

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], columns: int) -> Self:
        """A forest from arrays of any origin. Raises ValueError where they are no forest over so many columns."""
        if {name: (array.dtype.name, array.ndim) for name, array in arrays.items()} != _KINDS:
            raise ValueError(f"arrays {', '.join(f'{name} ({arrays[name].dtype})' for name in sorted(arrays))[:100]}")
        made = cls(**arrays)
        made._check(columns)
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, classes) mean share of each class over all trees, of (n, columns) without NaN."""
        pieces = [
            np.asarray(self.shares[self.leaves(values[at : at + ROWS])].mean(axis=1, dtype=np.float64))
            for at in range(0, len(values), ROWS)
        ]
        return np.concatenate([np.empty((0, self.shares.shape[1])), *pieces])

    def leaves(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        """(n, trees) the leaf of each tree in which faces end, of (n, columns) without NaN."""
        seen = values.astype(np.float32)  # as scikit-learn does: thresholds lie between numbers of this precision
        face = np.arange(len(seen))[:, None]
        node = np.repeat(self.roots[None], len(seen), axis=0)
        while (asked := self.column[node]).max(initial=-1) >= 0:
            goes_left = seen[face, np.maximum(asked, 0)] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return node

    def _check(self, columns: int) -> None:
        nodes, own = len(self.column), np.arange(len(self.column))
        leaf = self.column < 0
        below = np.stack([self.left, self.right])
        right = (
            nodes > 0
            and len(self.roots) > 0
            and all(array.shape == (nodes,) for array in (self.threshold, self.left, self.right))
            and len(self.shares) == nodes
            and (self.column < columns).all()
            and (below[:, leaf] == own[leaf]).all()
            and (below[:, ~leaf] > own[~leaf]).all()
            and (below < nodes).all()
            and (self.roots >= 0).all()
            and (self.roots < nodes).all()
            and np.isfinite(self.threshold).all()
            and (self.shares >= 0).all()
            and (np.abs(self.shares.sum(axis=1) - 1) < _SLACK).all()
        )
        if not right:
            raise ValueError("the nodes are no forest")
