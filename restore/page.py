"""The before/after page of a run: photos, frames of videos, and their faces, read back from the files as written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError, one_line
from authface.faces.geometry import align, scale_quad
from authface.faces.identity import usual_products
from authface.imaging import decode as images
from authface.imaging.bitdepth import to_8_bits
from authface.report.pages import Comparison, Facts, before_after, quantity
from authface.restore.inputs import PAGE, RestoreJob
from authface.restore.parts import parts_text
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore.video.files import VideoReader
from authface.store.restore_line import Line

T = TypeVar("T")

MAX_PHOTOS = 60
"""Most photos on the page, evenly spaced in a larger run, those to look at first: it stays below 100 MB."""
MAX_FACES = 4
"""Most faces shown of one photo: those to look at first, then the largest."""
MAX_FRAMES = 4
"""Most frames shown of one video."""
MAX_NAMED = 12
"""Most faces listed under one photo as skipped, and as to be looked at."""
FACE_SIDE = 512
INLINE_PHOTOS = 8
"""Most photos whose pictures are embedded in the page, which can then be mailed; with more they are files beside it."""


def write_page(session: Session, summary: RestoreSummary, home: Path) -> Path:
    """Write the page of a run's results in `home`. Raises AuthfaceError if the disk refuses."""
    marked = {job.target for job, _ in summary.suspects}
    chosen = spread([job for job in summary.jobs if job.target in marked], MAX_PHOTOS)
    chosen += spread([job for job in summary.jobs if job.target not in marked], MAX_PHOTOS - len(chosen))
    path = home / PAGE
    facts = [("model", session.settings.model)]
    if summary.photos:
        facts += [
            ("photos restored", quantity(summary.restored)),
            ("faces", quantity(summary.faces)),
            ("without a face to restore", quantity(summary.no_face)),
        ]
    if clips := [line for line in summary.video_lines.values() if line.status == "restored"]:
        facts.append(("videos restored", quantity(len(clips))))
        facts.append(("faces in their frames", quantity(sum(line.faces for line in clips))))
    facts.append(("failed", quantity(len(summary.failed))))
    if summary.identities:
        facts.append(("identity", identity_summary(session.settings, summary)))
    if summary.suspects:
        facts.append(("with an eye or a mouth unlike the input's: look at them", quantity(len(summary.suspects))))
    if summary.tried_again:
        facts.append(("tried again at higher fidelity", quantity(summary.tried_again)))
    if summary.kept:
        facts.append(("input face kept, since the restored one drifted", quantity(summary.kept)))
    if len(chosen) < len(summary.jobs):
        facts.append(("shown", f"{len(chosen)} of {len(summary.jobs)}, evenly spaced, those to look at first"))
    before_after(path, "Restored faces", _pairs(session, chosen), facts, embed=len(chosen) <= INLINE_PHOTOS)
    return path


def identity_summary(settings: RestoreSettings, summary: RestoreSummary) -> str:
    """Mean and lowest identity of the restored faces, and that of strangers."""
    mean = sum(summary.identities) / len(summary.identities)
    strangers = usual_products(settings.identity)[0]
    return f"mean {mean:.3f}, least {min(summary.identities):.3f} ({settings.identity}; strangers have {strangers:g})"


def spread(every: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced, including the first."""
    if len(every) <= most:
        return list(every)
    return [every[int(i)] for i in np.arange(most) * len(every) / most]


def _pairs(session: Session, jobs: Sequence[RestoreJob]) -> Iterator[Comparison]:
    for job in jobs:
        every = session.log(job.home).lines(job.name)
        if job.is_video:
            yield from _moments(job, every[0])
            continue
        try:
            before, after = images.read(job.source).rgb, images.read(job.target).rgb
            mapped = images.read(job.change_map).rgb if every[0].change_map and job.change_map else None
        except ImageError:
            continue  # moved since it was restored
        lines = [line for line in every if line.status == "restored"]
        notes = [("faces restored", str(len(lines)))]
        notes += [(f"look at face {line.face}", parts_text(line, line.suspect)) for line in lines if line.suspect][
            :MAX_NAMED
        ]
        notes += [(f"face {line.face} left", _skip_reason(line)) for line in every if line.status == "skipped"][
            :MAX_NAMED
        ]
        yield Comparison(one_line(job.source), before, after, notes)
        if mapped is not None:
            name = f"{one_line(job.source.name)}: what changed"
            yield Comparison(name, after, mapped, labels=("after", "change map"))
        for line in sorted(lines, key=lambda line: not line.suspect)[:MAX_FACES]:
            if line.quad is not None and line.placed_by != "whole":
                name = f"{one_line(job.source.name)}, face {line.face}"
                with suppress(ImageError):  # a line that somebody changed: no such crop
                    yield _face(name, before, after, line.quad, line.scale, _facts(line))


def _moments(job: RestoreJob, line: Line) -> Iterator[Comparison]:
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
                    yield _face(f"{name}, {seconds:.2f} s, largest face", before, after, quad, line.scale)
    except ImageError:
        return  # moved since it was restored


def _face(
    name: str,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    corners: Sequence[float],
    scale: int,
    facts: Facts = (),
) -> Comparison:
    """One face of a picture and of its result, `scale` times as large; `corners` are a line's quad."""
    quad = np.reshape(corners, (4, 2))
    old = align(before, quad, FACE_SIDE).rgb
    return Comparison(name, old, align(after, scale_quad(quad, scale), FACE_SIDE).rgb, facts)


def _skip_reason(line: Line) -> str:
    return f"{line.reason}: {line.detail}" if line.detail else line.reason


def _parts(line: Line) -> str:
    """How like the input's they are, and which of them is not."""
    if line.suspect:
        return f"look at: {parts_text(line, line.suspect)} like the input's"
    return parts_text(line) or "n/a"


def _facts(line: Line) -> list[tuple[str, str]]:
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
