"""`authface evaluate prior`: samples of a family's face prior in, FID, preference and obedience out.

They are told as text, prior.json, CSV, a sheet of samples and a page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface import Tagger
from authface.console import Console, render_table
from authface.errors import AuthfaceError, ImageError, UsageError
from authface.evaluate.catalogue import MetricWeights
from authface.evaluate.images import SourceFaces, open_sources
from authface.evaluate.measure import HERE, ValueCache, Workers
from authface.evaluate.prior.samples import (
    Bench,
    Sampler,
    SampleRequest,
    fid_to_faces,
    fid_to_ffhq,
    noise_seed,
    preferences,
    sample_requests,
    sample_rgb,
)
from authface.evaluate.protocol import device_name, set_sha256, versions
from authface.evaluate.restoration import number
from authface.evaluate.settings import PriorEvaluationSettings
from authface.files import write_csv, write_file, write_json
from authface.imaging.decode import encode_png
from authface.metrics.stats import Mean, mean_of, wilson
from authface.report.pages import Cell, ReportTable, Section, quantity, story


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


NAME = "prior"
COLUMNS, ROWS = 8, 4
"""Of the sheet; each prompt of the opposites has a row of the page."""
SIDE = 256
"""Of a sample in a sheet, at most, pixels."""


def figures_table(report: PriorReport) -> ReportTable:
    """A row a figure; what is not measured stands below with its reason."""
    rows = []
    for name in NOTES:
        found = report.values.get(name)
        if found is not None:
            digits = 2 if name.startswith("fid") else 4
            ends = "" if found.low is None else f"[{number(found.low, digits)}, {number(found.high, digits)}]"
            rows.append([name, number(found.value, digits), ends, quantity(found.count), NOTES[name]])
    return ReportTable(["", "value", "95 %", "of", ""], rows)


def steering_table(report: PriorReport) -> ReportTable:
    """A row a tag: how often it is found where it was asked for, and where its opposite was."""
    rows = [
        [
            found.tag,
            _share(found.where_asked),
            found.against,
            _share(found.where_not),
            f"{100 * found.difference:+.0f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]",
        ]
        for found in report.steering
    ]
    return ReportTable(["tag", "asked for, found %", "opposite", "its opposite asked for, found %", "difference"], rows)


def _share(share: TagShare) -> str:
    return f"{100 * share.share:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}] of {share.of}"


def as_text(report: PriorReport) -> str:
    """For a terminal."""
    tables = [table for table in (figures_table(report), steering_table(report)) if table.rows]
    said = f"{report.protocol['model']}: {len(report.samples)} samples, {report.drawn} drawn now"
    return "\n\n".join([said, *(render_table(table.header, table.rows) for table in tables)])


def sheet(paths: Sequence[Path], columns: int) -> NDArray[np.uint8]:
    """(rows x side, columns x side, 3): samples side by side, no larger than `SIDE`; empty places are white."""
    first = sample_rgb(paths[0])
    side = min(len(first), SIDE)
    rows = -(-len(paths) // columns)
    made = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for place, path in enumerate(paths):
        y, x = side * (place // columns), side * (place % columns)
        made[y : y + side, x : x + side] = cv2.resize(sample_rgb(path), (side, side), interpolation=cv2.INTER_AREA)
    return made


def write(report: PriorReport, folder: Path) -> Path:
    """prior.json, prior.csv, samples.csv, sheet.png and prior.html, whose path is returned.

    Raises AuthfaceError where the disk refuses or a sample was damaged.
    """
    write_json(folder / f"{NAME}.json", report.as_json())
    write_csv(folder / f"{NAME}.csv", _figure_rows(report))
    write_csv(folder / "samples.csv", _sample_rows(report, folder))
    picture = sheet(report.samples[: COLUMNS * ROWS], COLUMNS)
    write_file(folder / "sheet.png", encode_png(picture))
    path = folder / f"{NAME}.html"
    summary = [
        ("model", str(report.protocol["model"])),
        ("samples", quantity(len(report.samples))),
        ("prompts", str(report.protocol["settings"]["prompts"])),
        ("figures", quantity(len(report.values))),
    ]
    story(path, "Samples of a face prior, judged", list(_sections(report, picture)), summary)
    return path


def _sections(report: PriorReport, picture: NDArray[np.uint8]) -> Iterator[Section]:
    yield Section("Figures", "", table=figures_table(report))
    if report.unmeasured:
        missing = [[name, why.partition(" is not measured: ")[2] or why] for name, why in report.unmeasured.items()]
        yield Section("Not measured", "", table=ReportTable(["", "why"], missing))
    shown = min(len(report.samples), COLUMNS * ROWS)
    yield Section("Samples", f"The first {shown}, in the order of the dataset's rows.", [Cell(picture, "samples")])
    if report.steering:
        rows = [Cell(sheet(paths[:COLUMNS], COLUMNS), prompt) for prompt, paths in report.opposites.items()]
        text = (
            "What the measured annotator finds in samples of two prompts that exclude each other, begun with the same "
            "noise. 0 is a prior that does not listen. Shares have Wilson's intervals, differences Newcombe's."
        )
        yield Section("Does it do what it is asked?", text, table=steering_table(report))
        yield Section("Opposites", "A row a prompt; a column is one noise.", rows)
    protocol = [[name, json.dumps(value, ensure_ascii=False)] for name, value in report.protocol.items()]
    yield Section("Protocol", "", table=ReportTable(["", ""], protocol))


def _figure_rows(report: PriorReport) -> Iterator[list[object]]:
    yield ["figure", "tag", "against", "value", "low", "high", "count"]
    for name, found in report.values.items():
        yield [name, "", "", found.value, found.low, found.high, found.count]
    for one in report.steering:
        for name, share in (("where asked", one.where_asked), ("where not", one.where_not)):
            yield [name, one.tag, one.against, share.share, share.low, share.high, share.of]
        yield ["difference", one.tag, one.against, one.difference, one.low, one.high, one.where_asked.of]


def _sample_rows(report: PriorReport, folder: Path) -> Iterator[list[object]]:
    yield ["file", "prompt", "seed", "judged_by", "hpsv2"]
    scores: Sequence[float | None] = report.preferences or [None] * len(report.samples)
    for path, one, score in zip(report.samples, report.requests, scores, strict=True):
        yield [path.relative_to(folder).as_posix(), one.prompt, one.seed, one.judged_by, score]
