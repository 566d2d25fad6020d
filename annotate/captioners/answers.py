"""Replies of an OpenAI-compatible server: what they say, or one line on what is wrong with them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authface.annotate.captioners.step import Said
from authface.errors import one_line

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that another try may better."""


@dataclass(frozen=True)
class Reply:
    """One reply; status 0 where none came, with the `problem`."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    problem: str = ""

    @functools.cached_property
    def value(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None


def parse(reply: Reply) -> Said:
    """The answer of a chat completion, or a failure: ``bad_request``, ``refused``, ``no_answer``."""
    if reply.status in {400, 413, 422}:
        return Said(message(reply), failure="bad_request")
    if reply.status != 200:
        return Said(message(reply), failure="no_answer")
    value = reply.value
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    answer = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(answer, dict):
        return Said(message(reply), failure="no_answer")
    if choice.get("finish_reason") == "content_filter" or (answer.get("refusal") and not answer.get("content")):
        return Said(one_line(answer.get("refusal") or "the server's content filter"), failure="refused")
    return Said(_text(answer.get("content")), cut=choice.get("finish_reason") == "length")


def message(reply: Reply) -> str:
    """What a reply that is no answer says, on one line: the server's own words where it has some."""
    if not reply.status:
        return one_line(reply.problem, 200)
    kind = reply.headers.get("content-type", "").partition(";")[0]
    value: Any = reply.value
    if isinstance(value, dict):
        said: Any = value.get("error", value.get("detail", value.get("message", "")))
        said = said.get("message", said) if isinstance(said, dict) else said
        words = said if isinstance(said, str) and said else reply.text
    else:
        words = f"no JSON but {kind or 'nothing'}: {reply.text}" if reply.status == 200 else reply.text
    return one_line(f"HTTP {reply.status}: {' '.join(words.split())}", 200)


def _text(content: Any) -> str:
    """Text of a message, which is a string or a list of parts."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
