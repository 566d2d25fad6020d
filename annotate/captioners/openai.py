"""`annotate tags --with openai`: a captioner behind any OpenAI-compatible server, over HTTP.

What the server sends is not trusted: its size is capped, no form of it ends the run, and the key is taken out of all
that is shown or kept.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from typing import Any, Self

import cv2
import httpx

from authface.annotate.captioners.captioner import (
    UNANSWERED,
    Caption,
    Captioner,
    CaptionerRequest,
    CaptionPrompt,
    load_prompt,
)
from authface.annotate.settings import OpenaiSettings
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.records import Crop
from authface.store.photoset import PhotoSet
from authface.web.http import retry_after

KEY = "OPENAI_API_KEY"
MOST_BYTES = 4_000_000
"""Of one reply."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
LESS_REPETITION = 0.5
"""`frequency_penalty` of the last try."""
_LOCAL = ("http://127.", "http://localhost", "http://[::1]", "https://127.", "https://localhost", "https://[::1]")
_NOT_THERE = {401, 403, 404}
"""Statuses that every photo will get: the key or the model's name is wrong."""
_TEXT_PARTS = ("text", "output_text")
"""Kinds of a message's parts that are its answer."""
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that may be better at the next try."""


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


def first_model(settings: OpenaiSettings) -> str:
    """The first model that the server lists. Raises AuthfaceError where there is no server or no list."""
    with _client(settings) as client:
        reply = _get_models(client, settings)
    found = reply.value.get("data") if isinstance(reply.value, dict) else None
    names = [entry["id"] for entry in found or [] if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if not names:
        raise UsageError(f"{settings.base_url} lists no models: name one with --model")
    return str(names[0])


@dataclass
class Openai(Captioner):
    """A captioner behind an OpenAI-compatible server. `settings.model` is not empty."""

    settings: OpenaiSettings
    prompt: CaptionPrompt
    _client: Any = field(default=None, repr=False)
    _pool: Any = field(default=None, repr=False)
    _lock: Any = field(default=None, repr=False)
    _ended: Any = field(default=None, repr=False)
    _unanswered: int = 0
    """Photos in a row that got no answer, or were refused as they were sent before any was answered."""
    _answered: bool = False
    """Whether a photo was."""

    name = "openai"
    retries = (True,)

    @classmethod
    def make(cls, request: CaptionerRequest) -> Self:
        """Of the settings' `openai` and `prompt`; without a model's name, the server's first."""
        server = request.settings.openai
        if not server.model:
            server = server.model_copy(update={"model": first_model(server)})
        return cls(server, load_prompt(request.settings.prompt))

    def __post_init__(self) -> None:
        # What is in every request but the photo; where the server is, and what it runs, do not count.
        sent = self.settings.model_dump(mode="json", include={"model", "image", "max_side", "max_tokens", "seed"})
        self.parameters = sent | self.prompt.parameters
        self.batch_size = 16 * self.settings.concurrency  # few threads wait for the slowest answer of a batch

    def open(self) -> None:
        """Check that the server is there. Raises AuthfaceError."""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._client = _client(self.settings)
        # Its threads are daemons: Ctrl-C does not wait for what a slow server has not answered.
        self._pool = ThreadPool(self.settings.concurrency)
        _get_models(self._client, self.settings)

    def prepare(self, photoset: PhotoSet, crop: Crop) -> bytes:
        """The crop's file. Raises ImageError."""
        return photoset.read(crop.file)

    def answer(self, photos: Sequence[bytes], *, penalty: bool = False) -> list[Caption]:
        """Raises AuthfaceError where the key or the model is refused, or too many photos in a row got no answer."""
        try:
            return list(self._pool.imap(functools.partial(self._answer, penalty=penalty), photos))
        except BaseException:
            self._ended.set()
            self._pool.terminate()
            raise

    def _answer(self, photo: bytes, penalty: bool) -> Caption:
        try:
            caption = self._request(self._body(data_url(photo, self.settings), penalty))
        except ImageError as error:
            return Caption(one_line(error), failure=error.reason)
        with self._lock:
            # A photo may be refused for what it shows; a server that answers none refuses what it is sent.
            lost = caption.failure == UNANSWERED or (caption.failure == "bad_request" and not self._answered)
            self._unanswered = self._unanswered + 1 if lost else 0
            self._answered |= not caption.failure
            if self._unanswered >= self.settings.give_up_after:
                raise AuthfaceError(
                    f"{self.settings.base_url}: {self._unanswered} photos in a row got no answer, the last: "
                    f"{caption.text}; finished parts are kept: see to the server and run the same command again"
                )
        return caption

    def _body(self, url: str, penalty: bool) -> bytes:
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": self.prompt.text},
        ]
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "seed": self.settings.seed,
            "max_tokens": self.settings.max_tokens,
        }
        return json.dumps(body | ({"frequency_penalty": LESS_REPETITION} if penalty else {})).encode()

    def _request(self, body: bytes) -> Caption:
        """The caption, after at most `attempts` tries."""
        problem = "the run ended"
        for attempt in range(self.settings.attempts):
            if self._ended.is_set():
                break
            reply = _send(self._client, "POST", "chat/completions", self.settings, body)
            if reply.status in _NOT_THERE:
                raise AuthfaceError(
                    f"{self.settings.base_url} refuses {one_line(self.settings.model, 80)}: {error_text(reply)}; "
                    f"see to --model and to {KEY} in the environment"
                )
            if reply.status and reply.status not in _RETRIED:
                return parse_reply(reply)
            problem = error_text(reply)
            wait = retry_after(reply.headers.get("retry-after"))
            backoff = random.uniform(0.5, 1) * self.settings.backoff_seconds * 2**attempt
            if attempt + 1 < self.settings.attempts:
                self._ended.wait(min(LONGEST_WAIT, backoff if wait is None else wait))
        return Caption(f"{problem}, after {self.settings.attempts} tries", failure="no_answer")


