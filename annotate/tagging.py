"""`annotate tags`: which step an annotator is, its run over the crops that people left in, and its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from authface import backends
from authface.annotate.captioners.captioner import PROSE, Captioner, CaptionerRequest, CaptionStep, reread_parts
from authface.annotate.measured.tagger import MeasuredTags
from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary.resolve import MEASURED
from authface.annotate.vocabulary.vocabulary import MOST_TOKENS, OTHER, VOCABULARY, prompt
from authface.annotate.vocabulary.wording import parse_tags
from authface.engine.runner import CHUNK_ROWS, Summary
from authface.engine.runner import run as run_parts
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.options import Run
from authface.records import Tags
from authface.report import pages as report
from authface.review.reviews import ReviewedStep, ReviewSettings, reviewed_crops
from authface.store.photoset import PhotoSet, Table

WITH_MODEL = ("llava", "openai")
"""Annotators that are asked a prompt and have a model of their own choosing."""


@dataclass(frozen=True)
class Tagged:
    """What a run did."""

    summary: Summary
    reread: int = 0
    """Parts whose answers were read again under other rules, without a model."""


def with_model(settings: TagsSettings, model: str | None) -> TagsSettings:
    """The settings with `model` in place of the annotator's own. Raises UsageError where it has none."""
    if model is None:
        return settings
    if settings.annotator not in WITH_MODEL:
        raise UsageError(f"--model {one_line(model)}: --with {settings.annotator} has no model; llava and openai have")
    chosen = getattr(settings, settings.annotator).model_copy(update={"model": model})
    return settings.model_copy(update={settings.annotator: chosen})


def tag(photoset: PhotoSet, settings: TagsSettings, review: ReviewSettings, run: Run, *, redo: bool = False) -> Tagged:
    """Tag the crops that are new or changed, all with `redo`; the caller holds the set's lock. Raises AuthfaceError."""
    kind: type[Captioner] | None = None
    if settings.annotator != MEASURED:
        kind = backends.load("captioners", settings.annotator)
    inputs = reviewed_crops(photoset, review, run.limit)
    if not any(part.count for part in inputs):
        where = one_line(photoset.root)
        raise AuthfaceError(f"{where} has no kept crops to tag: authface curate report {where} says why")
    target = photoset.tags(settings.annotator)
    if kind is None:
        measured = ReviewedStep(MeasuredTags(photoset.root, settings.measured))
        return Tagged(
            run_parts(measured, inputs, target, run.console, workers=run.workers, cluster=run.cluster(), redo=redo)
        )
    cluster, devices = run.cluster(gpu=kind.gpu), run.devices()
    if devices and not kind.gpu:
        raise UsageError(f"--device {one_line(run.device)}: --with {settings.annotator} has no model on a device here")
    device = "cuda" if cluster is not None and cluster.gpu else devices.kind if devices else run.device
    captioner = kind.make(CaptionerRequest(settings, photoset, device))
    work = CaptionStep(photoset.root, captioner, settings)
    reread = reread_parts(target, work.provenance, settings)
    if reread:
        run.console.log(f"{reread} parts were read again under other rules; no model was asked")
    # One process a device: a model fills it; a server is asked by threads.
    summary = run_parts(
        ReviewedStep(work),
        inputs,
        target,
        run.console,
        seats=devices.seats if devices else (),
        cluster=cluster,
        redo=redo,
        chunk_rows=max(CHUNK_ROWS, captioner.batch_size),
    )
    return Tagged(summary, reread)


SAMPLE = 24
FAILED = 12
MOST_UNKNOWN = 60
"""Unknown words that the page lists, the most frequent."""
THUMBNAIL = 256


