"""The order in which a reviewer is asked, made anew in a thread while they go on deciding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from authface.curate.learn.order import AGAIN, ORDERS, Certainty, NextFaces
from authface.review.reviews import Decision

Decisions = Mapping[str, Decision]


class Asking:
    """The latest order and how sure the model is; `learn` makes both of the decisions that hold."""

    def __init__(
        self, learn: Callable[[Decisions], NextFaces], decisions: Decisions, title: str = ORDERS["uncertain"]
    ) -> None:
        self._learn = learn
        self.title = title
        """What the order is called."""
        self._lock = threading.Lock()
        self._busy: threading.Thread | None = None
        self._turn = 0
        self._made_of = -1
        self.places: Mapping[str, int] = {}
        """Place of each face that is still to be asked, what teaches most first."""
        self.certainty: Certainty
        self._take(decisions)

    @property
    def state(self) -> dict[str, Any]:
        """For the page: how sure the model is, and the number of the order, which rises with each new one."""
        return {"turn": self._turn, "text": self.certainty.text, "enough": self.certainty.enough}

    def decided(self, decisions: Decisions) -> None:
        """Note that a decision was made; every `AGAIN` of them the order is made anew, while this returns at once."""
        with self._lock:
            if len(decisions) - self._made_of < AGAIN or (self._busy is not None and self._busy.is_alive()):
                return
            self._busy = threading.Thread(target=self._take, args=(dict(decisions),), daemon=True)
            self._busy.start()

    def wait(self) -> None:
        """Until an order that is being made is there."""
        busy = self._busy
        if busy is not None:
            busy.join()

    def _take(self, decisions: Decisions) -> None:
        found = self._learn(decisions)
        self.places = {face: place for place, face in enumerate(found.order)}
        self.certainty = found.certainty
        self._made_of = len(decisions)
        self._turn += 1
