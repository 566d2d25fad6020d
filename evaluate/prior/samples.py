"""Samples of a face prior: one file each, named by all that made it, so that a run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from authface.console import Console
from authface.engine.workers import Begun, Keep, Work
from authface.errors import AuthfaceError, UsageError, one_line
from authface.evaluate.images import parquet_files
from authface.evaluate.measure import HERE, Workers
from authface.evaluate.runtime import weights_of
from authface.evaluate.settings import PriorEvaluationSettings
from authface.files import write_errors, write_file
from authface.imaging.decode import encode_png
from authface.models import sdxl
from authface.models.families import ModelSource, Parts, load, pick_device, resolve
from authface.models.layout import BASE
from authface.models.sampling import make_scheduler
from authface.models.sdxl import spatial_factor
from authface.store.parquet import read_text

if TYPE_CHECKING:
    import torch


FOLDER = "samples"
VERSION = 1
"""Raised when other pixels come of the same recipe."""
_COLUMNS = {"none": "prompt_semantic", "semantic": "prompt_semantic", "all": "prompt"}


@dataclass(frozen=True)
class SampleRequest:
    """One sample to draw."""

    prompt: str
    """Of the text encoders."""
    seed: int
    """Of its noise, 0..2^63-1."""
    judged_by: str = ""
    """What HPSv2 judges it by."""


Batch = tuple[SampleRequest, ...]
"""Samples that are drawn together."""


@dataclass(frozen=True)
class Drawn:
    """A sample as a PNG file, or the reason why there is none."""

    request: SampleRequest
    png: bytes
    reason: str = ""


@dataclass(frozen=True)
class DrawWork(Work[Batch, Drawn]):
    """What a worker needs to draw samples, on the device that it has."""

    settings: PriorEvaluationSettings
    device: str

    def start(self) -> Begun[Batch, Drawn]:
        """The family is loaded with the first batch."""
        return partial(_draw, Sampler(self.settings, self.device, Path()))

    def failed(self, row: Batch, reason: str, detail: str) -> list[Drawn]:
        """Reasons in the place of samples."""
        return [Drawn(one, b"", f"{reason}: {detail}") for one in row]


def _draw(sampler: Sampler, batches: Sequence[Batch], keep: Keep[Drawn]) -> None:
    for place, batch in enumerate(batches):
        keep(place, sampler.sample(batch))


def noise_seed(seed: int, number: int) -> int:
    """The seed of sample `number` of a run, whatever it is asked for."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8]) >> 1


def sample_requests(settings: PriorEvaluationSettings, seed: int, limit: int = 0) -> list[SampleRequest]:
    """Samples to draw for the prompts of a dataset, or of its first `limit` rows. Raises UsageError for none.

    HPSv2 judges by the semantic tags, whatever was asked: so its figures of several priors can be compared.
    """
    column = _COLUMNS[settings.prompts]
    rows: list[tuple[str, str]] = []
    for path in parquet_files(settings.dataset, settings.split, (column, "prompt_semantic"), "evaluate.prior"):
        rows += [(row[column], row["prompt_semantic"]) for row in read_text(path, sorted({column, "prompt_semantic"}))]
    rows = rows[:limit] if limit else rows
    each = settings.per_prompt
    return [
        SampleRequest("" if settings.prompts == "none" else prompt, noise_seed(seed, each * row + n), semantic)
        for row, (prompt, semantic) in enumerate(rows)
        for n in range(each)
    ]


