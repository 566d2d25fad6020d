"""`authface evaluate runtime`: seconds a face and peak memory of a family, warm, and where the time goes.

The family is run by the toolkit's Python API, `authface.Restorer`, as any program would; the parts are seen from
outside, by class of network, so a stage measures another without importing it: torch's hooks for all modules tell when
a network begins and ends. Nothing here needs to know how a restorer is built, and every family is measured alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface import Restorer
from authface.backends import backend_names, backend_version
from authface.console import Console, render_table
from authface.devices import pick_device
from authface.errors import UsageError, one_line
from authface.evaluate.catalogue import sha256s
from authface.evaluate.protocol import device_name, versions
from authface.evaluate.settings import RuntimeSettings
from authface.files import write_json
from authface.models.families import fetch, resolve
from authface.models.layout import PARTS, part_files
from authface.options import SECTIONS
from authface.recipe import load

if TYPE_CHECKING:
    import torch


TIMED = {
    "CLIPTextModel": "text encoders",
    "CLIPTextModelWithProjection": "text encoders",
    "Encoder": "VAE encoder",
    "EncoderTiny": "VAE encoder",
    "ControlNetConditioningEmbedding": "ControlNet",
    "ControlNetModel": "ControlNet",
    "UNet2DConditionModel": "U-Net",
    "UNet2DModel": "cleaner",
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
    return TIMED.get(kind.__name__, "") if kind.__module__.startswith(_LIBRARIES) else ""


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


NAME = "runtime"
REST = "rest"
UNSEEN = "parts are seen where torch runs them: where ONNX Runtime does, -O restore.engine=torch shows those of torch"
Restore = Callable[[], object]
"""Restores the faces of one run."""


@dataclass(frozen=True)
class Seconds:
    """Times of single runs, seconds a face."""

    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""
    least: float
    most: float


@dataclass(frozen=True)
class Runtime:
    """What was measured."""

    face: Seconds
    first: float
    """Seconds of the first run: loading the weights, encoding the prompts and warming up included."""
    parts: dict[str, Part]
    """By name, of one run of its own, which may be slower than the median: their shares count. `rest` is all that is
    none: the sampler, colours, pixels from and to the model."""
    memory: float | None
    """Peak, MiB."""
    memory_of: str
    runs: int
    faces: int
    """In a run."""
    processor: float | None = None
    """Median seconds a face that the processor's cores worked, on a CPU: a busy machine does not change it."""


def seconds_of(times: list[float], faces: int) -> Seconds:
    """Of at least one run; quartiles by linear interpolation."""
    each = sorted(value / faces for value in times)
    low, _, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Seconds(statistics.median(each), low, high, each[0], each[-1])


def settings_of_model(recipe: str, overrides: Sequence[str], model: str | None) -> dict[str, Any]:
    """What a recipe says of `restore`, and the model that is named; the rest is that stage's default.

    Raises UsageError where the recipe is wrong.
    """
    tables = load(recipe, list(overrides), SECTIONS).tables
    return {**tables.get("restore", {}), **({"model": model} if model is not None else {})}


def measure(restore: Restore, settings: RuntimeSettings, device: str, console: Console) -> Runtime:
    """Run `restore` once cold, `settings.warmup` times for nothing, `count` times by the clock, once for the parts.

    Peak memory is that of the first of the timed runs.
    """
    with console.progress(NAME, 2 + settings.warmup + settings.count, "runs") as tick:

        def timed() -> float:
            wait(device)
            began = time.perf_counter()
            restore()
            wait(device)
            tick()
            return time.perf_counter() - began

        first = timed()
        for _ in range(settings.warmup):
            timed()
        times: list[float] = []
        work = [time.process_time()]
        memory, of = peak_memory(device, lambda: times.append(timed()))
        work.append(time.process_time())
        for _ in range(settings.count - 1):
            times.append(timed())
            work.append(time.process_time())
        with watching(device) as parts:
            whole = timed()
    parts[REST] = Part(seconds=max(0.0, whole - sum(part.seconds for part in parts.values())), calls=1)
    for part in parts.values():
        part.share = part.seconds / whole
    each = [(after - before) / settings.faces for before, after in pairwise(work)]
    processor = statistics.median(each) if device == "cpu" else None
    face = seconds_of(times, settings.faces)
    return Runtime(face, first, parts, memory, of, settings.count, settings.faces, processor)


