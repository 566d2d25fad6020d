"""Arrays too large for memory, as rows of a temporary file: those that are looked at come to memory."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from authface.errors import AuthfaceError, one_line
from authface.files import room_for_large, write_errors

_AT_ONCE = 1 << 12
"""Rows that are read at a time where all are asked for."""


class RowFile:
    """(n, length) numbers in a temporary file, read as an array is: by number, slice or numbers.

    What is read is a copy. Raises AuthfaceError where the disk refuses what is written.
    """

    def __init__(self, length: int, rows: int = 0, dtype: DTypeLike = np.float32) -> None:
        """`rows` rows of zeros."""
        self.shape, self.dtype = (rows, length), np.dtype(dtype)
        self._bytes = length * self.dtype.itemsize
        self._room = room_for_large()
        with write_errors(self._room), ExitStack() as stack:
            self._file = stack.enter_context(tempfile.TemporaryFile(prefix="authface-", buffering=0, dir=self._room))
            self._file.truncate(rows * self._bytes)
            weakref.finalize(self, stack.pop_all().close)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            return self._read([start], max(stop - start, 0))
        if isinstance(which, np.ndarray):
            return self._read(which.tolist(), 1)
        return self._read([which], 1).reshape(-1)

    def __setitem__(self, which: int | NDArray[np.integer[Any]], rows: NDArray[Any]) -> None:
        """Write one row, or several from there on, or those of these numbers."""
        written = memoryview(np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data)
        with write_errors(self._room):
            if isinstance(which, np.ndarray):
                for at, start in enumerate(which.tolist()):
                    self._write(start, written[at * self._bytes : (at + 1) * self._bytes])
            else:
                self._write(which, written)

    def _write(self, start: int, left: memoryview) -> None:
        self._file.seek(start * self._bytes)
        while left:  # what the last free blocks of a disk take may be a part
            left = left[self._file.write(left) :]

    def append(self, rows: NDArray[Any]) -> None:
        """Add (k, length) rows at the end."""
        self[len(self)] = rows
        self.shape = len(self) + len(rows), self.shape[1]

    def _read(self, starts: list[int], rows: int) -> NDArray[Any]:
        """So many rows from each of these on."""
        made = np.empty((len(starts) * rows, self.shape[1]), self.dtype)
        room, size = made.reshape(-1).view(np.uint8).data, rows * self._bytes
        for at, start in enumerate(starts):
            self._file.seek(start * self._bytes)
            left = room[at * size : (at + 1) * size]
            while left:  # one read gives 2 GB at most
                if not (read := self._file.readinto(left)):
                    raise IndexError(f"rows {start} to {start + rows - 1} of {len(self)}")
                left = left[read:]
        return made


class DealtRows:
    """Rows dealt to groups as they come, then read group by group; 16 bytes of memory for each `append` and group."""

    def __init__(self, length: int, groups: int, dtype: DTypeLike = np.float32) -> None:
        self._rows = RowFile(length, dtype=dtype)
        self._pieces = [array("q") for _ in range(groups)]
        """Of each group where its pieces start and end, in turn."""

    def append(self, rows: NDArray[Any], which: NDArray[np.integer[Any]], group: NDArray[np.integer[Any]]) -> None:
        """Deal the rows of these (k,) numbers, which may come again, to their (k,) groups, numbered from 0."""
        order, counts = np.argsort(group, kind="stable"), np.bincount(group)
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            start, end = len(self._rows), int(ends[number])
            self._rows.append(rows[which[order[end - counts[number] : end]]])
            self._pieces[number].extend((start, len(self._rows)))

    def read(self, group: int, at_once: int = 1) -> Iterator[NDArray[Any]]:
        """The rows of a group in the order they came in, at least `at_once` at a time but for the last."""
        pieces, held = list[NDArray[Any]](), 0
        ends = iter(self._pieces[group])
        for start, stop in zip(ends, ends, strict=True):
            pieces.append(self._rows[start:stop])
            held += stop - start
            if held >= at_once:
                yield np.concatenate(pieces)
                pieces, held = [], 0
        if pieces:
            yield np.concatenate(pieces)

    def all(self, group: int) -> NDArray[Any]:
        """(k, length) the rows of a group, in the order they came in."""
        return np.concatenate([self._rows[:0], *self.read(group)])


class IdFile:
    """Ids of photos or faces by number, in a temporary file. Raises AuthfaceError for what is no id, or a full disk."""

    LONGEST = 88
    """Bytes of an id: a sha256 in hex, a hyphen and a number take less."""

    def __init__(self, ids: Sequence[str] = ()) -> None:
        self._rows = RowFile(self.LONGEST, dtype=np.uint8)
        self.extend(ids)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]

    @overload
    def __getitem__(self, which: int) -> str: ...
    @overload
    def __getitem__(self, which: slice | NDArray[np.integer[Any]]) -> list[str]: ...
    def __getitem__(self, which: int | slice | NDArray[np.integer[Any]]) -> str | list[str]:
        if isinstance(which, int):
            return str(self._rows[which].tobytes().rstrip(b"\0"), "ascii")
        texts: list[str] = self.coded(which).astype(str).tolist()
        return texts

    def coded(self, which: slice | NDArray[np.integer[Any]]) -> NDArray[np.bytes_]:
        """(k,) some of them as bytes, which sort as they do."""
        return self._rows[which].view(f"S{self.LONGEST}").reshape(-1)

    def extend(self, ids: Sequence[str]) -> None:
        """Add some at the end."""
        for id in ids:
            if not id.isascii() or not 0 < len(id) <= self.LONGEST or "\0" in id:
                raise AuthfaceError(f"{one_line(id, 100)} is no id: it has 1 to {self.LONGEST} letters of ASCII")
        coded = np.array(list(ids), f"S{self.LONGEST}")
        self._rows.append(coded.view(np.uint8).reshape(len(coded), self.LONGEST))
