"""The faces that are most alike, of a set or of two: exact for few, through cells where they meet for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from authface.curate.split.cells import AT_ONCE, Cells, largest
from authface.curate.split.likeness import Likeness, Vectors
from authface.curate.split.pairs import SortedPairs
from authface.store.rowfile import DealtRows

FLAT_ROWS = 20_000
"""Up to so many faces all pairs are compared, in a second or two; beyond, those that meet in a cell."""
_PRODUCTS = 1 << 20
"""Products looked at at a time."""
_PAIRS = 1 << 14
"""Pairs at a time whose vectors are in memory."""


@dataclass(frozen=True)
class Faces:
    """Faces by number: (n, length) unit vectors, and how alike each is to others."""

    vectors: Vectors
    likeness: Likeness


def pairs_alike(faces: Faces, least: float, most: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """(k, 2) numbers of faces whose likeness is `least` or more, and (k,) that likeness; the highest first.

    Each pair once, the smaller number first, in several turns, where the one is among the `most` likest of the other.
    Of more than `FLAT_ROWS` faces some pairs are missed (benchmarks/neighbours.py). Time grows with n but for the look
    for the cells, half of it at 400,000 faces, which grows with n^1.5, and for a person of thousands of faces: these
    are in few cells, which all of them are compared in. 3 to 6 kB of temporary files a face of 128 numbers.
    """
    found = np.zeros(len(faces.vectors), np.int32)
    for pairs, values in _alike(faces, faces, least, most).read():
        first = _places(pairs.ravel(), found).reshape(-1, 2)
        near = (first < most).any(axis=1)
        yield pairs[near], values[near]


def likest_others(
    faces: Faces, others: Faces, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of the faces that some other is as like as `least`, of the likest other, and that likeness.

    Of more than `FLAT_ROWS` others some are missed.
    """
    count = len(faces.vectors)
    nearest, likeness = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    for pairs, values in _alike(faces, others, least, 1).read():
        new, first = np.unique(pairs[:, 0], return_index=True)
        first, new = first[nearest[new] < 0], new[nearest[new] < 0]
        nearest[new], likeness[new] = pairs[first, 1] - count, values[first]
    asked = np.flatnonzero(nearest >= 0)
    return asked, nearest[asked], likeness[asked]


