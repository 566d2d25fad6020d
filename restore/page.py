"""The before/after page of a run: photos, frames of videos, and their faces, read back from the files as written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from authface.errors import ImageError, one_line
from authface.faces.identity import usual_products
from authface.imaging import decode as images
from authface.report.pages import Comparison, before_after, quantity
from authface.restore.album import has_album, write_album
from authface.restore.inputs import PAGE, RestoreJob
from authface.restore.notes import face_comparison, face_facts, moments, photo_notes, shown_faces
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import RestoreSettings

INLINE_PHOTOS = 8
"""Most photos whose pictures are embedded in the page, which can then be mailed; with more they are files beside it."""


def write_page(session: Session, summary: RestoreSummary, home: Path) -> Path:
    """Write the page of a run's results in `home`, or the index of its pages. Raises AuthfaceError if the disk refuses.

    Those to look at come first.
    """
    facts = _summary_facts(session, summary)
    if has_album(session):
        return write_album(session, summary, home, facts)
    marked = summary.to_look_at
    jobs = sorted(summary.jobs, key=lambda job: job.target_path not in marked)
    before_after(home / PAGE, "Restored faces", _pairs(session, jobs), facts, embed=len(jobs) <= INLINE_PHOTOS)
    return home / PAGE


def _summary_facts(session: Session, summary: RestoreSummary) -> list[tuple[str, str]]:
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
    if unlike := len(summary.suspects) + sum(line.suspects for line in summary.video_lines.values()):
        facts.append(("with an eye or a mouth unlike the input's: look at them", quantity(unlike)))
    if summary.tried_again:
        facts.append(("tried again at higher fidelity", quantity(summary.tried_again)))
    if summary.kept:
        facts.append(("input face kept, since the restored one drifted", quantity(summary.kept)))
    return facts


def identity_summary(settings: RestoreSettings, summary: RestoreSummary) -> str:
    """Mean and lowest identity of the restored faces, and that of strangers."""
    mean = sum(summary.identities) / len(summary.identities)
    strangers = usual_products(settings.identity)[0]
    return f"mean {mean:.3f}, least {min(summary.identities):.3f} ({settings.identity}; strangers have {strangers:g})"


def _pairs(session: Session, jobs: Sequence[RestoreJob]) -> Iterator[Comparison]:
    for job in jobs:
        every = session.log(job.home).lines(job.name)
        if job.is_video:
            yield from moments(job, every[0])
            continue
        try:
            before, after = images.read(job.source).rgb, images.read(job.target).rgb
            mapped = images.read(job.change_map).rgb if every[0].change_map and job.change_map else None
        except ImageError:
            continue  # moved since it was restored
        yield Comparison(one_line(job.source), before, after, photo_notes(every))
        if mapped is not None:
            name = f"{one_line(job.source.name)}: what changed"
            yield Comparison(name, after, mapped, labels=("after", "change map"))
        for line in shown_faces(every):
            if line.quad is not None:
                name = f"{one_line(job.source.name)}, face {line.face}"
                with suppress(ImageError):  # a line that somebody changed: no such crop
                    yield face_comparison(name, before, after, line.quad, line.scale, facts=face_facts(line))
