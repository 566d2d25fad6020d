"""`models verify`: a family's files are those that were shipped, whole, no pickles, and parts that fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from authface.errors import AuthfaceError, UsageError, one_line
from authface.files import sha256_of
from authface.models import families as models
from authface.models import hub_cache
from authface.models.families import FAMILIES
from authface.models.layout import (
    BASE,
    BESIDE,
    PARTS,
    WEIGHTED,
    expected_parts,
    part_files,
    strange_files,
    weight_files,
)
from authface.models.weights import Manifest, headers, in_bytes, read_manifest

Tick = Callable[[int, str], None]


@dataclass
class Verified:
    """What was found of a family."""

    name: str
    folder: Path
    files: int = 0
    bytes: int = 0
    against: str = ""
    """What their content was compared with: `weights.json`, `the hub`; empty: nothing says what it should be."""
    faults: dict[str, str] = field(default_factory=dict)
    """By file or part: what is wrong with it."""

    def fault(self, name: str, problem: str) -> None:
        """Note what is wrong; the first fault of a file counts."""
        self.faults.setdefault(name, problem)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"folder": str(self.folder), "whole": not self.faults}


def told(found: Verified) -> str:
    """One line a fault, or one that says what was checked."""
    name = one_line(found.name)
    if found.faults:
        return "\n".join(f"{name}: {one_line(file)} {problem}" for file, problem in found.faults.items())
    how = (
        f"sha256 as {found.against} says"
        if found.against
        else "no weights.json to compare with: contents are unchecked"
    )
    return f"{name}: whole, {found.files} files, {in_bytes(found.bytes)}; {how}; the parts fit"


def verify(name: str, tick: Tick) -> Verified:
    """Check the family of that name, folder or repository in the hub's cache; nothing is downloaded.

    Raises UsageError for a name that stands for no family, AuthfaceError for one that is not on this machine.
    """
    found = Verified(name, locate(name))
    for file, problem in strange_files(found.folder):
        found.fault(file, problem)
    _content(found, tick)
    _weights(found)
    if not found.faults:
        _fit(found)
    return found


def locate(name: str) -> Path:
    """The family's folder on this machine. Raises UsageError and AuthfaceError as `verify` does."""
    folder = Path(name).expanduser()
    if name not in FAMILIES and folder.is_dir():
        if not any((folder / part).is_dir() for part in BASE):
            raise UsageError(f"{one_line(name)} is no model folder: it lacks {', '.join(BASE)}")
        return folder
    source = models.resolve(name)
    if source.local:
        return Path(source.location)
    cached = hub_cache.cached(source.location)
    if cached is None:
        raise AuthfaceError(f"{one_line(name)} is not on this machine: authface models pull {one_line(name)}")
    return cached.folder


def contents(found: Verified, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """File and fault of what differs from the manifest; files are hashed."""
    for name, facts in sorted(manifest.files.items()):
        path = found.folder / name
        try:
            size = path.stat().st_size
            if size != facts.bytes:
                yield name, f"has {size:,} bytes, weights.json says {facts.bytes:,}: get the file again"
            elif sha256_of(path) != facts.sha256:
                yield name, "has another sha256 than weights.json says: get the file again"
            else:
                yield name, ""
        except OSError as error:
            yield name, f"is missing or cannot be read ({one_line(error.strerror, 80)}): get the file again"


def _files(folder: Path) -> dict[str, Path]:
    """The family's files that are there, by name; links to nothing too."""
    parts = [path for part in PARTS for path in part_files(folder, part)]
    beside = [folder / name for name in BESIDE if (folder / name).is_file() or (folder / name).is_symlink()]
    return {path.relative_to(folder).as_posix(): path for path in sorted([*parts, *beside])}


def _content(found: Verified, tick: Tick) -> None:
    files = _files(found.folder)
    manifest = None
    try:
        manifest = read_manifest(found.folder)
    except AuthfaceError as error:
        found.fault("weights.json", str(error))
    if manifest is not None:
        found.against = "weights.json"
        for name, problem in contents(found, manifest):
            if problem:
                found.fault(name, problem)
            tick(1, name)
        for name in sorted(set(files) - set(manifest.files)):
            found.fault(name, "is not in weights.json: no part of what was shipped, delete it")
    elif found.folder.parent.name == "snapshots":
        found.against = "the hub"
        _blobs(found, files, tick)
    found.files = len(files)
    found.bytes = sum(path.stat().st_size for path in files.values() if path.exists())


def _blobs(found: Verified, files: dict[str, Path], tick: Tick) -> None:
    """Compare a snapshot's files with what the hub's cache calls them."""
    listed = hub_cache.listing(found.folder)
    for name, path in files.items():
        etag = hub_cache.etag_of(path, listed, name)
        try:
            same = hub_cache.is_content(path, etag)
        except OSError as error:
            found.fault(name, f"is not whole in the hub's cache ({one_line(error.strerror, 80)}): pull it again")
            continue
        if same is None:
            found.fault(name, "has nothing in the hub's cache that says what it should be: pull it again")
        elif not same:
            found.fault(
                name, f"is not what the hub calls {etag[:12]}: delete {one_line(path.resolve())}, pull it again"
            )
        tick(1, name)
    for name in hub_cache.Cached("", found.folder).missing:
        found.fault(name, "is missing: pull it again")


def _weights(found: Verified) -> None:
    """Every part is there, its weights are the files that are read, and their headers parse."""
    folder = found.folder
    for part in expected_parts(folder):
        if not part_files(folder, part):
            found.fault(part, "is missing: get the files again")
            continue
        if part not in WEIGHTED:
            continue
        for path in part_files(folder, part):
            if path.suffix == ".safetensors":
                try:
                    headers(path)
                except AuthfaceError as error:
                    found.fault(f"{part}/{path.name}", _shorter(error, path))
        try:
            weight_files(folder, part)
        except UsageError as error:
            found.fault(part, _shorter(error, folder / part))


def _shorter(error: AuthfaceError, path: Path) -> str:
    """What is wrong, without the path that stands before it."""
    return str(error).removeprefix(one_line(path)).removeprefix("/").strip()


def _fit(found: Verified) -> None:
    """The configurations make modules that fit each other, and the files hold every tensor of them.

    Tensors are compared by shape: their names differ between releases of the libraries, which map old ones.
    """
    try:
        parts = models.skeleton(found.folder)
    except AuthfaceError as error:
        return found.fault("model_index.json", str(error))
    for part in WEIGHTED:
        module = getattr(parts, part)
        if module is None:
            continue
        files, _ = weight_files(found.folder, part)
        have = Counter(one.shape for path in files for one in headers(path).values() if one.floating)
        lack = Counter(tuple(p.shape) for p in module.parameters()) - have
        if lack:
            shape, count = next(iter(lack.items()))
            found.fault(
                part,
                f"its config.json needs {count} tensors of shape {list(shape)} more than its weights hold: they are of "
                "different models",
            )
