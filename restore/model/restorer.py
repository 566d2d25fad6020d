"""Restorers of aligned faces: a model by name or file, or the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.errors import UsageError, one_line
from authface.extras import lack, need
from authface.faces.geometry import Side
from authface.files import sha256_of
from authface.models import hub_cache, networks
from authface.models.families import BUILTIN, ModelSource, Parts, fetch, load, other_restorers, resolve
from authface.models.layout import MANIFEST, OWN_PRESETS, PARTS, onnx_files, part_files
from authface.models.networks import NetworkFile
from authface.models.sampling import PAPER_SIZE, model_side, sampling_of, settings_preset
from authface.models.sdxl import TextEmbedding, encode_prompts
from authface.restore.model.crops import CleanedRestorer, ColourFix, DetailPrior, NoPrior
from authface.restore.model.network import VERSION as NETWORK_VERSION
from authface.restore.model.network import LoadedNetwork
from authface.restore.model.onnx import LoadedGraphs, choose
from authface.restore.model.placement import Placement, placement_of
from authface.restore.settings import RestoreSettings

if TYPE_CHECKING:
    import torch

    from authface.models.cleaner import Cleaner
    from authface.restore.model.diffusion import DiffusionRestorer

TEXT_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
IDENTITY = "identity"


class CropRestorer(Protocol):
    """A restorer of aligned faces: a diffusion family, or any other function from crops to crops."""

    @property
    def side(self) -> Side:
        """Size of the crops that it takes and returns."""
        ...

    @property
    def colour(self) -> ColourFix:
        """How its faces take the colours of their inputs, unless the settings specify it."""
        ...

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (side, side, 3) uint8 RGB crops, each as large as its own crop.

        A result depends on its crop and its seed alone. `fidelity` 0..1 is that of the settings unless given.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """Returns faces unchanged: the result shows the effect of detection, alignment and pasting on a photo."""

    side: Side = Side(PAPER_SIZE)
    colour: ColourFix = "none"

    @classmethod
    def make(cls, settings: RestoreSettings, device: str) -> Self:
        """A restorer of the settings' size."""
        return cls(Side(settings.size or PAPER_SIZE))

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """The crops as they are."""
        return crops


@dataclass(frozen=True)
class RestorerFiles:
    """A model on disk, not yet loaded: its origin, and a digest by which a later run recognises it."""

    source: ModelSource | NetworkFile
    digest: str

    @property
    def name(self) -> str:
        """Its public name: of a file or folder of the user's, the last part of its path."""
        source = self.source
        if isinstance(source, NetworkFile) or not source.local:
            return source.name
        return "authface-tiny" if source.name == "tiny" else one_line(Path(source.location).name, 80)

    @property
    def version(self) -> str:
        """Identifies its weights on any machine: the beginning of their sha256, or of their manifest's."""
        if isinstance(self.source, NetworkFile):
            return f"sha256 {self.digest[:12]}"
        manifest = fetch(self.source, PARTS) / MANIFEST
        return f"weights.json {sha256_of(manifest)[:12]}" if manifest.is_file() else ""


class Loaded(Protocol):
    """A model's weights in memory, for restorers with many settings: a family, its graphs, or one network."""

    def restorer(self, settings: RestoreSettings) -> CropRestorer:
        """A restorer with these settings. Raises AuthfaceError if the model is broken or does not fit."""
        ...


def builtin_is_missing(name: str) -> bool:
    """Whether `name` is the built-in model and this version ships without its weights."""
    return name == "tiny" and not (BUILTIN / "controlnet").is_dir()


def find_weights(name: str, console: Console | None = None) -> RestorerFiles:
    """The files of the model `name`, downloaded if need be.

    A network's digest is that of its content; a family's is of its files' names, sizes and times: reading 19 GB
    would take longer than restoring a photo. Raises UsageError for an unknown name, AuthfaceError if files
    are unavailable.
    """
    if networks.is_network(name):
        network = networks.known(name)
        if network is not None and network.path.suffix in networks.STATE_DICTS:  # before it is downloaded
            lacking = lack(f"--model {network.name}", "restorers", "torch", "spandrel")
            graph = networks.known(f"{network.name}-onnx")
            if lacking:
                raise UsageError(lacking + (f", or --model {graph.name}, which runs without" if graph else ""))
        file = networks.find(name, console or Console())
        return RestorerFiles(file, f"{file.sha256} {NETWORK_VERSION}")
    source = resolve(name, others=other_restorers())
    here = None if source.local else hub_cache.cached(source.location)
    if not source.local and not (here and onnx_files(here.folder)):  # before 14 GB are downloaded
        need(f"--model {one_line(name)}", "restore", "torch", "diffusers", "transformers")
    folder = fetch(source, PARTS)
    digest = hashlib.sha256()
    files = [path for part in PARTS for path in (folder / part).glob("*")]
    for path in sorted(path for path in (*files, folder / OWN_PRESETS) if path.is_file()):
        facts = path.stat()
        digest.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "replace"))
    return RestorerFiles(source, digest.hexdigest())


