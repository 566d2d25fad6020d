"""Several processes: which of them this one is, and the device that each of them has.

torchrun and accelerate's launcher put ranks into the environment. `--device` names several workers of this machine:
`cuda:all`, `cuda:0,cuda:2`, or `cpu:2`, two workers of the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from authface.errors import UsageError, one_line

Environment = Mapping[str, str]
"""Variables that one process is started with, such as the GPU that it sees."""
MOST = 64
"""Workers of the CPU at most."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"


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


@dataclass(frozen=True)
class Devices:
    """Several workers, each with a device of its own, or a share of the CPU."""

    kind: str
    """`cuda` or `cpu`: what a worker takes for its device. A worker of a GPU sees no other."""
    numbers: tuple[int, ...]
    """Of the GPUs among those that this process sees; one may be there twice. For the CPU only their count matters."""

    @property
    def first(self) -> str:
        """One device, for what this process does itself."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.numbers[0]}"

    @property
    def seats(self) -> Sequence[Environment]:
        """The environment of each worker."""
        if self.kind == "cpu":
            return [{_VISIBLE: ""} for _ in self.numbers]
        seen = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
        return [{_VISIBLE: seen[number] if seen else str(number)} for number in self.numbers]


def several(text: str) -> Devices | None:
    """The devices of ``--device`` where it names more than one; None: it is one, as `pick_device` reads it.

    Raises UsageError for GPUs that are not here, and for a list of anything but GPUs.
    """
    if found := re.fullmatch(r"cpu:([0-9]{1,4})", text):
        count = int(found[1])
        if not 1 <= count <= MOST:
            raise UsageError(f"--device {text}: workers of the CPU are 1 to {MOST}")
        return Devices("cpu", tuple(range(count)))
    if text != "cuda:all" and "," not in text:
        return None
    names = text.split(",")
    if text != "cuda:all" and not all(re.fullmatch(r"cuda:[0-9]{1,3}", name) for name in names):
        raise UsageError(f"--device {one_line(text)}: several are cuda:all, cuda:0,cuda:2 or cpu:2")
    here = _gpus()
    numbers = tuple(range(here)) if text == "cuda:all" else tuple(int(name.removeprefix("cuda:")) for name in names)
    if not numbers or max(numbers) >= here:
        raise UsageError(f"--device {one_line(text)}: torch finds {here} cuda devices here; use --device cpu")
    return Devices("cuda", numbers)


def _gpus() -> int:
    """Number of GPUs that this process sees; none is used for it."""
    import torch

    return torch.cuda.device_count()
