"""What people say of crops: the lines of their logs, and what several verdicts on one crop come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["keep", "reject", "retouch"]
"""What a person says of a crop; `retouch`: good once flaws are removed by hand."""
VERDICTS: tuple[Verdict, ...] = ("keep", "retouch", "reject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of ``review/<reviewer>.jsonl``; the file's name says who decided."""

    id: str
    """The face's id."""
    verdict: Literal["keep", "reject", "retouch", "undo"]
    """`undo` takes back the reviewer's latest decision on this crop that was not taken back before."""
    reason: str = ""
    """Of a `reject`, in the reviewer's words."""
    at: str = ""
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retouch:
    """One line of ``review/retouched/log.jsonl``: a crop that came back from retouching by hand."""

    id: str
    """The face's id."""
    file: str
    """Where it lies inside the set, beside the crop: ``crops/ab/abcd…-0.retouched-<8 digits of its sha256>.png``."""
    size: int
    quad: tuple[float, ...] | None
    """Side and quad of the crop it was made from: it takes the place of that crop only."""
    before: str
    """sha256 in hex of the file that was given out."""
    after: str
    """sha256 in hex of `file`."""
    asked_by: str
    """The reviewers who asked for it, by comma."""
    asked_at: str
    """ISO 8601, UTC: the latest time they asked."""
    at: str
    """ISO 8601, UTC: when it came back."""
    changed: float
    """Share of the pixels that differ, above 0 to 1."""
    mean_change: float
    """Mean absolute difference of all pixels and channels, 0..255."""


def standing(lines: Iterable[Decision]) -> list[Decision]:
    """The decisions that were not taken back, oldest first; the last on a crop is what holds."""
    live: list[Decision] = []
    for line in lines:
        if line.verdict != "undo":
            live.append(line)
            continue
        back = next((at for at in reversed(range(len(live))) if live[at].id == line.id), None)
        if back is not None:
            del live[back]
    return live


def final_verdict(verdicts: Sequence[Verdict], policy: str) -> Verdict | None:
    """What several verdicts on one crop come to under a policy (`ReviewSettings.policy`); None where there are none.

    Under `majority` half of the votes are enough to reject, and of the others half to ask for retouching.
    """
    if not verdicts:
        return None
    rejects, retouches = verdicts.count("reject"), verdicts.count("retouch")
    if policy != "majority":
        return "reject" if rejects else "retouch" if retouches else "keep"
    if 2 * rejects >= len(verdicts):
        return "reject"
    return "retouch" if 2 * retouches >= len(verdicts) - rejects else "keep"


def sure(verdict: str) -> Verdict:
    """The verdict of a decision that was not taken back."""
    return next(known for known in VERDICTS if known == verdict)