def parse_reply(reply: Reply) -> Caption:
    """The caption in a chat completion, or a failure: ``bad_request``, ``refused``, ``no_answer``."""
    if reply.status in {400, 413, 422}:
        return Caption(error_text(reply), failure="bad_request")
    if reply.status != 200:
        return Caption(error_text(reply), failure="no_answer")
    value = reply.value
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    answer = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(answer, dict):
        return Caption(error_text(reply), failure="no_answer")
    if choice.get("finish_reason") == "content_filter" or (answer.get("refusal") and not answer.get("content")):
        return Caption(one_line(answer.get("refusal") or "the server's content filter"), failure="refused")
    return Caption(_text(answer.get("content")), truncated=choice.get("finish_reason") == "length")


def error_text(reply: Reply) -> str:
    """What is wrong with a reply that holds no answer, on one line: in the server's own words where it has some."""
    if not reply.status:
        return one_line(reply.problem, 200)
    kind = reply.headers.get("content-type", "").partition(";")[0]
    value: Any = reply.value
    if isinstance(value, dict):
        error: Any = value.get("error", value.get("detail", value.get("message", "")))
        error = error.get("message", error) if isinstance(error, dict) else error
        words = error if isinstance(error, str) and error else reply.text
    else:
        words = f"no JSON but {kind or 'nothing'}: {reply.text}" if reply.status == 200 else reply.text
    return one_line(f"HTTP {reply.status}: {' '.join(words.split())}", 200)


def _text(content: Any) -> str:
    """Text of a message, which is a string or a list of parts, of which those with reasoning are left out."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS]
        texts = [part.get("text") for part in parts]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def data_url(data: bytes, settings: OpenaiSettings) -> str:
    """The photo as a ``data:`` address, at most `max_side` pixels. Raises ImageError."""
    rgb = images.decode(data).rgb
    scale = settings.max_side / max(rgb.shape[:2])
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    encoded = images.encode_png(rgb) if settings.image == "png" else images.encode_jpeg(rgb, quality=92)
    return f"data:image/{settings.image};base64,{base64.b64encode(encoded).decode()}"


def _client(settings: OpenaiSettings) -> httpx.Client:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key := _key():
        headers["Authorization"] = f"Bearer {key}"
    return httpx.Client(
        headers=headers,
        timeout=httpx.Timeout(settings.timeout_seconds, connect=min(10.0, settings.timeout_seconds), pool=None),
        limits=httpx.Limits(max_connections=settings.concurrency),
        trust_env=not settings.base_url.startswith(_LOCAL),  # a proxy does not know this machine's own servers
    )


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or any(not letter.isprintable() for letter in key):
        raise UsageError(f"{KEY} in the environment holds letters that no key has: set it again")
    return key


def _get_models(client: httpx.Client, settings: OpenaiSettings) -> Reply:
    """The server's reply about its models, which may be that it has no such list. Raises AuthfaceError."""
    reply = _send(client, "GET", "models", settings)
    if not reply.status:
        raise AuthfaceError(
            f"no server at {settings.base_url} ({error_text(reply)}): start it, or set annotate.tags.openai.base_url"
        )
    if reply.status in {401, 403}:
        raise AuthfaceError(f"{settings.base_url}: {error_text(reply)}; set {KEY} in the environment")
    return reply


def _send(client: httpx.Client, method: str, path: str, settings: OpenaiSettings, body: bytes = b"") -> Reply:
    """The server's reply with the key taken out; status 0 where none came whole."""
    end = time.monotonic() + settings.timeout_seconds
    data = bytearray()
    try:
        with client.stream(method, f"{settings.base_url.rstrip('/')}/{path}", content=body or None) as response:
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MOST_BYTES or time.monotonic() > end:
                    late = f"no whole reply in {settings.timeout_seconds:g} s"
                    return Reply(problem="reply too long" if len(data) > MOST_BYTES else late)
            text = bytes(data).decode("utf-8", "replace")
            if key := _key():
                text = text.replace(key, "***")
            return Reply(response.status_code, dict(response.headers), text)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        return Reply(problem=one_line(f"{type(error).__name__}: {error}".rstrip(": "), 160))
