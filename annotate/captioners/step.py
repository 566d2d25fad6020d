"""The step that every captioner shares: a crop is shown to it, what it says becomes a row.

A `Captioner` knows one model or server and nothing of tables; the rules of tags are in
`authface.annotate.vocabulary.wording`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary import tokens, wording
from authface.annotate.vocabulary.vocabulary import prompt
from authface.errors import one_line
from authface.records import Crop, Tags
from authface.store.photoset import PhotoSet, Provenance, Table

VERSION = 1
PROSE = {"qwen"}
"""Annotators who were not asked for tags: theirs are looked for within sentences."""
MOST_CHARACTERS = 2000
"""Of an answer that are kept and read: 75 tokens of tags are some 400."""
LOOP_TIMES = 4
"""So often in a row the same words make a loop."""
LONGEST_LOOP = 40
LOOP_WORDS = 6
"""A loop is at least so many words long: ``very very very very`` is none."""

S = TypeVar("S")  # a photo as a captioner wants it


@dataclass(frozen=True, slots=True)
class Said:
    """What a captioner said of one photo."""

    text: str = ""
    cut: bool = False
    """It was stopped at its limit of tokens."""
    failure: str = ""
    """Short name of why there is no answer; `text` then says more."""


class Captioner(Protocol[S]):
    """A model or a server. It is pickled to every worker before `open`."""

    name: str
    """The annotator's name."""

    @property
    def asked(self) -> dict[str, Any]:
        """All but the photo that decides the answer, as JSON values."""

    @property
    def weights(self) -> dict[str, str]:
        """Name and version of the model, where it is known."""

    @property
    def batch_size(self) -> int:
        """Photos that `answer` wants at a time; asked after `open`."""

    @property
    def retries(self) -> tuple[bool, ...]:
        """`penalty` of every further try, alone, of a photo whose answer is empty or loops."""

    def open(self) -> None:
        """Make the model. Raises AuthfaceError."""

    def prepare(self, photoset: PhotoSet, crop: Crop) -> S:
        """The photo, in a thread. Raises ImageError."""

    def answer(self, photos: Sequence[S], *, penalty: bool = False) -> Sequence[Said]:
        """One answer a photo, independent of the others; `penalty`: in a way that repeats less. Raises AuthfaceError
        where no photo will get an answer."""


@dataclass
class Captions(Generic[S]):
    """The step over a photo set's table `crops`."""

    root: Path
    captioner: Captioner[S]
    settings: TagsSettings

    @property
    def provenance(self) -> Provenance:
        """What the captioner was asked, its model, and the rules its answers were put to."""
        rules = {
            "vocabulary": self.settings.vocabulary,
            "max_tags": self.settings.max_tags,
            "words": wording.fingerprint(),
        }
        asked = {**self.captioner.asked, "wording": rules}
        return Provenance(f"{self.captioner.name} tags", VERSION, asked, self.captioner.weights)

    @property
    def batch_size(self) -> int:
        """Of the captioner."""
        return self.captioner.batch_size

    def open(self) -> None:
        """Of the captioner."""
        self.captioner.open()
        tokens.count("")  # loaded before the threads that save: two of them at it break transformers' lazy imports

    def load(self, crop: Crop) -> S:
        """Of the captioner. Raises ImageError."""
        return self.captioner.prepare(PhotoSet(self.root), crop)

    def step(self, batch: Sequence[S]) -> Sequence[Said]:
        """An answer a photo; empty and looping ones are tried again alone, then with a penalty on repetition."""
        answers = list(self.captioner.answer(batch))
        for at, photo in enumerate(batch):
            for penalty in self.captioner.retries:
                if not flaw(answers[at]):
                    break
                answers[at] = self.captioner.answer([photo], penalty=penalty)[0]
        return answers

    def save(self, crop: Crop, said: Said) -> list[Tags]:
        """The row."""
        row = Tags(id=crop.id, annotator=self.captioner.name, answer=on_one_line(said))
        if said.failure:
            return [replace(row, answer="", status="failed", reason=said.failure, detail=one_line(said.text))]
        if reason := flaw(said):
            return [replace(row, status="failed", reason=reason, detail="the same when it was asked again")]
        return [read(row, self.settings)]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Tags]:
        """The row of a crop that could not be shown."""
        return [Tags(id=crop.id, annotator=self.captioner.name, status="failed", reason=reason, detail=detail)]


def on_one_line(said: Said) -> str:
    """The answer as rows keep it: its lines joined by bars, at most `MOST_CHARACTERS`, an ellipsis where it was cut."""
    text = " | ".join(line.strip() for line in said.text.splitlines() if line.strip())
    return one_line(text + wording.CUT if said.cut else text, MOST_CHARACTERS)


def read(row: Tags, settings: TagsSettings) -> Tags:
    """The row with the tags that its answer says; without any it is ``failed: no_tags``."""
    closed, prose = settings.vocabulary == "closed", row.annotator in PROSE
    found = wording.words(row.answer, closed=closed, most=settings.max_tags, prose=prose)
    if not found.tags:
        return replace(
            row, tags=(), tokens=0, status="failed", reason="no_tags", detail="nothing in the answer is a tag"
        )
    count = tokens.count(prompt(found.tags))
    return replace(row, tags=found.tags, tokens=count, status="kept", reason="", detail="")


def read_again(target: Table[Tags], provenance: Provenance, settings: TagsSettings) -> int:
    """Bring parts that differ in the rules alone up to date from their answers; no model is asked. Returns how many."""
    count = 0
    for number, meta in target.metas().items():
        if meta is None or meta.provenance == provenance or "wording" not in meta.provenance.settings:
            continue
        before = {**meta.provenance.settings, "wording": provenance.settings["wording"]}
        if replace(meta.provenance, settings=before) == provenance:
            rows = [read(row, settings) if row.reason in {"", "no_tags"} else row for row in target.rows(number)]
            target.write(number, rows, provenance, meta.inputs)
            count += 1
    return count


def flaw(said: Said) -> str:
    """``empty_answer``, ``looping_answer``, or nothing."""
    if said.failure:
        return ""
    if not any(letter.isalnum() for letter in said.text):
        return "empty_answer"
    return "looping_answer" if loops(said.text) else ""


def loops(text: str) -> bool:
    """Whether the text says the same words, or a word the same letter, over and over without a break."""
    said = text.lower().replace(",", " ").replace(".", " ").split()
    if any(len(word) >= 4 * LOOP_WORDS and len(set(word)) <= 2 for word in said):
        return True
    for period in range(1, min(LONGEST_LOOP, len(said) // LOOP_TIMES) + 1):
        run, least = 0, max((LOOP_TIMES - 1) * period, LOOP_WORDS - period)
        for at in range(period, len(said)):
            run = run + 1 if said[at] == said[at - period] else 0
            if run >= least:
                return True
    return False
