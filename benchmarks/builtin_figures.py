"""Figures of `benchmarks/builtin.py`: how sure they are, the tables, and each row set against its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import eyes
import numpy as np

from authface.evaluate.catalogue import BY_NAME
from authface.metrics.stats import bootstrap_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

Method = tuple[str, str]
"""A strength, and a row: the input, the filters, or settings of the model."""
INPUT, FILTERS = "input", "filters"
CLEAN: Method = ("", "clean")
RESAMPLES, FRECHET_RESAMPLES = 2000, 200
"""The second is dear: 8 ms a distance."""
NOTE = (
    "± is half of the 95 % interval (bootstrap over faces). ▲ better and ▼ worse than the input of that strength for "
    "certain: the interval of the difference on the same faces leaves out 0."
)


@dataclass(frozen=True)
class Column:
    """A metric as the tables show it."""

    title: str
    digits: int
    lower_better: bool

    def __str__(self) -> str:
        return f"{self.title} {'↓' if self.lower_better else '↑'}"


COLUMNS = {
    "psnr": Column("PSNR", 2, False),
    "ssim": Column("SSIM", 3, False),
    "identity": Column("identity", 4, False),
    "landmarks": Column("landmarks %", 2, True),
    "piqe": Column("PIQE", 1, True),
    "perceptual": Column("perceptual", 3, True),
    "frechet": Column("Fréchet", 2, True),
}
OF_EVALUATE = tuple(name for name in COLUMNS if name in BY_NAME)
"""Those that `authface evaluate` measures; the other two are of `benchmarks/eyes.py`."""


@dataclass(frozen=True)
class Spread:
    """A figure, and what it is of faces drawn with replacement: the same draws for all methods, so they subtract."""

    value: float
    draws: Numbers

    def __sub__(self, other: Spread) -> Spread:
        return Spread(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, other: Spread) -> Spread:
        return Spread(self.value / other.value, self.draws / other.draws)

    @property
    def ends(self) -> tuple[float, float]:
        """The 95 % interval."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return float(low), float(high)

    @property
    def sign(self) -> int:
        """1 or -1 where it is above or below 0 for certain, else 0."""
        low, high = self.ends
        return int(low > 0) - int(high < 0)

    def text(self, digits: int, *, sign: bool = False) -> str:
        """``28.77 ±0.21``."""
        low, high = self.ends
        return f"{self.value:{'+' if sign else ''}.{digits}f} ±{(high - low) / 2:.{digits}f}"


