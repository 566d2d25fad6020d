"""Which signals refuse a photo at each level of `curate.fetch.opt_outs`, also of those that a set has.

What machines are told of training is read where it is said (`sites`: files of a host, answers and pages on the way to a
photo), understood by `statements` (a photo's own file too), and kept as `authface.records.Signal`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from authface.curate.fetch.hosts import WebError
from authface.records import Photo, Signal
from authface.store.photoset import PhotoSet
from authface.store.statements import DUPLICATE, repeated_row

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


_COLUMNS = ("status", "reason", "file", "signals", "asked_at")


def rejudge(photoset: PhotoSet, level: Level) -> list[str]:
    """Judge the photos of a set whose files are there, and say what changed, a line each; nothing is asked for.

    Parts in which no row changes stay as they are. The caller holds the set's lock.
    """
    refused: Counter[str] = Counter()
    restored = unasked = 0
    held, gone = _Held(photoset), set[str]()
    for part, meta in photoset.photos.metas().items():
        if meta is None:
            continue
        table = photoset.photos.arrow(part, _COLUMNS)
        kept = pc.equal(table.column("status"), "kept")
        unasked += pc.sum(pc.and_(kept, pc.equal(table.column("asked_at"), ""))).as_py() or 0
        if not _may_change(table, kept):
            continue
        before = photoset.photos.rows(part)
        after = [_again(photoset, row, level, held) for row in before]
        if after == before:
            continue
        photoset.photos.write(part, after, meta.provenance, meta.inputs)
        for old, new in zip(before, after, strict=True):
            refused[new.reason] += old.status == "kept" != new.status
            restored += new.status == "kept" != old.status
            if old.status == "kept" != new.status:
                gone.add(new.id)
    renamed = _kept_by_other_names(photoset, gone, level)
    return list(_lines(level, refused, restored, unasked, renamed))


def freed(photoset: PhotoSet, part: int, counts: dict[str, int], level: Level) -> set[int]:
    """Places in a part of the rows that an opt-out refused, and at this level none would: they are asked for again."""
    reasons = EVERY_REASON | {EARLIER} if level == "recorded" else EVERY_REASON
    if not any(name.partition(": ")[2] in reasons for name in counts):
        return set()
    rows = photoset.photos.rows(part)
    return {at for at, row in enumerate(rows) if row.reason in reasons and judge(row.signals, level) is None}


def _kept_by_other_names(photoset: PhotoSet, gone: set[str], level: Level) -> int:
    """Keep photos that are refused now under another name that nothing refuses; how many."""
    before = len(gone)
    for part, meta in photoset.photos.metas().items():
        if meta is None or not gone or not meta.counts.get(f"rejected: {DUPLICATE}"):
            continue
        rows, found = photoset.photos.rows(part), dict[str, int]()
        for at, row in enumerate(rows):
            if row.reason == DUPLICATE and row.id in gone and judge(row.signals, level) is None:
                found.setdefault(row.id, at)
        for at in found.values():
            rows[at] = replace(rows[at], status="kept", reason="", detail="")
        gone -= found.keys()
        if found:
            photoset.photos.write(part, rows, meta.provenance, meta.inputs)
    return before - len(gone)


def _may_change(table: pa.Table, kept: pa.ChunkedArray) -> bool:
    told = pc.greater(pc.list_value_length(table.column("signals")), 0)
    opted_out = pc.is_in(table.column("reason"), pa.array(sorted(EVERY_REASON)))
    there = pc.not_equal(table.column("file"), "")
    return bool(pc.any(pc.or_(pc.and_(kept, told), pc.and_(opted_out, there))).as_py())


def _again(photoset: PhotoSet, row: Photo, level: Level, held: _Held) -> Photo:
    """The row at this level; one without a file in the set stays: what is freed is asked for again."""
    if row.reason in EVERY_REASON and row.file and photoset.exists(row.file):
        free = judged(replace(row, status="kept", reason="", detail=""), level)
        if free.status != "kept":
            return free
        if row.id in held.ids:
            return repeated_row(free)
        held.ids.add(row.id)
        return free
    return judged(row, level)


class _Held:
    """The photos that are kept, by id; read where the first row is to be taken back."""

    def __init__(self, photoset: PhotoSet) -> None:
        self._photos = photoset.photos

    @cached_property
    def ids(self) -> set[str]:
        """What came under another name since; who takes a photo back adds it."""
        rows = (row for part in self._photos.parts() for row in self._photos.columns(part, ["id", "status"]))
        return {name for name, status in rows if status == "kept"}


def _lines(level: Level, refused: Counter[str], restored: int, unasked: int, renamed: int) -> list[str]:
    lines = []
    if left := +refused:
        kinds = ", ".join(f"{count:,} {reason}" for reason, count in left.most_common())
        lines.append(
            f"fetch: opt_outs={level} refuses {left.total():,} photos that the set has ({kinds}): the next steps leave "
            "them out when they are run again; their files stay until authface curate forget"
        )
    if renamed:
        lines.append(f"fetch: {renamed:,} of them came under another name, too, which nothing refuses: kept as that")
    if restored:
        lines.append(
            f"fetch: opt_outs={level} takes {restored:,} photos back that were refused: run the next steps again"
        )
    if unasked and level != "recorded":
        lines.append(
            f"fetch: {unasked:,} photos came before opt-outs were read, and nothing is known of theirs; to have them "
            "asked, fetch them into a new set"
        )
    return lines
