"""An append-only file with one JSON record per line: people's decisions, saved at once and never erased."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from authface.files import is_local, replacing, write_errors, write_file

T = TypeVar("T")


class Journal(Generic[T]):
    """Records of one type, oldest first. A line cut short by a kill is skipped and does not affect the others."""

    def __init__(self, path: Path, record: type[T]) -> None:
        self.path = path
        self._adapter = TypeAdapter(record)

    def read(self) -> tuple[list[T], int]:
        """The records, and the number of lines that could not be read."""
        records, torn = [], 0
        for line in self._bytes().splitlines():
            try:
                records.append(self._adapter.validate_json(line))
            except ValidationError:
                torn += 1
        return records, torn

    def append(self, record: T) -> None:
        """Append one record; it is on the disk when this returns. Raises AuthfaceError if the disk refuses."""
        line = self._adapter.dump_json(record) + b"\n"
        if not is_local(self.path):  # an object store cannot append
            with write_errors(self.path):
                before = self._bytes()
            write_file(self.path, before + _end_of_line(before) + line)
            return
        if not self.path.exists():
            with replacing(self.path, durable=True) as new:
                new.touch()
        with write_errors(self.path), self.path.open("a+b") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            file.write(_end_of_line(file.read(1)) + line)
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, records: Sequence[T]) -> None:
        """Replace the whole file: only to forget records, never because somebody changed their mind."""
        write_file(self.path, b"".join(self._adapter.dump_json(record) + b"\n" for record in records))

    def _bytes(self) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else b""


def _end_of_line(before: bytes) -> bytes:
    """The line break missing from `before` if a kill cut its last line; else empty."""
    return b"" if before.endswith(b"\n") or not before else b"\n"
