"""The before/after page of a run: photos and their faces, read back from the files as they were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from authface import images
from authface.errors import ImageError, one_line
from authface.faces.geometry import align
from authface.report import Comparison, before_after, quantity
from authface.restore.inputs import PAGE, Job
from authface.restore.log import Line
from authface.restore.session import Session, Summary

MOST_PHOTOS = 60
"""Of a larger run the page shows as many, evenly spaced: it stays below 100 MB."""
MOST_FACES = 4
"""Faces shown of one photo, the largest first."""
FACE_SIDE = 512
INLINE_PHOTOS = 8
"""Up to so many photos the pictures lie inside the page, which can then be mailed; beyond that beside it."""


def write_page(session: Session, summary: Summary, home: Path) -> Path:
    """Write the page of the restored photos of a run to `home`. Raises AuthfaceError where the disk refuses."""
    chosen = spread(summary.jobs, MOST_PHOTOS)
    path = home / PAGE
    facts = [
        ("model", session.settings.model),
        ("photos restored", quantity(summary.restored)),
        ("faces", quantity(summary.faces)),
        ("without a face to restore", quantity(summary.no_face)),
        ("failed", quantity(len(summary.failed))),
    ]
    if len(chosen) < summary.restored:
        facts.append(("shown", f"{len(chosen)} of {summary.restored} photos, evenly spaced"))
    before_after(path, "Restored faces", _pairs(session, chosen), facts, embed=len(chosen) <= INLINE_PHOTOS)
    return path


def spread(jobs: Sequence[Job], most: int) -> list[Job]:
    """At most `most` of the jobs, evenly spaced, the first among them."""
    if len(jobs) <= most:
        return list(jobs)
    return [jobs[int(i)] for i in np.arange(most) * len(jobs) / most]


def _pairs(session: Session, jobs: Sequence[Job]) -> Iterator[Comparison]:
    for job in jobs:
        try:
            before, after = images.read(job.source).rgb, images.read(job.target).rgb
        except ImageError:
            continue  # moved since it was restored
        lines = [line for line in session.log(job.home).photos[job.name] if line.status == "restored"]
        yield Comparison(one_line(job.source), before, after, [("faces restored", str(len(lines)))])
        for line in lines[:MOST_FACES]:
            if line.quad is not None and line.placed_by != "whole":
                quad = np.reshape(line.quad, (4, 2))
                old, new = (align(photo, quad, FACE_SIDE).rgb for photo in (before, after))
                yield Comparison(f"{one_line(job.source.name)}, face {line.face}", old, new, _facts(line))


def _facts(line: Line) -> list[tuple[str, str]]:
    x0, y0, x1, y1 = line.box or (0, 0, 0, 0)
    return [
        (
            "size",
            f"{quantity(round(max(x1 - x0, y1 - y0)))} px" + (", enlarged for the model" if line.upscaled else ""),
        ),
        ("detector", f"{line.score:.2f}" if line.score is not None else "n/a"),
        ("placed by", line.placed_by),
    ]
