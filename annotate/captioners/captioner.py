"""What every captioner is: it is given a prompt, shown crops in batches, and answers with captions.

A captioner knows one model or server and nothing of tables, tags or resuming, which are the work of
`authface.annotate.captioners.step`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from authface.annotate.settings import TagsSettings
from authface.errors import UsageError, one_line
from authface.imaging import decode as images
from authface.records import Crop
from authface.store.photoset import PhotoSet

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
