"""One photo's end: its result on disk, its lines in the log, what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from authface.errors import one_line
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.bitdepth import Pixels, is_deep
from authface.imaging.encode import DEEP_FORMATS, encode, said
from authface.restore.change import change_map
from authface.restore.inputs import Job
from authface.restore.log import Line, now
from authface.restore.photo import FaceResult, PhotoResult, Search
from authface.restore.session import Session
from authface.restore.timing import part


@dataclass(frozen=True)
class Opened:
    """A photo in memory, with its faces cut out."""

    job: Job
    data: bytes
    content: str
    photo: images.Decoded
    search: Search

    @property
    def pixels(self) -> Pixels:
        """Those that are written back: the 16 bits, where the file has them."""
        return pixels_of(self.photo)


def pixels_of(photo: images.Decoded) -> Pixels:
    """Those that are written back: the 16 bits, where the file has them."""
    return photo.rgb if photo.deep is None else photo.deep


def result_bytes(
    photo: images.Decoded, data: bytes, pixels: Pixels, format: str, quality: int = 0
) -> tuple[bytes, str]:
    """The file of a result and how it was made; `data` itself where no pixel of it changed and its format stays.

    `data` is the photo's file, empty where there is none. Raises ImageError as `encode` does.
    """
    same_format = {"MPO": "JPEG"}.get(photo.format, photo.format) == format
    own = pixels_of(photo)
    if data and same_format and pixels.shape == own.shape and np.array_equal(pixels, own):
        return data, "the input, byte for byte"
    return encode(photo, pixels, format, quality=quality), said(photo, format, pixels.dtype == np.uint16, quality)


def write_result(opened: Opened, result: PhotoResult, session: Session) -> None:
    """Write a result and its lines. Where no pixel changed, the result is the input, byte for byte."""
    job = opened.job
    with part("encode"):
        data, how = result_bytes(opened.photo, opened.data, result.rgb, job.format, session.settings.quality)
    if data is not opened.data:
        for loss in losses(opened.photo, opened.data, job.format):
            session.console.log(f"{one_line(job.source)}: {loss}")
    write_file(job.target, data)
    mapped = job.map_name if result.restored else ""
    if mapped and job.change_map is not None:
        write_file(job.change_map, images.encode_png(change_map(result.background, result.rgb)))
    lines = [replace(line, encoding=how, change_map=mapped) for line in _lines(opened, result, session)]
    with session.lock:
        session.log(job.home).add(lines)
        session.summary.count(job, lines)
    for face in result.faces:
        if face.reason == "identity":
            session.console.log(f"{one_line(job.source)}, face {face.index}: {face.detail}")
    if not result.restored:
        done = "enlarged" if session.settings.upscale > 1 else "copied"
        session.console.log(f"{one_line(job.source)}: {_why_not(result)}; {done} as it is")


def _why_not(result: PhotoResult) -> str:
    """Why no face of a photo was restored, by reason with the numbers of the first, but those that were said before."""
    reasons: dict[str, FaceResult] = {}
    for face in result.faces:
        reasons.setdefault(face.reason, face)
    told = {reason: f"{reason} ({face.detail})" for reason, face in reasons.items() if face.detail}
    told["identity"] = "each restored face drifted"
    return ", ".join(told.get(reason, reason) for reason in sorted(reasons)) or "no face found"


def losses(photo: images.Decoded, data: bytes, format: str) -> list[str]:
    """What a result in `format` cannot keep of its input, a line each."""
    told = []
    if is_deep(data) and (photo.deep is None or format not in DEEP_FORMATS):
        told.append(
            "has 16 bits a channel, the result has 8" + (": png and tiff keep them" if photo.deep is not None else "")
        )
    if photo.mode in {"CMYK", "LAB", "YCbCr"}:
        told.append(f"{photo.mode} pixels, the result is sRGB")
    if photo.alpha is not None and format == "JPEG":
        told.append("JPEG has no alpha: what is transparent becomes white")
    if photo.format == "MPO":
        told.append("the file holds more pictures than one, such as a depth map: the result holds the first")
    return told


def _lines(opened: Opened, result: PhotoResult, session: Session) -> list[Line]:
    height, width = opened.photo.rgb.shape[:2]
    photo = Line(
        target=opened.job.name,
        source=str(opened.job.source.absolute()),
        content=opened.content,
        fingerprint=session.fingerprint,
        made=now(),
        status="no_face",
        model=session.settings.model,
        width=width,
        height=height,
        scale=session.settings.upscale,
    )
    return [_line(photo, face) for face in result.faces] or [photo]


def _line(photo: Line, face: FaceResult) -> Line:
    return replace(
        photo,
        status=face.status,
        reason=face.reason,
        detail=face.detail,
        face=face.index,
        box=tuple(round(value, 2) for value in face.box),
        score=round(face.score, 4),
        seed=face.seed,
        placed_by=face.placed_by if face.quad is not None else "",
        upscaled=face.upscaled,
        quad=None if face.quad is None else tuple(round(float(value), 3) for value in face.quad.ravel()),
        identity=None if face.identity is None else round(face.identity, 4),
        landmark_shift=None if face.landmark_shift is None else round(face.landmark_shift, 2),
        colour_shift=None if face.colour_shift is None else round(face.colour_shift, 2),
        fidelity=face.fidelity,
        tries=face.tries,
    )
