"""Fits the coefficients of `authface.curate.filter.measures.processing` to photos of known truth, and prints them.

    python benchmarks/fit_processing.py measure FOLDER OUT.npz [--faces 60]
    python benchmarks/fit_processing.py fit FILE.npz...

FOLDER and truth are those of ``enlargements.py``, of its half `choose` only: report with that script. Three logistic
regressions with a ridge tell the unharmed from smooth enlargements by 1.5 and more, from sharpened photos and from
sharpened enlargements. Enlarged faces are larger: each size of them weighs as much as it does among the unharmed, so
that size tells nothing. The intercept is then moved until 0.5 lies `MARGIN`, in log odds, over the quantile `HIGHEST`
of persons, each by the highest of their unharmed photos that the other limits keep, and judged by a fit on three
quarters of the persons, without them. So an original that was enlarged before, and was not seen, moves no limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from enlargements import HALVES, Portrait, harmed, measured, originals, refused, unharmed
from numpy.typing import NDArray

from authface.curate.filter.measures.processing import NAMES, traces
from authface.curate.filter.measures.quality import native_luma

Matrix = NDArray[np.float64]

HIGHEST, MARGIN = 0.985, 0.5
FOLDS = 4
RIDGE = 3.0
UNHARMED_WEIGHT, HARMED_WEIGHT = 1600.0, 400.0
LARGER_WEIGHT = 0.15
"""Of harmed faces larger than any unharmed one."""
KINDS: dict[str, Callable[[str, float], bool]] = {
    "ENLARGED": lambda kind, factor: kind in {"bilinear", "bicubic", "lanczos"} and factor >= 1.5,
    "SHARPENED": lambda kind, factor: kind.startswith(("unsharp mask", "phone")),
    "SHARPENED_ENLARGEMENT": lambda kind, factor: kind == "sharpened",
}


@dataclass(frozen=True)
class Table:
    """What was measured, a row a photo."""

    names: NDArray[np.str_]
    persons: NDArray[np.int64]
    good: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    """Whether it is unharmed and the other limits keep it."""
    sizes: Matrix
    """Logarithm of the distance of the eyes."""
    values: Matrix
    """(rows, numbers of `traces`)."""

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Table:
        files = [np.load(path) for path in paths]
        columns = {field.name: np.concatenate([file[field.name] for file in files]) for field in fields(cls)}
        of_file = np.repeat(np.arange(len(files)), [len(file["names"]) for file in files])
        columns["persons"] = columns["persons"] * len(files) + of_file
        return cls(**columns)


def rows(portraits: Iterable[Portrait]) -> Iterator[tuple[str, int, bool, bool, float, Matrix]]:
    """Of each photo what a row of `Table` holds."""
    for person, portrait in enumerate(portraits):
        draw = np.random.default_rng(person)
        goods = itertools.chain(unharmed(portrait, draw), unharmed(portrait, draw))
        for good, (name, picture) in [*((True, each) for each in goods), *((False, e) for e in harmed(portrait, draw))]:
            points = picture.face.points5
            found = traces(native_luma(picture.rgb, points))
            if found is not None:
                kept = good and not refused(measured(picture))[1]
                size = float(np.log(np.hypot(points[2] - points[0], points[3] - points[1])))
                yield name, person, good, kept, size, found


def weights(size: Matrix, bad: NDArray[np.bool_]) -> Matrix:
    """Of each face, so that sizes of the harmed are spread as those of the unharmed."""
    ends = np.quantile(size[~bad], np.linspace(0.2, 1, 5))
    part = np.digitize(size, ends)
    weight = np.ones(len(size))
    for at in range(len(ends) + 1):
        here = part == at
        weight[here & bad] = max((here & ~bad).sum() / max((here & bad).sum(), 1), LARGER_WEIGHT)
    weight[bad] *= HARMED_WEIGHT / weight[bad].sum()
    weight[~bad] *= UNHARMED_WEIGHT / (~bad).sum()
    return weight


def fitted(values: Matrix, bad: NDArray[np.bool_], weight: Matrix) -> Matrix:
    """Coefficients of standardised columns and the intercept, by Newton's method."""
    design = np.hstack([values, np.ones((len(values), 1))])
    ridge = np.diag([RIDGE] * values.shape[1] + [1e-6])
    found = np.zeros(design.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        slope = design.T @ (weight * (chance - bad)) + ridge @ found
        bend = (design * (weight * chance * (1 - chance))[:, None]).T @ design + ridge
        found -= np.clip(np.linalg.solve(bend, slope), -5, 5)
    return found


def scores(table: Table, bad: NDArray[np.bool_], using: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Log odds of all rows by a fit to some, and its coefficients of the columns as they are."""
    using = using & (table.good | bad)
    mean, spread = table.values.mean(axis=0), table.values.std(axis=0)
    found = fitted((table.values[using] - mean) / spread, bad[using], weights(table.sizes[using], bad[using]))
    coefficients = np.round(found[:-1] / spread, 3)
    return table.values @ coefficients + found[-1] - mean @ (found[:-1] / spread), coefficients


def fit(table: Table) -> None:
    """Prints the coefficients."""
    for title, is_of in KINDS.items():
        bad = np.array([is_of(*_kind(name)) for name in table.names]) & ~table.good
        held_out = np.zeros(len(bad))
        for fold in range(FOLDS):
            out = table.persons % FOLDS == fold
            held_out[out] = scores(table, bad, ~out)[0][out]
        highest = [
            held_out[table.kept & (table.persons == person)].max() for person in np.unique(table.persons[table.kept])
        ]
        limit = float(np.quantile(highest, HIGHEST)) + MARGIN
        whole, coefficients = scores(table, bad, np.ones(len(bad), bool))
        moved = float(whole[0] - table.values[0] @ coefficients) - limit
        found = float((held_out[bad] > limit).mean())
        sys.stdout.write(f"{title}: {bad.sum()} against {table.good.sum()}, found of those held out {found:.1%}\n")
        sys.stdout.write(f"    {moved:.2f},\n    ({', '.join(f'{each:g}' for each in coefficients)}),\n")
    sys.stdout.write(f"in the order of {', '.join(NAMES)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measure, fitting = commands.add_parser("measure"), commands.add_parser("fit")
    measure.add_argument("folder", type=Path)
    measure.add_argument("out", type=Path)
    measure.add_argument("--faces", type=int, default=60)
    fitting.add_argument("tables", type=Path, nargs="+")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    if asked.command == "fit":
        return fit(Table.load(asked.tables))
    portraits = islice(originals(asked.folder, HALVES["choose"]), asked.faces)
    columns = zip(*rows(portraits), strict=True)
    table: dict[str, Any] = {field.name: np.array(column) for field, column in zip(fields(Table), columns, strict=True)}
    np.savez(asked.out, **table)


def _kind(name: str) -> tuple[str, float]:
    kind, _, factor = name.partition(" x ")
    return kind, float(factor or 0)


if __name__ == "__main__":
    main()
