"""Whether a photo reads the same in a batch as alone, but for rounding."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROUNDING = 4
"""Rounding errors of a logit, in units of the largest logit's last digit: a batch sums in another order."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a model generated for one photo."""

    text: str
    cut: bool
    """It reached the limit of tokens."""
    ids: tuple[int, ...]
    """New tokens, with those that end and fill."""
    logits: list[torch.Tensor] = field(default_factory=list)
    """(vocabulary,) float32 for each new token, where it was asked for alone."""


def difference(together: Spoken, alone: Spoken, ends: Collection[int], epsilon: float) -> str:
    """The text alone where it differs from that of the batch by more than rounding, else nothing.

    Where both first part, a tie is rounding: the logits of their two tokens, alone, are as near as `epsilon` (of the
    model's numbers) allows. Behind a tie every difference is possible.
    """
    ours, theirs = _ended(together.ids, ends), _ended(alone.ids, ends)
    if ours == theirs:
        return ""
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1)
    if 0 <= at < len(alone.logits):
        logits = alone.logits[at]
        gap = float(abs(logits[theirs[at]] - logits[ours[at]]))
        if gap <= ROUNDING * epsilon * float(logits.abs().max()):
            return ""
    return alone.text or "(nothing)"


def _ended(ids: tuple[int, ...], ends: Collection[int]) -> tuple[int, ...]:
    """The tokens up to and with the first that ends them."""
    end = next((at + 1 for at, token in enumerate(ids) if token in ends), len(ids))
    return ids[:end]
