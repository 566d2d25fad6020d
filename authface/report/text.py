"""Figures as text: tables for a terminal, CSV and JSON files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from authface.files import replacing, write_file


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a table whose columns are aligned on the left by spaces, two between them; rows as long as `header`."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, the header first; None is an empty cell. Raises AuthfaceError where the disk refuses."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON. Raises AuthfaceError where the disk refuses, ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, (text + "\n").encode("utf-8", "backslashreplace"))
