"""The dataset card: what an export holds, how it was made, under which licences, and what to mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from authface import __version__
from authface.annotate.export.formats import SHARD_KEY
from authface.annotate.export.rows import Inputs
from authface.annotate.settings import ExportSettings
from authface.errors import one_line
from authface.licences import conditions
from authface.report.text import markdown_cell, render_markdown
from authface.store.photoset import Table

SPLIT_NAMES: Final = ("train", "validation", "test")
FOLDERS = {"dataset": "data", "croissant": "data", "manifest": "manifest"}
"""Where the formats that `datasets` needs to be told of keep their files."""


@dataclass
class ExportCounts:
    """What an export holds, counted as its rows go by."""

    rows: int = 0
    upscaled: int = 0
    retouched: int = 0
    tokens: int = 0
    """Of the longest prompt."""
    trimmed: int = 0
    """Prompts that lost tags for their length."""
    splits: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    photographers: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    terms: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    """By group and name."""
    annotators: Counter[str] = field(default_factory=Counter)
    """Tags by who said them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Kept crops that are no row, by why."""

    def conditions(self) -> dict[str, int]:
        """Rows under NC, SA and ND licences."""
        found = Counter[str]()
        for licence, rows in self.licences.items():
            found.update(dict.fromkeys(conditions([licence]), rows))
        return dict(found)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.rows += 1
        self.upscaled += bool(row["quality"]["upscaled"])
        self.retouched += bool(row["retouched"])
        self.tokens = max(self.tokens, row["tokens"])
        self.trimmed += len(row["prompt"].split(", ")) < len({tag["name"] for tag in row["tags"]})
        self.splits[row["split"] or "train"] += 1
        self.licences[row["licence"] or "unknown"] += 1
        self.photographers[row["photographer"] or "unknown"] += 1
        self.sources[row["source"]] += 1
        if row["terms"]:
            self.terms[f"{row['source']}: {row['terms']}"] += 1
        for tag in row["tags"]:
            self.tags.setdefault(tag["group"], Counter())[tag["name"]] += 1
            self.annotators[tag["annotator"]] += 1


@dataclass(frozen=True)
class Config:
    """One way to load a repository: its name, and the files of each split."""

    name: str
    splits: Sequence[tuple[str, str]]
    """Name and pattern."""


def configs_of(format: str, key: str, counts: ExportCounts, name: str = "default") -> list[Config]:
    """What `datasets` has to be told of an export of that format; nothing where it finds the files by itself."""
    if format not in FOLDERS:
        return []
    there = [split for split in SPLIT_NAMES if counts.splits[split]]
    return [Config(name, [(split, f"{FOLDERS[format]}/{split}-{key[:SHARD_KEY]}-*.parquet") for split in there])]


def card(
    inputs: Inputs,
    settings: ExportSettings,
    counts: ExportCounts,
    configs: Sequence[Config],
    withheld: Mapping[str, int] | None = None,
) -> str:
    """The text of README.md, with the hub's metadata on top; `withheld` counts the rows without pixels by reason."""
    photoset = inputs.photoset
    return render_markdown(
        "dataset_card.md.jinja",
        name=one_line(photoset.root.resolve().name),
        version=__version__,
        size=next(iter(photoset.crops)).size,
        size_category=_size_category(counts.rows),
        counts=counts,
        splits=[(split, counts.splits[split]) for split in SPLIT_NAMES if counts.splits[split]],
        configs=configs,
        held=dict(withheld or {}),
        settings=settings,
        split=inputs.split,
        composition=[
            ("faces", counts.rows),
            *((f"from {markdown_cell(name)}", count) for name, count in counts.sources.most_common()),
            *([("retouched by hand", counts.retouched)] if counts.retouched else []),
            ("enlarged: less detail in the photo than pixels in the crop", counts.upscaled),
            *(
                (f"left out: {markdown_cell(why.replace('_', ' '))}", count)
                for why, count in counts.left_out.most_common()
            ),
        ],
        process=[
            _process("photos fetched", photoset.photos),
            _process("faces filtered", photoset.faces),
            _process("faces aligned", photoset.crops),
            *([_process("people split", photoset.people)] if inputs.split else []),
            *(_process(f"crops tagged, {name}", photoset.tags(name)) for name in inputs.annotators),
        ],
    )


def _process(step: str, table: Table[Any]) -> tuple[str, str, list[tuple[str, Any]]]:
    """A step's name, its outcomes in words, its settings."""
    counts: Counter[str] = table.counts()
    metas = [meta for part in table.parts() if (meta := table.meta(part))]
    settings = metas[0].provenance.settings if metas else {}
    outcomes = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
    # A folder of this machine is nobody else's business.
    return step, outcomes, sorted((key, value) for key, value in settings.items() if key not in {"against", "path"})


def _size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    steps = [(1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in steps if rows < limit), "n>1M")
