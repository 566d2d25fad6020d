"""Backends by name: ours and those of any package that is installed, found by their entry points.

A package of yours adds one without a change here, in its `pyproject.toml`:

    [project.entry-points."authface.captioners"]
    brightness = "my_package:Brightness"
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pydantic import AfterValidator

from authface.errors import AuthfaceError, UsageError, one_line

Kind = Literal["sources", "captioners", "detectors", "metrics", "restorers"]
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
"""Names become values of settings and names of folders."""


@cache
def _registered(kind: Kind) -> dict[str, list[EntryPoint]]:
    """By name, sorted, what packages register; names that cannot be those of folders are left out."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=f"authface.{kind}"), key=lambda entry: entry.name):
        if NAME.fullmatch(entry.name):
            found.setdefault(entry.name, []).append(entry)
    return found


def backend_names(kind: Kind) -> tuple[str, ...]:
    """All names of a kind, sorted."""
    return tuple(_registered(kind))


def load_backend(kind: Kind, name: str) -> Any:
    """What `name` stands for: a class or a function, as docs/backends.md says for each kind.

    Raises UsageError for a name that no package registers, AuthfaceError where its package cannot be imported or two
    packages register different things under it.
    """
    entries = _entries(kind, name)
    entry = entries[0]
    if any(other.value != entry.value for other in entries):
        packages = " and ".join(sorted({_package(other) for other in entries}))
        raise AuthfaceError(f"{packages} both register the {kind[:-1]} {name}: uninstall one of them")
    try:
        return entry.load()
    except AuthfaceError:
        raise
    except Exception as error:  # another package's code raises what it likes
        raise AuthfaceError(
            f"{kind[:-1]} {name} of {_package(entry)} ({one_line(entry.value)}) cannot be loaded: {one_line(error)}"
        ) from error


def backend_version(kind: Kind, name: str) -> str:
    """The package that registers `name` and its version, as ``shoebox 1.0``; it decides whether results are made again.

    Raises UsageError for a name that no package registers.
    """
    entries = _entries(kind, name)
    dist = entries[0].dist
    return f"{one_line(dist.name)} {one_line(dist.version)}" if dist else entries[0].value


def registered(kind: Kind, *others: str) -> AfterValidator:
    """For a setting that is the name of a backend, or one of `others`: any other is a mistake in the recipe.

    As in ``detector: Annotated[str, registered("detectors")]``. No package is imported: its entry points are read.
    """

    def check(name: str) -> str:
        try:
            if name not in others:
                _entries(kind, name, others)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


def _entries(kind: Kind, name: str, others: tuple[str, ...] = ()) -> list[EntryPoint]:
    """What is registered as `name`. Raises UsageError for what is not, with the names that are and what to install."""
    if entries := _registered(kind).get(name):
        return entries
    there = [entry for found in _registered(kind).values() for entry in found]
    if kind != "metrics" and not any(entry.value.startswith("authface.") for entry in there):
        raise UsageError(
            f"no {kind[:-1]} {one_line(name)}: authface's own are not registered, it was installed before it had them: "
            "install it again, a checkout by pip install -e ."
        )
    known = ", ".join(sorted({*others, *backend_names(kind)})) or "none"
    raise UsageError(
        f"no {kind[:-1]} {one_line(name)}: there are {known}; for one of another package, install that package"
    )


def _package(entry: EntryPoint) -> str:
    return one_line(entry.dist.name if entry.dist else entry.value)
