"""What headers and tags of a page say of training, as pure functions from text: nothing is asked for here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser

from authface.errors import one_line
from authface.records import Signal, Verdict

AGENT = "authface"
"""The product token that robots.txt, ``X-Robots-Tag`` and a page's tags may address."""
WORDS = frozenset({"noai", "noimageai", "noml"})
"""Words among those for robots that say so. None is of a standard; the first two are widely served."""
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Words that have a value behind a colon, where the name of a crawler stands else."""
_CRAWLER = re.compile(r"[\w.*-]*", re.ASCII)
_LONGEST = 4096
"""Of a text that is parsed; longer ones say nothing that is read."""
_TOLD = 200


@dataclass(frozen=True)
class OptOut:
    """One thing that is said, wherever it was."""

    kind: str
    said: str
    verdict: Verdict

    def at(self, where: str, time: str) -> Signal:
        """The evidence, read at an address at a time."""
        return Signal(
            kind=self.kind, where=one_line(where, 500), said=one_line(self.said, _TOLD), verdict=self.verdict, at=time
        )


def robots_words(lines: Iterable[str], kind: str = "x-robots-tag") -> list[OptOut]:
    """Words of `WORDS` that lines of ``X-Robots-Tag`` address to everyone or to authface.

    A crawler's name before a colon holds for what follows it in the line.
    """
    found = []
    for line in lines:
        addressed = True
        for piece in line.split(","):
            name, colon, rest = piece.strip().lower().partition(":")
            word = name
            if colon and name.strip() not in _WITH_VALUE and _CRAWLER.fullmatch(name.strip()):
                addressed, word = name.strip() in {AGENT, "*"}, rest.strip()
            if addressed and word in WORDS:
                found.append(OptOut(kind, word, "refused"))
    return list(dict.fromkeys(found))


def tdm_reservation(values: Iterable[str], policy: str = "", kind: str = "tdm-reservation") -> list[OptOut]:
    """What ``tdm-reservation`` says, as a header or a tag of a page (TDMRep, final report of 10 May 2024)."""
    said = list(dict.fromkeys(piece.strip() for value in values for piece in value.split(",")))
    if not said:
        return []
    words = f"tdm-reservation: {', '.join(said)}" + (f", tdm-policy: {policy}" if policy else "")
    return [OptOut(kind, words, "refused" if "1" in said else "allowed" if said == ["0"] else "unclear")]


def content_usage(text: str) -> list[OptOut]:
    """What a header ``Content-Usage`` says of AI training (drafts draft-ietf-aipref-attach-05 and -vocab-08)."""
    return preference(text, "content-usage", "train-ai", {"y": "allowed", "n": "refused"})


def content_signal(text: str) -> list[OptOut]:
    """What ``Content-Signal`` in a robots.txt says of it (Cloudflare's; draft-romm-aipref-contentsignals-00)."""
    return preference(text, "content-signal", "ai-train", {"yes": "allowed", "no": "refused"})


def preference(text: str, kind: str, label: str, words: dict[str, Verdict]) -> list[OptOut]:
    """What a dictionary of preferences says under one label; nothing where the label is not there."""
    found = dictionary(text)
    if found is None:
        return [OptOut(kind, text, "unclear")] if label in text else []
    if label not in found:
        return []
    return [OptOut(kind, f"{label}={found[label]}", words.get(found[label], "unclear"))]


_KEY = r"[a-z*][a-z0-9_.*-]*"
_ITEM = (
    r"""(?:"(?:[^"\\]|\\["\\])*"|:[A-Za-z0-9+/=]*:|\?[01]|@-?\d+|-?\d+(?:\.\d+)?"""
    r"""|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*)"""
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_MEMBER = re.compile(rf"""({_KEY})(?:=({_ITEM}|\((?:[^()"]|"(?:[^"\\]|\\["\\])*")*\)))?{_PARAMETERS}""")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def dictionary(text: str) -> dict[str, str] | None:
    """A structured field's dictionary as written, without parameters (RFC 9651, 4.2.2); None where it is none.

    A member without a value is `?1`; the last of several of one name counts.
    """
    text = text.strip(" ")
    if len(text) > _LONGEST:
        return None
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        found[member[1]] = member[2] or "?1"
        at = member.end()
        if at == len(text):
            return found
        comma = _COMMA.match(text, at)
        if comma is None or comma.end() == len(text):
            return None
        at = comma.end()
    return found


@dataclass
class _Tags(HTMLParser):
    """The tags ``meta`` of a page that may speak of training."""

    robots: list[str] = field(default_factory=list)
    reservations: list[str] = field(default_factory=list)
    policy: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        given = {name: value or "" for name, value in reversed(attrs)}  # of two, a browser takes the first
        name, content = given.get("name", "").strip().lower(), given.get("content", "")
        if tag != "meta":
            return
        if name in {"robots", AGENT}:
            self.robots.append(content)
        elif name == "tdm-reservation":
            self.reservations.append(content)
        elif name == "tdm-policy":
            self.policy = content


def page_tags(html: str) -> list[OptOut]:
    """What a page's tags say: ``tdm-reservation``, and the words for robots of everyone or authface."""
    tags = _Tags()
    try:
        tags.feed(html)
        tags.close()
    except AssertionError:  # what the standard library raises at some broken declarations; what came before counts
        pass
    found = tdm_reservation(tags.reservations, tags.policy, "meta tdm-reservation")
    return found + robots_words(tags.robots, "meta robots")
