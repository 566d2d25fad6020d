"""What this machine has, asked of the system alone: processors, memory, GPUs; torch is not imported for it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_NVIDIA = ("libcuda.so.1", "nvcuda.dll")
_TOTAL_MEMORY = "cuDeviceTotalMem_v2"
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
_BF16 = (8, 0)
"""The compute capability from which NVIDIA's GPUs calculate in bfloat16."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver describes it."""

    name: str
    bytes: int
    """Of its memory."""
    capability: tuple[int, int]
    """CUDA's, such as (9, 0)."""

    @property
    def bf16(self) -> bool:
        """Whether it calculates in bfloat16."""
        return self.capability >= _BF16


@dataclass(frozen=True)
class Nvidia:
    """What NVIDIA's driver says."""

    cuda: tuple[int, int]
    """The newest CUDA it runs."""
    gpus: tuple[Gpu, ...]
    problem: str = ""
    """Why it cannot be used; empty where it can."""


def cores() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory() -> int:
    """Bytes of RAM, or the container's limit where that is less; 0 where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _windows_memory()
    limits = [_number(path) for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    return min([total, *(limit for limit in limits if limit)])


def _number(path: str) -> int:
    """The number in a file of the system; 0 where there is none."""
    try:
        return int(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return 0


def _windows_memory() -> int:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of sysinfoapi.h."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page", "page_free", "virtual", "virtual_free")),
            ("extended", ctypes.c_ulonglong),
        )

    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    if kernel is None:
        return 0
    status = Status(length=ctypes.sizeof(Status))
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else 0


def nvidia() -> Nvidia | None:
    """GPUs of NVIDIA that this process may use (CUDA_VISIBLE_DEVICES holds); None where there is no driver."""
    for name in _NVIDIA:
        try:
            return _asked(ctypes.CDLL(name))
        except OSError:
            continue
    return None


def _asked(driver: ctypes.CDLL) -> Nvidia:
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    newest = version.value // 1000, version.value % 1000 // 10
    if code := driver.cuInit(0):
        return Nvidia(newest, (), f"the driver answers with error {code}")
    driver.cuDeviceGetCount(ctypes.byref(count))
    return Nvidia(newest, tuple(_gpu(driver, number) for number in range(count.value)))


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, total = ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(100)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    getattr(driver, _TOTAL_MEMORY)(ctypes.byref(total), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode("utf-8", "replace"), total.value, (major.value, minor.value))


def apple() -> str:
    """Name of the Apple chip whose GPU torch calls `mps`; empty on other machines."""
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return ""
    asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "Apple silicon"


@dataclass(frozen=True)
class TorchBuild:
    """For what the installed torch was built, as its version.py says."""

    cuda: str
    """Such as `13.2`; empty for a build without CUDA."""
    hip: str
    """ROCm's version; empty for a build without it."""


def torch_build() -> TorchBuild | None:
    """Read without importing torch, which takes seconds; None where it is not installed."""
    found = find_spec("torch")
    if found is None or not found.origin:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text("utf-8")
    except OSError:
        return TorchBuild("", "")
    told = {m[1]: m[2] for m in re.finditer(r"^(cuda|hip)\b[^=\n]*= *'([^']*)'", text, re.MULTILINE)}
    return TorchBuild(told.get("cuda", ""), told.get("hip", ""))
