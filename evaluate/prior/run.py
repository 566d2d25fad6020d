"""`authface evaluate prior`: samples of a family's face prior in, FID, preference and obedience out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from authface import Tagger
from authface.console import Console
from authface.errors import AuthfaceError, ImageError, UsageError
from authface.evaluate.measure import HERE, ValueCache, Workers
from authface.evaluate.prior.figures import Bench, fid_to_faces, fid_to_ffhq, preferences, sample_rgb
from authface.evaluate.prior.samples import Sampler, SampleRequest, noise_seed, sample_requests
from authface.evaluate.protocol import device_name, set_sha256, versions
from authface.evaluate.settings import PriorEvaluationSettings
from authface.evaluate.sources import SourceFaces, open_sources
from authface.evaluate.weights import MetricWeights
from authface.metrics.stats import Mean, mean_of, wilson


@dataclass(frozen=True)
class TagShare:
    """`found` of `of` samples, with its 95 % score interval (Wilson 1927), 0..1."""

    found: int
    of: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class SteeringResult:
    """One tag in the samples of two prompts; samples without a face have no tags."""

    tag: str
    asked: str
    """The prompt that names it."""
    against: str
    """The prompt that names its opposite."""
    where_asked: TagShare
    where_not: TagShare
    difference: float
    """Of the shares, -1..1; 0 is a prior that ignores its prompts."""
    low: float
    high: float


def share_of(found: int, of: int) -> TagShare:
    """Of at least one sample."""
    return TagShare(found, of, found / of, *wilson(found, of))


def steering_of(asked: str, against: str, where_asked: Sequence[bool], where_not: Sequence[bool]) -> SteeringResult:
    """`where_asked` says of each sample of `asked` whether that prompt's first tag was found, `where_not` of `against`.

    The difference has Newcombe's hybrid score interval (1998, method 10), as if the two sets were independent: since
    they begin with the same noise it is rather too wide.
    """
    one, two = (share_of(sum(found), len(found)) for found in (where_asked, where_not))
    apart = one.share - two.share
    down = math.hypot(one.share - one.low, two.high - two.share)
    up = math.hypot(one.high - one.share, two.share - two.low)
    return SteeringResult(first_tag(asked), asked, against, one, two, apart, apart - down, apart + up)


def first_tag(prompt: str) -> str:
    """The tag that is looked for."""
    return prompt.partition(",")[0].strip()


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

    requests: list[SampleRequest]
    samples: list[Path]
    """Where each of `requests` lies."""
    drawn: int = 0
    """Samples that this run drew; the others were there."""
    values: dict[str, Figure] = field(default_factory=dict)
    preferences: list[float] = field(default_factory=list)
    """HPSv2 of each sample; empty where it was not measured."""
    steering: list[SteeringResult] = field(default_factory=list)
    opposites: dict[str, list[Path]] = field(default_factory=dict)
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
    settings: PriorEvaluationSettings,
    out: Path,
    device: str,
    seed: int,
    limit: int,
    console: Console,
    workers: Workers = HERE,
) -> PriorReport:
    """Draw what `out` lacks, by `workers`, and judge all of it; samples and values are kept there.

    Raises UsageError where a model, dataset or setting is none, AuthfaceError where the disk refuses.
    """
    if seed < 0:
        raise UsageError(f"--seed {seed}: seeds are 0 and more")
    requests = sample_requests(settings, seed, limit)
    real = open_sources(settings.reference or settings.dataset, settings.split, "evaluate.prior")
    sampler = Sampler(settings, device, out, workers)
    report = PriorReport(requests, [sampler.file(one) for one in requests])
    report.drawn = sampler.draw(requests, "samples", console)
    with ValueCache(out) as values:
        bench = Bench(report.samples, sampler.device, MetricWeights(console.log), values, console)
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
        "samples": len(requests),
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
    report: PriorReport, settings: PriorEvaluationSettings, bench: Bench, real: SourceFaces, seed: int
) -> dict[str, Callable[[], Figure]]:
    """What measures each figure, and raises AuthfaceError where its weights are missing."""

    def preferred() -> Figure:
        report.preferences = preferences(bench, settings.hps, [one.judged_by for one in report.requests])
        return _figure(mean_of(report.preferences, seed, settings.resamples))

    def fid(value: float) -> Figure:
        return Figure(value, len(report.requests))

    return {
        "fid_basicsr": lambda: fid(fid_to_faces(bench, "fid_basicsr", real)),
        "fid_clean": lambda: fid(fid_to_faces(bench, "fid_clean", real)),
        "fid_ffhq_basicsr": lambda: fid(fid_to_ffhq(bench, "fid_ffhq_basicsr", settings.ffhq_stats)),
        "fid_ffhq_clean": lambda: fid(fid_to_ffhq(bench, "fid_ffhq_clean", None)),
        "hpsv2": preferred,
    }


def _figure(mean: Mean) -> Figure:
    return Figure(mean.mean, mean.count, mean.low, mean.high)


def _obedience(
    report: PriorReport, settings: PriorEvaluationSettings, sampler: Sampler, seed: int, console: Console
) -> None:
    """Faces in the samples; then draw the opposites, and count what was asked for in both of each two."""
    tagger = Tagger()
    found = [_tags(tagger, path) for path in report.samples]
    faces = share_of(sum(tags is not None for tags in found), len(found))
    report.values["faces"] = Figure(faces.share, faces.of, faces.low, faces.high)
    prompts = dict.fromkeys(prompt for pair in settings.opposites for prompt in pair)
    seeds = [noise_seed(seed, number) for number in range(settings.steer_samples)]
    asked = {
        prompt: [SampleRequest(f"{settings.steer_prompt}, {prompt}".removeprefix(", "), one) for one in seeds]
        for prompt in prompts
    }
    report.drawn += sampler.draw([one for many in asked.values() for one in many], "opposites", console)
    report.opposites = {prompt: [sampler.file(one) for one in many] for prompt, many in asked.items()}
    tags = {
        prompt: [_tags(tagger, path) or frozenset() for path in paths] for prompt, paths in report.opposites.items()
    }
    gains: list[list[int]] = []
    for pair in settings.opposites:
        for one, other in (pair, pair[::-1]):
            where, not_where = ([first_tag(one) in said for said in tags[prompt]] for prompt in (one, other))
            report.steering.append(steering_of(one, other, where, not_where))
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
