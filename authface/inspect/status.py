"""`authface status`: what is done in a photo set, what is outdated, what it takes on the disk, what comes next.

Of a folder that `authface restore` writes: what is made, and the runs under way and ended.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from authface.console import duration
from authface.errors import AuthfaceError, one_line, shell_word
from authface.files import is_local
from authface.report.pages import quantity
from authface.review.reviews import ReviewSettings, balanced, made_from_digest, reviewed_crops
from authface.store.journal import dataset_key, tombstones, uses
from authface.store.photoset import TO_FETCH, PhotoSet, TableState
from authface.store.restore_line import STATES, RunState, read_states, values_of
from authface.store.restore_log import LOG, part_numbers, part_path
from authface.store.statements import count_disputed, disputed


@dataclass(frozen=True)
class TableStatus:
    """One table against the one it is made from."""

    name: str
    parts: int
    missing: int
    """Parts of its source that it lacks."""
    outdated: int
    """Parts made from rows that changed since."""
    counts: dict[str, int]
    """Rows by outcome."""


@dataclass
class PhotoSetStatus:
    """The state of a set."""

    tables: list[TableStatus] = field(default_factory=list)
    disk: dict[str, int] = field(default_factory=dict)
    """Bytes by top-level folder."""
    forgotten: int = 0
    unfinished: int = 0
    """Photos whose forgetting was stopped midway."""
    dataset: str = ""
    """Content key of the exported dataset; empty where there is none."""
    trainings: list[str] = field(default_factory=list)
    licences: dict[str, int] = field(default_factory=dict)
    """Kept photos whose sources disagree about the licence, and those of which it was corrected."""
    next: str = ""
    """The command that comes next, or what stands in its way."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "tables": {
                table.name: {
                    "parts": table.parts,
                    "missing": table.missing,
                    "outdated": table.outdated,
                    "counts": table.counts,
                }
                for table in self.tables
            },
            "bytes": self.disk,
            "forgotten": self.forgotten,
            "unfinished": self.unfinished,
            "dataset": self.dataset,
            "trainings": self.trainings,
            "licences": self.licences,
            "next": self.next,
        }


def read_status(photoset: PhotoSet) -> PhotoSetStatus:
    """The state of a set, from the parts' metadata and the sizes of its files; of rows only what was stated is read."""
    states = _states(photoset)
    found = PhotoSetStatus(_tables(states))
    found.disk = _sizes(photoset)
    stones = tombstones(photoset)
    found.forgotten = len({stone.photo or stone.item for stone in stones} - {""})  # one may have had several names
    found.unfinished = len({stone.photo or stone.item or stone.photographer for stone in stones if not stone.done})
    found.dataset = dataset_key(photoset.root / "dataset")
    found.trainings = sorted({use.path for use in uses(photoset) if use.kind == "training"})
    found.licences = count_disputed(disputed(photoset))
    found.next = _next(photoset, states, found)
    return found


def next_step(photoset: PhotoSet) -> str:
    """The command that comes next, as `read_status` says it, without a look at the set's files and licences."""
    states = _states(photoset)
    found = PhotoSetStatus(_tables(states), dataset=dataset_key(photoset.root / "dataset"))
    found.unfinished = sum(not stone.done for stone in tombstones(photoset))
    return _next(photoset, states, found)


def to_text(found: PhotoSetStatus) -> str:
    """The state as lines for a person."""
    return "\n".join(_lines(found))


_STEPS = {"measured": "curate filter", "faces": "curate filter", "crops": "curate align"}
_PLACES = ("photos", "measured", "features", "faces", "crops", "tags/", "embeddings", "people", "balance")


def _place(name: str) -> tuple[int, str]:
    places = (index for index, start in enumerate(_PLACES) if name.startswith(start))
    return next(places, len(_PLACES)), name


def _states(photoset: PhotoSet) -> dict[str, TableState]:
    return {name: table.state() for name, table in photoset.tables().items()}


def _tables(states: Mapping[str, TableState]) -> list[TableStatus]:
    return [_table(name, states[name], _source(name, states)) for name in sorted(states, key=_place)]


def _source(name: str, tables: Mapping[str, TableState]) -> TableState | None:
    """The table that another is made from, part by part; None where parts do not answer to each other."""
    above = {"measured": "photos", "features": "measured", "crops": "faces", "balance": "crops", "embeddings": "crops"}
    above["people"] = "crops"
    above["faces"] = "measured" if "measured" in tables else "photos"
    if name.startswith("tags/"):
        return tables.get("crops")
    return tables.get(above[name]) if name in above else None


def _table(name: str, table: TableState, source: TableState | None) -> TableStatus:
    missing = outdated = 0
    if source is not None:
        for part, above in source.digests.items():
            missing += not table.digests.get(part)
            outdated += bool(table.digests.get(part) and above) and _older(table.inputs[part], above, name)
    return TableStatus(name, len(table.digests), missing, outdated, dict(table.counts.most_common()))


def _older(inputs: str, digest: str, name: str) -> bool:
    """Whether a part is made from other rows; of tags and a balance nothing is known, for people's decisions count."""
    return not inputs.startswith(digest) and not name.startswith(("tags/", "balance"))


def _sizes(photoset: PhotoSet) -> dict[str, int]:
    """Bytes below each folder of the set."""
    return {top.name: sum(_lengths(top)) for top in sorted(photoset.root.iterdir()) if top.is_dir()}


def _lengths(folder: Path) -> Iterator[int]:
    """Bytes of each file below a folder."""
    if not is_local(folder):
        yield from (path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return
    for top, _, names in os.walk(folder):  # unlike `rglob` it keeps no set of all paths
        for path in (Path(top, name) for name in names):
            if path.is_file():
                yield path.stat().st_size


def _next(photoset: PhotoSet, states: Mapping[str, TableState], found: PhotoSetStatus) -> str:
    here = one_line(photoset.root)
    if found.unfinished:
        return f"authface curate forget {shell_word(here)}"
    tables = {table.name: table for table in found.tables}
    if "measured" not in tables and photoset.exists(TO_FETCH):  # filtered, its faces would be none of the manifest's
        return f"authface annotate rebuild MANIFEST {shell_word(here)}"
    photos = tables.get("photos")
    if photos and photos.counts and not photos.counts.get("kept"):
        return (
            f"nothing is kept in photos: {here}/reports/curate.html says why, then "
            f"authface curate fetch {shell_word(here)} --from folder PATH"
        )
    for name in ("measured", "faces", "crops"):
        table = tables.get(name)
        if name == "measured" and table is None:
            continue
        if table is None or table.missing or table.outdated:
            return f"authface {_STEPS[name]} {shell_word(here)}"
        if table.counts and not table.counts.get("kept"):
            return (
                f"nothing is kept in {name}: {here}/reports/curate.html says why, then "
                f"authface {_STEPS[name]} {shell_word(here)}"
            )
    people = tables.get("people")
    if not found.dataset if people is None else people.missing or people.outdated:
        return f"authface curate split {shell_word(here)}"
    if not any(name.startswith("tags/") for name in states):
        return f"authface annotate tags {shell_word(here)} --with measured"
    return _next_of_export(photoset, states)


def _next_of_export(photoset: PhotoSet, states: Mapping[str, TableState]) -> str:
    """What comes after tags: tags or a balance again where people decided since, the export, training."""
    here, state = one_line(photoset.root), _export_state(photoset)
    try:
        reviewed = reviewed_crops(photoset, ReviewSettings(policy=state.get("review", ReviewSettings().policy)))
        chosen = balanced(photoset, reviewed)
    except (AuthfaceError, ValueError):
        return f"authface curate balance {shell_word(here)}"
    for name, made in states.items():
        if not name.startswith("tags/"):
            continue
        if any(not made.inputs.get(part.number, "").startswith(part.digest) for part in reviewed):
            return f"authface annotate tags {shell_word(here)} --with {shell_word(name.removeprefix('tags/'))}"
    if not state:
        return f"authface annotate export {shell_word(here)}"
    named = state.get("settings", {}).get("annotators") or photoset.annotators()
    if state.get("tables") != made_from_digest(states, chosen, named):
        return f"authface annotate export {shell_word(here)}"
    return f"authface train prior {shell_word(f'{here}/dataset')}"


def _export_state(photoset: PhotoSet) -> dict[str, Any]:
    """What the set's export says of itself; empty where there is none."""
    try:
        state = json.loads((photoset.root / "dataset" / "authface.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _lines(found: PhotoSetStatus) -> Iterator[str]:
    for table in found.tables:
        total = sum(table.counts.values())
        notes = [f"{table.missing} parts to make" if table.missing else ""]
        notes += [f"{table.outdated} parts older than what they are made from" if table.outdated else ""]
        note = "; ".join(filter(None, notes))
        yield f"{table.name}: {total:,} rows in {table.parts:,} parts{'; ' + note if note else ''}"
        yield from (f"  {count:>9,}  {one_line(name)}" for name, count in table.counts.items())
    if several := found.licences.get("disputed"):
        yield f"licences: sources disagree about {several:,} photos: the strictest holds (curate credits --all)"
    if corrected := found.licences.get("corrected"):
        yield f"licences: those of {corrected:,} photos were corrected"
    if found.forgotten:
        yield f"forgotten: {found.forgotten:,} photos"
    if found.unfinished:
        yield f"{found.unfinished:,} of them not wholly: the same curate forget again goes on"
    if found.dataset:
        yield f"dataset: {found.dataset[:16]}"
    yield from (f"training: {one_line(path)}" for path in found.trainings)
    total = sum(found.disk.values())
    parts = ", ".join(f"{name} {_megabytes(size)}" for name, size in found.disk.items() if size)
    yield f"disk: {_megabytes(total)} ({parts})"
    yield f"next: {found.next}"


def _megabytes(size: int) -> str:
    return f"{quantity(size / 1e6)} MB"


@dataclass
class RestoredFolder:
    """What the log of one folder says."""

    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    """Inputs by how they ended last: `restored`, `no_face`, `failed`."""
    parts: int = 0
    bytes: int = 0
    """Of the log."""


@dataclass
class RestoreStatus:
    """The folders of results in and below one, and their runs, the last one first."""

    folders: list[RestoredFolder] = field(default_factory=list)
    runs: list[RunState] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        folders = [
            {"folder": str(one.folder), **one.counts, "log_parts": one.parts, "log_bytes": one.bytes}
            for one in self.folders
        ]
        return {"runs": [run.as_json() for run in self.runs], "folders": folders}


def restored_in(folder: Path) -> RestoreStatus:
    """What was restored in and below a folder; nothing, where no log and no run is found."""
    found = RestoreStatus()
    for root, folders, files in os.walk(folder):
        has_states = STATES in folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if has_states:
            found.runs += read_states(Path(root))
        if LOG in files:
            found.folders.append(_read(Path(root)))
    found.runs.sort(key=lambda run: -run.started)
    return found


def restored_text(found: RestoreStatus) -> str:
    """The state as lines for a person."""
    return "\n".join([*(line for run in found.runs for line in _run_lines(run)), *map(_folder_line, found.folders)])


_LINE = re.compile(
    rb'\{"target": ("(?:[^"\\]|\\.)*"), "source": .*, "made": "([^"\\]*)", "status": "([a-z_]+)", "lines": .*\}'
)
"""A line as we write it, without reading all of it as JSON: a log of 100,000 lines in less than a second. No text in
it can look like this: there quotes are escaped."""


def _read(folder: Path) -> RestoredFolder:
    path = folder / LOG
    numbers = part_numbers(path)
    last: dict[bytes, tuple[bytes, bytes]] = {}
    """By target when it was made and how it ended."""
    size = 0
    for number in numbers:
        with part_path(path, number).open("rb") as file:
            for data in file:
                size += len(data)
                if (line := _facts(data)) is not None:
                    target, made, status = line
                    known = last.get(target)
                    if status == b"skipped" or (known is not None and known == (made, b"restored")):
                        status = b"restored" if known == (made, b"restored") else b"no_face"  # of one face of several
                    last[target] = made, status
    counts = Counter(status.decode() for _, status in last.values())
    return RestoredFolder(folder, dict(counts.most_common()), len(numbers), size)


def _facts(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    if (match := _LINE.match(data)) is not None:
        return match[1], match[2], match[3]
    if (values := values_of(data)) is None:
        return None
    target, made, status = (str(values[name]) for name in ("target", "made", "status"))
    return target.encode("utf-8", "surrogatepass"), made.encode("utf-8", "surrogatepass"), status.encode()


def _run_lines(run: RunState) -> Iterator[str]:
    now, condition = time.time(), run.condition()
    began = datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    silence = duration(max(now - run.updated, 0))
    said = {
        "running": f"under way for {duration(max(now - run.started, 0))}",
        "silent": f"no news for {silence}: stopped, or out of reach",
        "killed": f"killed about {silence} ago: the same command again goes on",
        "finished": f"finished after {duration(max(run.updated - run.started, 0))}",
        "stopped": f"stopped after {duration(max(run.updated - run.started, 0))}: {one_line(run.ended, 300)}",
    }[condition]
    yield f"run of {began}, process {run.pid} on {one_line(run.host, 80)}: {said}"
    engine = f", {one_line(run.engine, 40)}" if run.engine else ""
    pace = f", {quantity(run.rate)} photos/s" if run.rate else ""
    left = f", {duration(run.left)} left" if condition == "running" and run.left is not None else ""
    of = f"{quantity(run.inputs)} ({one_line(run.model, 80)}{engine})"
    yield f"  {quantity(run.done)} of {of} done{pace}{left}"
    before = f"; {quantity(run.done_before)} of these by earlier runs" if run.done_before else ""
    counts = f"{quantity(run.restored)} restored, {quantity(run.no_face)} without a face to restore"
    yield f"  {counts}, {quantity(run.failed)} failed{before}"
    if run.last:
        ago = f", {duration(max(now - run.last_at, 0))} ago" if run.last_at is not None else ""
        yield f"  last: {one_line(run.last, 120)}{ago}"


def _folder_line(one: RestoredFolder) -> str:
    counts = ", ".join(f"{quantity(count)} {_WORDS.get(name, name)}" for name, count in one.counts.items())
    parts = "1 part" if one.parts == 1 else f"{quantity(one.parts)} parts"
    return f"{one_line(one.folder)}: {counts or 'nothing made'}; log of {quantity(one.bytes / 1e6)} MB in {parts}"


_WORDS = {"no_face": "without a face to restore"}
