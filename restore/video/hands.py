"""Who looks for faces in a video's frames and restores them: this process, or several workers.

Both depend on the frame, or on the crops and their seeds, alone; whatever spans frames (decoding, tracks, pasting,
encoding) stays in this process. So the result is the same, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from authface.console import Notes
from authface.engine.crew import Crew
from authface.engine.workers import Keep
from authface.errors import ImageError, one_line
from authface.faces.geometry import Side
from authface.restore.inputs import input_errors
from authface.restore.photo import FaceFinder, FaceResult
from authface.restore.pipeline import Seconds, add_seconds, counted
from authface.restore.session import Session
from authface.restore.video.tracks import Found, look

T = TypeVar("T")
A = TypeVar("A")
Answer = Callable[[], A]
"""Waits for what was asked for. Raises ImageError where a frame cannot be worked on."""
AHEAD = 2
"""Groups of faces that each worker has: the one it works on, and the next."""


class Hands(Protocol):
    """Looks for faces and restores them, for one video after the other."""

    @property
    def ahead(self) -> int:
        """How many groups of faces may be asked for before the first answer is waited for."""
        ...

    def side(self) -> Side:
        """What crops the model takes; it is loaded by then, or AuthfaceError says why not."""
        ...

    def look(self, rgb: NDArray[np.uint8]) -> Answer[Found]:
        """The faces of an upright (h, w, 3) frame."""
        ...

    def restore(self, faces: Sequence[FaceResult]) -> Answer[Sequence[FaceResult]]:
        """The faces restored."""
        ...

    def stop(self) -> None:
        """End what is under way, for good."""
        ...


@contextmanager
def stopped_by_ctrl_c(hands: Hands) -> Iterator[None]:
    """End what is under way where the block is interrupted: threads that wait for answers then end with it."""
    try:
        yield
    except KeyboardInterrupt:
        hands.stop()
        raise


def in_order(asked: Iterator[tuple[T, Answer[A]]], ahead: int) -> Iterator[tuple[T, A]]:
    """Answers in the order of the questions, of which `ahead` are asked before the first answer is waited for."""
    waiting: deque[tuple[T, Answer[A]]] = deque()
    for item in asked:
        waiting.append(item)
        if len(waiting) > ahead:
            what, answer = waiting.popleft()
            yield what, answer()
    while waiting:
        what, answer = waiting.popleft()
        yield what, answer()


class Own:
    """This process."""

    ahead = 0

    def __init__(self, session: Session) -> None:
        self._session = session

    def side(self) -> Side:
        return self._session.restorer.side

    def look(self, rgb: NDArray[np.uint8]) -> Answer[Found]:
        return partial(_look, self._session, rgb)

    def restore(self, faces: Sequence[FaceResult]) -> Answer[Sequence[FaceResult]]:
        return partial(self._session.restore_faces, faces)

    def stop(self) -> None:
        """It ends by itself."""


class Hired:
    """The workers of a crew."""

    def __init__(self, crew: Crew[Question, HandsReply], session: Session) -> None:
        self._crew, self._session = crew, session
        self._said: set[str] = set()

    @property
    def ahead(self) -> int:
        return AHEAD * self._crew.size

    def side(self) -> Side:
        side, self._session.engine_of_workers = cast("tuple[Side, str]", self._ask(None)())
        return side

    def look(self, rgb: NDArray[np.uint8]) -> Answer[Found]:
        return cast("Answer[Found]", self._ask(rgb))

    def restore(self, faces: Sequence[FaceResult]) -> Answer[Sequence[FaceResult]]:
        return cast("Answer[Sequence[FaceResult]]", self._ask(faces))

    def stop(self) -> None:
        self._crew.close()

    def _ask(self, question: Question) -> Answer[object]:
        return partial(self._answer, self._crew.ask(question))

    def _answer(self, answer: Answer[list[HandsReply]]) -> object:
        (reply,) = answer()
        add_seconds(reply.spent)
        for note in reply.notes:
            if note not in self._said:
                self._said.add(note)
                self._session.console.log(note)
        if reply.reason:
            raise ImageError(reply.reason, reply.detail)
        return reply.made


Question = NDArray[np.uint8] | Sequence[FaceResult] | None
"""A frame in which to look, faces to restore, or None: the model's crops and its engine."""


@dataclass(frozen=True)
class HandsReply:
    """What a worker made of a question, or why it could not; the seconds that it took; what the worker said."""

    made: object
    spent: Seconds
    notes: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


def reply_all(
    session: Session, notes: Notes, loading: Seconds, questions: Sequence[Question], keep: Keep[HandsReply]
) -> None:
    """Answer questions in a worker; `loading` is what its models took, until it was told."""
    for place, question in enumerate(questions):
        reason, detail, made = "", "", None
        with counted() as spent:
            add_seconds(loading)
            loading.clear()
            try:
                with input_errors():
                    made = _made(session, question)
            except ImageError as error:
                reason, detail = error.reason, one_line(error)
        keep(place, [HandsReply(made, spent, notes.take(), reason, detail)])


def _made(session: Session, question: Question) -> object:
    if question is None:
        return session.restorer.side, session.engine
    return _look(session, question) if isinstance(question, np.ndarray) else session.restore_faces(question)


def _look(session: Session, rgb: NDArray[np.uint8]) -> Found:
    assert isinstance(session.finder, FaceFinder)
    return look(session.finder, rgb)
