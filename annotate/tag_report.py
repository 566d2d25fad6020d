"""``reports/tags.html``: how often each tag was given, words that are no tags, what failed, and a sample of crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from authface.annotate.captioners.step import PROSE
from authface.annotate.vocabulary.tokens import MOST_TOKENS
from authface.annotate.vocabulary.vocabulary import OTHER, VOCABULARY, prompt
from authface.annotate.vocabulary.wording import words
from authface.errors import ImageError, one_line
from authface.imaging import decode as images
from authface.records import Tags
from authface.report import pages as report
from authface.store.photoset import PhotoSet, Table

SAMPLE = 24
FAILED = 12
MOST_UNKNOWN = 60
"""Unknown words that the page lists, the most frequent."""
THUMBNAIL = 256


@dataclass
class Tally:
    """What one annotator said of all crops."""

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


def tally(annotator: str, table: Table[Tags]) -> Tally:
    """Count an annotator's rows, in constant memory."""
    found = Tally(annotator, table.counts())
    steps = {
        "kept": max(1, found.outcomes["kept"] // SAMPLE),
        "failed": max(1, sum(n for name, n in found.outcomes.items() if name.startswith("failed")) // FAILED),
    }
    seen: Counter[str] = Counter()
    for row in table:
        found.tags.update((tag.group, tag.name) for tag in row.tags)
        found.long += row.tokens > MOST_TOKENS
        if row.answer:
            said = words(row.answer, closed=True, most=1, prose=annotator in PROSE)
            found.unknown.update(said.unknown)
            found.dropped += said.dropped
        sample = {"kept": found.kept, "failed": found.failed}.get(row.status)
        if sample is not None:
            if seen[row.status] % steps[row.status] == 0 and len(sample) < SAMPLE:
                sample.append(row)
            seen[row.status] += 1
    return found


def write(photoset: PhotoSet) -> tuple[Path, dict[str, Tally]]:
    """Write the page over all annotators of the set; also what was counted. Raises AuthfaceError."""
    tallies = {name: tally(name, photoset.tags(name)) for name in photoset.annotators()}
    files = _files(photoset, {row.id for found in tallies.values() for row in [*found.kept, *found.failed]})
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


def _sections(photoset: PhotoSet, found: Tally, files: dict[str, str]) -> Iterator[report.Section]:
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
    said = prompt(row.tags) or ": ".join(text for text in (row.reason, row.detail, row.answer) if text)
    try:
        image = images.preview(photoset.root / file, THUMBNAIL) if file else None
    except ImageError:
        image = None
    name = f"{row.id[:10]}{row.id[64:]}"
    return report.Cell(image, name, one_line(said, 600), link=f"../{file}" if file else "")


def _files(photoset: PhotoSet, ids: set[str]) -> dict[str, str]:
    """Where the crops of some ids lie."""
    crops = photoset.crops
    rows = (row for part in crops.parts() for row in crops.columns(part, ["id", "file"]))
    return {crop_id: file for crop_id, file in rows if crop_id in ids}
