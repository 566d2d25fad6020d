"""Which of several processes this one is: what torchrun and accelerate's launcher put into the environment."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number, over all machines; 0 is the main one, and the only one that speaks."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """This process's number on its machine, which is its GPU's; None where nothing was launched."""
    found = os.environ.get("LOCAL_RANK")
    return int(found) if found else None


def count() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


_sharers = 1


def share_cores(models: int) -> None:
    """From now on so many models of this process work at a time, and share its processors."""
    global _sharers
    _sharers = models


def cores() -> int:
    """Processors that a model of this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, found // _sharers)