@dataclass
class AnnotatorCounts:
    """The tags, words and outcomes of one annotator over all crops."""

    annotator: str
    outcomes: Counter[str]
    tags: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By group and name."""
    unknown: Counter[str] = field(default_factory=Counter)
    """What its answers say that obeys the rules of tags and is not in the vocabulary."""
    dropped: int = 0
    """Pieces of its answers that are no tags."""
    long: int = 0
    """Prompts of more tokens than CLIP reads."""
    kept: list[Tags] = field(default_factory=list)
    failed: list[Tags] = field(default_factory=list)
    """Even samples."""


def count_tags(annotator: str, table: Table[Tags]) -> AnnotatorCounts:
    """Count an annotator's rows, in constant memory."""
    found = AnnotatorCounts(annotator, table.counts())
    steps = {
        "kept": max(1, found.outcomes["kept"] // SAMPLE),
        "failed": max(1, sum(n for name, n in found.outcomes.items() if name.startswith("failed")) // FAILED),
    }
    seen: Counter[str] = Counter()
    for row in table:
        found.tags.update((tag.group, tag.name) for tag in row.tags)
        found.long += row.tokens > MOST_TOKENS
        if row.answer:
            read = parse_tags(row.answer, closed=True, most=1, prose=annotator in PROSE)
            found.unknown.update(read.unknown)
            found.dropped += read.dropped
        sample = {"kept": found.kept, "failed": found.failed}.get(row.status)
        if sample is not None:
            if seen[row.status] % steps[row.status] == 0 and len(sample) < SAMPLE:
                sample.append(row)
            seen[row.status] += 1
    return found


def write_report(photoset: PhotoSet) -> tuple[Path, dict[str, AnnotatorCounts]]:
    """Write the page over all annotators of the set; also what was counted. Raises AuthfaceError."""
    tallies = {name: count_tags(name, photoset.tags(name)) for name in photoset.annotators()}
    files = crop_files(photoset, {row.id for found in tallies.values() for row in [*found.kept, *found.failed]})
    path = photoset.root / "reports" / "tags.html"
    report.story(
        path,
        title=f"Tags of {one_line(photoset.root.resolve().name)}",
        sections=[section for found in tallies.values() for section in _sections(photoset, found, files)],
        summary=[
            (name, f"{found.outcomes['kept']:,} of {found.outcomes.total():,} crops") for name, found in tallies.items()
        ],
    )
    return path, tallies


def _sections(photoset: PhotoSet, found: AnnotatorCounts, files: dict[str, str]) -> Iterator[report.Section]:
    who = found.annotator
    outcomes = [report.FunnelRow(name.replace("_", " "), count) for name, count in found.outcomes.most_common()]
    notes = [f"Prompts of more than {MOST_TOKENS} tokens, which are cut: {found.long:,}."] if found.long else []
    yield report.Section(f"{who}: outcomes", " ".join(notes), funnel=report.Funnel(outcomes))
    for group in (*VOCABULARY, OTHER):
        rows = [report.FunnelRow(name, n) for (of, name), n in found.tags.most_common() if of == group]
        if rows:
            whole = max(found.outcomes["kept"], 1)
            yield report.Section(f"{who}: {group}", "", funnel=report.Funnel(rows[:MOST_UNKNOWN], total=whole))
    if found.unknown or found.dropped:
        text = (
            f"{len(found.unknown):,} words that are not in the vocabulary, the most frequent first. "
            f"{found.dropped:,} more pieces are no tags: sentences, what is not there, numbers, markup."
        )
        listed = [(name, f"{n:,}") for name, n in found.unknown.most_common(MOST_UNKNOWN)]
        yield report.Section(f"{who}: unknown words", text, table=report.ReportTable(("word", "crops"), listed))
    if found.failed:
        cells = _cells(photoset, found.failed, files)
        yield report.Section(f"{who}: failed", "A sample, with what the annotator said.", figures=cells)
    if found.kept:
        yield report.Section(f"{who}: sample", "An even sample.", figures=_cells(photoset, found.kept, files))


def _cells(photoset: PhotoSet, rows: Iterable[Tags], files: dict[str, str]) -> list[report.Cell]:
    return [_cell(photoset, row, files.get(row.id, "")) for row in rows]


def _cell(photoset: PhotoSet, row: Tags, file: str) -> report.Cell:
    label = prompt(row.tags) or ": ".join(text for text in (row.reason, row.detail, row.answer) if text)
    return crop_cell(photoset, row.id, file, THUMBNAIL, label)


def crop_cell(photoset: PhotoSet, crop_id: str, file: str, side: int, label: str = "") -> report.Cell:
    """A crop on a page in `reports/`, at most `side` pixels, linked to its file; no picture where it cannot be read."""
    try:
        image = images.preview(photoset.root / file, side) if file else None
    except ImageError:
        image = None
    name = f"{crop_id[:10]}{crop_id[64:]}"
    return report.Cell(image, name, one_line(label, 600), link=f"../{file}" if file else "")


def crop_files(photoset: PhotoSet, ids: set[str]) -> dict[str, str]:
    """Files of the crops with some ids, below the set's folder."""
    crops = photoset.crops
    rows = (row for part in crops.parts() for row in crops.columns(part, ["id", "file"]))
    return {crop_id: file for crop_id, file in rows if crop_id in ids}
