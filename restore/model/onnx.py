"""Restoring with a family's exported graphs: only ONNX Runtime, NumPy and OpenCV are needed, torch is not imported.

The code around the networks and the noise are the same as with torch: results are within one level of its.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.devices import has_nvidia, run_session, session
from authface.errors import AuthfaceError, UsageError
from authface.extras import need
from authface.faces.geometry import Side
from authface.models.graphs import (
    CLEANER,
    DECODER,
    DENOISER,
    ENCODER,
    Export,
    FaceNoise,
    Planes,
    clean,
    graph_file,
    high_pass,
    read_export,
    to_unit,
)
from authface.models.layout import ONNX
from authface.models.sampling import Preset, Sampling, sampling_of, settings_preset
from authface.restore.model.crops import CleanedRestorer, ColourFix, OnStep, mixed, to_uint8
from authface.restore.settings import RestoreSettings

INSTALL = "pip install 'authface[restore]'"
"""Command that installs torch, diffusers and transformers."""


def choose(folder: Path, settings: RestoreSettings, device: str) -> Export | None:
    """The graphs of the family in `folder` for these settings; None: use torch.

    They are used if the family has `onnx/` of its own weights, for the exported settings, on the CPU: for
    ``--device cpu``, and for `auto` unless torch is installed and may find a GPU. `restore.engine` selects one by name.
    Raises UsageError if the named or only installed engine cannot restore with these settings.
    """
    if settings.engine == "torch":
        need("restore.engine=torch", "restore", "torch", "diffusers", "transformers")
        return None
    has_torch = find_spec("torch") is not None and find_spec("diffusers") is not None
    must = settings.engine == "onnxruntime" or not has_torch
    problem = ""
    try:
        export = read_export(folder)
    except AuthfaceError as error:
        export, problem = None, str(error)
        if not must:
            logging.getLogger("authface").warning("%s; until then torch restores", problem)
    if export is not None:
        problem = unsupported(export, settings, folder)
    elif not problem:
        problem = f"the family has no {ONNX}/ (authface models export)"
    if must and problem:
        raise UsageError(f"{problem}: {INSTALL}" if not has_torch else f"restore.engine: {problem}")
    return export if must or (not problem and _is_cpu(device)) else None


def unsupported(export: Export, settings: RestoreSettings, folder: Path) -> str:
    """The first requested setting that the graphs do not support, in a line; empty: none."""
    if settings.preset == "official":
        return "the preset official needs torch"
    for name in ("tiling", "offload", "compile"):
        if getattr(settings, name) != RestoreSettings.model_fields[name].default:
            return f"restore.{name} needs torch"
    if settings.dtype not in {"auto", "float32"}:
        return f"restore.dtype={settings.dtype} needs torch: graphs are in float32"
    if settings.size not in {None, export.side}:
        return f"restore.size={settings.size}: {ONNX}/ was exported for {export.side}"
    preset = settings_preset(settings, folder)
    tries = settings.min_identity or settings.min_parts  # which go on towards 1
    trusts = {settings.fidelity, 1.0} if tries else {settings.fidelity}
    if export.multiple:
        if preset.detail == 0 or trusts == {1.0}:
            return ""
        if DENOISER not in export.files:
            return f"preset {settings.preset} adds detail, and {ONNX}/ has the cleaner alone"
        return _other(export.preset, preset)
    if problem := _other(export.preset, preset):
        return problem
    for fidelity in trusts:
        asked = sampling_of(preset, 1).at(fidelity)
        if (asked.strength, asked.control_scale) != (export.preset.strength, export.control_scale):
            return f"restore.fidelity={fidelity:g} needs another first step than {ONNX}/ was exported for"
    return ""


def _other(made: Preset, asked: Preset) -> str:
    """The first value of a preset that differs from the exported one."""
    names = ["scheduler", "steps", "strength", "reuse", "prompt"]
    if made.guidance > 1 or asked.guidance > 1:
        names += ["guidance", "negative_prompt"]
    for name in names:
        if (value := getattr(asked, name)) != (had := getattr(made, name)):
            return f"restore.{name}={value!r}: {ONNX}/ was exported for {had!r}"
    return ""


def _is_cpu(device: str) -> bool:
    return device == "cpu" or (device == "auto" and not _may_have_gpu())


def _may_have_gpu() -> bool:
    """Whether a driver of NVIDIA's finds a GPU, or AMD's is there: torch, which takes seconds to import, may use it."""
    if Path("/dev/kfd").exists():
        return True
    return has_nvidia() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"}


class LoadedGraphs:
    """A family's graphs in memory, each opened when it is first needed, for restorers of any settings they fit."""

    def __init__(self, folder: Path, export: Export, device: str) -> None:
        self.export, self._folder, self._device = export, folder, device
        self._cleaner, self._encoder, self._denoiser, self._decoder = (
            _Graph(export, folder, name, device) for name in (CLEANER, ENCODER, DENOISER, DECODER)
        )

    def restorer(self, settings: RestoreSettings) -> CleanedRestorer | OnnxDiffusion:
        """A restorer with these settings. Raises UsageError for settings that the graphs do not support."""
        if problem := unsupported(self.export, settings, self._folder):
            raise UsageError(problem)
        preset = settings_preset(settings, self._folder)
        diffusion = OnnxDiffusion(self, sampling_of(preset, 1), settings.fidelity)
        wanted = [self._cleaner] if self.export.multiple else []
        if not wanted or preset.detail * (1 - settings.fidelity):
            wanted += [self._encoder, self._denoiser, self._decoder]
        # While the photo is read and its faces are found.
        Thread(target=_open, args=(wanted,)).start()
        if not self.export.multiple:
            return diffusion
        side = Side(self.export.side, own=settings.size is None)
        return CleanedRestorer(self.clean, diffusion, side, settings.fidelity, preset, diffusion.engine)

    def clean(
        self, crop: NDArray[np.uint8], perception: float, seed: int, on_pass: OnStep | None = None
    ) -> NDArray[np.float32]:
        """One (h, w, 3) face of any size, cleaned: levels, about 0..255, not rounded."""
        noisy = self.export.noise

        def network(planes: Planes) -> Planes:
            height, width = planes.shape[2:]
            more = -height % self.export.multiple, -width % self.export.multiple
            padded = np.pad(planes, ((0, 0), (0, 0), (0, more[0]), (0, more[1])), mode="edge")
            given = {"image": padded[:, :3], "perception": np.array(perception, np.float32)}
            if noisy:
                given["noise"] = padded[:, 3:] if textured else np.zeros_like(padded[:, :1])
            (done,) = self._cleaner(**given)
            return done[..., :height, :width]

        textured = noisy and perception > 0
        return clean(network, crop, seed if textured else None, on_pass)

    def encode(self, crop: NDArray[np.uint8]) -> tuple[Planes, Planes]:
        """A (side, side, 3) crop's latents, and the ControlNet's embedding of it."""
        latents, embedding = self._encoder(image=to_unit(crop))
        return latents, embedding

    def denoise(self, noisy: Planes, timestep: float, embedding: Planes) -> Planes:
        """The U-Net's prediction."""
        return self._denoiser(noisy=noisy, timestep=np.array(timestep, np.float32), embedding=embedding)[0]

    def decode(self, latents: Planes) -> Planes:
        """The latents as an image of about -1..1."""
        if not np.isfinite(latents).all():
            raise AuthfaceError("the model's values overflow: its weights are broken")
        return self._decoder(latents=latents)[0]


