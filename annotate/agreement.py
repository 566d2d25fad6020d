"""`annotate compare`: how far two annotators agree, tag by tag, as numbers and as a page of the crops."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from authface.annotate.tagging import MEASURED, can_say, contradictions, crop_cell, crop_files
from authface.annotate.vocabulary.vocabulary import GROUP_OF, VOCABULARY
from authface.errors import UsageError, one_line, shell_word
from authface.metrics.stats import Kappa, cohen_kappa
from authface.records import Tag
from authface.report import pages as report
from authface.store.photoset import PhotoSet

EXAMPLES = 12
"""Crops that are kept to show for one kind of disagreement: the first ones in the order of the set."""
SHOWN = 24
"""Disagreements of two annotators that get a section with crops."""
THUMBNAIL = 192


@dataclass(slots=True)
class TagCounts:
    """Crops by which of two annotators gives them a tag."""

    both: int = 0
    only_first: int = 0
    only_second: int = 0
    neither: int = 0

    @property
    def total(self) -> int:
        """All crops."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def kappa(self) -> Kappa | None:
        """Cohen's kappa; None where it says nothing."""
        return kappa(self.both, self.only_first, self.only_second, self.neither)


def kappa(both: int, only_first: int, only_second: int, neither: int) -> Kappa | None:
    """Cohen's kappa of a tag; None where one of the two says the same of every crop, whatever the other says."""
    if 0 in (both + only_first, both + only_second, neither + only_first, neither + only_second):
        return None
    return cohen_kappa([[both, only_first], [only_second, neither]])


@dataclass
class TagAgreement:
    """Two annotators over the crops that both tagged."""

    first: str
    second: str
    crops: int = 0
    tags: dict[str, TagCounts] = field(default_factory=dict)
    """By tag; only those that both know, of groups that both tag."""
    contradictions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By the first's tag and the second's."""
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Ids of some crops for each of `contradictions`, and for what one says alone: ``(tag, "")``, ``("", tag)``."""

    def by_group(self) -> Iterator[tuple[str, dict[str, TagCounts]]]:
        """Groups in the vocabulary's order, each with its tags."""
        for group, names in VOCABULARY.items():
            if found := {name: self.tags[name] for name in names if name in self.tags}:
                yield group, found

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "first": self.first,
            "second": self.second,
            "crops": self.crops,
            "tags": [
                {
                    "group": GROUP_OF[name],
                    "tag": name,
                    "both": counts.both,
                    "only_first": counts.only_first,
                    "only_second": counts.only_second,
                    "neither": counts.neither,
                    "kappa": found.value if found else None,
                    "low": found.low if found else None,
                    "high": found.high if found else None,
                }
                for name, counts in self.tags.items()
                for found in [counts.kappa]
            ],
            "contradictions": [
                {"first": ours, "second": theirs, "crops": count}
                for (ours, theirs), count in self.contradictions.most_common()
            ],
        }


class AgreementCounter:
    """Counts the tags of two annotators, crop by crop."""

    def __init__(self, first: str, second: str, least: float) -> None:
        self._least = least
        self._counts = (Counter[str](), Counter[str]())
        self._both = Counter[str]()
        self._found = TagAgreement(first, second)
        self._examples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, crop_id: str, ours: tuple[Tag, ...], theirs: tuple[Tag, ...]) -> None:
        """Count what both say of one crop; tags less sure than the least count for nothing."""
        one, two = (
            {tag.name for tag in tags if tag.confidence >= self._least and tag.name in GROUP_OF}
            for tags in (ours, theirs)
        )
        self._found.crops += 1
        self._counts[0].update(one)
        self._counts[1].update(two)
        self._both.update(one & two)
        pairs = contradictions(one, two)
        self._found.contradictions.update(pairs)
        alone = [(name, "") for name in one - two] + [("", name) for name in two - one]
        for kind in (*pairs, *alone):
            if len(self._examples[kind]) < EXAMPLES:
                self._examples[kind].append(crop_id)

    def result(self) -> TagAgreement:
        """The agreement on the tags that both know, of groups that both speak of, and that one of them said."""
        found = self._found
        groups = [{GROUP_OF[name] for name in counts} for counts in self._counts]
        for name, group in GROUP_OF.items():
            one, two, both = self._counts[0][name], self._counts[1][name], self._both[name]
            known = can_say(found.first, name) and can_say(found.second, name)
            if known and group in groups[0] & groups[1] and one + two:
                found.tags[name] = TagCounts(both, one - both, two - both, found.crops - one - two + both)
        shown = {*found.tags, ""}
        found.examples = {
            kind: ids
            for kind, ids in self._examples.items()
            if kind in found.contradictions or (kind[0] in shown and kind[1] in shown)
        }
        return found