def noise(faces: int, size: int, seed: int) -> NDArray[np.uint8]:
    """(faces, size, size, 3): a network takes as long for noise as for a face."""
    return np.random.default_rng(seed).integers(0, 256, (faces, size, size, 3), np.uint8)


def run_model(
    model: Mapping[str, Any], settings: RuntimeSettings, device: str, seed: int, console: Console
) -> tuple[Runtime, dict[str, Any]]:
    """Measure the restorer of these settings of `restore`; the second is how, as JSON.

    Raises UsageError for settings and models that are none, AuthfaceError where files cannot be had.
    """
    if seed < 0:
        raise UsageError(f"--seed {seed}: seeds are 0 and more")
    own = {"guard": False, "report": False, "size": settings.size, "preset": settings.preset, "batch": settings.faces}
    with Restorer(**{**model, **own}, device=device, seed=seed) as restorer:
        crops = noise(settings.faces, settings.size, seed)
        where = str(pick_device(device))
        found = measure(lambda: restorer.restore_aligned(list(crops)), settings, where, console)
        how = _protocol(restorer.model, model, settings, where, seed)
    return found, how


def _protocol(name: str, model: Mapping[str, Any], settings: RuntimeSettings, device: str, seed: int) -> dict[str, Any]:
    import torch

    return {
        "model": name,
        "weights": weights_of(name),
        "preset": settings.preset,
        "size": settings.size,
        "settings": {key: value for key, value in model.items() if key not in {"model", "preset"}},
        "runs": settings.count,
        "warmup": settings.warmup,
        "faces": settings.faces,
        "how": "one process, weights loaded; wall clock from the crop in memory to the restored one, the device is "
        "waited for at both ends. Parts: one further run in which it is waited for at each part",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "versions": versions("diffusers", "transformers", "accelerate"),
    }


def weights_of(model: str, parts: Sequence[str] = PARTS) -> dict[str, str]:
    """sha256 of the files of weights of a family's parts by name; of a restorer that is no family, whose it is."""
    if model in backend_names("restorers"):
        return {model: backend_version("restorers", model)}
    folder = fetch(resolve(model), parts)
    files = [file for part in parts for file in part_files(folder, part) if file.suffix == ".safetensors"]
    return sha256s({f"{file.parent.name}/{file.name}": file for file in files})


def as_json(found: Runtime, how: Mapping[str, Any]) -> dict[str, Any]:
    """For ``--json`` and the file."""
    return {**asdict(found), "protocol": dict(how)}


def as_text(found: Runtime, how: Mapping[str, Any]) -> str:
    """For a terminal."""
    face = found.face
    unet = found.parts.get("U-Net")
    sampled = f", {unet.calls} steps{' with guidance' if unet.rows > found.faces else ''}" if unet else ""
    lines = [
        f"{one_line(how['model'])}, preset {how['preset']}, {how['size']} px{sampled}, on {how['device']}",
        f"{face.median:.3g} s a face, quartiles {face.low:.3g} and {face.high:.3g}, {face.least:.3g} to "
        f"{face.most:.3g} in {found.runs} runs; the first, with loading, {found.first:.3g} s",
        *(
            []
            if found.processor is None
            else [f"{found.processor:.3g} s of the processor a face, whatever else it does"]
        ),
        "peak memory " + ("n/a" if found.memory is None else f"{found.memory:,.0f} MiB ({found.memory_of})"),
        "",
    ]
    rows = [
        [
            name,
            f"{part.share * face.median:.3g}",
            f"{100 * part.share:.1f} %",
            str(part.calls) if name != REST else "",
            f"{part.parameters / 1e6:,.1f} M" if part.parameters else "",
            " ".join(filter(None, [part.dtype, part.device])),
        ]
        for name, part in found.parts.items()
    ]
    unseen = f"\n{UNSEEN}" if set(found.parts) == {REST} else ""
    return "\n".join(lines) + render_table(["part", "s a face", "share", "calls", "parameters", ""], rows) + unseen


def write(found: Runtime, how: Mapping[str, Any], folder: Path) -> Path:
    """runtime.json. Raises AuthfaceError where the disk refuses."""
    path = folder / f"{NAME}.json"
    write_json(path, as_json(found, how))
    return path
