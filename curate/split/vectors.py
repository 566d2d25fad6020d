"""Vectors of a set in a temporary file: those that are looked at come to memory, whatever the size of the set."""

from __future__ import annotations

import tempfile
import weakref
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from authface.files import room_for_large, write_errors


class VectorFile:
    """(n, length) float32 in a temporary file, read and written as an array is: by number, slice or numbers.

    What is read is a copy. Raises AuthfaceError where the disk refuses what is written.
    """

    def __init__(self, length: int, rows: int = 0) -> None:
        """`rows` vectors of zeros."""
        self.shape = rows, length
        self._bytes = length * np.dtype(np.float32).itemsize
        self._room = room_for_large()
        with write_errors(self._room), ExitStack() as stack:
            self._file = stack.enter_context(tempfile.TemporaryFile(prefix="authface-", buffering=0, dir=self._room))
            self._file.truncate(rows * self._bytes)
            weakref.finalize(self, stack.pop_all().close)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice | NDArray[np.int64]) -> NDArray[np.float32]:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            return self._read(start, max(stop - start, 0))
        if isinstance(which, np.ndarray):
            made = np.empty((len(which), self.shape[1]), np.float32)
            for at, number in enumerate(which.tolist()):
                made[at] = self._read(number, 1)
            return made
        return self._read(which, 1).reshape(-1)

    def __setitem__(self, number: int, vector: NDArray[np.float32]) -> None:
        self._write(number, vector)

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add (k, length) vectors at the end."""
        self._write(len(self), vectors)
        self.shape = len(self) + len(vectors), self.shape[1]

    def _read(self, start: int, rows: int) -> NDArray[np.float32]:
        data = bytearray(rows * self._bytes)
        self._file.seek(start * self._bytes)
        left = memoryview(data)
        while left:  # one read gives 2 GB at most
            if not (read := self._file.readinto(left)):
                raise IndexError(f"vectors {start} to {start + rows - 1} of {len(self)}")
            left = left[read:]
        return np.frombuffer(data, np.float32).reshape(rows, self.shape[1])

    def _write(self, start: int, vectors: NDArray[np.float32]) -> None:
        with write_errors(self._room):
            self._file.seek(start * self._bytes)
            left = memoryview(np.ascontiguousarray(vectors, np.float32).tobytes())
            while left:  # what the last free blocks of a disk take may be a part
                left = left[self._file.write(left) :]


Vectors = NDArray[np.float32] | VectorFile
"""(n, length), in memory or in a file."""


def gathered(vectors: Vectors, numbers: NDArray[np.int64], at_once: int = 1 << 12) -> VectorFile:
    """The vectors of these numbers, in a file of their own."""
    made = VectorFile(vectors.shape[1])
    for start in range(0, len(numbers), at_once):
        made.append(vectors[numbers[start : start + at_once]])
    return made
