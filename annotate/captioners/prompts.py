"""What a captioner is asked: reviewed text files, by name or by path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from authface.errors import UsageError, one_line

MOST_CHARACTERS = 8000
"""A longer prompt leaves small models no room for the picture and the answer."""


@dataclass(frozen=True)
class Question:
    """The prompt that goes to the model with every picture."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, in hex: rows made with another prompt are made again."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def variants() -> list[str]:
    """Names of the prompts that ship with authface."""
    folder = resources.files("authface.annotate.captioners.prompt_texts")
    return sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))


def question(name: str) -> Question:
    """The prompt called `name`, or that of a UTF-8 text file. Raises UsageError."""
    if name in variants():
        text = resources.files("authface.annotate.captioners.prompt_texts").joinpath(f"{name}.txt").read_text("utf-8")
        return Question(name, text.strip())
    known = ", ".join(variants())
    try:
        if not Path(name).is_file():
            raise UsageError(f"no prompt {one_line(name)}: give a text file or one of {known}")
        text = Path(name).read_text("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the prompt {one_line(name)}: {one_line(error)}") from error
    if not text or len(text) > MOST_CHARACTERS:
        raise UsageError(f"the prompt {one_line(name)} has {len(text)} characters: 1 to {MOST_CHARACTERS} are taken")
    return Question(Path(name).name, text)
