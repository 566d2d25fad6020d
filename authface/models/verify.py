"""What is on this machine of models, and whether it is whole: `models list` and `models verify`.

Listed are families known by name and in the hub's cache, and restorers of one file. Files are verified to be those that
were shipped, whole, no pickles, and a family's parts to fit each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from authface.console import Console, Tick, render_table
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.extras import lack
from authface.files import sha256_of
from authface.models import families as models
from authface.models import hub_cache, networks
from authface.models.families import FAMILIES, Family
from authface.models.graphs import read_export
from authface.models.layout import (
    BASE,
    BESIDE,
    EXPORT,
    ONNX,
    PARTS,
    WEIGHTED,
    Commercial,
    WeightsManifest,
    expected_parts,
    headers,
    holds_part,
    in_bytes,
    onnx_files,
    part_files,
    read_manifest,
    strange_files,
    weight_files,
)
from authface.models.networks import NETWORKS, Network


@dataclass
class VerifyReport:
    """What a check of the files of a family, or of a network's, showed."""

    name: str
    folder: Path
    files: int = 0
    bytes: int = 0
    against: str = ""
    """What their content was compared with: `weights.json`, `the hub`, who saw it; empty: nothing says what it should
    be."""
    sha256: str = ""
    """Of a network's one file."""
    faults: dict[str, str] = field(default_factory=dict)
    """By file or part: what is wrong with it."""

    unfitted: str = ""
    """Why it was not checked whether the parts fit each other; empty where it was."""

    def fault(self, name: str, problem: str) -> None:
        """Note what is wrong; the first fault of a file counts."""
        self.faults.setdefault(name, problem)

    def to_text(self) -> str:
        """One line a fault, or one that says what was checked."""
        name = one_line(self.name)
        if self.faults:
            return "\n".join(f"{name}: {one_line(file)} {problem}" for file, problem in self.faults.items())
        if self.sha256:
            how = f"as {self.against}" if self.against else "nothing says what it should be"
            return f"{name}: whole, {in_bytes(self.bytes)}; sha256 {self.sha256}, {how}"
        how = "no weights.json to compare with: contents are unchecked"
        if self.against:
            how = f"sha256 as {self.against} says"
        return f"{name}: whole, {self.files} files, {in_bytes(self.bytes)}; {how}; {self.unfitted or 'the parts fit'}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"folder": str(self.folder), "whole": not self.faults}


def verify(name: str, tick: Tick) -> VerifyReport:
    """Check the family of that name, folder or repository in the hub's cache, or a network; nothing is downloaded.

    Raises UsageError for a name that stands for none, AuthfaceError for one that is not on this machine.
    """
    if networks.is_network(name):
        return _verify_network(name, tick)
    report = VerifyReport(name, locate(name))
    for file, problem in strange_files(report.folder):
        report.fault(file, problem)
    _content(report, tick)
    _weights(report)
    report.unfitted = lack("whether the parts fit is not checked: it", "restore", "torch", "diffusers", "transformers")
    _graphs(report, tick)
    if not report.faults and not report.unfitted:
        _fit(report)
    return report


def _verify_network(name: str, tick: Tick) -> VerifyReport:
    """A network's file has the size and the sha256 that are known of it."""
    network = networks.known(name)
    if network is not None and not network.path.is_file():
        raise AuthfaceError(f"{network.name} is not on this machine: authface models pull {network.name}")
    path = network.path if network else Path(name).expanduser()
    report = VerifyReport(name, path.parent, files=1)
    try:
        if network is not None:
            report.sha256 = networks.check(network, Console())
        else:
            file = networks.find(name, Console())
            report.sha256, network = file.sha256, file.network
        report.bytes = path.stat().st_size
    except UsageError:
        raise
    except AuthfaceError as error:
        report.fault(path.name, _shorter(error, path))
    if network is not None:
        report.against = f"observed by {network.observed}" if network.sha256 else "recorded when it first came"
    tick(1, path.name)
    return report


def locate(name: str) -> Path:
    """The family's folder on this machine. Raises UsageError and AuthfaceError as `verify` does."""
    folder = Path(name).expanduser()
    if name not in FAMILIES and folder.is_dir():
        if not any((folder / part).is_dir() for part in BASE):
            raise UsageError(f"{one_line(name)} is no model folder: it lacks {', '.join(BASE)}")
        return folder
    source = models.resolve(name, others=networks.NETWORKS)
    if source.local:
        return Path(source.location)
    cached = hub_cache.cached(source.location)
    if cached is None:
        raise AuthfaceError(f"{one_line(name)} is not on this machine: authface models pull {shell_word(name)}")
    return cached.folder


def check_manifest(report: VerifyReport, manifest: WeightsManifest) -> Iterator[tuple[str, str]]:
    """File and fault of what differs from the manifest; files are hashed."""
    for name, facts in sorted(manifest.files.items()):
        path = report.folder / name
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
    return {path.relative_to(folder).as_posix(): path for path in sorted([*parts, *beside, *onnx_files(folder)])}