def load_restorer(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> CropRestorer:
    """The model, ready to restore on ``--device``. Raises AuthfaceError if it is broken or does not fit."""
    return load_weights(files, settings, device_name).restorer(settings)


def runs_graphs(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> bool:
    """Whether a family's graphs in ONNX Runtime are used; raises UsageError as `choose` does."""
    if isinstance(files.source, NetworkFile):
        return False
    return choose(fetch(files.source, PARTS), settings, device_name) is not None


def weights_key(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> Hashable:
    """Everything on which weights in memory depend: restorers with equal keys may share them."""
    if isinstance(files.source, NetworkFile):
        return files.digest, device_name
    graphs = choose(fetch(files.source, PARTS), settings, device_name)
    return files.digest, placement_of(settings, device_name) if graphs is None else (device_name, graphs.weights)


def load_weights(files: RestorerFiles, settings: RestoreSettings, device_name: str) -> Loaded:
    """The model's weights. Raises AuthfaceError as `load_restorer` does."""
    if isinstance(files.source, NetworkFile):
        return LoadedNetwork(files.source, device_name)
    folder = fetch(files.source, PARTS)
    graphs = choose(folder, settings, device_name)
    if graphs is not None:
        return LoadedGraphs(folder, graphs, device_name)
    return LoadedModel(files.source, placement_of(settings, device_name))


class LoadedModel:
    """A model's weights in memory, for restorers of any settings but `model` and those of the placement.

    The text encoders embed a preset's prompts once, on the CPU, and are freed: two thirds of a billion parameters.
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        self.source, self.placement = source, placement
        self._texts: dict[tuple[str, str], TextEmbedding] = {}

    @cached_property
    def parts(self) -> Parts:
        """The modules for denoising."""
        place = self.placement
        precision = pick_dtype(place.dtype, place.device)
        parts = load(self.source, ("unet", "controlnet", "vae", "scheduler"), place.home, precision)
        place.apply(parts)
        return parts

    @cached_property
    def cleaner(self) -> Cleaner | None:
        """The network that cleans faces before the diffusion model adds detail; None if the family has none."""
        import torch

        from authface.models.cleaner import Cleaner

        if not part_files(fetch(self.source, PARTS), "cleaner"):
            return None
        net = load(self.source, ["cleaner"], self.placement.device, torch.float32).cleaner
        return Cleaner(net.to(memory_format=torch.channels_last))

    def text(self, prompt: str, negative: str) -> TextEmbedding:
        """The embeddings of the two prompts."""
        import torch

        if (prompt, negative) not in self._texts:
            encoders = load(self.source, TEXT_PARTS, "cpu", torch.float32)
            self._texts[prompt, negative] = encode_prompts(encoders, [prompt, negative])
        return self._texts[prompt, negative]

    def restorer(self, settings: RestoreSettings) -> CropRestorer:
        """A restorer with these settings. Raises AuthfaceError if the model is broken or does not fit."""
        from authface.restore.model.diffusion import DiffusionRestorer, cleaning_with

        folder, place = fetch(self.source, PARTS), self.placement
        preset = settings_preset(settings, folder)
        size = settings.size or model_side(folder)
        cleaner = None if settings.preset == "official" else self.cleaner
        diffusion: DetailPrior | DiffusionRestorer = NoPrior(size)
        if cleaner is None or preset.detail:
            text = self.text(preset.prompt, preset.negative_prompt)  # first: its encoders are gone when the parts come
            sampling = sampling_of(preset, settings.batch)
            diffusion = whole = DiffusionRestorer(self.parts, text, sampling, size, settings.fidelity, place)
            if cleaner is None:
                return whole
        side = Side(size, own=settings.size is None)
        clean = cleaning_with(cleaner, place.device, size)
        return CleanedRestorer(clean, diffusion, side, settings.fidelity, preset, "torch")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype of `restore.dtype`: auto is float16, the release's, on CUDA and float32 elsewhere."""
    import torch

    if name == "auto":
        name = "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def face_seed(content: str, index: int, seed: int) -> int:
    """The seed, 0..2^63-1, of face `index` (0 is the largest) of the photo whose bytes hash to `content`.

    It does not depend on the file's name, the batch, the order, or the other faces that are restored.
    """
    digest = hashlib.sha256(f"{content}-{index}-{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
