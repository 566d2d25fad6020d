"""What every captioner is (given a prompt, shown crops in batches, it answers with captions), and the step they share.

A captioner knows one model or server and nothing of tables, tags or resuming, which are the work of `CaptionStep`.
`authface.annotate.vocabulary.wording` has the rules by which a caption becomes tags.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary import wording
from authface.annotate.vocabulary.pieces import CUT
from authface.annotate.vocabulary.spelling import clean
from authface.annotate.vocabulary.vocabulary import count_tokens, prompt, tokenizer
from authface.engine.runner import PartInput
from authface.engine.workers import Step
from authface.errors import UsageError, one_line
from authface.imaging import decode as images
from authface.records import Crop, Tags
from authface.store.photoset import PhotoSet, Provenance, Table

MOST_PROMPT_CHARACTERS = 8000
"""A longer prompt leaves small models no room for the picture and the answer."""
_PROMPT_TEXTS = "authface.annotate.captioners.prompt_texts"


@dataclass(frozen=True, slots=True)
class Caption:
    """What a captioner answers for one photo."""

    text: str = ""
    truncated: bool = False
    """The answer reached the limit of tokens."""
    failure: str = ""
    """Short name of why there is no caption, such as ``refused``; `text` then holds the details."""


@dataclass(frozen=True)
class CaptionerRequest:
    """What a captioner is made of."""

    settings: TagsSettings
    photoset: PhotoSet
    device: str = "auto"


class Captioner(ABC):
    """A model or a server that captions photos. A subclass needs `name` and `answer`; all else has a default.

    Instances are pickled to every worker before `open`: load nothing heavy in the constructor.
    """

    name: str
    """The annotator's name, which is that of its table of tags: lower-case letters, digits, hyphens."""
    parameters: Mapping[str, Any] = MappingProxyType({})
    """All but the photo that decides a caption, as JSON values. Photos are captioned again where it changes."""
    weights: Mapping[str, str] = MappingProxyType({})
    """Version or sha256 of each model by its name, where known. Photos are captioned again where it changes."""
    batch_size: int = 8
    """Photos that `answer` gets at a time; read after `open`."""
    retries: Sequence[bool] = ()
    """The `penalty` of each further try with a photo, alone, whose caption is empty or loops."""
    gpu: bool = False
    """Whether it takes a GPU of a cluster (``--engine ray``)."""

    @classmethod
    def make(cls, request: CaptionerRequest) -> Self:
        """The captioner that the settings ask for, its model found but not loaded. Raises UsageError, AuthfaceError."""
        return cls()

    def open(self) -> None:  # noqa: B027  a default that has nothing to do
        """Load the model or reach the server, once a worker. Raises AuthfaceError."""

    def prepare(self, photoset: PhotoSet, crop: Crop) -> Any:
        """What `answer` wants of a crop, by default its (h, w, 3) uint8 pixels; runs in threads. Raises ImageError."""
        return images.decode(photoset.read(crop.file)).rgb

    @abstractmethod
    def answer(self, photos: Sequence[Any], *, penalty: bool = False) -> Sequence[Caption]:
        """One caption for each of the `photos` as `prepare` made them, independent of the others in the batch.

        `penalty` asks for an answer that repeats itself less. Raises AuthfaceError where no photo will get an answer.
        """


@dataclass(frozen=True)
class CaptionPrompt:
    """The text that goes to a model with every photo."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def parameters(self) -> dict[str, Any]:
        """Its part of a captioner's `parameters`: rows made with another prompt are made again."""
        return {"prompt": self.name, "prompt_sha256": self.sha256}


def prompt_names() -> list[str]:
    """Names of the prompts that ship with authface."""
    folder = resources.files(_PROMPT_TEXTS)
    return sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))


def load_prompt(name: str) -> CaptionPrompt:
    """The prompt called `name`, or that of a UTF-8 text file. Raises UsageError."""
    names = prompt_names()
    if name in names:
        text = resources.files(_PROMPT_TEXTS).joinpath(f"{name}.txt").read_text("utf-8")
        return CaptionPrompt(name, text.strip())
    try:
        if not Path(name).is_file():
            raise UsageError(f"no prompt {one_line(name)}: give a text file or one of {', '.join(names)}")
        text = Path(name).read_text("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the prompt {one_line(name)}: {one_line(error)}") from error
    if not text or len(text) > MOST_PROMPT_CHARACTERS:
        raise UsageError(
            f"the prompt {one_line(name)} has {len(text)} characters: 1 to {MOST_PROMPT_CHARACTERS} are taken"
        )
    return CaptionPrompt(Path(name).name, text)


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
    """Read the stored answers of parts again that differ in the rules alone; no model is asked. Returns how many.

    Parts of the same model or prompt under another name, as where its folder was moved, get that name.
    """
    count = 0
    for number, meta in target.metas().items():
        if meta is None or meta.provenance == provenance or "wording" not in meta.provenance.settings:
            continue
        before, rules = _renamed(meta.provenance, provenance), provenance.settings["wording"]
        if replace(before, settings={**before.settings, "wording": rules}) != provenance:
            continue
        rows = target.rows(number)
        if before.settings["wording"] != rules:
            rows = [tag_row(row, settings) if row.reason in {"", "no_tags"} else row for row in rows]
            count += 1
        target.write(number, rows, provenance, meta.inputs)
    return count


def _renamed(before: Provenance, new: Provenance) -> Provenance:
    """`before` with the names that `new` has for a model of the same weights and a prompt of the same text."""
    names, weights = dict[str, Any](), before.weights
    if "prompt_sha256" in new.settings and before.settings.get("prompt_sha256") == new.settings["prompt_sha256"]:
        names["prompt"] = new.settings["prompt"]
    if "model" in new.settings and new.weights and [*before.weights.values()] == [*new.weights.values()]:
        names["model"], weights = new.settings["model"], new.weights
    return replace(before, settings={**before.settings, **names}, weights=weights)


UNANSWERED: Final = "no_answer"
"""Reason of a captioner's failure, not a photo's: the next run asks again."""


@dataclass
class Unanswered:
    """Crops of parts that need no run, whose rows are `UNANSWERED`: they are asked for again, alone."""

    inputs: list[PartInput[Crop]] = field(default_factory=list)
    part_of: dict[str, int] = field(default_factory=dict)
    """By the crop's id."""

    def merged(self, target: Table[Tags], rows: Sequence[Tags]) -> list[Tags]:
        """The part of `target` that has these crops, with the new rows in the place of theirs."""
        new = {row.id: row for row in rows}
        return [new.get(row.id, row) for row in target.rows(self.part_of[rows[0].id])]


def unanswered(inputs: Sequence[PartInput[Crop]], target: Table[Tags], made: Provenance) -> Unanswered:
    """What a run has to ask again of parts that an earlier one finished."""
    found, metas = Unanswered(), target.metas()
    for part in inputs:
        meta = metas.get(part.number)
        if meta is None or meta.provenance.difference(made) or not part.is_in(meta.inputs):
            continue
        if not meta.counts.get(f"failed: {UNANSWERED}"):
            continue
        rows = target.columns(part.number, ("id", "status", "reason"))
        failed = {crop_id for crop_id, status, reason in rows if (status, reason) == ("failed", UNANSWERED)}
        ids = {crop.id for crop in part.rows() if crop.id in failed}
        if not ids:
            continue
        found.inputs.append(PartInput(part.number, len(ids), meta.inputs, partial(_of_ids, part, ids)))
        found.part_of.update(dict.fromkeys(ids, part.number))
    return found


def _of_ids(part: PartInput[Crop], ids: Container[str]) -> list[Crop]:
    return [crop for crop in part.rows() if crop.id in ids]


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