def _places(numbers: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """(n,) how often each number came before; `counts` of each number's earlier turns are brought up to date."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    places = np.empty(len(numbers), np.int64)
    places[order] = np.arange(len(numbers)) - np.searchsorted(ordered, ordered) + counts[ordered]
    known, more = np.unique(numbers, return_counts=True)
    counts[known] += more.astype(np.int32)
    return places


def _alike(faces: Faces, others: Faces, least: float, most: int) -> SortedPairs:
    """Pairs of a face and one of the others; where these are not the same, their numbers go on after the faces'."""
    cells = Cells(others.vectors, FLAT_ROWS)
    alone = others is faces
    pairs, there = SortedPairs(), _Met(others, cells)
    here = there if alone else _Met(faces, cells)
    for wide in range(cells.wide):
        known = there.all(wide)
        for asked in [known] if alone else here.some(wide):
            row, column = np.divmod(_meetings(asked, known, least, most), len(known.numbers))
            for at in range(0, len(row), _PAIRS):
                some = slice(at, at + _PAIRS)
                first, second = asked.numbers[row[some]], known.numbers[column[some]]
                products = np.vecdot(asked.vectors[row[some]], known.vectors[column[some]])
                value = faces.likeness.of(products, first, others.likeness, second)
                enough = value >= least
                offset = 0 if alone else len(faces.vectors)
                pairs.add(first[enough], second[enough] + offset, value[enough])
    return pairs


@dataclass(frozen=True)
class _Gathering:
    """Faces of one wide cell."""

    numbers: NDArray[np.int64]
    """(m,) of the faces, rising."""
    vectors: NDArray[np.float32]
    """(m, length)"""
    likeness: Likeness
    """Of all faces, by number."""
    members: list[NDArray[np.int64]]
    """Of each of its cells, rows of the above."""


class _Met:
    """Faces in a file, by the wide cells that some of their cells belong to."""

    def __init__(self, faces: Faces, cells: Cells) -> None:
        count, length = faces.vectors.shape
        self._likeness, self._cells = faces.likeness, cells
        self._vectors = DealtRows(length, cells.wide)
        self._told = DealtRows(1 + cells.meetings, cells.wide, np.int32)
        """Number and cells of each."""
        for start in range(0, count, AT_ONCE):
            vectors: NDArray[np.float32] = faces.vectors[start : start + AT_ONCE]
            own = cells.of(vectors)
            row, wide = _every(own // cells.own, cells.wide)
            self._vectors.append(vectors, row, wide)
            self._told.append(np.column_stack([np.arange(start, start + len(own)), own]), row, wide)

    def all(self, wide: int) -> _Gathering:
        """All faces of a wide cell."""
        return self._gathering(wide, self._told.all(wide), self._vectors.all(wide))

    def some(self, wide: int) -> Iterator[_Gathering]:
        """The same, some at a time."""
        told, vectors = self._told.read(wide, AT_ONCE), self._vectors.read(wide, AT_ONCE)
        return (self._gathering(wide, *each) for each in zip(told, vectors, strict=True))

    def _gathering(self, wide: int, told: NDArray[np.int32], vectors: NDArray[np.float32]) -> _Gathering:
        row, cell = _every(told[:, 1:] - wide * self._cells.own, self._cells.own)
        order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=self._cells.own)
        members = np.split(row[order], np.cumsum(sizes)[:-1])
        return _Gathering(told[:, 0].astype(np.int64), vectors, self._likeness, members)


def _every(values: NDArray[np.int32], end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows, rising, and values of all different ones of each row that are from 0 to below `end`."""
    row, value = np.repeat(np.arange(len(values)), values.shape[1]), values.ravel()
    real = (value >= 0) & (value < end)
    codes = np.unique(row[real] * end + value[real])
    return codes // end, codes % end


def _meetings(asked: _Gathering, known: _Gathering, least: float, most: int) -> NDArray[np.int64]:
    """Rows of the asked times the number of known ones, plus rows of the `most` known that each is likest to in a cell.

    Each pair once; where both are the same faces, the smaller row first. Rounding may add some that are less alike.
    """
    found = [np.zeros(0, np.int64)]
    for rows, columns in zip(asked.members, known.members, strict=True):
        step = max(_PRODUCTS // max(len(columns), 1), 1)
        for start in range(0, len(rows), step):
            found.append(_meeting(asked, rows[start : start + step], known, columns, least, most))
    return np.unique(np.concatenate(found))


def _meeting(
    asked: _Gathering,
    rows: NDArray[np.int64],
    known: _Gathering,
    columns: NDArray[np.int64],
    least: float,
    most: int,
) -> NDArray[np.int64]:
    """The same for one cell and some of its rows."""
    products = asked.vectors[rows] @ known.vectors[columns].T
    first, second = asked.numbers[rows], known.numbers[columns]
    if asked is known:  # none meets itself
        products[np.arange(len(rows)), np.searchsorted(columns, rows)] = -np.inf
    near = asked.likeness.near(products, first, known.likeness, second, least)
    many = np.flatnonzero(np.count_nonzero(near, axis=1) > most)
    near[many] = False
    row, column = np.divmod(np.flatnonzero(near), len(columns))  # np.nonzero of two dimensions is ten times as slow
    if len(many):
        value = asked.likeness.of(products[many], first[many, None], known.likeness, second)
        row = np.concatenate([row, np.repeat(many, most)])
        column = np.concatenate([column, largest(value, most).ravel()])
    one, other_one = rows[row], columns[column]
    if asked is known:
        one, other_one = np.minimum(one, other_one), np.maximum(one, other_one)
    return np.asarray(one * len(known.numbers) + other_one)
