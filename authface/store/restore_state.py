"""What a run of restoring says of itself while it works: a small file beside its log, replaced every few seconds.

Each run has its own, ``.restore/HOST-PID.json``; the last state stays when it ends. What was made is in the log alone:
a state may be lost, and nothing else is.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from authface.files import write_file

STATES = ".restore"
"""The folder of the states, beside the log."""
SILENT_SECONDS = 30.0
"""A run says something every few seconds; one that was silent for so long is asked whether it lives."""
Condition = Literal["running", "silent", "killed", "finished", "stopped"]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run and how far it is. Times are seconds since 1970 by its machine's clock."""

    host: str
    pid: int
    started: float
    updated: float
    photos: int = 0
    """All that were named."""
    videos: int = 0
    restored: int = 0
    """Photos and videos with a restored face, those of earlier runs among them, as in the next."""
    no_face: int = 0
    """Photos and videos without one."""
    failed: int = 0
    done_before: int = 0
    """How many of them an earlier run made."""
    seconds: float = 0
    """Since work began."""
    rate: float = 0
    """Photos a second, of those that this run made."""
    left: float | None = None
    """Seconds; None while it cannot be told."""
    last: str = ""
    """Name of the input that came to its end last."""
    last_at: float | None = None
    model: str = ""
    engine: str = ""
    ended: str = ""
    """Empty while it runs; ``finished``, or why it stopped."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by part of the work, such as ``model``."""

    @property
    def inputs(self) -> int:
        """All that were named."""
        return self.photos + self.videos

    @property
    def done(self) -> int:
        """Inputs that came to their end, in this run or before."""
        return self.restored + self.no_face + self.failed

    def condition(self, now: float | None = None) -> Condition:
        """Whether it works. A silent one on another machine may be dead, or its network may be."""
        if self.ended:
            return "finished" if self.ended == "finished" else "stopped"
        if abs((time.time() if now is None else now) - self.updated) <= SILENT_SECONDS:
            return "running"
        return "killed" if self.host == socket.gethostname() and not _lives(self.pid) else "silent"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "done": self.done, "condition": self.condition()}


_ADAPTER = TypeAdapter(RunState)


def new_state(**known: Any) -> RunState:
    """The state of a run of this process that begins."""
    now = time.time()
    return RunState(host=socket.gethostname(), pid=os.getpid(), started=now, updated=now, **known)


def write_state(home: Path, state: RunState) -> None:
    """Replace the run's state. Raises AuthfaceError where the disk refuses."""
    data = _ADAPTER.dump_json(replace(state, updated=time.time()))
    write_file(home / STATES / _name(state), data)


def read_states(home: Path) -> list[RunState]:
    """The runs that are known in a folder, the last one first; what is no state is passed over."""
    return sorted((state for _, state in _states(home)), key=lambda state: -state.started)


def forget_ended(home: Path) -> None:
    """Delete the states of runs that are over."""
    for path, state in _states(home):
        if state.condition() not in ("running", "silent"):
            with suppress(OSError):
                path.unlink()


def _states(home: Path) -> Iterator[tuple[Path, RunState]]:
    for path in sorted((home / STATES).glob("*.json")):
        with suppress(OSError, ValidationError, ValueError):
            yield path, _ADAPTER.validate_json(path.read_bytes())


def _name(state: RunState) -> str:
    return f"{re.sub(r'[^0-9A-Za-z.-]', '_', state.host)[:100]}-{state.pid}.json"


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there; where that cannot be asked without harm, it is taken to be."""
    if sys.platform == "win32" or pid <= 0:  # there the signal 0 ends it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
