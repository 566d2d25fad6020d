"""Requests and answers of the service: the photo and its options, facts as JSON, errors by status; in memory only."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.imaging.encode import check_sides
from authface.restore.inputs import ENDINGS, NEW_ENDING
from authface.restore.picture import Encoded, Picture, Restored
from authface.restore.queue import QueueFull, QueueStopped
from authface.restore.settings import RestoreSettings
from authface.web.http import whole_number

SILENCE = 15.0
"""Seconds without a byte after which a client is disconnected."""
RATE = 50_000
"""Minimum average rate of a client, bytes a second, after the first `SILENCE` seconds."""
FORM_ROOM = 65_536
"""Most bytes of a form besides its photo."""
PHOTO = "photo"
"""The form's field that holds the file."""
RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
"""Prefixes of media types whose body is the photo; the last is that of ``curl --data-binary``."""


class Refused(AuthfaceError):
    """A refusal with its status."""

    def __init__(self, status: int, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Upload:
    """A file, and the form's other fields."""

    data: bytes
    fields: tuple[tuple[str, str], ...] = ()


async def read_upload(request: Request, most: int) -> Upload:
    """The photo of a request, of at most `most` bytes. Raises Refused: 408, 413, 415, 422."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, most)
    if kind and not kind.startswith(RAW):
        raise Refused(415, f"a body of {one_line(kind, 60)}: send the photo itself, or a form with the field {PHOTO}")
    data = bytearray()
    async for piece in body(request, most, most):
        data += piece
    return Upload(bytes(data))


async def _read_form(request: Request, most: int) -> Upload:
    parser = MultiPartParser(
        request.headers, body(request, most + FORM_ROOM, most), max_files=1, max_fields=32, max_part_size=4096
    )
    parser.spool_max_size = most + FORM_ROOM + 1  # never to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:  # the latter of a charset that decodes nothing
        raise Refused(422, f"not a form: {one_line(error)}") from error
    photo = form.get(PHOTO)
    if not isinstance(photo, UploadFile):
        await form.close()
        raise Refused(422, f"no file in the field {PHOTO}: curl -F {PHOTO}=@old.jpg")
    data = await photo.read()
    await form.close()
    if len(data) > most:
        raise too_large(most)
    return Upload(data, tuple((name, value) for name, value in form.multi_items() if isinstance(value, str)))


async def body(request: Request, most: int, named: int) -> AsyncGenerator[bytes, None]:
    """The body in chunks. Raises Refused: 413 beyond `most` bytes, naming the limit `named`; 408 if it is slow."""
    if (whole_number(request.headers.get("content-length")) or 0) > most:
        raise too_large(named)
    clock = asyncio.get_running_loop().time
    total, start = 0, clock()
    while True:
        left = start + SILENCE + total / RATE - clock()
        try:
            async with asyncio.timeout(min(SILENCE, left)):
                message = await request.receive()
        except TimeoutError as error:
            raise Refused(408, f"{total} bytes in {clock() - start:.0f} s: send the photo faster") from error
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client went away")
        total += len(message.get("body", b""))
        if total > most:
            raise too_large(named)
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def too_large(most: int) -> Refused:
    """The error for a file of more than `most` bytes."""
    return Refused(413, f"the photo is larger than {most / 1e6:g} MB, which is the limit: make it smaller")


OPTIONS = (
    "preset",
    "fidelity",
    "faces",
    "min_identity",
    "min_parts",
    "upscale",
    "grain",
    "colour",
    "format",
    "quality",
)
"""Settings that a request may set; others name files or would exhaust the server."""
RESULTS = ("photo", "json", "both")
PIECE = 262_144
"""Bytes of an answer that are sent at a time, so that a client that stops reading is noticed."""
_MEDIA = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
_STATUS = {"too_large": 413, "not_an_image": 415, "animated": 415, "unsupported_mode": 415}
"""Status by the reason of an ImageError; others are 422."""


class FaceFacts(BaseModel):
    """A face of the photo, as in a line of `restore.jsonl`; coordinates are pixels of the upright input."""

    face: int
    status: Literal["restored", "skipped"]
    reason: str
    detail: str
    box: tuple[float, float, float, float]
    score: float
    seed: int
    placed_by: str
    upscaled: bool
    quad: tuple[float, ...] | None
    identity: float | None
    right_eye: float | None
    left_eye: float | None
    mouth: float | None
    suspect: tuple[str, ...]
    landmark_shift: float | None
    colour_shift: float | None
    fidelity: float | None
    tries: int


class PhotoFacts(BaseModel):
    """Facts about a restored photo."""

    model: str
    width: int
    height: int
    """Height of the upright input, pixels."""
    scale: int
    restored: int
    """Number of restored faces."""
    faces: list[FaceFacts]
    media_type: str
    encoding: str
    notes: list[str]
    """Content of the photo that the result's format cannot keep."""
    photo: str | None = None
    """The result as base64, if `result` is `both`."""


class Answer(BaseModel):
    """A result from a worker."""

    facts: PhotoFacts
    data: bytes
    ending: str


def options_of(named: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], str]:
    """The settings of a request, and the kind of result (empty: unspecified). Raises Refused (422)."""
    found: dict[str, str] = {}
    for name, value in named:
        if name not in (*OPTIONS, "result"):
            there = ", ".join((*OPTIONS, "result"))
            raise Refused(422, f"unknown option {one_line(name, 60)}: options are {there}")
        if found.setdefault(name, value) != value:
            raise Refused(422, f"{name} is named twice, with {one_line(found[name], 60)} and {one_line(value, 60)}")
    result = found.pop("result", "")
    if result and result not in RESULTS:
        raise Refused(422, f"result={one_line(result, 60)}: there are {', '.join(RESULTS)}")
    return {name: _typed(value) for name, value in found.items()}, result


