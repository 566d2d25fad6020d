"""One reviewer's desk: what holds now, and the log that every decision reaches before it is answered."""

from __future__ import annotations

import threading

from authface.review.decisions import Decision, Verdict, standing
from authface.review.reviews import now
from authface.store.jsonl import Journal


class Desk:
    """The decisions of one reviewer; safe for several threads."""

    def __init__(self, journal: Journal[Decision]) -> None:
        lines, self.torn = journal.read()
        self._journal = journal
        self._live = standing(lines)
        self._lock = threading.Lock()
        self.decisions = {decision.id: decision for decision in self._live}
        """By crop id, what holds."""

    def decide(self, crop_id: str, verdict: Verdict, reason: str) -> None:
        """Decide on a crop; what holds already is not written again. Raises AuthfaceError where the disk refuses."""
        with self._lock:
            before = self.decisions.get(crop_id)
            if before is not None and (before.verdict, before.reason) == (verdict, reason):
                return
            decision = Decision(id=crop_id, verdict=verdict, reason=reason, at=now())
            self._journal.append(decision)
            self._live.append(decision)
            self.decisions = {**self.decisions, crop_id: decision}

    def undo(self) -> str | None:
        """Take back the latest decision that holds; the id of its crop, None where nothing is left to take back."""
        with self._lock:
            if not self._live:
                return None
            crop_id = self._live[-1].id
            self._journal.append(Decision(id=crop_id, verdict="undo", at=now()))
            self._live.pop()
            self.decisions = {decision.id: decision for decision in self._live}
            return crop_id