class _Graph:
    """A graph that is opened once, when it is first run or before."""

    def __init__(self, export: Export, folder: Path, name: str, device: str) -> None:
        self._export, self._folder, self._name, self._device = export, folder, name, device
        self._lock = Lock()
        self._session: Any = None

    def open(self) -> None:
        """Open it, if it is not open; errors are raised when it is run."""
        with suppress(AuthfaceError):
            self._opened()

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = session(graph_file(self._folder, self._export, self._name), self._device)
        return self._session

    def __call__(self, **given: Any) -> list[Planes]:
        """Its outputs. Raises AuthfaceError if it fails, for example if memory is insufficient."""
        return run_session(self._opened(), self._name, given)


def _open(graphs: Sequence[_Graph]) -> None:
    for graph in graphs:
        graph.open()


class OnnxDiffusion:
    """The prior by its graphs, one face at a time: neither batch nor order changes a result."""

    engine = "onnxruntime"
    colour: ColourFix = "wavelet"

    def __init__(self, graphs: LoadedGraphs, sampling: Sampling, fidelity: float) -> None:
        self._graphs, self.sampling, self.fidelity = graphs, sampling, fidelity
        self.size = graphs.export.side
        self.side = Side(self.size)
        self.on_step: OnStep | None = None

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given."""
        sampling = self.sampling.at(self.fidelity if fidelity is None else fidelity)
        return [self._restored(crop, seed, sampling) for crop, seed in zip(crops, seeds, strict=True)]

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """What the prior adds to (side, side, 3) uint8 RGB crops: (side, side, 3) levels, of any sign."""
        return [self._added(crop, seed) for crop, seed in zip(crops, seeds, strict=True)]

    def _restored(self, crop: NDArray[np.uint8], seed: int, sampling: Sampling) -> NDArray[np.uint8]:
        noise, (photo, embedding) = FaceNoise(seed), self._graphs.encode(crop)
        found = [
            to_uint8((np.clip(self._decoded(photo, embedding, noise), -1, 1) + 1) * 127.5)
            for _ in range(sampling.samples)
        ]
        restored = np.rint(np.mean(found, axis=0)).astype(np.uint8)
        return mixed(restored, crop, sampling.levels, sampling.share)

    def _added(self, crop: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
        photo, embedding = self._graphs.encode(crop)
        made = self._decoded(photo, embedding, FaceNoise(seed))
        plain = in_rows(self._graphs.decode(photo))
        return high_pass((made - plain) * np.float32(127.5))

    def _decoded(self, photo: Planes, embedding: Planes, noise: FaceNoise) -> NDArray[np.float32]:
        """(side, side, 3), about -1..1, of the photo's latents denoised from the next noise."""
        solver = self._graphs.export.solver
        parts = [photo, noise.normal(self._graphs.export.latents)[None]]
        for timestep, weights in zip(solver.timesteps, solver.given, strict=True):
            parts.append(self._graphs.denoise(solver.sum(weights, parts), timestep, embedding))
            if self.on_step is not None:
                self.on_step()
        return in_rows(self._graphs.decode(solver.sum(solver.result, parts)))


def in_rows(image: Planes) -> NDArray[np.float32]:
    """(1, 3, h, w) as (h, w, 3)."""
    return np.ascontiguousarray(image[0].transpose(1, 2, 0))
