"""`models list`: families known by name and in the hub's cache, restorers of one file, and what is on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from authface.console import render_table
from authface.errors import AuthfaceError, one_line
from authface.models import families as models
from authface.models import hub_cache
from authface.models.families import FAMILIES, Family
from authface.models.layout import (
    BESIDE,
    PARTS,
    Commercial,
    headers,
    holds_part,
    in_bytes,
    onnx_files,
    part_files,
    read_manifest,
)
from authface.models.networks import NETWORKS, Network

Presence = Literal["built in", "hub cache", "downloaded", "partly here", "not here"]
_WHOLE = frozenset({"built in", "hub cache", "downloaded"})


@dataclass(frozen=True)
class ListedModel:
    """A family or a network, and where it is."""

    name: str
    state: Presence
    licence: str
    commercial: Commercial
    parameters: str
    """Such as `3.5 B`; empty where only the files would tell and they are not here."""
    bytes: int
    """Of its files here; of one that is not here, of those that would be downloaded, rounded."""
    folder: Path | None = None
    """Of its files here."""
    location: str = ""
    """Its repository on the hub, or the address of its file."""
    missing: tuple[str, ...] = ()
    """Files and parts that one partly here lacks."""

    @property
    def advice(self) -> str:
        """What to do about one that is not whole; empty for one that is."""
        if self.state in _WHOLE:
            return ""
        return "install authface again" if self.name == "tiny" else f"authface models pull {one_line(self.name)}"


def inventory() -> list[ListedModel]:
    """The families by name, other families of the hub's cache, then the networks by name."""
    known = [_builtin(family) if name == "tiny" else _hub(family) for name, family in FAMILIES.items()]
    locations = {family.location for family in FAMILIES.values()}
    others = (_other(cached) for cached in hub_cache.families() if cached.repository not in locations)
    return [*known, *others, *map(_network, NETWORKS.values())]


def _builtin(family: Family) -> ListedModel:
    if not models.has_builtin():
        return ListedModel(family.name, "not here", family.licence, family.commercial, family.parameters, family.bytes)
    try:
        manifest = read_manifest(models.BUILTIN)
    except AuthfaceError:
        manifest = None  # `models verify tiny` says what is wrong with it
    size = manifest.bytes if manifest is not None else sum(path.stat().st_size for path in _files(models.BUILTIN))
    count = in_count(manifest.parameters) if manifest is not None else family.parameters
    return ListedModel(family.name, "built in", family.licence, family.commercial, count, size, models.BUILTIN)


def _hub(family: Family) -> ListedModel:
    found = hub_cache.cached(family.location)
    if found is None:
        return ListedModel(
            family.name, "not here", family.licence, family.commercial, family.parameters, family.bytes,
            location=family.location,
        )  # fmt: skip
    return _listed(family.name, found, family.licence, family.commercial, family.parameters)


def _network(network: Network) -> ListedModel:
    """By its file's size; `models verify` reads its content."""
    whole = network.path.is_file() and network.downloaded_bytes == network.bytes
    state: Presence = "downloaded" if whole else "partly here" if network.downloaded_bytes else "not here"
    return ListedModel(
        network.name, state, network.licence, network.commercial, "", network.bytes,
        network.path.parent if network.path.is_file() else None, network.addresses[0],
        (network.file,) if state == "partly here" else (),
    )  # fmt: skip


def _other(found: hub_cache.Cached) -> ListedModel:
    weights = [path for path in _files(found.folder) if holds_part(path) and path.exists()]
    try:
        count = in_count(sum(one.numbers for path in weights for one in headers(path).values() if one.floating))
    except AuthfaceError:
        count = ""  # `models verify` names the broken file
    return _listed(found.repository, found, "", "unclear", count)


def _listed(name: str, found: hub_cache.Cached, licence: str, commercial: Commercial, parameters: str) -> ListedModel:
    missing = tuple(found.missing)
    state: Presence = "partly here" if missing else "hub cache"
    size = sum(path.stat().st_size for path in _files(found.folder) if path.exists())
    return ListedModel(name, state, licence, commercial, parameters, size, found.folder, found.repository, missing)


def _files(folder: Path) -> Iterator[Path]:
    for part in PARTS:
        yield from part_files(folder, part)
    yield from (folder / name for name in BESIDE if (folder / name).is_file())
    yield from onnx_files(folder)


def in_count(numbers: int) -> str:
    """A count of parameters for people: `16.4 M`, `3.5 B`."""
    return f"{numbers / 1e9:.1f} B" if numbers >= 1e9 else f"{numbers / 1e6:.1f} M"


def table(rows: list[ListedModel]) -> str:
    """The rows as aligned lines for a terminal."""
    cells = []
    for row in rows:
        licence = one_line(row.licence, 60) or "see its page"
        cells.append(
            (
                one_line(row.name, 80),
                row.state,
                licence,
                row.commercial,
                row.parameters,
                in_bytes(row.bytes),
                row.advice,
            )
        )
    return render_table(("name", "where", "licence", "commercial", "parameters", "size", ""), cells, right={4, 5})
