"""`authface status` of a folder that `authface restore` writes: what is made, and the runs under way and ended."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from authface.console import duration
from authface.errors import one_line
from authface.report.pages import quantity
from authface.store.restore_line import values_of
from authface.store.restore_log import LOG, part_numbers, part_path
from authface.store.restore_state import STATES, RunState, read_states


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


def to_text(found: RestoreStatus) -> str:
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