def _content(report: VerifyReport, tick: Tick) -> None:
    files = _files(report.folder)
    manifest = None
    try:
        manifest = read_manifest(report.folder)
    except AuthfaceError as error:
        report.fault("weights.json", str(error))
    if manifest is not None:
        report.against = "weights.json"
        for name, problem in check_manifest(report, manifest):
            if problem:
                report.fault(name, problem)
            tick(1, name)
        for name in sorted(set(files) - set(manifest.files)):
            report.fault(name, "is not in weights.json: no part of what was shipped, delete it")
    elif report.folder.parent.name == "snapshots":
        report.against = "the hub"
        _blobs(report, files, tick)
    report.files = len(files)
    report.bytes = sum(path.stat().st_size for path in files.values() if path.exists())


def _blobs(report: VerifyReport, files: dict[str, Path], tick: Tick) -> None:
    """Compare a snapshot's files with what the hub's cache calls them."""
    listed = hub_cache.listing(report.folder)
    for name, path in files.items():
        etag = hub_cache.etag_of(path, listed, name)
        try:
            same = hub_cache.is_content(path, etag)
        except OSError as error:
            report.fault(name, f"is not whole in the hub's cache ({one_line(error.strerror, 80)}): pull it again")
            continue
        if same is None:
            report.fault(name, "has nothing in the hub's cache that says what it should be: pull it again")
        elif not same:
            report.fault(
                name, f"is not what the hub calls {etag[:12]}: delete {one_line(path.resolve())}, pull it again"
            )
        tick(1, name)
    for name in hub_cache.Cached("", report.folder).missing:
        report.fault(name, "is missing: pull it again")


def _weights(report: VerifyReport) -> None:
    """Every part is there, its weights are the files that are read, and their headers parse."""
    folder = report.folder
    for part in expected_parts(folder):
        if not part_files(folder, part):
            report.fault(part, "is missing: get the files again")
            continue
        if part not in WEIGHTED:
            continue
        for path in part_files(folder, part):
            if path.suffix == ".safetensors":
                try:
                    headers(path)
                except AuthfaceError as error:
                    report.fault(f"{part}/{path.name}", _shorter(error, path))
        try:
            weight_files(folder, part)
        except UsageError as error:
            report.fault(part, _shorter(error, folder / part))


def _graphs(report: VerifyReport, tick: Tick) -> None:
    """The graphs of `onnx/` are those that were exported, and of these weights."""
    try:
        told = read_export(report.folder)
    except AuthfaceError as error:
        return report.fault(ONNX, _shorter(error, report.folder / ONNX))
    for name, facts in sorted((told.files if told else {}).items()):
        if sha256_of(report.folder / ONNX / name) != facts.sha256:
            report.fault(f"{ONNX}/{name}", f"has another sha256 than {EXPORT} says: export it again")
        if not report.against:  # else it was counted with the others
            tick(1, f"{ONNX}/{name}")


def _shorter(error: AuthfaceError, path: Path) -> str:
    """What is wrong, without the path that stands before it."""
    return str(error).removeprefix(one_line(path)).removeprefix("/").strip()


def _fit(report: VerifyReport) -> None:
    """The configurations make modules that fit each other, and the files hold every tensor of them.

    Tensors are compared by shape: their names differ between releases of the libraries, which map old ones.
    """
    try:
        parts = models.skeleton(report.folder)
    except AuthfaceError as error:
        return report.fault("model_index.json", str(error))
    for part in WEIGHTED:
        module = getattr(parts, part)
        if module is None:
            continue
        files, _ = weight_files(report.folder, part)
        have = Counter(one.shape for path in files for one in headers(path).values() if one.floating)
        lack = Counter(tuple(p.shape) for p in module.parameters()) - have
        if lack:
            shape, count = next(iter(lack.items()))
            report.fault(
                part,
                f"its config.json needs {count} tensors of shape {list(shape)} more than its weights hold: they are of "
                "different models",
            )


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
        return "install authface again" if self.name == "tiny" else f"authface models pull {shell_word(self.name)}"


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
    size = (
        manifest.bytes if manifest is not None else sum(path.stat().st_size for path in _listed_files(models.BUILTIN))
    )
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
    weights = [path for path in _listed_files(found.folder) if holds_part(path) and path.exists()]
    try:
        count = in_count(sum(one.numbers for path in weights for one in headers(path).values() if one.floating))
    except AuthfaceError:
        count = ""  # `models verify` names the broken file
    return _listed(found.repository, found, "", "unclear", count)


def _listed(name: str, found: hub_cache.Cached, licence: str, commercial: Commercial, parameters: str) -> ListedModel:
    missing = tuple(found.missing)
    state: Presence = "partly here" if missing else "hub cache"
    size = sum(path.stat().st_size for path in _listed_files(found.folder) if path.exists())
    return ListedModel(name, state, licence, commercial, parameters, size, found.folder, found.repository, missing)


def _listed_files(folder: Path) -> Iterator[Path]:
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
