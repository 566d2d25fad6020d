"""Files of SQLite, and rows sorted in a temporary one: what a command holds of a set does not grow with the set."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from authface.errors import AuthfaceError, first_line


class SqliteFile:
    """A file of SQLite, open until the end of a ``with``; what SQLite says is an AuthfaceError of one line.

    `name` and `advice` stand in that line. An empty path is a temporary file.
    """

    def __init__(self, path: Path | str, name: str, advice: str) -> None:
        self._name, self._advice = name, advice
        with self._told():
            self._base = sqlite3.connect(path, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what SQLite says while the block runs as an AuthfaceError."""
        try:
            yield
        except sqlite3.Error as error:
            raise AuthfaceError(f"{self._name} cannot be used: {first_line(error, 100)}; {self._advice}") from error


class SortedRows(SqliteFile):
    """Rows of text, bytes and numbers in a temporary file of SQLite, in order; to be used with ``with``.

    `order` is what SQL sorts by; of rows that are equal in it the first comes first. Text sorts by its UTF-8, what is
    not a number before all numbers. Queries call the table ``sorted``; its ``rowid`` counts the rows from 1, in order.
    Raises AuthfaceError where there is no room for the file.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]], order: str) -> None:
        advice = "free space on the disk of temporary files, or name another in SQLITE_TMPDIR, and run again"
        super().__init__("", "the temporary file to sort rows in", advice)
        with ExitStack() as stack, self._told():
            stack.push(self)
            self._base.execute(f"create table found ({', '.join(names)})")
            self._base.executemany(f"insert into found values ({', '.join('?' * len(names))})", rows)
            self._base.execute(f"create table sorted as select * from found order by {order}, rowid")
            self._base.execute("drop table found")
            self._base.commit()
            stack.pop_all()  # it stays open

    def select(self, asked: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """What ``select ASKED`` finds, row by row; `values` stand where it says ``?``."""
        with self._told():
            yield from self._base.execute(f"select {asked}", values)
