"""What `authface models push` sends of a family, and under which licence; its card's metadata.

A family goes with its card, whole and under a licence that is known, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from huggingface_hub import metadata_load

from authface.console import Tick
from authface.errors import AuthfaceError, UsageError, one_line
from authface.licences import recognise
from authface.models.families import resolve
from authface.models.graphs import read_export
from authface.models.layout import (
    BESIDE,
    INDEX,
    MANIFEST,
    PICKLES,
    WEIGHTED,
    expected_parts,
    onnx_files,
    part_files,
)
from authface.models.networks import NETWORKS
from authface.models.verify import verify

CARD: Final = "README.md"
"""A family's model card."""
_NO_LICENCE = {"", "unknown", "other", "none"}
"""What says nothing of a licence; `other` asks for a `license_name`."""


@dataclass(frozen=True)
class FamilyPush:
    """A family that may be sent."""

    folder: Path
    files: Mapping[str, int]
    """Bytes by name."""
    licence: str
    """As its card says it; empty where the card does not."""
    base: str
    """The model it was trained from, as its card says; empty where it was none of the hub's."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    @property
    def stale(self) -> list[str]:
        """Patterns of what goes from the repository, where this family has no such file."""
        return [f"{part}/*" for part in sorted({name.partition("/")[0] for name in self.files if "/" in name})]


def plan(name: str, *, rights: bool, tick: Tick) -> FamilyPush:
    """Look at the family of that name or folder; nothing is written or sent.

    `rights`: the publisher holds the rights to weights whose card names no licence that is recognised. Raises
    UsageError for what is no whole family of this machine with a card, or one of unknown licence; AuthfaceError for
    broken files.
    """
    source = resolve(name, others=NETWORKS)
    if not source.local:
        raise UsageError(f"{one_line(name)} is on the hub already: give tiny, or a folder such as models/authface")
    folder = Path(source.location)
    files = published_files(folder)
    where = one_line(folder)
    if CARD not in files:
        raise UsageError(f"{where} has no {CARD}: write its card, whose first lines say 'license: ...' between '---'")
    told = front_matter(folder / CARD)
    licence = licence_of(told)
    allowed = recognise(licence)
    if not rights and not (allowed and allowed.redistribution and allowed.derivatives):
        named = f"the licence {one_line(licence, 80)!r}, which is none recognised as allowing it"
        fault = named if licence else "no licence"
        raise UsageError(
            f"{where}/{CARD} names {fault}: write one there (license, or license_name beside 'other'), or add "
            "--i-hold-the-rights"
        )
    if faults := verify(name, tick).faults:
        file, problem = next(iter(faults.items()))
        more = f", and {len(faults) - 1} more: authface models verify {where}" if len(faults) > 1 else ""
        raise AuthfaceError(f"{where}/{one_line(file)} {problem}{more}")
    base = told.get("base_model")
    return FamilyPush(folder, files, licence, base if isinstance(base, str) else "")


def published_files(folder: Path) -> dict[str, int]:
    """Name and bytes of what is sent: a family's parts, its ONNX graphs, what lies beside them.

    Raises UsageError for what is no whole family, or one with pickled weights, AuthfaceError for graphs of others.
    """
    where = one_line(folder)
    files = {part: part_files(folder, part) for part in expected_parts(folder)}
    missing = [part for part, paths in files.items() if not paths]
    missing += [
        part
        for part, paths in files.items()
        if part in WEIGHTED and paths and not any(path.suffix == ".safetensors" for path in paths)
    ]
    if missing:
        raise UsageError(f"{where} is no whole family: {', '.join(missing)} missing; authface train makes one")
    if not (folder / INDEX).is_file():
        raise UsageError(f"{where} has no {INDEX}: the training did not end; run the same authface train again")
    inside = [path for part in files for path in (folder / part).iterdir()]
    pickles = sorted(path for path in [*inside, *folder.iterdir()] if path.suffix.lower() in PICKLES)
    if pickles:
        name = one_line(pickles[0].relative_to(folder))
        raise UsageError(f"{where}/{name} is a pickle, which can run code: convert it to safetensors, or delete it")
    beside = [path for name in (*BESIDE, MANIFEST) if (path := folder / name).is_file()]
    graphs = onnx_files(folder) if read_export(folder) else []
    sent = sorted([*beside, *graphs, *sum(files.values(), [])])
    links = [path for path in sent if path.is_symlink()]
    if links:
        raise UsageError(f"{one_line(links[0])} is a link: only files that lie in the folder are sent; copy it there")
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sent}


def front_matter(path: Path) -> Mapping[str, Any]:
    """The hub's metadata on top of a card; empty where there is none that can be read."""
    try:
        return metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def licence_of(told: Mapping[str, Any]) -> str:
    """The licence that a card's metadata name; empty where they name none."""
    found = (str(told.get(key) or "").strip() for key in ("license_name", "license"))
    return next((one for one in found if one.casefold() not in _NO_LICENCE), "")
