"""What an export holds, counted as its rows go by: the numbers of its card."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

SPLIT_NAMES: Final = ("train", "validation", "test")


@dataclass
class Counts:
    """Counts of rows."""

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
