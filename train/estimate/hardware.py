"""GPUs by name: their memory and speed, and the share of it that a training is assumed to reach."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from authface.errors import UsageError, one_line

UTILISATION = 0.35
"""Share of the dense peak that training is assumed to reach: an assumption, not measured here; `--utilisation`."""
RESERVE = 2**30
"""Bytes of a GPU that no tensor can have: CUDA's context, cuBLAS' and cuDNN's workspaces, what the allocator cannot
use. An assumption, not measured here."""


@dataclass(frozen=True)
class GpuSpec:
    """`memory` in MiB as its driver reports it, which is less than its name says; `bf16` and `fp32` in TFLOP/s, dense,
    as NVIDIA's data sheets print them (fp32 without TF32, which torch leaves off)."""

    name: str
    memory: int
    bf16: float
    fp32: float

    @property
    def bytes(self) -> int:
        """Its memory."""
        return self.memory * 2**20

    def hours(self, flops: float, half: bool, utilisation: float) -> float:
        """How long `flops` take, in bfloat16 if `half`."""
        return flops / ((self.bf16 if half else self.fp32) * 1e12 * utilisation) / 3600


GPUS = (
    GpuSpec("RTX 3090", 24_576, 71, 35.6),
    GpuSpec("RTX 4090", 24_564, 165, 82.6),
    GpuSpec("L4", 23_034, 121, 30),
    GpuSpec("L40S", 46_068, 362, 91.6),
    GpuSpec("A100-80", 81_920, 312, 19.5),
    GpuSpec("H100", 81_559, 989, 67),
    GpuSpec("H200", 143_771, 989, 67),
)


_OTHERS = {"RTX 3090": {"ti"}, "RTX 4090": {"d", "laptop"}, "H100": {"nvl", "pcie"}, "H200": {"nvl"}}
"""Words that make of a GPU's name that of another, with another speed."""


def gpus_named(names: Sequence[str]) -> tuple[GpuSpec, ...]:
    """The GPUs of these names, all without any. Raises UsageError for one that is not known."""
    known = {gpu.name.lower(): gpu for gpu in GPUS}
    for name in names:
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
            hint = f"did you mean {known[near[0]].name}? " if near else ""
            raise UsageError(f"--gpu {one_line(name)}: {hint}there are {', '.join(gpu.name for gpu in GPUS)}")
    return tuple(dict.fromkeys(known[name.lower()] for name in names)) or GPUS


def local_gpu() -> GpuSpec | None:
    """This machine's first GPU, None without CUDA: its speed is that of the known GPU of its name, else 0."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    like = known_as(found.name)
    bf16, fp32 = (like.bf16, like.fp32) if like else (0, 0)
    return GpuSpec(f"this machine ({one_line(found.name)})", found.total_memory // 2**20, bf16, fp32)


def known_as(driver: str) -> GpuSpec | None:
    """The GPU that a driver's name, such as ``NVIDIA A100-SXM4-40GB``, says in whole words; None for one that is not
    known, as an L40 or an H100 NVL."""
    words = _words(driver)
    for gpu in GPUS:
        own = _words(gpu.name.removesuffix("-80"))  # an A100 of 40 GB is as fast
        if f" {' '.join(own)} " in f" {' '.join(words)} " and not _OTHERS.get(gpu.name, set()) & set(words):
            return gpu
    return None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