@dataclass
class Figures:
    """What was measured of single faces, and the figures of all and of each group."""

    groups: dict[str, list[str]]
    """Names of faces."""
    strengths: Sequence[str]
    rows: Sequence[str]
    values: dict[Method, dict[str, dict[str, float]]]
    """By method, metric and face."""
    vectors: dict[Method, dict[str, Numbers]]
    """By method and face: what the Fréchet distance compares."""
    _found: dict[tuple[Method, str, str], Spread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Leave out, for all methods, the faces of which a metric has no value for one of them."""
        for metric in [name for name in COLUMNS if name != "frechet"]:
            there = set.intersection(*(set(found[metric]) for found in self.values.values()))
            for found in self.values.values():
                found[metric] = {name: value for name, value in found[metric].items() if name in there}

    def of(self, method: Method, metric: str, group: str) -> Spread:
        """A figure of a method's faces of one group."""
        key = (method, metric, group)
        if key not in self._found:
            found = self._frechet(method, group) if metric == "frechet" else self._mean(method, metric, group)
            self._found[key] = found
        return self._found[key]

    def change(self, method: Method, metric: str, group: str, beside: str = INPUT) -> Spread:
        """What it has more than the row `beside` of the same strength."""
        return self.of(method, metric, group) - self.of((method[0], beside), metric, group)

    def verdict(self, method: Method, metric: str, group: str, beside: str = INPUT) -> int:
        """1 where it is better than `beside` for certain, -1 where it is worse."""
        sign = self.change(method, metric, group, beside).sign
        return -sign if COLUMNS[metric].lower_better else sign

    def _mean(self, method: Method, metric: str, group: str) -> Spread:
        values = self.values[method][metric]
        array = np.array([values[name] for name in self.groups[group] if name in values])
        return Spread(float(array.mean()), bootstrap_means(array, 0, RESAMPLES))

    def _frechet(self, method: Method, group: str) -> Spread:
        """Of a set drawn with replacement it is larger, for it holds fewer faces: the draws are moved to the value."""
        ours, theirs = (np.stack([self.vectors[one][name] for name in self.groups[group]]) for one in (method, CLEAN))
        value, random = eyes.frechet(ours, theirs), np.random.default_rng(0)
        drawn = random.integers(0, len(ours), (FRECHET_RESAMPLES, len(ours)))
        draws = np.array([eyes.frechet(ours[rows], theirs[rows]) for rows in drawn])
        return Spread(value, draws - draws.mean() + value)

    def methods(self) -> Iterator[Method]:
        """All but the clean faces, in the order of the tables."""
        yield from ((strength, row) for strength in self.strengths for row in self.rows)


Table = tuple[list[str], list[list[str]]]
"""A header and rows."""


def means(figures: Figures, group: str) -> Table:
    """A row a method: what was measured, and whether it differs from the input."""
    clean = {
        name: figures.of(CLEAN, name, group).text(c.digits) if name == "piqe" else "" for name, c in COLUMNS.items()
    }
    rows = [["clean", *clean.values()]]
    for method in figures.methods():
        cells = []
        for name, column in COLUMNS.items():
            better = 0 if method[1] == INPUT else figures.verdict(method, name, group)
            cells.append(figures.of(method, name, group).text(column.digits) + ("", " ▲", " ▼")[better])
        rows.append([": ".join(method), *cells])
    return ["", *map(str, COLUMNS.values())], rows


BARS = ("PSNR, dB", "perceptual, %", "Fréchet, times", "PIQE over clean's", "identity", "better than filters")
AGAINST_FILTERS = ("psnr", "identity", "perceptual", "frechet")


def bars(figures: Figures, group: str) -> Table:
    """A row a method: what it changes of the input, and whether filters do better."""
    rows = []
    for method in figures.methods():
        if method[1] == INPUT:
            continue
        before = (method[0], INPUT)
        perceptual, frechet = (
            figures.of(method, name, group) / figures.of(before, name, group) for name in ("perceptual", "frechet")
        )
        percent = Spread(100 * perceptual.value - 100, 100 * perceptual.draws - 100)
        over = figures.of(method, "piqe", group) - figures.of(CLEAN, "piqe", group)
        rows.append(
            [
                ": ".join(method),
                figures.change(method, "psnr", group).text(2, sign=True),
                percent.text(1, sign=True),
                frechet.text(2),
                over.text(1, sign=True),
                figures.change(method, "identity", group).text(4, sign=True),
                "" if method[1] == FILTERS else _beaten(figures, method, group),
            ]
        )
    return ["", *BARS], rows


def _beaten(figures: Figures, method: Method, group: str) -> str:
    """``PSNR yes, identity even, perceptual no, ...``."""
    said = {
        COLUMNS[name].title: ("even", "yes", "no")[figures.verdict(method, name, group, FILTERS)]
        for name in AGAINST_FILTERS
    }
    return ", ".join(f"{title} {word}" for title, word in said.items())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table for a card."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def as_json(figures: Figures) -> dict[str, Any]:
    """By group, method and metric: value, interval, and the same of the difference to the input."""

    def said(spread: Spread) -> dict[str, float]:
        low, high = spread.ends
        return {"value": spread.value, "low": low, "high": high}

    return {
        group: {
            " ".join(method).strip(): {
                name: said(figures.of(method, name, group))
                | ({"change": said(figures.change(method, name, group))} if method != CLEAN else {})
                for name in COLUMNS
            }
            for method in (CLEAN, *figures.methods())
        }
        for group in figures.groups
    }
