"""The paper's tables beside ours: what it prints, what our reports hold, and what is missing."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from authface.errors import UsageError, first_line, one_line
from authface.files import local

Origin = Literal["paper", "ours", "others"]
COMMANDS = {
    "restoration": "authface evaluate restoration --outputs DIR",
    "ab": "authface evaluate ab --outputs A=DIR --outputs B=DIR",
    "runtime": "authface evaluate runtime --model M",
    "prior": "authface evaluate prior --model M",
}
"""What makes the report that a table reads."""


@dataclass(frozen=True)
class Column:
    """One figure; `metric` is its name in our reports."""

    name: str
    metric: str
    digits: int
    lower_better: bool = False


@dataclass(frozen=True)
class Value:
    """A figure, with its 95 % interval and count where they are known."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class TableRow:
    """One method or setting on one set; a column without a value is missing."""

    set: str
    label: str
    origin: Origin
    values: dict[str, Value]
    beside: str = ""
    """Label of the paper's row that it is compared with, in its own set; empty: none."""
    source: str = ""
    """Who prints a row of others."""


@dataclass(frozen=True)
class OurReport:
    """A report of ours: ``NAME[@SET]=DIR``."""

    name: str
    set: str
    folder: Path


@dataclass(frozen=True)
class PaperTable:
    """One table as the paper prints it."""

    number: int
    title: str
    reads: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    same_as: str = ""
    """The paper's own method, which any of ours is compared with."""
    newer: tuple[TableRow, ...] = ()
    """Methods that are newer than the paper, as others print them: shown apart, compared with nothing."""
    newer_heading: str = ""

    def label_beside(self, name: str, set: str) -> str:
        """Label of the row that something of ours with this name is compared with; empty where there is none."""
        labels = {row.label.casefold(): row.label for row in self.rows if row.set == set}
        found = labels.get(name.casefold(), self.same_as)
        return found if found.casefold() in labels else ""


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with our rows among its own, and how ours came about."""

    table: PaperTable
    rows: tuple[TableRow, ...]
    protocols: dict[str, Any] = field(default_factory=dict)

    def difference(self, row: TableRow, column: Column) -> float | None:
        """Ours less the paper's; None where either is missing."""
        if row.origin != "ours" or column.name not in row.values:
            return None
        for other in self.rows:
            if (other.origin, other.set, other.label) == ("paper", row.set, row.beside) and column.name in other.values:
                return row.values[column.name].value - other.values[column.name].value
        return None


@functools.cache
def paper_table(number: int) -> PaperTable:
    """Table 1 to 6."""
    held, newer = _data("paper.toml"), _data("newer.toml")
    entry = held[str(number)]
    columns = tuple(Column(**column) for column in entry["columns"])
    return PaperTable(
        number, entry["title"], entry["reads"], held["source"], columns, _printed(entry["rows"], columns, "paper"),
        tuple(entry["notes"]), entry.get("same_as", ""), _printed(newer.get(str(number), []), columns, "others"),
        newer["heading"],
    )  # fmt: skip


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("authface.evaluate.paper").joinpath(name).read_text("utf-8"))


def _printed(rows: Sequence[dict[str, Any]], columns: Sequence[Column], origin: Origin) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(
            row.get("set", ""),
            row["label"],
            origin,
            {column.name: Value(float(row[column.name])) for column in columns if column.name in row},
            source=row.get("source", ""),
        )
        for row in rows
    )


def parse_reports(given: Sequence[str]) -> list[OurReport]:
    """``NAME=DIR`` or ``NAME@SET=DIR``. Raises UsageError where it is neither, or one is given twice."""
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        name, _, on = name.partition("@")
        if not equals or not name.strip() or not folder:
            raise UsageError(f"--ours {one_line(text)}: write it as NAME=REPORT_DIR or NAME@SET=REPORT_DIR")
        found.append(OurReport(name.strip(), on.strip(), local(folder)))
    twice = [one.name for one in found if [(o.name, o.set) for o in found].count((one.name, one.set)) > 1]
    if twice:
        raise UsageError(f"--ours: two are called {one_line(twice[0])!r} on one set: name them apart")
    return found


def fill(table: PaperTable, ours: Sequence[OurReport]) -> FilledTable:
    """The table with our reports. Raises UsageError where a folder holds no report of the kind it reads."""
    mine: list[TableRow] = []
    protocols = {}
    for one in ours:
        report = _read(one.folder, table.reads)
        protocols[f"{one.name}@{one.set}" if one.set else one.name] = report.get("protocol", {})
        mine += _rows(table, one, report)
    return FilledTable(table, tuple(_placed(table.rows, mine)), protocols)


def _placed(theirs: Sequence[TableRow], mine: Sequence[TableRow]) -> Iterator[TableRow]:
    """By set in the paper's order, then sets of ours alone; a row named as one of the paper's comes right below it."""
    sets = list(dict.fromkeys([row.set for row in theirs] + [row.set for row in mine]))
    for on in sets:
        rest = [row for row in mine if row.set == on]
        for row in theirs:
            if row.set == on:
                yield row
                named = [other for other in rest if other.label.casefold() == row.label.casefold()]
                yield from named
                rest = [other for other in rest if other not in named]
        yield from rest


def _read(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / f"{kind}.json"
    try:
        held = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{one_line(folder)} holds no {kind}.json: {COMMANDS[kind]} -o {one_line(folder)}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{one_line(path)} cannot be read ({first_line(error, 80)}): make the report again") from error
    if not isinstance(held, dict):
        raise UsageError(f"{one_line(path)} is no report: make it again with {COMMANDS[kind]}")
    return held


def _rows(table: PaperTable, one: OurReport, report: dict[str, Any]) -> Iterator[TableRow]:
    """What a report holds in this table; several methods in one report are told apart by their names."""
    try:
        found = dict(_READERS[table.reads](report))
    except (KeyError, TypeError, AttributeError) as error:
        kind = table.reads
        raise UsageError(
            f"{one_line(one.folder)}/{kind}.json lacks {first_line(error, 60)}: {COMMANDS[kind]}"
        ) from error
    for name, values in found.items():
        label = one.name if len(found) == 1 else f"{one.name}: {name}"
        named = {column.name: values[column.metric] for column in table.columns if column.metric in values}
        yield TableRow(one.set, label, "ours", named, table.label_beside(one.name, one.set))


def _restoration(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Value]]]:
    for method, means in report["means"].items():
        values = {name: Value(m["mean"], m["low"], m["high"], m["count"]) for name, m in means.items()}
        values |= {
            name: Value(found["value"], count=found["count"])
            for name, found in report.get("sets", {}).get(method, {}).items()
        }
        yield method, values


def _ab(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Value]]]:
    for row in report["table"]:
        values = {}
        for choice, share in row["shares"].items():
            low, high = share["interval"] or share["wilson"]
            values[choice] = Value(100 * share["share"], 100 * low, 100 * high, row["answers"])
        yield f"beside {row['other']}", values


def _runtime(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Value]]]:
    face = report["face"]
    values = {"seconds": Value(face["median"], face["low"], face["high"], report["runs"])}
    if report["memory"] is not None:
        values["memory"] = Value(report["memory"])
    yield "", values


def _prior(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Value]]]:
    yield "", {name: Value(v["value"], v.get("low"), v.get("high"), v["count"]) for name, v in report["values"].items()}


_READERS = {"restoration": _restoration, "ab": _ab, "runtime": _runtime, "prior": _prior}
