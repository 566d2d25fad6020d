"""Which signals refuse a photo, at each level of `curate.fetch.opt_outs`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from authface.curate.fetch.hosts import WebError
from authface.records import Photo, Signal

Level = Literal["strict", "stated", "recorded"]

REASONS = {
    "robots.txt": "opt_out_robots_txt",
    "ai.txt": "opt_out_ai_txt",
    "content-usage": "opt_out_content_usage",
    "content-signal": "opt_out_content_signal",
    "tdmrep.json": "opt_out_tdmrep",
    "tdm-reservation": "opt_out_tdmrep",
    "meta tdm-reservation": "opt_out_tdmrep",
    "x-robots-tag": "opt_out_robots_tag",
    "meta robots": "opt_out_robots_tag",
    "page": "opt_out_unread",
    "plus:DataMining": "opt_out_data_mining",
    "c2pa": "opt_out_c2pa",
}
"""The reason of a photo that a signal refuses, by the signal's kind."""
UNCLEAR, UNREAD, NEEDS_C2PA = "opt_out_unclear", "opt_out_unread", "opt_out_needs_c2pa"
"""The first two are reasons under `strict` alone; the third is one where a package lacks that reads what is said.

The last two may pass: their rows are `failed`, as of what could not be measured.
"""
EVERY_REASON = frozenset({*REASONS.values(), UNCLEAR, UNREAD, NEEDS_C2PA})
EARLIER = "opted_out"
"""The reason of earlier versions, which kept no evidence: only `recorded` is known not to refuse such a photo."""


@dataclass(frozen=True)
class Refusal:
    """Why a photo is not taken."""

    reason: str
    detail: str
    passes: bool = False
    """It may be otherwise when it is asked for again."""


class OptedOut(WebError):
    """A refusal that ends the requests for a photo."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason, refusal.detail, rejected=not refusal.passes)


def judge(signals: Iterable[Signal], level: Level) -> Refusal | None:
    """The refusal of a photo of which machines are told this; None where it may be taken.

    One refusal outweighs any number of permissions, and a clear one is named before those of `strict`.
    """
    signals = list(signals)
    if level == "recorded":
        return None
    for signal in signals:
        if signal.verdict == "refused":
            return Refusal(REASONS.get(signal.kind, UNCLEAR), _told(signal))
    for signal in signals:
        if signal.verdict == "unread" and signal.kind == "c2pa":
            return Refusal(NEEDS_C2PA, _told(signal), passes=True)
        if signal.verdict == "unread" and level == "strict":
            return Refusal(UNREAD, _told(signal), passes=True)
        if signal.verdict == "unclear" and level == "strict":
            return Refusal(UNCLEAR, _told(signal))
    return None


def judged(photo: Photo, level: Level) -> Photo:
    """The row of a kept photo, refused where its signals refuse it; its file stays named."""
    refusal = judge(photo.signals, level) if photo.status == "kept" else None
    if refusal is None:
        return photo
    return replace(
        photo, status="failed" if refusal.passes else "rejected", reason=refusal.reason, detail=refusal.detail
    )


def _told(signal: Signal) -> str:
    return f"{signal.kind} at {signal.where}: {signal.said}"
