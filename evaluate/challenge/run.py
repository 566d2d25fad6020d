"""`authface evaluate challenge`: restored faces by the rules of NTIRE's challenge, as far as weights are there.

Which faces are in which of its sets is read from sub-folders, one name, or the challenge's own list.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from authface.console import Console
from authface.devices import pick_device
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.evaluate.catalogue import BY_NAME, MetricWeights, RestorationMetric
from authface.evaluate.challenge.rules import (
    IDENTITY,
    TERMS,
    ChallengeFigure,
    ChallengeScore,
    Gate,
    judge_set,
    rules,
    score,
    short_of,
)
from authface.evaluate.images import Method, Pair, images_by_name, images_in, pair
from authface.evaluate.measure import (
    Measured,
    OutputRecord,
    Sets,
    ValueCache,
    Workers,
    hash_files,
    measure_learned,
    measure_plain,
    measure_sets,
)
from authface.evaluate.protocol import device_name, set_sha256, versions
from authface.evaluate.settings import ChallengeSettings
from authface.evaluate.works import Recogniser
from authface.faces.identity import weights_sha256
from authface.records import Points5

_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for axis in "xy"
)


@dataclass(frozen=True)
class ListedFace:
    """A line of the challenge's list: the set of a face, and where it is, pixels."""

    set: str
    points5: Points5


@dataclass(frozen=True)
class Faces:
    """The outputs of all methods with their inputs, and the set of each name."""

    pairs: list[Pair]
    sets: dict[str, str]

    def of(self, name: str) -> list[str]:
        """Names of the faces in a set."""
        return [face for face, on in self.sets.items() if on == name]


