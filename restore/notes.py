"""What the pages say of a photo, a video and their faces, by the log's lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError, one_line
from authface.faces.geometry import align, scale_quad
from authface.imaging.bitdepth import to_8_bits
from authface.report.pages import Comparison, Facts, quantity
from authface.restore.guard import parts_text
from authface.restore.inputs import RestoreJob
from authface.restore.video.files import VideoReader
from authface.store.restore_line import Line

T = TypeVar("T")

MAX_FACES = 4
"""Most faces shown of one photo: those to look at first, then the largest."""
MAX_FRAMES = 4
"""Most frames shown of one video."""
MAX_NAMED = 12
"""Most faces listed under one photo as skipped, and as to be looked at."""
FACE_SIDE = 512


def spread(every: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced, including the first."""
    if len(every) <= most:
        return list(every)
    return [every[int(i)] for i in np.arange(most) * len(every) / most]


def photo_notes(every: Sequence[Line]) -> list[tuple[str, str]]:
    """How many faces of a photo were restored, which are to be looked at, and why others were left."""
    lines = [line for line in every if line.status == "restored"]
    look = [(f"look at face {line.face}", parts_text(line, line.suspect)) for line in lines if line.suspect]
    left = [(f"face {line.face} left", _skip_reason(line)) for line in every if line.status == "skipped"]
    return [("faces restored", str(len(lines))), *look[:MAX_NAMED], *left[:MAX_NAMED]]


def shown_faces(every: Sequence[Line]) -> list[Line]:
    """The restored faces of a photo that are shown, if they are cut out of it."""
    lines = [line for line in every if line.status == "restored"]
    chosen = sorted(lines, key=lambda line: not line.suspect)[:MAX_FACES]
    return [line for line in chosen if line.quad is not None and line.placed_by != "whole"]


def moments(job: RestoreJob, line: Line) -> Iterator[Comparison]:
    """Some frames of a video, each with its largest face."""
    name = one_line(job.source.name)
    facts = [("faces restored", f"{quantity(line.faces)} in {quantity(line.frames)} frames")]
    facts += [("identity", f"mean {line.identity:.3f}")] if line.identity is not None else []
    facts += [("with an eye or a mouth unlike the input's", quantity(line.suspects))] if line.suspects else []
    try:
        with VideoReader(job.source) as old, VideoReader(job.target) as new:
            for seconds, *quad in spread(line.moments, MAX_FRAMES):
                was, now = old.at(seconds), new.at(seconds)
                if was is None or now is None:
                    continue
                before, after = to_8_bits(was.pixels()), to_8_bits(now.pixels())
                yield Comparison(f"{name}, {seconds:.2f} s", before, after, facts)
                if quad:
                    yield face_comparison(f"{name}, {seconds:.2f} s, largest face", before, after, quad, line.scale)
    except ImageError:
        return  # moved since it was restored


def face_comparison(
    name: str,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    corners: Sequence[float],
    scale: int,
    side: int = FACE_SIDE,
    facts: Facts = (),
) -> Comparison:
    """One face of a picture and of its result, `scale` times as large; `corners` are a line's quad.

    Raises ImageError where the quad is none of the picture.
    """
    quad = np.reshape(corners, (4, 2))
    old = align(before, quad, side).rgb
    return Comparison(name, old, align(after, scale_quad(quad, scale), side).rgb, facts)


def _skip_reason(line: Line) -> str:
    return f"{line.reason}: {line.detail}" if line.detail else line.reason


def _parts(line: Line) -> str:
    """How like the input's they are, and which of them is not."""
    if line.suspect:
        return f"look at: {parts_text(line, line.suspect)} like the input's"
    return parts_text(line) or "n/a"


def face_facts(line: Line) -> list[tuple[str, str]]:
    """What was measured of a restored face."""
    x0, y0, x1, y1 = line.box or (0, 0, 0, 0)
    size = f"{quantity(round(max(x1 - x0, y1 - y0)))} px" + (", enlarged for the model" if line.upscaled else "")
    facts = [
        ("size", size),
        ("detector", f"{line.score:.2f}" if line.score is not None else "n/a"),
        ("placed by", line.placed_by),
    ]
    if line.colour_shift is not None:
        facts += [
            ("identity", "n/a" if line.identity is None else f"{line.identity:.3f}"),
            ("eyes and mouth", _parts(line)),
            ("landmarks moved", "n/a" if line.landmark_shift is None else f"{line.landmark_shift:.1f} % of the eyes"),
            ("colours moved", f"{line.colour_shift:.1f} (CIEDE2000)"),
        ]
    if line.tries > 1:
        facts.append(("tries", f"{line.tries}, fidelity {line.fidelity:g}" if line.fidelity else str(line.tries)))
    return facts
