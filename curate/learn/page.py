"""``reports/reviewer-<name>.html``: what a model keeps, whether it can be believed, and its surest faces."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

from authface.curate.learn.heldout import LIMITS, HeldOutTable
from authface.curate.learn.model import Opinion, ReviewerModel
from authface.curate.learn.run import Learned, judged_parts
from authface.errors import ImageError, one_line
from authface.imaging import decode as images
from authface.records import Crop
from authface.report import pages as report
from authface.report.charts import HistogramCounter
from authface.review.reviews import Reviewed
from authface.store.photoset import PhotoSet

SHOWN = 24
"""Faces of a shelf."""
THUMBNAIL = 224

_Picked = tuple[float, str, Opinion]


def write_page(photoset: PhotoSet, learned: Learned, people: Reviewed) -> Path:
    """Write the page and return its path. Raises AuthfaceError where the disk refuses."""
    facts, held_out = learned.model.facts, HeldOutTable.of(learned.model.facts.held_out)
    path = photoset.root / "reports" / f"reviewer-{facts.reviewer}.html"
    counter = HistogramCounter(0.0, 1.0, 24)
    counter.add(held_out.probability, held_out.kept)
    report.write_page(
        path,
        "reviewer.html.jinja",
        title=f"What {facts.reviewer} keeps of {one_line(photoset.root.resolve().name)}",
        summary=[
            ("decisions", f"{len(facts.held_out):,}"),
            ("kept", f"{int(held_out.kept.sum()):,}"),
            ("area under the curve", f"{learned.auc.share:.3f} ({learned.auc.low:.3f} to {learned.auc.high:.3f})"),
            ("calibration error", f"{learned.calibration_error:.3f}"),
        ],
        notes=learned.as_text().splitlines()[1:-1],
        limits=limit_table(held_out, facts.limit),
        bins=held_out.calibration(),
        chart=counter.histogram(
            "probability to be kept", "of decided faces, by what was decided", [("limit", facts.limit)]
        ),
        reasons=report.ReportTable(
            ("reason", "where its faces differ most from those that are kept"),
            [(reason, ", ".join(words).replace("_", " ")) for reason, words in facts.signs.items()],
        ),
        shelves=list(_shelves(photoset, learned.model, people)),
    )
    return path


def limit_table(held_out: HeldOutTable, own: float) -> report.ReportTable:
    """What each limit keeps and lets through; ``>`` marks the model's own."""
    rows = [held_out.passing(limit) for limit in sorted({*LIMITS, own})]
    return report.ReportTable(
        (
            "limit",
            "of what is kept passes (recall)",
            "of what is rejected passes",
            "of what passes is kept (precision)",
        ),
        [(f"{'> ' if x.limit == own else ''}{x.limit:.3g}", *(e.text for e in x.estimates)) for x in rows],
    )


def _shelves(photoset: PhotoSet, model: ReviewerModel, people: Reviewed) -> Iterator[tuple[str, int, str]]:
    """The surest faces of both kinds that nobody decided on, and those in between."""
    decided = {face for said in people.decisions.values() for face in said}
    found: list[_Picked] = []
    for part in judged_parts(photoset):
        opinions = model.judge(part.values) if part.ids else []
        found += [(one.keep, face, one) for face, one in zip(part.ids, opinions, strict=True) if face not in decided]
    rejected = [one for one in found if one[0] < model.facts.limit]
    kinds = {
        "rejected: surest": (len(rejected), heapq.nsmallest(SHOWN, rejected, key=lambda one: one[0])),
        "kept: next to the limit": (len(found) - len(rejected), heapq.nsmallest(
            SHOWN, (one for one in found if one[0] >= model.facts.limit), key=lambda one: one[0])),
        "kept: surest": (len(found) - len(rejected), heapq.nlargest(SHOWN, found, key=lambda one: one[0])),
    }  # fmt: skip
    shown = {face for _, picked in kinds.values() for _, face, _ in picked}
    crops = {crop.id: crop for crop in photoset.crops if crop.id in shown and crop.status == "kept"}
    for name, (total, picked) in kinds.items():
        cells = [_cell(photoset, crops.get(face), face, opinion) for _, face, opinion in picked]
        if cells:
            note = f"{len(cells)} of {total:,} faces that no limit rejects and nobody has decided on"
            group = report.SheetGroup(name, note, len(cells), cells)
            yield name, total, report.shelf(group)


def _cell(photoset: PhotoSet, crop: Crop | None, face: str, opinion: Opinion) -> report.Cell:
    try:
        image = images.preview(photoset.root / crop.file, THUMBNAIL) if crop else None
    except ImageError:
        image = None
    said = f"{opinion.keep:.3f}{f', {opinion.reason}' if opinion.reason else ''}"
    return report.Cell(image, f"{face[:10]}{face[64:]}", said, link=f"../{crop.file}" if crop else "")