def read_list(path: Path) -> dict[str, ListedFace]:
    """The challenge's list of faces by name without ending: a CSV of filename, dataset and five points.

    Raises UsageError where it is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return {
            Path(row["filename"]).stem if Path(row["filename"]).suffix in {".png", ".jpg"} else row["filename"]:
            ListedFace(rules().set_of(row["dataset"]).name, tuple(float(row[column]) for column in _COLUMNS))
            for row in rows
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"evaluate.challenge.points={one_line(path)} is no list of filename, dataset and {', '.join(_COLUMNS[:2])} "
            f"... ({first_line(error, 80)}): take the challenge's test_2026_face.csv"
        ) from error


def find_faces(
    methods: Sequence[Method], inputs: Path | None, on: str, listed: Mapping[str, ListedFace], limit: int
) -> Faces:
    """All outputs by set; `on` names the one set of folders without sub-folders, `limit` takes so many of each set.

    Raises UsageError where names do not pair, or it is not known of which set a face is.
    """
    pairs: list[Pair] = []
    sets: dict[str, str] = {}
    folders = {method.name: _set_folders(method.folder) for method in methods}
    names = folders[methods[0].name]
    for method, there in folders.items():
        if there != names:
            apart = one_line(", ".join(sorted(set(there) ^ set(names))) or "no sub-folders", 200)
            raise UsageError(f"--outputs {one_line(method)} has other sets than {one_line(methods[0].name)}: {apart}")
    for name in names:
        known = rules().set_of(name or on).name if name or on else ""
        outputs = {method.name: images_by_name(method.folder / name, "outputs") for method in methods}
        beside = None if inputs is None else images_by_name(inputs / name, "inputs")
        if limit and not known:
            some = _first_of_each_set(next(iter(outputs.values())), listed, limit)
            outputs = {on: {one: path for one, path in there.items() if one in some} for on, there in outputs.items()}
        for one in pair(outputs, None, beside, limit if known else 0):
            line = listed.get(one.name)
            its = known or (line.set if line is not None else "")
            if not its:
                raise UsageError(
                    f"of which set is {one_line(one.name, 80)}? A sub-folder for each set, --set for all faces "
                    f"({', '.join(known.name for known in rules().sets)}), or -O evaluate.challenge.points=FILE.csv"
                )
            sets[f"{its}/{one.name}"] = its
            pairs.append(replace(one, name=f"{its}/{one.name}", points5=None if line is None else line.points5))
    return Faces(pairs, sets)


def _first_of_each_set(names: Iterable[str], listed: Mapping[str, ListedFace], limit: int) -> set[str]:
    """The first `limit` names of each set, in order; those that the list lacks are a set of their own."""
    by_set: dict[str, list[str]] = {}
    for name in sorted(names):
        by_set.setdefault(listed[name].set if name in listed else "", []).append(name)
    return {name for found in by_set.values() for name in found[:limit]}


def _set_folders(folder: Path) -> list[str]:
    """Names of the sub-folders that hold images; one empty name where the folder itself does."""
    if not folder.is_dir():
        raise UsageError(f"--outputs {one_line(folder)}: no such folder")
    below = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(True for _ in images_in(path)))
    if any(True for _ in images_in(folder)) or not below:
        return [""]
    return below


@dataclass(frozen=True)
class ChallengeTask:
    """What is to be scored."""

    methods: Sequence[Method]
    inputs: Path | None
    set: str
    settings: ChallengeSettings
    device: str = "cpu"
    limit: int = 0
    workers: Workers = Workers()


@dataclass(frozen=True)
class MethodResult:
    """One method by the rules."""

    figures: dict[str, ChallengeFigure]
    """By metric."""
    by_set: dict[str, dict[str, ChallengeFigure]]
    """The same set by set, those of single images."""
    score: ChallengeScore
    gate: Gate

    def as_json(self) -> dict[str, Any]:
        """`score` is null where a term is missing, and `sum` is then of those that are there."""
        gates = [asdict(one) for one in self.gate.sets]
        return {
            "score": self.score.total,
            "sum": self.score.sum,
            "terms": self.score.terms,
            "missing": self.score.missing,
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "sets": {on: {name: asdict(one) for name, one in found.items()} for on, found in self.by_set.items()},
            "identity": {
                "verdict": self.gate.verdict,
                "failures": self.gate.failures if gates else None,
                "failures_by_script": self.gate.script,
                "most": self.gate.most,
                "why": self.gate.why,
                "sets": gates,
            },
        }


@dataclass(frozen=True)
class Challenge:
    """The answer."""

    methods: dict[str, MethodResult]
    faces: Faces
    measured: Measured
    short: str
    """What sets the faces apart from the challenge's."""
    protocol: dict[str, Any]

    @property
    def failed(self) -> list[OutputRecord]:
        """Outputs without any value."""
        return [outcome for outcome in self.measured.outcomes.values() if outcome.reason]

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the file."""
        return {
            "methods": {name: found.as_json() for name, found in self.methods.items()},
            "faces": len(self.faces.sets),
            "short_of_the_challenge": self.short,
            "unmeasured": self.measured.unmeasured,
            "failed": [
                {"method": o.pair.method, "name": o.pair.name, "reason": o.reason, "detail": o.detail}
                for o in self.failed
            ],
            "protocol": self.protocol,
        }


def run_challenge(task: ChallengeTask, folder: Path, console: Console) -> Challenge:
    """Measure what can be measured here; values go into a cache, of `folder` or the settings, and are read from it.

    Raises UsageError for names and settings that do not fit, AuthfaceError where nothing can be measured.
    """
    settings = task.settings
    _check(settings)
    listed = {} if settings.points is None else read_list(settings.points)
    faces = find_faces(task.methods, task.inputs, task.set, listed, task.limit)
    limits = _limits(settings, faces)
    measured = hash_files(faces.pairs, console)
    device = functools.cache(functools.partial(pick_device, task.device))
    terms = [BY_NAME[name] for name in settings.metrics]
    with ValueCache(settings.cache or folder) as values:
        _measure_identity(task, measured, values, console)
        weights = MetricWeights(console.log)
        learned = [metric for metric in terms if metric.kind == "learned"]
        measure_learned(measured, learned, device, weights, values, console, task.workers)
        names = [method.name for method in task.methods]
        whole = [metric for metric in terms if metric.kind == "set"]
        sets = measure_sets(measured, whole, names, device, settings.ffhq_stats, weights, values, console)
    found = {name: _result(name, faces, measured, sets, terms, limits) for name in names}
    if not any(one.figures or one.gate.sets for one in found.values()):
        raise AuthfaceError(f"nothing was measured: {_why(measured)}")
    how = _protocol(task, faces, measured, limits, device_name(str(device())))
    return Challenge(found, faces, measured, short_of(list(faces.sets.values()), len(faces.sets)), how)


def _check(settings: ChallengeSettings) -> None:
    if wrong := [name for name in settings.metrics if name not in TERMS]:
        raise UsageError(
            f"evaluate.challenge.metrics: {one_line(wrong[0])} is no term of the score: {', '.join(TERMS)}"
        )
    if settings.identity == "dlib" and settings.points is not None:
        raise UsageError("evaluate.challenge.points has five points of a face, dlib needs 68: leave it out")


def _limits(settings: ChallengeSettings, faces: Faces) -> dict[str, tuple[float, float | None]]:
    """Least likeness by set, of the rules or the settings, and the script's, which others' limits do not have."""
    own = {rules().set_of(name).name: value for name, value in settings.least.items()}
    there = [one for one in rules().sets if one.name in set(faces.sets.values())]
    without = [one.name for one in there if one.name not in own]
    if settings.identity != "adaface" and without:
        raise UsageError(
            f"the rules' limits are AdaFace's, not {settings.identity}'s: say them, "
            f"-O 'evaluate.challenge.least={{\"{without[0]}\" = 0.5}}'"
        )
    return {one.name: (own[one.name], None) if one.name in own else (one.least, one.script) for one in there}


def _measure_identity(task: ChallengeTask, measured: Measured, values: ValueCache, console: Console) -> None:
    """The likeness of each output to its input; where it cannot be measured, a line says what is missing."""
    settings = task.settings
    if lacking := _gate_lacks(task):
        measured.unmeasured[IDENTITY] = f"the identity gate is not measured: {lacking}"
        return console.log(measured.unmeasured[IDENTITY])
    if settings.identity_sha256:
        found = weights_sha256(settings.identity, settings.identity_weights)
        if found != settings.identity_sha256.lower():
            raise UsageError(
                f"{one_line(settings.identity_weights)} has sha256 {found[:16]}..., not the "
                f"{one_line(settings.identity_sha256, 16)} that was asked for: get the file again"
            )
    who = Recogniser(settings.identity, settings.identity_weights)
    measure_plain(measured, [BY_NAME[IDENTITY]], settings.min_score, values, console, task.workers, who)


def _gate_lacks(task: ChallengeTask) -> str:
    """What the gate needs and was not given; empty if nothing."""
    if task.inputs is None:
        return "it needs the degraded faces: --inputs DIR"
    if task.settings.identity == "dlib" or task.settings.identity_weights:
        return ""
    who = rules().recogniser if task.settings.identity == "adaface" else "ArcFace's network"
    return f"{who} is missing: export it to ONNX and name the file, -O evaluate.challenge.identity_weights=FILE.onnx"


def _result(
    method: str,
    faces: Faces,
    measured: Measured,
    sets: Sets,
    terms: Sequence[RestorationMetric],
    limits: Mapping[str, tuple[float, float | None]],
) -> MethodResult:
    outcomes = {name: measured.outcomes[method, name] for name in faces.sets}
    single = [metric.name for metric in terms if metric.kind == "learned"]

    def means(names: Sequence[str]) -> dict[str, ChallengeFigure]:
        columns = {m: [v for n in names if (v := outcomes[n].values.get(m)) is not None] for m in single}
        return {m: ChallengeFigure(sum(column) / len(column), len(column)) for m, column in columns.items() if column}

    figures = means(list(outcomes))
    figures |= {name: ChallengeFigure(one.value, one.count) for name, one in sets.get(method, {}).items()}
    gate = Gate((), rules().most_failures, measured.unmeasured.get(IDENTITY, ""))
    if not gate.why:
        likeness = {name: outcome.values.get(IDENTITY) for name, outcome in outcomes.items()}
        gates = [judge_set(on, {n: likeness[n] for n in faces.of(on)}, *limits[on]) for on in limits]
        gate = Gate(tuple(gates), rules().most_failures)
    by_set = {on: means(faces.of(on)) for on in limits}
    return MethodResult(figures, by_set, score(figures, len(outcomes), measured.unmeasured), gate)


def _why(measured: Measured) -> str:
    for outcome in measured.outcomes.values():
        if outcome.reason:
            return one_line(f"{outcome.pair.output.name}: {outcome.reason}: {outcome.detail}")
    return f"no weights for {', '.join(measured.unmeasured)}: the lines above say where each belongs"


def _protocol(
    task: ChallengeTask,
    faces: Faces,
    measured: Measured,
    limits: Mapping[str, tuple[float, float | None]],
    device: str,
) -> dict[str, Any]:
    """JSON of the rules, limits, hashes of the sets, versions and weights."""
    outcomes = measured.outcomes.values()
    settings = task.settings
    where = "five points of the challenge's list" if settings.points is not None else "landmarks found on the output"
    return {
        "rules": rules().title,
        "source": rules().source,
        "faces": {on: len(faces.of(on)) for on in limits},
        "least": {on: least for on, (least, _) in limits.items()},
        "script": {on: script for on, (_, script) in limits.items()},
        "identity": f"{settings.identity}: cosine of output and degraded input, both cut by {where}",
        "methods": {
            method.name: {
                "folder": str(method.folder),
                "set_sha256": set_sha256(
                    (o.pair.name, o.contents.get("output", "")) for o in outcomes if o.pair.method == method.name
                ),
            }
            for method in task.methods
        },
        **(
            {}
            if task.inputs is None
            else {
                "inputs": {
                    "folder": str(task.inputs),
                    "set_sha256": set_sha256((o.pair.name, o.contents.get("input", "")) for o in outcomes),
                }
            }
        ),
        "metrics": {name: BY_NAME[name].note for name in measured.versions if name != IDENTITY},
        "weights": dict(sorted(measured.weights.items())),
        "versions": versions("torch", "pyiqa", "numpy", "onnxruntime", "dlib-bin"),
        "device": device,
    }
