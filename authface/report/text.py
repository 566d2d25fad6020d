"""Reports as text: tables for a terminal, CSV and JSON files, Markdown cards for the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from authface.errors import one_line
from authface.files import replacing, write_file


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Lines of a table whose columns are aligned by spaces, two between them; rows as long as `header`.

    The columns numbered in `right` are aligned on the right, all others on the left.
    """
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = (
        [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


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


def render_markdown(template: str, /, **values: Any) -> str:
    """The Markdown of a template of `authface.report.templates`; its filter `cell` is for text from outside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("authface.report", "templates"),
        autoescape=False,  # Markdown, not HTML: `cell` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = markdown_cell
    return environment.get_template(template).render(**values)


def markdown_cell(value: object) -> str:
    """Text from outside as it may stand in a Markdown table: one line, no markup that could act."""
    text = one_line(value, 200)
    for sign in "\\|`*_[]<>#":
        text = text.replace(sign, "\\" + sign)
    return text
