"""Samples of a face prior, one file each, and the figures of them as a set.

A sample is named by all that made it, so that a run goes on where it stopped. The figures are FID to real faces and to
FFHQ's statistics, and HPSv2; they are kept by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.devices import pick_device
from authface.engine.workers import Begun, Keep, Work
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.evaluate.catalogue import MetricWeights, sha256s
from authface.evaluate.images import SourceFaces, parquet_files
from authface.evaluate.measure import HERE, ValueCache, Workers, value_key
from authface.evaluate.runtime import weights_of
from authface.evaluate.settings import PriorEvaluationSettings
from authface.extras import need
from authface.files import sha256_of, write_errors, write_file
from authface.imaging.decode import decode, encode_png, read
from authface.metrics import quality
from authface.metrics.quality import loading, pyiqa_version, to_batch
from authface.models import sdxl
from authface.models.families import ModelSource, Parts, load, resolve
from authface.models.layout import BASE
from authface.models.sampling import make_scheduler
from authface.models.sdxl import spatial_factor
from authface.store.rows import read_text

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


ARCHITECTURE = "ViT-H-14"


def need_extra() -> None:
    """Raise UsageError where open_clip is not installed: before 4 GB of weights are fetched for nothing."""
    need("hpsv2", "hps", "open_clip")


class HPSv2:
    """The network with weights of `checkpoint`. Raises AuthfaceError where open_clip or good weights are missing."""

    def __init__(self, checkpoint: Path, device: torch.device, architecture: str = ARCHITECTURE) -> None:
        need_extra()
        import open_clip

        self._device = device
        with loading("hpsv2 is not measured: its weights cannot be loaded"):
            self._network: Any = open_clip.create_model(architecture, pretrained=str(checkpoint), device=device).eval()
            self._tokens: Any = open_clip.get_tokenizer(architecture)
        self._seen = open_clip.get_model_preprocess_cfg(self._network)

    def __call__(self, rgb: NDArray[np.uint8], prompt: str) -> float:
        """Cosine of a square (h, w, 3) image and a prompt, as the release computes it; good ones have about 0.3."""
        import torch
        from torchvision.transforms.functional import InterpolationMode, normalize, resize

        side = self._network.visual.image_size
        small = resize(to_batch([rgb], self._device), list(side), InterpolationMode.BICUBIC, antialias=True)
        with torch.inference_mode():
            image = self._network.encode_image(normalize(small, self._seen["mean"], self._seen["std"]), normalize=True)
            text = self._network.encode_text(self._tokens([prompt]).to(self._device), normalize=True)
            return float((image.double() * text.double()).sum())


@dataclass
class Bench:
    """The samples, and what figures of them are made with."""

    samples: Sequence[Path]
    device: torch.device
    weights: MetricWeights
    values: ValueCache
    console: Console

    def __post_init__(self) -> None:
        self.digests = [sha256_of(path) for path in self.samples]
        self.used: dict[str, str] = {}
        """Name and sha256 of every file of weights behind a figure."""

    def files(self, metric: str, own: Path | None = None) -> dict[str, Path]:
        """The weights of a metric. Raises AuthfaceError, one line, where they are missing."""
        found = self.weights.ensure(metric, own)
        self.used |= sha256s(found)
        return found

    def key(self, metric: str, files: dict[str, Path], *contents: str) -> str:
        """What a value is kept under."""
        version = " ".join([f"pyiqa {pyiqa_version()}", self.device.type, *sha256s(files).values()])
        return value_key(metric, version, *contents)


def fid_to_faces(bench: Bench, metric: str, reference: SourceFaces) -> float:
    """`fid_basicsr` or `fid_clean` to all faces of `reference`, however few were drawn. Raises AuthfaceError.

    What is aimed at is the distribution of real faces, and moments of fewer of them only add to FID's bias, which grows
    with 1 / n of each set (Chong and Forsyth 2020).
    """
    files = bench.files(metric)
    faces = [hashlib.sha256(source.data()).hexdigest() for source in reference.read()]

    def gaussian(network: quality.Inception) -> quality.Gaussian:
        with bench.console.progress(f"{metric}: real faces", len(faces), "faces") as tick:
            found = quality.feature_moments(network, _real_images(reference, tick))
        return found.mean, found.covariance

    return _fid(bench, metric, bench.key(metric, files, *sorted(bench.digests), "to", *sorted(faces)), gaussian)


def fid_to_ffhq(bench: Bench, metric: str, own: Path | None) -> float:
    """`fid_ffhq_basicsr` or `fid_ffhq_clean`; `own` is a file of statistics. Raises AuthfaceError."""
    files = bench.files(metric, own)
    statistics = list(files.values())[-1]
    key = bench.key(metric, files, *sorted(bench.digests))
    return _fid(bench, metric, key, lambda _: quality.reference_statistics(metric, statistics))


def _fid(bench: Bench, metric: str, key: str, reference: Callable[[quality.Inception], quality.Gaussian]) -> float:
    known = bench.values.get(key)
    if known is not None:
        return known
    network = quality.Inception(metric, bench.device)
    to = reference(network)
    with bench.console.progress(metric, len(bench.samples), "samples") as tick:
        found = quality.feature_moments(network, _sample_images(bench.samples, tick))
    value = quality.frechet_distance((found.mean, found.covariance), to)
    bench.values.put([(key, value)])
    return value


def preferences(bench: Bench, version: str, texts: Sequence[str]) -> list[float]:
    """HPSv2 of each sample and its text. Raises AuthfaceError where the extra or the weights are missing."""
    need_extra()
    files = bench.files(f"hpsv2 {version}")
    judge: HPSv2 | None = None
    scores = []
    with bench.console.progress("hpsv2", len(texts), "samples") as tick:
        for path, digest, text in zip(bench.samples, bench.digests, texts, strict=True):
            key = bench.key("hpsv2", files, digest, text)
            value = bench.values.get(key)
            if value is None:
                judge = judge or HPSv2(next(iter(files.values())), bench.device)
                value = judge(sample_rgb(path), text)
                bench.values.put([(key, value)])
            scores.append(value)
            tick()
    return scores


def sample_rgb(path: Path) -> NDArray[np.uint8]:
    """The pixels of a sample. Raises AuthfaceError for one that was damaged since."""
    try:
        return read(path).rgb
    except ImageError as error:
        raise AuthfaceError(f"{one_line(path)} is damaged ({error.reason}): delete it, it is drawn again") from error


def _sample_images(paths: Sequence[Path], tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        yield sample_rgb(path)
        tick()


def _real_images(sources: SourceFaces, tick: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    for source in sources.read():
        try:
            yield decode(source.data()).rgb
        except ImageError as error:
            raise AuthfaceError(f"the real face {one_line(source.id)} cannot be used: {error}") from error
        tick()
