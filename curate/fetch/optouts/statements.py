"""What a host's files, headers, tags of a page and a photo's own file say of training: nothing is asked for here.

Files: robots.txt and its kin, and TDMRep's list of locations. Patterns are matched by Protego, a reader of RFC 9309:
the longest match wins, ``*`` and ``$`` are heeded. In a photo: PLUS's `DataMining` (XMP), C2PA's assertion (manifests).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from protego import Protego

from authface.errors import one_line
from authface.extras import installed, lack
from authface.imaging.decode import Decoded
from authface.imaging.metadata import MANIFEST_MEDIA
from authface.imaging.xmp import is_readable, properties_of
from authface.records import Signal, Verdict, now

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


Says = Callable[[str], list[OptOut]]

_LINE = re.compile(r"[\r\n]+")
_PREFERENCES: dict[str, Says] = {"content-usage": content_usage, "content-signal": content_signal}
"""Rules of a robots.txt that say what a path may be used for, by their names."""
_VERDICTS: tuple[Verdict, ...] = ("refused", "unclear", "allowed")
"""Of two that stand at the same path, the first of these counts (draft-ietf-aipref-vocab-08, 5.1)."""
_AGENT_LINES = {"user-agent", "useragent", "user agent"}


class RobotRules:
    """A robots.txt, or an ai.txt, which has its grammar."""

    def __init__(self, text: str) -> None:
        self._access = Protego.parse(text)
        named = [name for name in _PREFERENCES if name in text.lower()]
        found = (_of_verdict(text, name, verdict) for name in named for verdict in _VERDICTS)
        self._preferences = [one for one in found if one is not None]

    def disallows(self, url: str) -> bool:
        """Whether authface may not ask for an address."""
        return not self._access.can_fetch(url, AGENT)

    def preferences(self, url: str) -> list[OptOut]:
        """What it prefers for an address that may be asked for: of Content-Usage and of Content-Signal one each."""
        found: dict[str, OptOut] = {}
        for one in self._preferences:
            if one.statement.kind not in found and one.paths.can_fetch(url, AGENT):
                found[one.statement.kind] = one.statement
        return list(found.values())


@dataclass(frozen=True)
class _Preference:
    """The paths that are given one verdict."""

    paths: Protego
    """Allows exactly those."""
    statement: OptOut


def _of_verdict(text: str, name: str, verdict: Verdict) -> _Preference | None:
    """The paths that preferences called `name` give a verdict; None where they give it to none.

    The longest match decides of both, and of equals `Allow` wins, so that a verdict is not hidden by another one. Where
    nothing is said, `Disallow` at the root stands for it, in every group and for who has none.
    """
    lines: list[str] = []
    told: OptOut | None = None
    in_names = False
    for line in _LINE.split(text):
        label, colon, value = line.partition("#")[0].partition(":")
        label, value = label.strip().lower(), value.strip()
        if not colon:
            continue
        if label in _AGENT_LINES:
            lines.append(f"User-agent: {value}")
            in_names = True
            continue
        if in_names:
            lines.append("Disallow: /")
            in_names = False
        if label != name:
            continue
        path, preference = _path_of(value)
        for statement in _PREFERENCES[name](preference):
            told = told or (statement if statement.verdict == verdict else None)
            lines.append(f"{'Allow' if statement.verdict == verdict else 'Disallow'}: {path}")
    lines += ["Disallow: /", "User-agent: *", "Disallow: /"]
    return _Preference(Protego.parse("\n".join(lines)), told) if told else None


def _path_of(value: str) -> tuple[str, str]:
    """The path of a preference and its dictionary; one without a path, as many hosts serve it, is of all paths."""
    first, _, rest = value.partition(" ")
    return (first, rest.strip()) if first.startswith(("/", "*")) else ("/", value)


@dataclass(frozen=True)
class _Location:
    pattern: Protego
    statement: OptOut

    def holds(self, url: str) -> bool:
        """Whether an address is one of its."""
        return not self.pattern.can_fetch(url, AGENT)


class TdmLocations:
    """A ``/.well-known/tdmrep.json``: the first location that matches counts (TDMRep, final report of 10 May 2024)."""

    KIND = "tdmrep.json"

    def __init__(self, text: str) -> None:
        """Nothing is raised: what cannot be read is said of every address, as `unclear`."""
        self._locations: list[_Location] = []
        self._broken: OptOut | None = None
        if not text.lstrip("\ufeff \t\r\n").startswith(("[", "{")):
            return  # a page that a host sends for every address
        try:
            entries = json.loads(text.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            self._broken = OptOut(self.KIND, "not JSON that can be read", "unclear")
            return
        if not isinstance(entries, list):
            self._broken = OptOut(self.KIND, "not a list of locations", "unclear")
            return
        for entry in entries:
            if (location := _location(entry)) is not None:
                self._locations.append(location)
            else:
                self._broken = OptOut(self.KIND, f"an entry that cannot be read: {entry!r}", "unclear")

    def statements(self, url: str) -> list[OptOut]:
        """What it says of an address."""
        found = next((one.statement for one in self._locations if one.holds(url)), None) or self._broken
        return [found] if found else []


def _location(entry: Any) -> _Location | None:
    if not isinstance(entry, dict) or not isinstance(where := entry.get("location"), str):
        return None
    value = entry.get("tdm-reservation")
    if "://" in where or isinstance(value, bool) or not isinstance(value, int | str) or re.search(r"[\s#]", where):
        return None
    policy = entry.get("tdm-policy")
    pattern = where if where.startswith(("/", "*")) else f"/{where}"
    (said,) = tdm_reservation(
        [str(value)[:40].replace(",", " ")], policy if isinstance(policy, str) else "", TdmLocations.KIND
    )
    statement = OptOut(said.kind, f"{where}: {said.said}", said.verdict)
    return _Location(Protego.parse(f"User-agent: *\nDisallow: {pattern}"), statement)


_DATA_MINING = "http://ns.useplus.org/ldf/xmp/1.0/ DataMining"
_VOCABULARY: dict[str, Verdict] = {
    "DMI-UNSPECIFIED": "allowed",
    "DMI-ALLOWED": "allowed",
    "DMI-PROHIBITED": "refused",
    "DMI-PROHIBITED-AIMLTRAINING": "refused",
    "DMI-PROHIBITED-GENAIMLTRAINING": "refused",
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING": "refused",
    "DMI-PROHIBITED-SEECONSTRAINT": "refused",
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR": "refused",
    "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR": "refused",
}
"""Terms of PLUS (ns.useplus.org/ldf/vocab/, IPTC Photo Metadata Standard 2023.1 and later); any other is unclear."""
_ASSERTION = b"training-mining"
"""What the label of the assertion ends with, in the clear in every manifest (C2PA 1.x; CAWG 1.0 and 1.1)."""
_ENTRIES = ("data_mining", "ai_training", "ai_generative_training")
"""Its entries that a set for training falls under, behind ``c2pa.`` or ``cawg.``; `ai_inference` is none of them."""
_USES: dict[str, Verdict] = {"allowed": "allowed", "notAllowed": "refused", "constrained": "refused"}
"""CAWG 1.1: in the absence of additional information, `constrained` is to be treated as `notAllowed`."""
_OFFLINE = {"verify": {"verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Of the reader: nothing is asked of the network on a file's word."""


