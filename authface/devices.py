"""The devices that networks run on, and the processes and models that share them.

`--device` names one, for torch (`pick_device`) or ONNX Runtime (`providers`), whose sessions are made here alone; or
several workers of this machine (`several`): `cuda:all`, `cuda:0,cuda:2`, or `cpu:2`, two workers of the CPU. Ranks are
those that torchrun and accelerate's launcher put into the environment.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface.errors import AuthfaceError, UsageError, first_line, one_line

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Environment = Mapping[str, str]
"""Variables that one process is started with, such as the GPU that it sees."""
MOST = 64
"""Workers of the CPU at most."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
CPU = "CPUExecutionProvider"
PROVIDERS = {"cuda": "CUDAExecutionProvider", "directml": "DmlExecutionProvider", "mps": "CoreMLExecutionProvider"}
"""Execution provider by the device's name."""
_PACKAGES = {"cuda": "pip install onnxruntime-gpu", "directml": "pip install onnxruntime-directml",
             "mps": "onnxruntime on a Mac"}  # fmt: skip
_AUTO = ("cuda", "directml")
"""What `auto` prefers to the CPU. Not Core ML: it may compute in half precision."""


def rank() -> int:
    """This process's number, over all machines; 0 is the main one, and the only one that speaks."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """This process's number on its machine, which is its GPU's; None where nothing was launched."""
    found = os.environ.get("LOCAL_RANK")
    return int(found) if found else None


def world_size() -> int:
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


_DEVICES = (
    "there are auto, cpu, cuda, cuda:1, mps; several at a time, such as cuda:all and cpu:2, in restore, annotate tags "
    "and evaluate restoration"
)


def pick_device(name: str) -> torch.device:
    """The torch device of ``--device``; `auto` takes CUDA, then MPS, then the CPU. Raises UsageError.

    Of several processes that a launcher started on a machine each takes a GPU of its own.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {one_line(name)}: {_DEVICES}") from error
    if device.type not in {"cpu", "cuda", "mps"} or (device.type == "cpu" and device.index):
        raise UsageError(f"--device {one_line(name)}: {_DEVICES}")
    if name == "cuda":  # with a number, which torch.cuda.set_device asks for
        device = torch.device("cuda", local_rank() or 0)
    found = torch.cuda.device_count() if device.type == "cuda" else int(torch.backends.mps.is_available())
    if device.type in {"cuda", "mps"} and (device.index or 0) >= found:
        raise UsageError(
            f"--device {one_line(device)}: torch finds {found} {device.type} devices here; use --device cpu"
        )
    return device


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX-512 BF16, AMX); others emulate it, by AVX2 at an eighth of
    float32's speed."""
    import torch

    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def providers(device: str = "auto") -> list[str]:
    """The execution providers for ``--device``: `auto`, `cpu`, `cuda`, `cuda:1`, `directml`, `mps` (Core ML).

    The CPU is always the last: it runs what the others cannot. Raises UsageError for another name, and where the
    installed onnxruntime lacks the provider.
    """
    import onnxruntime

    found = onnxruntime.get_available_providers()
    name = _kind(device)
    if name == "auto":
        return [PROVIDERS[one] for one in _AUTO if PROVIDERS[one] in found] + [CPU]
    if name == "cpu":
        return [CPU]
    if PROVIDERS[name] not in found:
        lacking = _no_hardware(name) or f"onnxruntime has no {PROVIDERS[name]} here: {_PACKAGES[name]}, or"
        raise UsageError(f"--device {one_line(device)}: {lacking} --device cpu")
    return [PROVIDERS[name], CPU]


def device_of(device: str) -> str:
    """The device that sessions of ``--device`` run on, as it is named there."""
    kind = next((name for name, provider in PROVIDERS.items() if provider == providers(device)[0]), "cpu")
    return device if device.startswith(f"{kind}:") else kind


def _no_hardware(name: str) -> str:
    """Why no package brings that device to this machine; empty where one may."""
    if name == "cuda":
        return "" if has_nvidia() else "no NVIDIA driver finds a GPU here:"
    system, needed = {"directml": ("win32", "Windows"), "mps": ("darwin", "a Mac")}[name]
    return "" if sys.platform == system else f"it needs {needed}:"


def has_nvidia() -> bool:
    """Whether a driver of NVIDIA's finds a GPU."""
    try:
        driver: Any = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return bool(driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0)
    except (OSError, AttributeError):
        return False


def _kind(device: str) -> str:
    name = re.fullmatch(r"(auto|cpu|mps|cuda|directml)|(cuda|directml):[0-9]{1,3}", device)
    if name is None:
        raise UsageError(f"--device {one_line(device, 60)}: there are auto, cpu, cuda, cuda:1, directml, mps")
    return name[1] or name[2]


def _options(provider: str, number: str) -> dict[str, str]:
    """Of a provider, for the device of that number."""
    own = {"use_tf32": "0"} if provider == PROVIDERS["cuda"] else {}  # full float32, as on the CPU
    return own | ({"device_id": number} if number and provider != CPU else {})


def session(file: Path | bytes, device: str = "auto", threads: int = 0) -> Any:
    """An onnxruntime.InferenceSession of a file, or of its bytes, on a device of `providers`.

    `threads` on the CPU; 0 takes as many as there are processors for this process. They sleep while they wait: threads
    that spin stop each other where cores are shared. Raises UsageError for a device that is not there and for what is
    no ONNX network, AuthfaceError where a device that was named cannot be used.
    """
    import onnxruntime

    wanted = providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    onnxruntime.set_default_logger_severity(4)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    number = device.partition(":")[2]
    given = [(name, _options(name, number)) for name in wanted]
    if PROVIDERS["directml"] in wanted:  # which asks for both
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    opened = str(file) if isinstance(file, Path) else file
    try:
        # Without its fallback, which prints: what cannot be used is said below, or is not used.
        made = onnxruntime.InferenceSession(opened, options, providers=given, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common class
        if device == "auto" and wanted != [CPU]:
            return session(file, "cpu", threads)
        named = _told(file) if isinstance(file, Path) else "a network's bytes"
        raise UsageError(
            f"{named} is no ONNX network that can be run: {_said(error)}; get it again or name another"
        ) from error
    if device != "auto" and made.get_providers()[0] != wanted[0]:
        raise AuthfaceError(
            f"--device {one_line(device)}: {wanted[0]} is installed and cannot be used: see its CUDA and driver "
            "versions, or --device cpu"
        )
    return made


def _told(file: Path) -> str:
    """A file and what it is: how large, a folder, or not there."""
    if file.is_dir():
        return f"{one_line(file)}, a folder,"
    return f"{one_line(file)} ({file.stat().st_size:,} bytes)" if file.is_file() else f"{one_line(file)}, not there,"


def _said(error: Exception) -> str:
    """What onnxruntime says, without its error's number and the file, which stands before it."""
    beginning = r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?"
    return one_line(re.sub(beginning, "", first_line(error, 2000)), 160)


def run_session(opened: Any, name: str, given: dict[str, Any]) -> list[NDArray[np.float32]]:
    """All results of a session for its inputs by name.

    Raises AuthfaceError, of the graph's `name`, where it fails: for want of memory, or for inputs it does not take.
    """
    try:
        return list(opened.run(None, given))
    except Exception as error:  # onnxruntime's errors have no common class
        raise AuthfaceError(f"{one_line(name)} fails in onnxruntime: {_said(error)}") from error
