"""The figures as files: a row an output in Parquet and CSV, all of it in JSON, and as text for a terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from authface.errors import one_line
from authface.evaluate.catalogue import BY_NAME
from authface.evaluate.measure import Outcome
from authface.evaluate.restoration import Evaluation
from authface.files import replacing, write_file
from authface.metrics.stats import Mean

NAME = "restoration"


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """restoration.parquet, .csv and .json. Raises AuthfaceError where the disk refuses."""
    names = [metric.name for metric in evaluation.metrics]
    rows = [row_of(outcome, names) for outcome in evaluation.measured.outcomes.values()]
    texts = [pa.field(name, pa.string()) for name in rows[0] if name not in names]
    schema = pa.schema([*texts, *(pa.field(name, pa.float64()) for name in names)])
    with replacing(folder / f"{NAME}.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
    with (
        replacing(folder / f"{NAME}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, schema.names)
        writer.writeheader()
        writer.writerows(rows)
    text = json.dumps(evaluation.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_file(folder / f"{NAME}.json", (text + "\n").encode("utf-8", "backslashreplace"))


def row_of(outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """One output: its method and name, why it or a metric has no value, its content, its values."""
    return {
        "method": outcome.pair.method,
        "name": outcome.pair.name,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "problems": "; ".join(f"{name}: {said}" for name, said in outcome.problems.items()),
        "output_sha256": outcome.contents.get("output", ""),
        "truth_sha256": outcome.contents.get("truth", ""),
        "input_sha256": outcome.contents.get("input", ""),
        **{name: outcome.values.get(name) for name in names},
    }


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With so many decimals; ``n/a`` for None."""
    return "n/a" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def interval(mean: Mean, digits: int, *, sign: bool = False) -> str:
    """``27.31 [27.02, 27.60]``."""
    ends = f"[{number(mean.low, digits, sign=sign)}, {number(mean.high, digits, sign=sign)}]"
    return f"{number(mean.mean, digits, sign=sign)} {ends if mean.low is not None else ''}".rstrip()


def p_value(p: float | None) -> str:
    """Two digits; ``<1e-6`` below that."""
    return "n/a" if p is None else "<1e-6" if p < 1e-6 else f"{p:.2g}"


def label(name: str) -> str:
    """``lpips (lower is better)``, with the unit."""
    metric = BY_NAME[name]
    arrow = "↓" if metric.lower_better else "↑"
    return f"{name} {arrow}" + (f" {metric.unit}" if metric.unit else "")


def means_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a metric, a column a method; the count is said where it is not that of all faces."""
    faces = evaluation.protocol["faces"]
    rows = []
    for metric in evaluation.metrics:
        cells = []
        for method in evaluation.methods:
            mean = evaluation.means[method.name].get(metric.name)
            of = f" of {mean.count}" if mean is not None and mean.count != faces else ""
            cells.append("n/a" if mean is None else interval(mean, metric.digits) + of)
        rows.append([label(metric.name), *cells])
    for name in sorted({name for found in evaluation.sets.values() for name in found}):
        found = [evaluation.sets[method.name].get(name) for method in evaluation.methods]
        cells = ["n/a" if value is None else f"{value.value:.2f} of {value.count}" for value in found]
        rows.append([label(name), *cells])
    return ["", *(one_line(method.name, 40) for method in evaluation.methods)], rows


def differences_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what the second method of each two has more than the first."""
    rows = [
        [
            f"{one_line(found.second, 40)} - {one_line(found.first, 40)}",
            label(found.metric),
            interval(found.mean, BY_NAME[found.metric].digits, sign=True),
            p_value(found.p),
            f"{100 * found.better:.0f} %",
            str(found.mean.count),
        ]
        for found in sorted(evaluation.differences, key=lambda found: (found.first, found.second))
    ]
    return ["", "", "difference [95 %]", "p", "first better on", "faces"], rows