def _typed(text: str) -> object:
    """The text as a number if it is one, else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text


def result_of(accept: str) -> str:
    """The kind of result by the header ``Accept``, for clients that name none."""
    return "json" if accept.partition(",")[0].partition(";")[0].strip().lower() == "application/json" else "photo"


def check_result(picture: Picture, format: str, scale: int) -> None:
    """Raise ImageError where a file of the format cannot hold the restored photo."""
    height, width = picture.photo.rgb.shape[:2]
    check_sides(ENDINGS[NEW_ENDING.get(format, picture.ending)], width * scale, height * scale)


def answer_of(made: Restored, format: str, scale: int, model: str, keep: bool) -> Answer:
    """The result of a restored photo; `keep`: with its file. Raises ImageError if that cannot be encoded."""
    height, width = made.source.photo.rgb.shape[:2]
    ending = NEW_ENDING.get(format, made.ending)
    kind = ENDINGS[ending]
    file = made.as_file(kind) if keep else Encoded(b"", "", tuple(made.source.losses(kind)))
    facts = PhotoFacts(
        model=model,
        width=width,
        height=height,
        scale=scale,
        restored=made.restored,
        faces=[FaceFacts(**face.facts()) for face in made.faces],
        media_type=_MEDIA[kind],
        encoding=file.encoding,
        notes=list(file.losses),
    )
    return Answer(facts=facts, data=file.data, ending=ending)


def response_of(answer: Answer, result: str) -> Response:
    """The answer of the requested kind."""
    facts = answer.facts
    if result == "photo":
        headers = {
            "Content-Length": str(len(answer.data)),
            "Content-Disposition": f'inline; filename="restored{answer.ending}"',
            "X-Authface-Faces": str(len(facts.faces)),
            "X-Authface-Restored": str(facts.restored),
        }
        return StreamingResponse(_pieces(answer.data), media_type=facts.media_type, headers=headers)
    if result == "both":
        facts = facts.model_copy(update={"photo": base64.b64encode(answer.data).decode()})
    body = facts.model_dump_json().encode()
    headers = {"Content-Length": str(len(body))}
    return StreamingResponse(_pieces(body), media_type="application/json", headers=headers)


def _pieces(data: bytes) -> Iterator[bytes]:
    for first in range(0, len(data), PIECE):
        yield data[first : first + PIECE]


def refusal(error: AuthfaceError) -> JSONResponse:
    """An error as ``{"detail": one line}`` with its status."""
    retry = 0
    if isinstance(error, Refused):
        status, retry = error.status, error.retry_after
    elif isinstance(error, QueueFull):
        status, retry = 429, error.retry_after
    elif isinstance(error, QueueStopped):
        status, retry = 503, 30
    elif isinstance(error, ImageError):
        status = _STATUS.get(error.reason, 422)
    else:
        status = 422 if isinstance(error, UsageError) else 500
    headers = {"Retry-After": str(retry)} if retry else None
    return JSONResponse({"detail": one_line(error)}, status, headers)


def openapi_request() -> dict[str, Any]:
    """The request and its options for OpenAPI, from the settings' own schema."""
    properties = RestoreSettings.model_json_schema()["properties"]
    options = {name: properties[name] for name in OPTIONS}
    options["result"] = {
        "enum": list(RESULTS),
        "description": "The restored photo, facts as JSON, or JSON with the photo in it as base64. Without it the "
        "header Accept: application/json asks for json, all else for the photo.",
    }
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["photo"], "properties": {"photo": file, **options}}
    return {
        "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in options.items()],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": file},
                "application/octet-stream": {"schema": file},
            },
        },
    }
