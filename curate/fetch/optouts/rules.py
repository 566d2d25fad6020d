"""What the files of a host say of its addresses: robots.txt and its kin, and TDMRep's list of locations.

Patterns are matched by Protego, a reader of RFC 9309: the longest match wins, ``*`` and ``$`` are heeded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protego import Protego

from authface.curate.fetch.optouts.statements import AGENT, OptOut, content_signal, content_usage, tdm_reservation
from authface.records import Verdict

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
