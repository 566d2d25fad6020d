"""The step that every captioner shares: it is shown each crop, and its caption becomes a row of tags.

`authface.annotate.vocabulary.wording` has the rules by which a caption becomes tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from authface.annotate.captioners.captioner import Caption, Captioner
from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary import wording
from authface.annotate.vocabulary.cleaning import clean
from authface.annotate.vocabulary.pieces import CUT
from authface.annotate.vocabulary.vocabulary import count_tokens, prompt, tokenizer
from authface.engine.workers import Step
from authface.errors import one_line
from authface.records import Crop, Tags
from authface.store.photoset import PhotoSet, Provenance, Table

VERSION = 1
PROSE = {"qwen"}
"""Annotators who write sentences, in which tags are looked for."""
MOST_CHARACTERS = 2000
"""Longest answer that is kept and read: 75 tokens of tags have some 400 characters."""
LOOP_TIMES = 4
"""Repetitions of the same words in a row that make a loop."""
LONGEST_LOOP = 40
"""Most words that are repeated in a loop."""
LOOP_WORDS = 6
"""Least length of a loop, words: ``very very very very`` is none."""


@dataclass
class CaptionStep(Step[Crop, Any, Caption, Tags]):
    """The step over a photo set's table `crops`."""

    root: Path
    captioner: Captioner
    settings: TagsSettings

    @property
    def provenance(self) -> Provenance:
        """The captioner's parameters and models, and the rules its captions are read by."""
        rules = {
            "vocabulary": self.settings.vocabulary,
            "max_tags": self.settings.max_tags,
            "words": wording.fingerprint(),
        }
        settings = {**self.captioner.parameters, "wording": rules}
        return Provenance(f"{self.captioner.name} tags", VERSION, settings, dict(self.captioner.weights))

    def open(self) -> None:
        """Open the captioner."""
        self.captioner.open()
        self.batch_size = self.captioner.batch_size
        if self.settings.vocabulary == "open":
            tokenizer()  # before the threads that save: two of them at it break transformers' lazy imports

    def load(self, crop: Crop) -> Any:
        """The crop as the captioner wants it. Raises ImageError."""
        return self.captioner.prepare(PhotoSet(self.root), crop)

    def step(self, batch: Sequence[Any]) -> Sequence[Caption]:
        """A caption for each photo; one that is empty or loops is asked for again, as the captioner's `retries` say."""
        captions = list(self.captioner.answer(batch))
        for at, photo in enumerate(batch):
            for penalty in self.captioner.retries:
                if not flaw(captions[at]):
                    break
                captions[at] = self.captioner.answer([photo], penalty=penalty)[0]
        return captions

    def save(self, crop: Crop, caption: Caption) -> list[Tags]:
        """The row."""
        row = Tags(id=crop.id, annotator=self.captioner.name, answer=stored_answer(caption))
        if caption.failure:
            return [replace(row, answer="", status="failed", reason=caption.failure, detail=one_line(caption.text))]
        if reason := flaw(caption):
            return [replace(row, status="failed", reason=reason, detail="the same when it was asked again")]
        return [tag_row(row, self.settings)]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Tags]:
        """The row of a crop that could not be shown."""
        return [Tags(id=crop.id, annotator=self.captioner.name, status="failed", reason=reason, detail=detail)]


def stored_answer(caption: Caption) -> str:
    """The answer as rows keep it: behind its reasoning, without blank lines, at most `MOST_CHARACTERS`.

    An ellipsis ends it where it was cut.
    """
    lines = (line.strip() for line in clean(caption.text).split("\n"))
    text = "\n".join(line for line in lines if line)
    if len(text) <= MOST_CHARACTERS - caption.truncated:
        return text + CUT if caption.truncated else text
    return text[: MOST_CHARACTERS - 1] + CUT


def tag_row(row: Tags, settings: TagsSettings) -> Tags:
    """The row with the tags in its answer; without any it is ``failed: no_tags``."""
    closed, prose = settings.vocabulary == "closed", row.annotator in PROSE
    found = wording.parse_tags(row.answer, closed=closed, most=settings.max_tags, prose=prose)
    if not found.tags:
        return replace(
            row, tags=(), tokens=0, status="failed", reason="no_tags", detail="nothing in the answer is a tag"
        )
    count = count_tokens(prompt(found.tags))
    return replace(row, tags=found.tags, tokens=count, status="kept", reason="", detail="")


def reread_parts(target: Table[Tags], provenance: Provenance, settings: TagsSettings) -> int:
    """Read the stored answers of parts again that differ in the rules alone; no model is asked. Returns how many."""
    count = 0
    for number, meta in target.metas().items():
        if meta is None or meta.provenance == provenance or "wording" not in meta.provenance.settings:
            continue
        before = {**meta.provenance.settings, "wording": provenance.settings["wording"]}
        if replace(meta.provenance, settings=before) == provenance:
            rows = [tag_row(row, settings) if row.reason in {"", "no_tags"} else row for row in target.rows(number)]
            target.write(number, rows, provenance, meta.inputs)
            count += 1
    return count


def flaw(caption: Caption) -> str:
    """``empty_answer``, ``looping_answer``, or nothing."""
    if caption.failure:
        return ""
    text = clean(caption.text)
    if not any(letter.isalnum() for letter in text):
        return "empty_answer"
    return "looping_answer" if loops(text) else ""


def loops(text: str) -> bool:
    """Whether the text says the same words, or a word the same letter, over and over without a break."""
    words = text.lower().replace(",", " ").replace(".", " ").split()
    if any(len(word) >= 4 * LOOP_WORDS and len(set(word)) <= 2 for word in words):
        return True
    for period in range(1, min(LONGEST_LOOP, len(words) // LOOP_TIMES) + 1):
        run, least = 0, max((LOOP_TIMES - 1) * period, LOOP_WORDS - period)
        for at in range(period, len(words)):
            run = run + 1 if words[at] == words[at - period] else 0
            if run >= least:
                return True
    return False
