"""Where groups of faces go: by a hash of their names, or where their faces were before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from authface.curate.settings import SplitSettings
from authface.store.numbers import text_number
from authface.store.photoset import PhotoSet
from authface.store.rowfile import IdFile

SPLITS = ("train", "val", "test")
"""If faces of several splits come together, the earlier split in this list wins."""
NO_SPLIT = len(SPLITS)
"""Of a face that was in none, where splits are told by their places in `SPLITS`."""
_TRAIN = SPLITS.index("train")
_AT_ONCE = 1 << 12
"""Groups dealt at a time."""


def former_splits(photoset: PhotoSet, ids: IdFile) -> NDArray[np.int8]:
    """(n,) the split that each face has in the table `people`, by its place in `SPLITS`; `NO_SPLIT` where none."""
    numbers = np.fromiter(map(text_number, ids), np.uint64, len(ids))
    order = np.argsort(numbers).astype(np.int32)
    numbers = numbers[order]
    former = np.full(len(ids), NO_SPLIT, np.int8)
    places = {name: place for place, name in enumerate(SPLITS)}
    for part in photoset.people.parts() if len(ids) else ():
        rows = [(id, places[name]) for id, name in photoset.people.columns(part, ("id", "split")) if name in places]
        wanted = np.fromiter((text_number(id) for id, _ in rows), np.uint64, len(rows))
        split = np.fromiter((place for _, place in rows), np.int8, len(rows))
        at = np.minimum(np.searchsorted(numbers, wanted), len(ids) - 1)
        there = numbers[at] == wanted
        former[order[at[there]]] = split[there]
    return former


def assign(
    groups: NDArray[np.int32], former: NDArray[np.int8], ids: IdFile, settings: SplitSettings, seed: int
) -> NDArray[np.int8]:
    """(n,) the split of each face, by its place in `SPLITS`.

    `groups` are (n,) numbers of the faces that name the group of each, `former` as of `former_splits`.
    """
    names, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    split = np.full(len(names), NO_SPLIT, np.int8)
    np.minimum.at(split, of, former)
    drawn = np.flatnonzero(split == NO_SPLIT)
    where = np.fromiter(_draws(ids, names[drawn], seed), np.float64, len(drawn))
    order = np.argsort(where, kind="stable")
    where, drawn = where[order], drawn[order]
    counted = np.bincount(split, weights=sizes, minlength=NO_SPLIT + 1)[:NO_SPLIT].astype(int).tolist()
    for start in range(0, len(drawn), _AT_ONCE):
        some = drawn[start : start + _AT_ONCE]
        for group, draw, size in zip(
            some.tolist(), where[start : start + _AT_ONCE].tolist(), sizes[some].tolist(), strict=True
        ):
            split[group] = _place(draw, size, counted, settings, len(groups))
            counted[split[group]] += size
    _fill_empty(split, drawn, sizes, counted, settings)
    return split[of]


def _draws(ids: IdFile, names: NDArray[np.int32], seed: int) -> Iterator[float]:
    """A number of 0..1 for each group, which depends only on the seed and the group's name."""
    for start in range(0, len(names), _AT_ONCE):
        for name in ids[names[start : start + _AT_ONCE]]:
            yield int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]) / 2**64


def _fill_empty(
    split: NDArray[np.int8],
    drawn: NDArray[np.int64],
    sizes: NDArray[np.int64],
    counted: list[int],
    settings: SplitSettings,
) -> None:
    """Give a wanted split that no group was drawn for the smallest of the new groups of training; one stays there."""
    for name, wanted in (("test", settings.test or settings.test_faces), ("val", settings.val or settings.val_faces)):
        place, free = SPLITS.index(name), drawn[split[drawn] == _TRAIN]
        if wanted and not counted[place] and len(free) > 1:
            least = free[sizes[free].argmin()]
            if 2 * sizes[least] <= counted[_TRAIN]:
                split[least] = place
                counted[place] += int(sizes[least])
                counted[_TRAIN] -= int(sizes[least])


def _place(where: float, size: int, counted: list[int], settings: SplitSettings, total: int) -> int:
    """Where a new group of `size` faces of `total` goes; `where` is its draw, 0..1."""
    edge = 0.0
    for name, share, wanted in (
        ("test", settings.test, settings.test_faces),
        ("val", settings.val, settings.val_faces),
    ):
        if wanted:
            if counted[SPLITS.index(name)] + size <= wanted:
                return SPLITS.index(name)
            continue
        edge += share
        if edge - share <= where < edge and size <= max(share * total, 1):
            return SPLITS.index(name)
    return _TRAIN