class Sampler:
    """A family's U-Net guided by prompts alone, by diffusers' stock pipeline, here or in `workers`.

    Each sample has a generator of its own on the CPU: neither batch nor order changes its noise. Raises UsageError for
    a model or device that is none, AuthfaceError where its files cannot be had.
    """

    def __init__(self, settings: PriorEvaluationSettings, device: str, folder: Path, workers: Workers = HERE) -> None:
        import torch

        self._settings = settings
        self._source: ModelSource = resolve(settings.model)
        self.device = pick_device(device)
        self._dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self._folder = folder / FOLDER
        self._workers = workers
        self._kind = workers.device(lambda: self.device).type
        """Of the device that draws."""
        self.weights: dict[str, str] = weights_of(settings.model, BASE)
        self._recipe: Mapping[str, Any] = {
            "version": VERSION,
            "weights": self.weights,
            "device": self._kind,
            **{name: getattr(settings, name) for name in ("scheduler", "steps", "guidance", "size")},
        }

    def file(self, request: SampleRequest) -> Path:
        """Where a sample lies, drawn or not."""
        recipe = json.dumps([self._recipe, request.prompt, request.seed], sort_keys=True)
        return self._folder / f"{hashlib.sha256(recipe.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.png"

    def draw(self, requests: Sequence[SampleRequest], title: str, console: Console) -> int:
        """Draw the samples that are not there yet; how many were. Raises AuthfaceError where the disk refuses."""
        missing = list({self.file(one): one for one in requests if not self.file(one).is_file()}.values())
        if not missing:
            return 0
        with write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        size = self._settings.batch
        batches = [tuple(missing[at : at + size]) for at in range(0, len(missing), size)]
        with console.progress(title, len(missing), "samples") as tick:
            for drawn in self._drawn(batches):
                for one in drawn:
                    if one.reason:
                        raise AuthfaceError(f"no sample of {one_line(one.request.prompt, 80)!r}: {one.reason}")
                    write_file(self.file(one.request), one.png)
                tick(len(drawn))
        return len(missing)

    def _drawn(self, batches: Sequence[Batch]) -> Iterator[list[Drawn]]:
        """The samples of each batch, in any order."""
        if self._workers.one_device:
            yield from map(self.sample, batches)
            return
        work = DrawWork(self._settings, self._kind)
        for _, drawn in self._workers.learned()(work, ([batch] for batch in batches)):
            yield drawn

    def sample(self, batch: Batch) -> list[Drawn]:
        """The samples of a batch as files; nothing is written."""
        return [Drawn(one, encode_png(rgb)) for one, rgb in zip(batch, self._sample(batch), strict=True)]

    @cached_property
    def _parts(self) -> Parts:
        return load(self._source, BASE, self.device, self._dtype)

    @cached_property
    def size(self) -> int:
        """Side of the samples, pixels. Raises UsageError where the family cannot draw the size of the settings."""
        config = self._parts.unet.config
        factor = spatial_factor(self._parts.vae)
        size = self._settings.size or int(config.sample_size) * factor
        grid = factor * 2 ** (len(config.block_out_channels) - 1)
        if size % grid:
            raise UsageError(f"evaluate.prior.size={size}: this model takes multiples of {grid} px")
        return size

    @cached_property
    def _pipeline(self) -> Any:
        import diffusers

        scheduler = make_scheduler(self._settings.scheduler, self._parts.scheduler.config)
        made = diffusers.StableDiffusionXLPipeline(
            vae=self._parts.vae, unet=self._parts.unet, text_encoder=None, text_encoder_2=None, tokenizer=None,
            tokenizer_2=None, scheduler=scheduler, add_watermarker=False,
        )  # fmt: skip
        made.set_progress_bar_config(disable=True)
        return made

    def _sample(self, batch: Sequence[SampleRequest]) -> list[NDArray[Any]]:
        """(size, size, 3) uint8 RGB each."""
        import torch

        guided = self._settings.guidance if any(one.prompt for one in batch) else 1.0  # "" away from "" is nowhere
        text = sdxl.encode_prompts(self._parts, [*(one.prompt for one in batch), ""])
        latents: torch.Tensor = self._pipeline(
            prompt_embeds=text.states[:-1], pooled_prompt_embeds=text.pooled[:-1],
            negative_prompt_embeds=text.states[-1:].expand(len(batch), -1, -1),
            negative_pooled_prompt_embeds=text.pooled[-1:].expand(len(batch), -1),
            height=self.size, width=self.size, num_inference_steps=self._settings.steps, guidance_scale=guided,
            generator=[torch.Generator().manual_seed(one.seed) for one in batch], output_type="latent",
        ).images  # fmt: skip
        if not torch.isfinite(latents).all():
            raise AuthfaceError(
                f"{one_line(self._settings.model)} draws latents that are no numbers in {self._dtype}: "
                "try --device cpu, which computes in float32"
            )
        with torch.inference_mode():
            return [sdxl.to_rgb(sdxl.decode(self._parts.vae, one[None]))[0] for one in latents]