def embedded_signals(data: bytes, decoded: Decoded) -> tuple[Signal, ...]:
    """What a file says, read now."""
    time = now()
    found = [*_data_mining(decoded.xmp), *_manifests(data, decoded.format)]
    return tuple(dict.fromkeys(one.at("the file", time) for one in found))


def _data_mining(packet: bytes) -> Iterator[OptOut]:
    if not packet:
        return
    if (value := properties_of(packet).get(_DATA_MINING)) is not None:
        term = value.strip().rstrip("/").rpartition("/")[2].upper()
        yield OptOut("plus:DataMining", value, _VOCABULARY.get(term, "unclear"))
    elif b"DataMining" in packet.replace(b"\0", b"") and not is_readable(packet):
        yield OptOut("plus:DataMining", "it stands in XMP that cannot be read", "unclear")


def _manifests(data: bytes, format: str) -> Iterator[OptOut]:
    """What the training-mining assertions of all manifests say, the newest and those it was made from.

    Who signed is not asked: a prohibition needs no trust to be heeded, and a permission outweighs nothing.
    """
    if _ASSERTION not in data:
        return
    if not installed("c2pa"):
        line = lack("its C2PA assertion on training", "c2pa", "c2pa")
        yield OptOut("c2pa", f"{line}, then --retry failed", "unread")
        return
    import c2pa

    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(_OFFLINE)) as context,
            c2pa.Reader(MANIFEST_MEDIA.get(format, ""), io.BytesIO(data), context=context) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return
    except (c2pa.C2paError, ValueError) as error:
        yield OptOut("c2pa", f"a manifest that cannot be read: {one_line(error, 120)}", "unclear")
        return
    yield from statements_of(store)


def statements_of(store: Any) -> Iterator[OptOut]:
    """What the assertions in a manifest store say, as C2PA's reader gives it in JSON."""
    manifests = store.get("manifests") if isinstance(store, Mapping) else None
    for manifest in manifests.values() if isinstance(manifests, Mapping) else ():
        assertions = manifest.get("assertions") if isinstance(manifest, Mapping) else None
        for one in assertions if isinstance(assertions, list) else ():
            label = str(one.get("label", "")) if isinstance(one, Mapping) else ""
            if label.startswith(("c2pa.training-mining", "cawg.training-mining")):
                yield from _entries(label, one.get("data"))


def _entries(label: str, data: Any) -> Iterator[OptOut]:
    entries = data.get("entries", data) if isinstance(data, Mapping) else None
    if not isinstance(entries, Mapping):
        yield OptOut("c2pa", f"{label} without entries", "unclear")
        return
    for name, entry in entries.items():
        if str(name).rpartition(".")[2] in _ENTRIES:
            use = entry.get("use") if isinstance(entry, Mapping) else entry
            yield OptOut("c2pa", f"{name}: {use}", _USES.get(str(use), "unclear"))
