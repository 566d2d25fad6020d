"""`annotate compare`: where annotators of a set agree and where not, as numbers and as a page of the crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from authface.annotate.agreement import Agreement, Counts, Tally
from authface.annotate.vocabulary.resolve import MEASURED
from authface.errors import ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.report import pages as report
from authface.store.photoset import PhotoSet

SHOWN = 24
"""Disagreements of two annotators that get a section with crops."""
THUMBNAIL = 192


def pairs_of(photoset: PhotoSet, names: Sequence[str]) -> list[tuple[str, str]]:
    """The two annotators of `names`, or every two that left tags, measures first. Raises UsageError."""
    there = sorted(photoset.annotators(), key=lambda name: (name != MEASURED, name))
    here = one_line(photoset.root)
    for name in names:
        if not photoset.tags(name).parts():
            said = ", ".join(there) or "nobody"
            raise UsageError(f"{one_line(name, 60)} left no tags in {here}; {said} did: authface annotate tags {here}")
    if len(names) == 1 or (len(names) == 2 and names[0] == names[1]):
        raise UsageError(f"name two annotators to compare, as in: authface annotate compare {here} measured llava")
    if not names and len(there) < 2:
        raise UsageError(
            f"{here} has tags of {', '.join(there) or 'nobody'}: two annotators are needed, "
            f"authface annotate tags {here} --with llava adds one"
        )
    return [(names[0], names[1])] if names else list(combinations(there, 2))


def compare(photoset: PhotoSet, first: str, second: str, least: float) -> Agreement:
    """Count over the crops that both tagged, part by part; tags less sure than `least` count for nothing."""
    tally = Tally(first, second, least)
    ours, theirs = photoset.tags(first), photoset.tags(second)
    for part in sorted({*ours.parts()} & {*theirs.parts()}):
        said = {row.id: row for row in theirs.rows(part) if row.status == "kept"}
        for row in ours.rows(part):
            if row.status == "kept" and row.id in said:
                tally.add(row.id, row.tags, said[row.id].tags)
    found = tally.result()
    if not found.crops:
        raise UsageError(f"no crop of {one_line(photoset.root)} was tagged by both {first} and {second}")
    return found


def text(found: Agreement) -> str:
    """The agreement as a table for a terminal."""
    lines = [f"{found.first} (A) and {found.second} (B) over {found.crops:,} crops that both tagged"]
    if not found.tags:
        lines.append("  they speak of no group that both know")
    else:
        lines.append(f"  {'tag':<28} {'both':>7} {'only A':>7} {'only B':>7} {'neither':>8}  kappa (95 %)")
    for group, tags in found.by_group():
        lines.append(f" {group}")
        lines += [
            f"  {name:<28} {counts.both:>7,} {counts.only_first:>7,} {counts.only_second:>7,} {counts.neither:>8,}  "
            f"{_kappa(counts)}"
            for name, counts in tags.items()
        ]
    if found.contradictions:
        lines.append(" contradictions: A says, B says")
        lines += [
            f"  {count:>7,}  {ours} | {theirs}" for (ours, theirs), count in found.contradictions.most_common(SHOWN)
        ]
        if len(found.contradictions) > SHOWN:
            lines.append(f"           and {len(found.contradictions) - SHOWN} more kinds")
    else:
        lines.append(" no contradictions")
    return "\n".join(lines)


def write_page(photoset: PhotoSet, found: Sequence[Agreement]) -> Path:
    """Write ``reports/compare.html``: tables, and the crops of the most frequent disagreements."""
    path = photoset.root / "reports" / "compare.html"
    files = _files(photoset, {crop for one in found for ids in one.examples.values() for crop in ids})
    report.story(
        path,
        title=f"Annotators of {one_line(photoset.root.resolve().name)}",
        sections=[section for one in found for section in _sections(photoset, one, files)],
        summary=[(f"{one.first} and {one.second}", f"{one.crops:,} crops") for one in found],
    )
    return path


def _sections(photoset: PhotoSet, found: Agreement, files: dict[str, str]) -> Iterator[report.Section]:
    first, second = found.first, found.second
    rows = [
        (group, name, *(f"{n:,}" for n in (c.both, c.only_first, c.only_second, c.neither)), _kappa(c))
        for group, tags in found.by_group()
        for name, c in tags.items()
    ]
    about = (
        f"The {found.crops:,} crops that both tagged, for tags that both know of groups that both speak of. Cohen's "
        "kappa is 1 where they agree on every crop and 0 where they agree as often as chance would have it; beside "
        "it its 95 % interval. A rare tag has a wide one."
    )
    header = ("group", "tag", "both", f"only {first}", f"only {second}", "neither", "kappa (95 %)")
    yield report.Section(f"{first} and {second}", about, table=report.ReportTable(header, rows))
    for (ours, theirs), count in found.contradictions.most_common(SHOWN):
        title = f"{first}: {ours} | {second}: {theirs}"
        told = f"{count:,} crops of which both cannot be true."
        yield report.Section(title, told, _cells(photoset, found.examples[ours, theirs], files))
    alone = [((name, ""), first, second, counts.only_first) for name, counts in found.tags.items()]
    alone += [(("", name), second, first, counts.only_second) for name, counts in found.tags.items()]
    for kind, who, other, count in sorted(alone, key=lambda one: -one[3])[:SHOWN]:
        if count:
            title = f"only {who}: {''.join(kind)}"
            told = f"{count:,} crops of which {other} does not say it."
            yield report.Section(title, told, _cells(photoset, found.examples[kind], files))


def _cells(photoset: PhotoSet, ids: Sequence[str], files: dict[str, str]) -> list[report.Cell]:
    return [_cell(photoset, crop_id, files.get(crop_id, "")) for crop_id in ids]


def _cell(photoset: PhotoSet, crop_id: str, file: str) -> report.Cell:
    try:
        image = images.preview(photoset.root / file, THUMBNAIL) if file else None
    except ImageError:
        image = None
    return report.Cell(image, f"{crop_id[:10]}{crop_id[64:]}", link=f"../{file}" if file else "")


def _files(photoset: PhotoSet, ids: set[str]) -> dict[str, str]:
    """Where the crops of some ids lie."""
    table = photoset.crops
    rows = (row for part in table.parts() for row in table.columns(part, ["id", "file"]))
    return {crop_id: file for crop_id, file in rows if crop_id in ids}


def _kappa(counts: Counts) -> str:
    found = counts.kappa
    return f"{found.value:5.2f} ({found.low:.2f} to {found.high:.2f})" if found else "  n/a"
