"""Whether a prior does what it is asked: how often a tag is found where it, and where its opposite, was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from authface.metrics.stats import wilson


@dataclass(frozen=True)
class Share:
    """`found` of `of` samples, with its 95 % score interval (Wilson 1927), 0..1."""

    found: int
    of: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Steered:
    """One tag in the samples of two prompts; samples without a face have no tags."""

    tag: str
    asked: str
    """The prompt that names it."""
    against: str
    """The prompt that names its opposite."""
    where_asked: Share
    where_not: Share
    difference: float
    """Of the shares, -1..1; 0 is a prior that does not listen."""
    low: float
    high: float


def share_of(found: int, of: int) -> Share:
    """Of at least one sample."""
    return Share(found, of, found / of, *wilson(found, of))


def steered(asked: str, against: str, where_asked: Sequence[bool], where_not: Sequence[bool]) -> Steered:
    """`where_asked` says of each sample of `asked` whether that prompt's first tag was found, `where_not` of `against`.

    The difference has Newcombe's hybrid score interval (1998, method 10), as if the two sets were independent: since
    they begin with the same noise it is rather too wide.
    """
    one, two = (share_of(sum(found), len(found)) for found in (where_asked, where_not))
    apart = one.share - two.share
    down = math.hypot(one.share - one.low, two.high - two.share)
    up = math.hypot(one.high - one.share, two.share - two.low)
    return Steered(first_tag(asked), asked, against, one, two, apart, apart - down, apart + up)


def first_tag(prompt: str) -> str:
    """The tag that is looked for."""
    return prompt.partition(",")[0].strip()
