"""What to collect next: the measured gaps of a set, the queries that may close them, as a table, JSON and commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from authface.console import render_table
from authface.curate.balance.margins import MARGINS, MarginWords, marginal
from authface.curate.balance.proposals import (
    SETTING,
    UNIFORM,
    Fill,
    Gap,
    Proposal,
    Rate,
    Yields,
    gaps_of,
    propose,
    read_yields,
    wanted_shares,
    words_for,
)
from authface.curate.fetch.sources.unsplash import unlisted
from authface.curate.settings import BalanceSettings
from authface.errors import UsageError, one_line
from authface.store.photoset import PhotoSet


@dataclass(frozen=True)
class Collecting:
    """What the set lacks, and what to collect next."""

    root: str
    path: str
    """Where the Unsplash Dataset lies, if the set was fetched from it."""
    gaps: list[Gap]
    proposals: list[Proposal]
    unmeasured: list[str]
    """Attributes that are known of no face."""
    partly: list[tuple[str, int]]
    """Attributes that are known of some faces only, and of how many."""
    wordless: list[Gap]
    """Gaps that no words are known for."""
    faces: int

    @property
    def commands(self) -> list[str]:
        """A command line for each proposal."""
        return [proposal.command(self.root, self.path) for proposal in self.proposals]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: nothing that may not be shown."""
        return {
            "gaps": [_gap_json(gap) for gap in self.gaps],
            "proposals": [
                {
                    "source": proposal.source,
                    "query": proposal.query,
                    "photos": proposal.photos,
                    "photos_at_least": proposal.fewest,
                    "left": proposal.left,
                    "fills": [_fill_json(fill) for fill in proposal.fills],
                    "command": command,
                }
                for proposal, command in zip(self.proposals, self.commands, strict=True)
            ],
            "not_measured": self.unmeasured,
            "measured_of": dict(self.partly),
            "without_words": [gap.name for gap in self.wordless],
        }

    def notes(self) -> list[str]:
        """What was not measured, and what no words are known for, a line each."""
        lines = []
        if self.unmeasured:
            lines.append(f"not measured, so no gap is known: {', '.join(self.unmeasured)} ({_advice(self.unmeasured)})")
        if self.partly:
            known = ", ".join(f"{name} of {count:,}" for name, count in self.partly)
            lines.append(f"known of some of the {self.faces:,} faces only: {known}")
        if self.wordless:
            names = ", ".join(gap.name for gap in self.wordless)
            lines.append(
                f'no words are left to ask for {names}: -O \'curate.balance.queries={{"WORDS" = ["pose=left"]}}\''
            )
        return lines

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each gap of each proposal: query, value, share now, wanted, faces, per 100 photos, by, photos."""
        return [
            (
                one_line(proposal.query, 40), fill.gap.name, _now(fill.gap), f"{fill.gap.wanted:.1%}",
                f"{fill.gap.needed:,}", _per_hundred(fill.rate), fill.rate.basis, _photos(fill, proposal.left),
            )
            for proposal in self.proposals
            for fill in proposal.fills
        ]  # fmt: skip

    def as_text(self) -> str:
        """For a person."""
        if not self.gaps:
            return "\n".join(["to collect: no measured share is surely below what is wanted", *self.notes()])
        lines = ["to collect next; each line by itself, so balance again after each fetch"]
        if rows := self.rows():
            lines += [render_table(HEADER, rows, right={2, 3, 4, 5, 7}), *self.commands]
        return "\n".join([*lines, *self.notes()])


HEADER = ("query", "for", "now", "wanted", "faces", "per 100 photos", "as gave", "photos")


def check(settings: BalanceSettings) -> None:
    """Raises UsageError for a share or words of a value that is none."""
    if odd := settings.wanted.keys() - UNIFORM.keys():
        raise UsageError(f"curate.balance.wanted: no {one_line(min(odd), 40)}; there are {', '.join(UNIFORM)}")
    for name, shares in settings.wanted.items():
        wanted_shares(name, shares, {}, MARGINS[name])
    for source in SETTING:
        words_for(source, settings.queries)


def collecting(photoset: PhotoSet, settings: BalanceSettings, parts: Sequence[int], found: MarginWords) -> Collecting:
    """Measure the gaps and propose a query for each. Raises UsageError as `check` does."""
    gaps, known = list[Gap](), dict[str, int]()
    for name in UNIFORM:
        shares = marginal(found.words[name], found.counts(name))
        more, known[name] = gaps_of(name, shares, settings.wanted.get(name, {}), MARGINS[name])
        gaps += more
    yields = read_yields(photoset, parts, found)
    source = settings.collect_from or _usual_source(yields)
    asked = {query: 0 for at, query in yields.queries if at == source}  # a keyword is listed whole at each fetch
    left = unlisted(photoset) if source == "unsplash" else asked
    proposals, wordless = propose(gaps, words_for(source, settings.queries), yields, source, left)
    return Collecting(
        root=str(photoset.root),
        path=_dataset_path(photoset),
        gaps=gaps,
        proposals=proposals,
        unmeasured=[name for name, count in known.items() if not count],
        partly=[(name, count) for name, count in known.items() if 0 < count < len(found)],
        wordless=wordless,
        faces=len(found),
    )


def _usual_source(yields: Yields) -> str:
    """The source that most photos found by a query are of; the Unsplash Dataset where there are none."""
    counts = dict.fromkeys(("unsplash-lite", "unsplash"), 0)
    for (source, _), one in yields.queries.items():
        counts[source] = counts.get(source, 0) + one.fetched
    return max(SETTING, key=lambda source: (counts[source], source == "unsplash-lite"))


def _dataset_path(photoset: PhotoSet) -> str:
    """Where the Unsplash Dataset lies that the set was last fetched from; empty if it was from elsewhere."""
    fetched = photoset.remembered("curate.fetch")
    return str(fetched.get("path", "")) if fetched.get("source") == "unsplash-lite" else ""


def _advice(names: Sequence[str]) -> str:
    tagged = [name for name in names if name in ("age", "glasses", "beard")]
    light = "annotate tags --with measured" if "light" in names else ""
    captions = f"a captioner says {', '.join(tagged)}: annotate tags --with llava, or openai" if tagged else ""
    return "; ".join(filter(None, [captions, light])) or "no crop shows it"


def _now(gap: Gap) -> str:
    return f"{gap.share:.1%}" if gap.alone else f"about {gap.share:.1%}"


def _per_hundred(rate: Rate) -> str:
    low, high = rate.interval
    return (
        f"under {100 * high:.1f}"
        if rate.expected is None
        else f"{100 * rate.expected:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    )


def _photos(fill: Fill, left: int | None) -> str:
    needed = f"{fill.photos:,}" if fill.photos is not None else f"over {fill.fewest:,}"
    return needed if left is None or left >= (fill.photos or fill.fewest) else f"{needed}, and {left:,} are left"


def _gap_json(gap: Gap) -> dict[str, Any]:
    low, high = gap.interval
    return {
        "attribute": gap.attribute,
        "value": gap.value,
        "count": gap.count if gap.alone else None,
        "known": gap.known,
        "share": gap.share,
        "low": low,
        "high": high,
        "wanted": gap.wanted,
        "needed": gap.needed,
    }


def _fill_json(fill: Fill) -> dict[str, Any]:
    low, high = fill.rate.interval
    return {
        "for": fill.gap.name,
        "fetched": fill.rate.asked,
        "as_gave": fill.rate.basis,
        "per_100": None if fill.rate.expected is None else 100 * fill.rate.expected,
        "low": 100 * low,
        "high": 100 * high,
        "photos": fill.photos,
        "photos_at_least": fill.fewest,
    }
