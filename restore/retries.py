"""Restore faces, and try those that drifted from their input again, closer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from authface.restore.guard import Drift, Guard
from authface.restore.model.colour import FIXES, to_grey
from authface.restore.model.restorer import Restorer
from authface.restore.settings import RestoreSettings
from authface.restore.timing import part

if TYPE_CHECKING:
    from authface.restore.photo import Found


@dataclass(frozen=True)
class Attempt:
    """A restored face with the colours of its input."""

    crop: NDArray[np.uint8]
    """(size, size, 3)."""
    drift: Drift | None = None
    """None where it was not measured."""
    fidelity: float | None = None
    """That it was made with; None: the settings' own."""
    refused: str = ""
    """Why the input face stays all the same; empty: the restored one takes its place."""
    tries: int = 1
    mask: NDArray[np.float32] | None = None
    """(size, size) 0..1 which of its pixels are the face; None: all of the crop."""

    @property
    def stays(self) -> bool:
        """Whether the photo keeps the input face."""
        return bool(self.refused)


def ladder(fidelity: float) -> list[float]:
    """Fidelities to try after `fidelity` drifted: halfway to 1, then 1."""
    return [(1 + fidelity) / 2, 1.0] if fidelity < 1 else []


def restore_faces(
    restorer: Restorer, found: Sequence[Found], settings: RestoreSettings, guard: Guard | None = None
) -> list[Attempt]:
    """An attempt for each of the faces, which may be of several photos.

    With a `guard` each is measured; where its identity stays below `settings.min_identity` at each fidelity of the
    `ladder`, or cannot be measured, the best attempt is returned as refused.
    """
    attempts = _attempt(restorer, found, settings, guard, None)
    said = [[_said(attempt, settings.fidelity)] for attempt in attempts]
    if guard is None or settings.min_identity <= 0:
        return attempts
    for fidelity in ladder(settings.fidelity):
        again = [i for i, attempt in enumerate(attempts) if not _passes(attempt, settings.min_identity)]
        tried = _attempt(restorer, [found[i] for i in again], settings, guard, fidelity)
        for i, attempt in zip(again, tried, strict=True):
            said[i].append(_said(attempt, fidelity))
            attempts[i] = replace(max(attempts[i], attempt, key=_identity), tries=len(said[i]))
    return [
        attempt if _passes(attempt, settings.min_identity) else replace(attempt, refused=_refusal(told, settings))
        for attempt, told in zip(attempts, said, strict=True)
    ]


def _attempt(
    restorer: Restorer,
    found: Sequence[Found],
    settings: RestoreSettings,
    guard: Guard | None,
    fidelity: float | None,
) -> list[Attempt]:
    if not found:
        return []
    crops, seeds = [one.aligned.rgb for one in found], [one.face.seed for one in found]
    fix = FIXES[restorer.colour if settings.colour == "auto" else settings.colour]
    with part("model"):
        given = {} if fidelity is None else {"fidelity": fidelity}
        restored = restorer.restore(crops, seeds, **given)
    attempts = []
    for one, crop in zip(found, restored, strict=True):
        with part("paste"):
            fixed = fix(crop, one.aligned.rgb)
            fixed = to_grey(fixed) if one.grey else fixed
        with part("guard"):
            drift = None if guard is None else guard.measure(one.aligned.rgb, fixed, one.seen)
        attempts.append(Attempt(fixed, drift, fidelity))
    return attempts


def _identity(attempt: Attempt) -> float:
    """Its identity; where that could not be measured, less than any."""
    return -2.0 if attempt.drift is None or attempt.drift.identity is None else attempt.drift.identity


def _passes(attempt: Attempt, limit: float) -> bool:
    return _identity(attempt) >= limit


def _said(attempt: Attempt, fidelity: float) -> str:
    measured = attempt.drift is not None and attempt.drift.identity is not None
    what = f"{_identity(attempt):.3f}" if measured else "not measurable"
    return f"{what} at fidelity {fidelity:g}"


def _refusal(said: Sequence[str], settings: RestoreSettings) -> str:
    return f"identity {', '.join(said)}; the limit is {settings.min_identity:g}: the input face stays"
