"""Where the time of a restoration goes, and how much memory it takes, seen from outside: by class of network.

torch's hooks for all modules tell when a network begins and ends, so that nothing here needs to know how a restorer is
built, and every family is measured alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PARTS = {
    "CLIPTextModel": "text encoders",
    "CLIPTextModelWithProjection": "text encoders",
    "Encoder": "VAE encoder",
    "EncoderTiny": "VAE encoder",
    "ControlNetConditioningEmbedding": "ControlNet",
    "ControlNetModel": "ControlNet",
    "UNet2DConditionModel": "U-Net",
    "Decoder": "VAE decoder",
    "DecoderTiny": "VAE decoder",
}
"""Parts of a family by class, of diffusers and transformers; the outermost counts."""
_LIBRARIES = ("diffusers.", "transformers.")
_MEBIBYTE = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Part:
    """What one part took during a measurement."""

    seconds: float = 0.0
    share: float = 0.0
    """Of the whole run, 0..1."""
    calls: int = 0
    rows: int = 0
    """Images of its last call: twice the faces under classifier-free guidance."""
    parameters: int = 0
    device: str = ""
    dtype: str = ""


def wait(device: str) -> None:
    """Until a GPU has done what it was told; a CPU always has."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(torch.device(device))
    elif device.startswith("mps"):
        torch.mps.synchronize()


@contextmanager
def watching(device: str = "cpu") -> Iterator[dict[str, Part]]:
    """The parts that run within the block, by name. On a GPU it waits at each end of a part, which costs a little."""
    from torch.nn.modules import module

    parts: dict[str, Part] = {}
    open_parts: list[tuple[torch.nn.Module, float]] = []

    def begin(network: torch.nn.Module, _: Any) -> None:
        if _named(network):
            wait(device)
            open_parts.append((network, time.perf_counter()))

    def end(network: torch.nn.Module, given: Any, got: Any) -> None:
        if not open_parts or open_parts[-1][0] is not network:
            return
        wait(device)
        _, began = open_parts.pop()
        if not open_parts:
            _add(parts.setdefault(_named(network), Part()), network, time.perf_counter() - began, got)

    hooks = [module.register_module_forward_pre_hook(begin), module.register_module_forward_hook(end)]
    try:
        yield parts
    finally:
        for hook in hooks:
            hook.remove()


def _named(network: torch.nn.Module) -> str:
    kind = type(network)
    return PARTS.get(kind.__name__, "") if kind.__module__.startswith(_LIBRARIES) else ""


def _add(part: Part, network: torch.nn.Module, seconds: float, got: Any) -> None:
    part.seconds += seconds
    part.calls += 1
    first = got
    while isinstance(first, tuple | list | dict) and first:
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    part.rows = int(first.shape[0]) if hasattr(first, "shape") and len(first.shape) else part.rows
    total = sum(weight.numel() for weight in network.parameters())
    if total > part.parameters:  # the embedding of the condition is a part of its ControlNet
        weight = next(network.parameters())
        part.parameters, part.device, part.dtype = total, str(weight.device), str(weight.dtype).removeprefix("torch.")


def peak_memory(device: str, work: Callable[[], object]) -> tuple[float | None, str]:
    """Peak while `work` runs, MiB, weights included, and of what it is: the GPU's tensors, or the whole process.

    None where the system does not tell.
    """
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(torch.device(device))
        work()
        wait(device)
        return torch.cuda.max_memory_allocated(torch.device(device)) / _MEBIBYTE, "tensors on the GPU"
    try:
        _CLEAR.write_text("5", "ascii")  # resets the peak of the resident set: proc_pid_clear_refs(5)
    except OSError:
        work()
        return _ever(), "process, since it began"
    work()
    line = next(line for line in _STATUS.read_text("ascii", "replace").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024, "process, Python and libraries included"


def _ever() -> float | None:
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (_MEBIBYTE if sys.platform == "darwin" else 1024)
