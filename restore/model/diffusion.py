"""Crops in, restored crops out: a face prior guided by a ControlNet, alone or behind a cleaner.

The loop, over stock diffusers classes, is that of AuthFace's released inference, a stock SDXL ControlNet pipeline that
starts from pure noise, or of the image-to-image pipeline, which starts from the photo; with one seed a face, so that
neither batch nor order changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray

from authface.errors import AuthfaceError, UsageError, one_line
from authface.faces.geometry import Side
from authface.models import sdxl
from authface.models.cleaner import Cleaner, clean
from authface.models.families import ModelSource, Parts, fetch, load
from authface.models.graphs import FaceNoise, high_pass
from authface.models.layout import PARTS, part_files
from authface.models.sampling import Sampling, begin, make_scheduler, model_side, sampling_of, settings_preset
from authface.models.sdxl import TextEmbedding, encode_prompts, spatial_factor, time_ids, to_rgb, to_unit
from authface.restore.model import unet_steps
from authface.restore.model.crops import Clean, CleanedRestorer, ColourFix, DetailPrior, NoPrior, OnStep, mixed
from authface.restore.model.placement import Placement
from authface.restore.model.unet_steps import Eager, Features, StepInputs, StepRunner, decode, encode
from authface.restore.settings import RestoreSettings

T = TypeVar("T", bound="np.generic")
TEXT_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


class Condition(NamedTuple):
    """Conditions of the model in every step: embeddings of n images and as many rows of text and time ids."""

    image: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    time_ids: torch.Tensor


class Draws(NamedTuple):
    """Generators of the noise of some faces: one for all, as in the release, or one per face."""

    steps: torch.Generator | list[torch.Generator]
    """Generators of the noise that a sampler may add in a step."""
    faces: Sequence[FaceNoise] = ()
    """Generators of the initial noise; none if one generator draws that, too."""

    def begin(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """(n, c, h, w) float32 initial noise."""
        if not self.faces:
            return torch.as_tensor(randn_tensor(shape, self.steps, device, torch.float32))
        return torch.from_numpy(np.stack([face.normal(shape[1:]) for face in self.faces])).to(device)


class DiffusionRestorer:
    """An SDXL-shaped U-Net with a ControlNet over the pixels of the degraded crop.

    `parts` holds `unet`, `controlnet`, `vae` and `scheduler`; `text` the embeddings of the prompt and, in a
    second row, of the negative prompt. U-Net and ControlNet may be of half precision; the latents and the VAE, which
    overflows in float16, are of float32. Raises UsageError where `size` does not fit the latent grid, or for
    `reuse` of compiled networks.
    """

    def __init__(
        self, parts: Parts, text: TextEmbedding, sampling: Sampling, size: int, fidelity: float, placement: Placement
    ) -> None:
        if placement.compile and sampling.reuse > 1:
            raise UsageError(f"restore.compile and restore.reuse={sampling.reuse} do not go together: choose one")
        self.placement = placement
        self.engine = "torch"
        self.colour: ColourFix = "wavelet"
        self.on_step: OnStep | None = None
        self._given = torch.nn.Identity()  # one for all: compiled code knows it again
        self.unet, self.controlnet, self.vae = parts.unet, parts.controlnet, parts.vae
        self.schedule = parts.scheduler.config
        self.text, self.sampling, self.fidelity = text, sampling, fidelity
        self.factor = spatial_factor(parts.vae)
        grid = self.factor * 2 ** (len(parts.unet.config.block_out_channels) - 1)
        if size % grid:
            raise UsageError(f"restore.size={size}: this model takes multiples of {grid} px")
        self.size = size
        self.side = Side(size)
        seed = sampling.shared_seed
        self._shared = None if seed is None else torch.Generator("cpu").manual_seed(seed)

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Restored (size, size, 3) uint8 RGB crops; `fidelity` 0..1 is the settings' unless given.

        Raises AuthfaceError where memory or precision fall short.
        """
        return self._batches(
            self._restored, crops, seeds, self.sampling.at(self.fidelity if fidelity is None else fidelity)
        )

    def detail(self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """The detail that the prior adds to (size, size, 3) uint8 RGB crops: (size, size, 3) levels, of any sign.

        The high pass of the decoded latents less those of the crop itself, so that losses of the VAE cancel.
        Raises AuthfaceError as `restore` does.
        """
        return self._batches(self._added, crops, seeds, self.sampling)

    def _batches(
        self,
        batch: Callable[..., Iterable[NDArray[T]]],
        crops: Sequence[NDArray[np.uint8]],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[NDArray[T]]:
        step = sampling.batch
        starts = range(0, len(crops), step)
        try:
            with torch.inference_mode():
                return [
                    one for i in starts for one in batch(np.stack(crops[i : i + step]), seeds[i : i + step], sampling)
                ]
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(
                f"{step} faces of {self.size} px at a time do not fit into memory: -O restore."
                + (f"batch={step // 2}" if step > 1 else "offload=sequential")
            ) from error
        except RuntimeError as error:
            if self.placement.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                said = one_line(" ".join(str(error).split()), 200)  # the reason is in its second line
                raise AuthfaceError(f"torch.compile: {said}; -O restore.compile=false") from error
            raise

    def _restored(self, crops: NDArray[np.uint8], seeds: Sequence[int], sampling: Sampling) -> Iterator[NDArray[Any]]:
        image, draws = self._begun(crops, seeds)
        photo = self._encoded(image) if sampling.needs_photo else None
        found = (self._denoise(image, photo, draws, sampling) for _ in range(sampling.samples))
        restored = np.rint(np.mean([to_rgb(self._decoded(one)) for one in found], axis=0)).astype(np.uint8)
        return (mixed(face, crop, sampling.levels, sampling.share) for face, crop in zip(restored, crops, strict=True))

    def _added(
        self, crops: NDArray[np.uint8], seeds: Sequence[int], sampling: Sampling
    ) -> Iterator[NDArray[np.float32]]:
        image, draws = self._begun(crops, seeds)
        photo = self._encoded(image)
        latents = self._denoise(image, photo if sampling.needs_photo else None, draws, sampling)
        added = (self._decoded(latents) - self._decoded(photo)).mul(127.5).permute(0, 2, 3, 1)
        return (high_pass(np.ascontiguousarray(one)) for one in added.cpu().numpy())

    def _begun(self, crops: NDArray[np.uint8], seeds: Sequence[int]) -> tuple[torch.Tensor, Draws]:
        """(n, size, size, 3) crops as images of 0..1, and the generators of their noise."""
        image = to_unit(crops).to(self.placement.device)
        if self._shared is not None:
            return image, Draws(self._shared)
        drawn = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        return image, Draws(drawn, [FaceNoise(seed) for seed in seeds])

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Images of about -1..1, one at a time: the decoder takes more memory than all the rest."""
        if not bool(torch.isfinite(latents).all()):
            raise AuthfaceError(f"the model's values overflow in {self.unet.dtype}: -O restore.dtype=float32")
        with self.placement.on_device(self.vae):
            return torch.cat([sdxl.decode(self.vae, one[None], self.placement.device) for one in latents])

    def _denoise(
        self, image: torch.Tensor, photo: torch.Tensor | None, draws: Draws, sampling: Sampling
    ) -> torch.Tensor:
        """Latents (n, c, h, w) float32 for `image` (n, 3, size, size) of 0..1; from noise, or from latents `photo`."""
        scheduler = make_scheduler(sampling.scheduler, self.schedule)
        drawing = {"generator": draws.steps} if "generator" in signature(scheduler.step).parameters else {}
        timesteps = begin(scheduler, sampling, image.device)
        side = self.size // self.factor
        shape = (len(image), self.unet.config.in_channels, side, side)
        noise = draws.begin(shape, image.device)
        if photo is None or len(timesteps) == scheduler.num_inference_steps:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(photo, noise, timesteps[:1].repeat(len(image)))
        rows = [0, 1] if sampling.guidance > 1 else [0]
        with (
            self.placement.on_device(self.unet, self.controlnet),
            self._condition(image.to(self.unet.dtype), rows) as condition,
        ):
            first = StepInputs(latents.to(self.unet.dtype).repeat(len(rows), 1, 1, 1), timesteps[0], *condition)
            run = self._run(first, sampling, len(timesteps))
            predict = self._predictor(run, sampling)
            for index, t in enumerate(timesteps):
                run.load(scheduler.scale_model_input(latents, t).to(self.unet.dtype).repeat(len(rows), 1, 1, 1), t)
                # A copy: the next step may write to the same place.
                predicted = predict(index).to(torch.float32, copy=True).chunk(len(rows))
                guided = predicted[0]
                if rows[1:]:
                    guided = predicted[1] + sampling.guidance * (predicted[0] - predicted[1])
                latents = scheduler.step(guided, t, latents, **drawing, return_dict=False)[0]
                if self.on_step is not None:
                    self.on_step()
        return torch.as_tensor(latents)

    def _encoded(self, image: torch.Tensor) -> torch.Tensor:
        """The latents of the crops, one at a time: the encoder takes more memory than all the rest."""
        with self.placement.on_device(self.vae):
            return torch.cat([sdxl.encode(self.vae, one[None] * 2 - 1, self.placement.device) for one in image])

    @contextmanager
    def _condition(self, image: torch.Tensor, rows: list[int]) -> Iterator[Condition]:
        """The conditions of the model, for each of `rows` of the text in turn with all of the images.

        Within the block the ControlNet takes the embedding of its images in their place: it is the same in every step
        and every row, and a third of a step's time.
        """
        count = len(rows) * len(image)
        states, pooled = (
            part[rows].repeat_interleave(len(image), dim=0).to(image) for part in (self.text.states, self.text.pooled)
        )
        embedding = self.controlnet.controlnet_cond_embedding
        embedded = embedding(image).repeat(len(rows), 1, 1, 1)
        self.controlnet.controlnet_cond_embedding = self._given
        try:
            yield Condition(embedded, states, pooled, time_ids(self.size, count, image))
        finally:
            self.controlnet.controlnet_cond_embedding = embedding

    def _run(self, first: StepInputs, sampling: Sampling, steps: int) -> StepRunner:
        """The runner of `steps` steps that begin with `first`, by the placement."""
        if not self.placement.records:
            return Eager(first)
        return unet_steps.graphs_of(self.unet, self.placement.device).run(first, sampling.control_scale, steps)

    def _predictor(self, run: StepRunner, sampling: Sampling) -> Callable[[int], torch.Tensor]:
        """A function from the index of the step in `run` to its predicted noise or velocity."""
        scale = sampling.control_scale
        kept: Features

        def features(step: StepInputs) -> Features:
            (down, mid), own = run.concurrently(lambda: self._residuals(step, scale), lambda: encode(self.unet, step))
            return own.with_residuals(down, mid)

        def predict(index: int) -> torch.Tensor:
            nonlocal kept
            if sampling.reuse == 1 and run.recorded:  # in halves, so that the ControlNet runs beside the encoder
                return run("predict", lambda step: decode(self.unet, features(step), step))
            if sampling.reuse == 1:
                return run("predict", lambda step: self._predict(step, scale))
            if index % sampling.reuse == 0:
                kept = run("encode", features)
            return run("decode", lambda step: decode(self.unet, kept, step))

        return predict

    def _predict(self, step: StepInputs, scale: float) -> torch.Tensor:
        """Both networks, by their stock forward."""
        down, mid = self._residuals(step, scale)
        predicted: torch.Tensor = self.unet(
            step.noisy,
            step.t,
            encoder_hidden_states=step.states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            added_cond_kwargs=step.added,
            return_dict=False,
        )[0]
        return predicted

    def _residuals(self, step: StepInputs, scale: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The ControlNet's residuals: of the down blocks, and of the mid block."""
        down, mid = self.controlnet(
            step.noisy,
            step.t,
            encoder_hidden_states=step.states,
            controlnet_cond=step.image,
            conditioning_scale=scale,
            added_cond_kwargs=step.added,
            return_dict=False,
        )
        return down, mid


def cleaning_with(cleaner: Cleaner, device: torch.device, size: int) -> Clean:
    """A function that cleans faces on `device`; `size` is suggested if memory is insufficient."""

    def cleaned(crop: NDArray[np.uint8], perception: float, seed: int, on_pass: OnStep | None) -> NDArray[np.float32]:
        try:
            return clean(cleaner, crop, device, perception, seed, on_pass)
        except torch.OutOfMemoryError as error:
            raise AuthfaceError(
                f"a face of {len(crop)} px does not fit into memory: -O restore.size={size} shrinks it"
            ) from error

    return cleaned


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
        if not part_files(fetch(self.source, PARTS), "cleaner"):
            return None
        net = load(self.source, ["cleaner"], self.placement.device, torch.float32).cleaner
        return Cleaner(net.to(memory_format=torch.channels_last))

    def text(self, prompt: str, negative: str) -> TextEmbedding:
        """The embeddings of the two prompts."""
        if (prompt, negative) not in self._texts:
            encoders = load(self.source, TEXT_PARTS, "cpu", torch.float32)
            self._texts[prompt, negative] = encode_prompts(encoders, [prompt, negative])
        return self._texts[prompt, negative]

    def restorer(self, settings: RestoreSettings) -> CleanedRestorer | DiffusionRestorer:
        """A restorer with these settings. Raises AuthfaceError if the model is broken or does not fit."""
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
    if name == "auto":
        name = "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype
