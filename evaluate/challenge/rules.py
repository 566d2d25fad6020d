"""The challenge's rules as arithmetic: what a score is made of, and who is out because faces became other people's."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from authface.errors import UsageError, one_line

IDENTITY = "identity_input"
"""The catalogue's metric that the gate reads: output against degraded input."""
TERMS: dict[str, Callable[[float], float]] = {
    "clipiqa": lambda value: value,
    "maniqa": lambda value: value,
    "musiq": lambda value: value / 100,
    "niqe": lambda value: max(0.0, (10 - value) / 10),
    "qalign": lambda value: value / 5,
    "fid_ffhq_basicsr": lambda value: max(0.0, (100 - value) / 100),
}
"""What each figure of the catalogue adds to the score; the figure is the mean over all faces."""
Verdict = Literal["passed", "disqualified", "unknown"]


@dataclass(frozen=True)
class ChallengeSet:
    """One of the challenge's sets: how many faces it has, and the least likeness to the input."""

    name: str
    faces: int
    least: float
    """As the rules print it."""
    script: float
    """As the challenge's script has it."""


@dataclass(frozen=True)
class Rules:
    """The challenge as it is printed."""

    title: str
    source: str
    most_failures: int
    recogniser: str
    sets: tuple[ChallengeSet, ...]

    @property
    def faces(self) -> int:
        """Of all sets."""
        return sum(one.faces for one in self.sets)

    def set_of(self, name: str) -> ChallengeSet:
        """The set of this name, whatever its case and with or without ``-Test``. Raises UsageError."""
        for one in self.sets:
            if _plain(one.name) == _plain(name):
                return one
        raise UsageError(f"no set {one_line(name, 80)} in {self.title}: {', '.join(one.name for one in self.sets)}")


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").removesuffix("-test")


@functools.cache
def rules() -> Rules:
    """Of `rules.toml`."""
    held = tomllib.loads(resources.files("authface.evaluate.challenge").joinpath("rules.toml").read_text("utf-8"))
    return Rules(**(held | {"sets": tuple(ChallengeSet(**one) for one in held["sets"])}))


@dataclass(frozen=True)
class ChallengeFigure:
    """A figure that a score is made of: a mean, or one of all outputs together, and of how many."""

    value: float
    count: int


@dataclass(frozen=True)
class ChallengeScore:
    """The terms that are there, and what is not."""

    terms: dict[str, float]
    """What each figure adds."""
    missing: dict[str, str]
    """Figures that are not there, or not of all faces, with the reason."""

    @property
    def sum(self) -> float:
        """Of the terms that are there: a score only where none is missing."""
        return sum(self.terms.values())

    @property
    def total(self) -> float | None:
        """The score; None where a term is missing."""
        return None if self.missing else self.sum


def score(figures: Mapping[str, ChallengeFigure], faces: int, why: Mapping[str, str]) -> ChallengeScore:
    """The score of `figures` by metric, each of `faces` outputs; `why` says what is known of those that are not there.

    CLIPIQA + MANIQA + MUSIQ / 100 + max(0, (10 - NIQE) / 10) + Q-Align / 5 + max(0, (100 - FID) / 100), up to 6.
    """
    terms, missing = {}, {}
    for name, term in TERMS.items():
        if name not in figures:
            missing[name] = why.get(name, "not measured")
            continue
        terms[name] = term(figures[name].value)
        if figures[name].count != faces:
            missing[name] = f"of {figures[name].count} of {faces} faces"
    return ChallengeScore(terms, missing)


@dataclass(frozen=True)
class SetGate:
    """The identity gate on one set."""

    set: str
    faces: int
    least: float
    mean: float | None
    """Likeness to the inputs; None where none was measured."""
    below: tuple[str, ...]
    """Names of the faces that are less like their inputs than `least`, the least like first."""
    unseen: tuple[str, ...]
    """Names of those without a value; they count as failures."""
    script: int | None
    """How many fail by the challenge's script; None with limits of one's own."""


@dataclass(frozen=True)
class Gate:
    """The identity gate over all sets; without sets it was not measured, and `why` says what is missing."""

    sets: tuple[SetGate, ...]
    most: int
    why: str = ""

    @property
    def failures(self) -> int:
        """Of all sets."""
        return sum(len(one.below) + len(one.unseen) for one in self.sets)

    @property
    def script(self) -> int | None:
        """Failures by the challenge's script."""
        counts = [one.script for one in self.sets]
        return None if not counts or None in counts else sum(count for count in counts if count is not None)

    @property
    def verdict(self) -> Verdict:
        """More than `most` failures disqualify."""
        if not self.sets:
            return "unknown"
        return "disqualified" if self.failures > self.most else "passed"


def judge_set(name: str, likeness: Mapping[str, float | None], least: float, script: float | None) -> SetGate:
    """The gate of one set by the likeness of each face, None where it has none; ``less than least`` fails."""
    seen = {face: value for face, value in likeness.items() if value is not None}
    below = sorted((face for face, value in seen.items() if value < least), key=lambda face: (seen[face], face))
    unseen = tuple(sorted(set(likeness) - set(seen)))
    mean = sum(seen.values()) / len(seen) if seen else None
    by_script = None if script is None else sum(value < script for value in seen.values()) + len(unseen)
    return SetGate(name, len(likeness), least, mean, tuple(below), unseen, by_script)


def short_of(names: Sequence[str], faces: int) -> str:
    """What sets the outputs apart from the challenge's own: sets or faces that are not there; empty if nothing."""
    there, known = {rules().set_of(name).name for name in names}, rules()
    lacking = [one.name for one in known.sets if one.name not in there]
    if lacking:
        return (
            f"{faces} of its {known.faces} faces, without {', '.join(lacking)}: no score to set beside the challenge's"
        )
    return "" if faces == known.faces else f"{faces} faces, where the challenge has {known.faces}"
