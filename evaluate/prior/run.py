"""`authface evaluate prior`: samples of a family's face prior in, FID, preference and obedience out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from authface import Tagger
from authface.console import Console
from authface.errors import AuthfaceError, ImageError, UsageError
from authface.evaluate.cache import Values
from authface.evaluate.prior.figures import Bench, fid_to_faces, fid_to_ffhq, preferences, sample_rgb
from authface.evaluate.prior.samples import Asked, Sampler, asked_of, noise_seed
from authface.evaluate.prior.steering import Steered, first_tag, share_of, steered
from authface.evaluate.protocol import device_name, set_sha256, versions
from authface.evaluate.settings import PriorSettings
from authface.evaluate.sources import Sources, open_sources
from authface.evaluate.weights import Weights
from authface.metrics.stats import Mean, mean_of

NOTES = {
    "fid_basicsr": "FID to the real faces by BasicSR's Inception, bilinear to 299 px; less is better",
    "fid_clean": "FID to the real faces as clean-fid computes it; less is better",
    "fid_ffhq_basicsr": "FID to FFHQ at 512 px by BasicSR's Inception, against inception_FFHQ_512.pth",
    "fid_ffhq_clean": "FID to FFHQ at 512 px as clean-fid computes it, against ffhq_clean_trainval70k_512",
    "hpsv2": "HPSv2 of each sample and the semantic tags of its row, whatever was asked; more is better",
    "faces": "share of the samples in which a face is found, 0..1",
    "steering": "a tag's share of the samples it was asked for less that of its opposite's, mean of the tags, -1..1",
}
"""By figure, in the order they are shown in."""


@dataclass(frozen=True)
class Figure:
    """One figure of the samples, with its 95 % interval where it has one."""

    value: float
    count: int
    """Samples behind it; of `steering` seeds."""
    low: float | None = None
    high: float | None = None


@dataclass
class PriorReport:
    """What was drawn and how it was judged."""

    asked: list[Asked]
    samples: list[Path]
    """Of each that was asked for."""
    drawn: int = 0
    """Samples that this run drew; the others were there."""
    values: dict[str, Figure] = field(default_factory=dict)
    preferences: list[float] = field(default_factory=list)
    """HPSv2 of each sample; empty where it was not measured."""
    steering: list[Steered] = field(default_factory=list)
    shown: dict[str, list[Path]] = field(default_factory=dict)
    """Samples of the opposites by prompt."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Why a figure is not there, one line each."""
    protocol: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and prior.json."""
        return {
            "values": {name: asdict(figure) for name, figure in self.values.items()},
            "steering": [asdict(found) for found in self.steering],
            "unmeasured": self.unmeasured,
            "protocol": self.protocol,
        }


def evaluate_prior(
    settings: PriorSettings, out: Path, device: str, seed: int, limit: int, console: Console
) -> PriorReport:
    """Draw what `out` lacks and judge all of it; samples and values are kept there.

    Raises UsageError where a model, dataset or setting is none, AuthfaceError where the disk refuses.
    """
    if seed < 0:
        raise UsageError(f"--seed {seed}: seeds are 0 and more")
    asked = asked_of(settings, seed, limit)
    real = open_sources(settings.reference or settings.dataset, settings.split, "evaluate.prior")
    sampler = Sampler(settings, device, out)
    report = PriorReport(asked, [sampler.file(one) for one in asked])
    report.drawn = sampler.draw(asked, "samples", console)
    with Values(out) as values:
        bench = Bench(report.samples, sampler.device, Weights(console.log), values, console)
        for name, measured in _figures(report, settings, bench, real, seed).items():
            try:
                report.values[name] = measured()
            except AuthfaceError as error:
                report.unmeasured[name] = str(error)
                console.log(str(error))
    _obedience(report, settings, sampler, seed, console)
    digests = zip((path.name for path in report.samples), bench.digests, strict=True)
    report.protocol = {
        "model": settings.model,
        "samples": len(asked),
        "samples_sha256": set_sha256(digests),
        "settings": settings.model_dump(mode="json"),
        "size": sampler.size,
        "real_faces": len(real),
        "seed": seed,
        "device": device_name(str(sampler.device)),
        "weights": sampler.weights | bench.used,
        "versions": versions("diffusers", "transformers", "pyiqa", "numpy", "dlib-bin", "onnxruntime"),
    }
    return report


def _figures(
    report: PriorReport, settings: PriorSettings, bench: Bench, real: Sources, seed: int
) -> dict[str, Callable[[], Figure]]:
    """What measures each figure, and raises AuthfaceError where its weights are missing."""

    def preferred() -> Figure:
        report.preferences = preferences(bench, settings.hps, [one.judged_by for one in report.asked])
        return _figure(mean_of(report.preferences, seed, settings.resamples))

    def fid(value: float) -> Figure:
        return Figure(value, len(report.asked))

    return {
        "fid_basicsr": lambda: fid(fid_to_faces(bench, "fid_basicsr", real)),
        "fid_clean": lambda: fid(fid_to_faces(bench, "fid_clean", real)),
        "fid_ffhq_basicsr": lambda: fid(fid_to_ffhq(bench, "fid_ffhq_basicsr", settings.ffhq_stats)),
        "fid_ffhq_clean": lambda: fid(fid_to_ffhq(bench, "fid_ffhq_clean", None)),
        "hpsv2": preferred,
    }


def _figure(mean: Mean) -> Figure:
    return Figure(mean.mean, mean.count, mean.low, mean.high)


def _obedience(report: PriorReport, settings: PriorSettings, sampler: Sampler, seed: int, console: Console) -> None:
    """Faces in the samples; then draw the opposites, and count what was asked for in both of each two."""
    tagger = Tagger()
    found = [_tags(tagger, path) for path in report.samples]
    faces = share_of(sum(tags is not None for tags in found), len(found))
    report.values["faces"] = Figure(faces.share, faces.of, faces.low, faces.high)
    prompts = dict.fromkeys(prompt for pair in settings.opposites for prompt in pair)
    seeds = [noise_seed(seed, number) for number in range(settings.steer_samples)]
    asked = {
        prompt: [Asked(f"{settings.steer_prompt}, {prompt}".removeprefix(", "), one) for one in seeds]
        for prompt in prompts
    }
    report.drawn += sampler.draw([one for many in asked.values() for one in many], "opposites", console)
    report.shown = {prompt: [sampler.file(one) for one in many] for prompt, many in asked.items()}
    tags = {prompt: [_tags(tagger, path) or frozenset() for path in paths] for prompt, paths in report.shown.items()}
    gains: list[list[int]] = []
    for pair in settings.opposites:
        for one, other in (pair, pair[::-1]):
            where, not_where = ([first_tag(one) in said for said in tags[prompt]] for prompt in (one, other))
            report.steering.append(steered(one, other, where, not_where))
            gains.append([a - b for a, b in zip(where, not_where, strict=True)])
    if gains:
        each = [sum(of_seed) / len(gains) for of_seed in zip(*gains, strict=True)]
        report.values["steering"] = _figure(mean_of(each, seed, settings.resamples))


def _tags(tagger: Tagger, path: Path) -> frozenset[str] | None:
    """Names of the tags of a sample; None where it shows no face."""
    try:
        return frozenset(tag.name for tag in tagger(sample_rgb(path)))
    except ImageError:
        return None
