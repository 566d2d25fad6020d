"""Which packages authface asks for, and whether those that are installed are new enough and fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

OTHERS = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml"),
    "dlib-bin": ("dlib",),
}
"""Packages that hold the same module under another name."""


@dataclass(frozen=True)
class Package:
    """A package that is asked for."""

    name: str
    wanted: str
    """Such as `>=2.11`; empty for any."""
    version: str
    """Installed; empty: it is not."""
    fits: bool
    asked_by: str = "authface"

    @property
    def install(self) -> str:
        """The command that mends it."""
        return f"pip install -U '{self.name}{self.wanted}'"


def asked(distribution: str = "authface", extra: str = "") -> list[Package]:
    """What a distribution asks for, without its extras, or what an extra adds; empty if it is not installed."""
    try:
        texts = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for text in texts:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        own = one.marker is None or one.marker.evaluate({"extra": ""})
        with_extra = bool(extra) and one.marker is not None and one.marker.evaluate({"extra": extra})
        if (with_extra and not own) if extra else own:
            found.append(_package(one, distribution))
    return found


def extras(distribution: str = "authface") -> list[str]:
    """Names of its extras but `dev`."""
    try:
        return [name for name in metadata.metadata(distribution).get_all("Provides-Extra") or [] if name != "dev"]
    except metadata.PackageNotFoundError:
        return []


def clashes(names: Iterator[str] | list[str]) -> list[Package]:
    """What these installed packages ask of others and do not have: pairs that were not released for each other."""
    return [one for name in names for one in asked(name) if one.version and not one.fits]


def _package(one: Requirement, asked_by: str) -> Package:
    name = one.name
    version = ""
    for candidate in (name, *OTHERS.get(name, ())):
        try:
            version = metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
        break
    try:
        fits = bool(version) and one.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        fits = True  # a version of one's own: nobody can compare it
    return Package(name, str(one.specifier), version, fits, asked_by)