def pairs_of(photoset: PhotoSet, names: Sequence[str]) -> list[tuple[str, str]]:
    """The two annotators of `names`, or every two that left tags, measures first. Raises UsageError."""
    there = sorted(photoset.annotators(), key=lambda name: (name != MEASURED, name))
    here = one_line(photoset.root)
    for name in names:
        if not photoset.tags(name).parts():
            others = ", ".join(there) or "nobody"
            raise UsageError(
                f"{one_line(name, 60)} left no tags in {here}; {others} did: authface annotate tags {shell_word(here)}"
            )
    if len(names) == 1 or (len(names) == 2 and names[0] == names[1]):
        raise UsageError(
            f"name two annotators to compare, as in: authface annotate compare {shell_word(here)} measured llava"
        )
    if not names and len(there) < 2:
        raise UsageError(
            f"{here} has tags of {', '.join(there) or 'nobody'}: two annotators are needed, "
            f"authface annotate tags {shell_word(here)} --with llava adds one"
        )
    return [(names[0], names[1])] if names else list(combinations(there, 2))


def compare_pairs(
    photoset: PhotoSet, pairs: Sequence[tuple[str, str]], least: float, say: Callable[[str], None]
) -> list[TagAgreement]:
    """The agreement of each pair that tagged the same crops; `say` is told of the others.

    Raises UsageError where there is none.
    """
    counted = [compare(photoset, first, second, least) for first, second in pairs]
    for pair in counted:
        if not pair.crops:
            say(f"no crop was tagged by both {pair.first} and {pair.second}")
    if not any(pair.crops for pair in counted):
        named = f"{pairs[0][0]} and {pairs[0][1]}" if len(pairs) == 1 else "two annotators"
        raise UsageError(f"no crop of {one_line(photoset.root)} was tagged by both {named}")
    return [pair for pair in counted if pair.crops]


def compare(photoset: PhotoSet, first: str, second: str, least: float) -> TagAgreement:
    """Count over the crops that both tagged, part by part; tags less sure than `least` count for nothing."""
    counter = AgreementCounter(first, second, least)
    ours, theirs = photoset.tags(first), photoset.tags(second)
    for part in sorted({*ours.parts()} & {*theirs.parts()}):
        other = {row.id: row for row in theirs.rows(part) if row.status == "kept"}
        for row in ours.rows(part):
            if row.status == "kept" and row.id in other:
                counter.add(row.id, row.tags, other[row.id].tags)
    return counter.result()


def to_text(found: TagAgreement) -> str:
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
            f"{_kappa_text(counts)}"
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


def write_page(photoset: PhotoSet, found: Sequence[TagAgreement]) -> Path:
    """Write ``reports/compare.html``: tables, and the crops of the most frequent disagreements."""
    path = photoset.root / "reports" / "compare.html"
    files = crop_files(photoset, {crop for one in found for ids in one.examples.values() for crop in ids})
    report.story(
        path,
        title=f"Annotators of {one_line(photoset.root.resolve().name)}",
        sections=[section for one in found for section in _sections(photoset, one, files)],
        summary=[(f"{one.first} and {one.second}", f"{one.crops:,} crops") for one in found],
    )
    return path


def _sections(photoset: PhotoSet, found: TagAgreement, files: dict[str, str]) -> Iterator[report.Section]:
    first, second = found.first, found.second
    rows = [
        (group, name, *(f"{n:,}" for n in (c.both, c.only_first, c.only_second, c.neither)), _kappa_text(c))
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
        note = f"{count:,} crops of which both cannot be true."
        yield report.Section(title, note, _example_cells(photoset, found.examples[ours, theirs], files))
    alone = [((name, ""), first, second, counts.only_first) for name, counts in found.tags.items()]
    alone += [(("", name), second, first, counts.only_second) for name, counts in found.tags.items()]
    for kind, who, other, count in sorted(alone, key=lambda one: -one[3])[:SHOWN]:
        if count:
            title = f"only {who}: {''.join(kind)}"
            note = f"{count:,} crops of which {other} does not say it."
            yield report.Section(title, note, _example_cells(photoset, found.examples[kind], files))


def _example_cells(photoset: PhotoSet, ids: Sequence[str], files: dict[str, str]) -> list[report.Cell]:
    return [crop_cell(photoset, crop_id, files.get(crop_id, ""), THUMBNAIL) for crop_id in ids]


def _kappa_text(counts: TagCounts) -> str:
    found = counts.kappa
    return f"{found.value:5.2f} ({found.low:.2f} to {found.high:.2f})" if found else "  n/a"
