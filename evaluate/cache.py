"""What was measured before, by content: a file of SQLite beside the report."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from authface.errors import AuthfaceError, one_line
from authface.files import write_errors

FILE = "values.sqlite"


def key(metric: str, version: str, *contents: str) -> str:
    """What a value is kept under: the metric, all that its code and networks are, and the sha256 of what it judged."""
    return hashlib.sha256("\n".join((metric, version, *contents)).encode()).hexdigest()


class ValueCache:
    """Values by `key`; each `put` is on the disk when it returns, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with write_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._base = sqlite3.connect(self.path, timeout=60)
            self._base.execute("create table if not exists held (key text primary key, value real not null)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def get(self, key: str) -> float | None:
        """The value, or None where it was not measured yet."""
        with self._errors():
            found = self._base.execute("select value from held where key = ?", (key,)).fetchone()
        return None if found is None else float(found[0])

    def put(self, values: Iterable[tuple[str, float]]) -> None:
        """Keep values, in place of what was there."""
        with self._errors(), self._base:
            self._base.executemany("insert or replace into held values (?, ?)", values)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise AuthfaceError(
                f"{one_line(self.path)} cannot be used ({one_line(error, 100)}): delete it, values are measured again"
            ) from error
