"""Reading a photo and its options from a request: with limits, in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from authface.errors import AuthfaceError, one_line
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
    except MultiPartException as error:
        raise Refused(422, f"not a form: {one_line(error.message)}") from error
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
