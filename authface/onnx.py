"""Sessions of ONNX Runtime, made here alone: on which device, with how many threads, and with errors of one line."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.processes import cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"
PROVIDERS = {"cuda": "CUDAExecutionProvider", "directml": "DmlExecutionProvider", "mps": "CoreMLExecutionProvider"}
"""Execution provider by the device's name."""
_PACKAGES = {"cuda": "pip install onnxruntime-gpu", "directml": "pip install onnxruntime-directml",
             "mps": "onnxruntime on a Mac"}  # fmt: skip
_AUTO = ("cuda", "directml")
"""What `auto` prefers to the CPU. Not Core ML: it may compute in half precision."""


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


def run(opened: Any, name: str, given: dict[str, Any]) -> list[NDArray[np.float32]]:
    """All results of a session for its inputs by name.

    Raises AuthfaceError, of the graph's `name`, where it fails: for want of memory, or for inputs it does not take.
    """
    try:
        return list(opened.run(None, given))
    except Exception as error:  # onnxruntime's errors have no common class
        raise AuthfaceError(f"{one_line(name)} fails in onnxruntime: {_said(error)}") from error
