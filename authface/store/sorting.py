"""Rows sorted in a temporary file: what a command holds of a set does not grow with the set."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import TracebackType
from typing import Any, Self

from authface.errors import AuthfaceError, first_line


class SortedRows:
    """Rows of text, bytes and numbers in a temporary file of SQLite, in order; to be closed, or used with ``with``.

    `order` is what SQL sorts by; of rows that are equal in it the first comes first. Text sorts by its UTF-8, what is
    not a number before all numbers. Queries call the table ``sorted``; its ``rowid`` counts the rows from 1, in order.
    Raises AuthfaceError where there is no room for the file.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]], order: str) -> None:
        with _room(), ExitStack() as stack:
            self._base = stack.enter_context(closing(sqlite3.connect("")))
            self._base.execute(f"create table found ({', '.join(names)})")
            self._base.executemany(f"insert into found values ({', '.join('?' * len(names))})", rows)
            self._base.execute(f"create table sorted as select * from found order by {order}, rowid")
            self._base.execute("drop table found")
            self._base.commit()
            stack.pop_all()  # it stays open

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def select(self, asked: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """What ``select ASKED`` finds, row by row; `values` stand where it says ``?``."""
        with _room():
            yield from self._base.execute(f"select {asked}", values)


@contextmanager
def _room() -> Iterator[None]:
    """Raise what SQLite says while the block runs as an AuthfaceError."""
    try:
        yield
    except sqlite3.Error as error:
        raise AuthfaceError(
            f"the temporary file to sort rows in cannot be used: {first_line(error, 100)}; free space on the disk of "
            "temporary files, or name another in SQLITE_TMPDIR, and run again"
        ) from error
