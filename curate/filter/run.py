"""`curate filter`: find and measure the faces of every photo, then say which are kept and why not.

Two passes. `filter.measure` looks at the photos and knows no limit (table `measured`). Here the measures are
judged, near duplicates are found over the whole set, and what is left is asked of a reviewer's model if one was named
and scored by the metrics that were asked for, pyiqa's or another package's (table `faces`). A changed limit repeats the
second pass only, and no score is computed twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.filter.columns import MEASURES, within_limits
from authface.curate.filter.duplicates import find_duplicates
from authface.curate.filter.measure import (
    DIGITS,
    FaceMetric,
    Measure,
    Neighbours,
    in_order,
    judge,
    judge_score,
    make_metric,
    rejected,
    versions,
)
from authface.curate.filter.measures.quality import face_region
from authface.curate.learn.model import Opinion, ReviewerModel, read_model
from authface.curate.learn.run import LEARNED, SCORE
from authface.curate.learn.table import check_measured, columns, face_part, take_features
from authface.curate.settings import FilterSettings, lower_better
from authface.engine.ray import Cluster
from authface.engine.runner import PartInput, Summary, parts_of, run
from authface.engine.workers import Step
from authface.errors import UsageError, one_line, shell_word
from authface.imaging import decode as images
from authface.records import Face, Photo, Points5, Score
from authface.review.reviews import ReviewSettings, reviewed
from authface.store.photoset import REBUILD, TO_FETCH, PhotoSet, Provenance

VERSION = 2

Duplicates = Mapping[str, tuple[str, int]]
"""Face id -> id of the better face it nearly repeats, distance in bits."""
Scores = Mapping[str, tuple[Points5, Mapping[str, float]]]
"""Face id -> the points its region was cut by, and its scores by metric."""


@dataclass(frozen=True)
class Candidate:
    """A measured face, what else its verdict depends on, and its scores from an earlier run."""

    face: Face
    near: Neighbours
    known: Mapping[str, float]
    opinion: Opinion | None = None
    """What a reviewer's model says of it; None where none is asked, or a person has judged the face."""


@dataclass(frozen=True)
class LoadedCandidate:
    """A candidate with the verdict so far, and its region if a metric has to score it."""

    candidate: Candidate
    face: Face
    region: NDArray[np.uint8] | None


@dataclass
class JudgeFaces(Step[Candidate, LoadedCandidate, Face, Face]):
    """The step from a photo set's table `measured` to `faces`."""

    root: Path
    settings: FilterSettings
    device: str = "cpu"
    asked: LearnedReviewer | None = None
    batch_size: int = 16
    _metrics: dict[str, FaceMetric] = field(default_factory=dict)

    @property
    def provenance(self) -> Provenance:
        """The limits, the reviewer's model, and the packages of the metrics."""
        settings = self.settings.model_dump(mode="json", exclude={"detector"})
        weights = versions(self.settings.metrics) | (self.asked.weights if self.asked else {})
        return Provenance("filter", VERSION, settings, weights)

    def load_metrics(self) -> None:
        """Load every metric. Raises AuthfaceError if one cannot be loaded, UsageError for an unknown name."""
        for name in self.settings.metrics:
            self._metric(name)

    def load(self, candidate: Candidate) -> LoadedCandidate:
        """The verdict without metrics, and the region if a metric has to score it. Raises ImageError."""
        face = judge(candidate.face, candidate.near, self.settings)
        if face.status == "kept" and candidate.opinion is not None and self.asked is not None:
            face = judge_opinion(face, candidate.opinion, self.asked.limit)
        wanted = face.status == "kept" and set(self.settings.metrics) - set(candidate.known)
        if not wanted or face.points5 is None:
            return LoadedCandidate(candidate, face, None)
        rgb = images.decode(PhotoSet(self.root).read(face.photo_file)).rgb
        return LoadedCandidate(candidate, face, face_region(rgb, face.points5).rgb)

    def step(self, batch: Sequence[LoadedCandidate]) -> Sequence[Face]:
        """The verdicts: each metric scores what the ones before it left of the batch."""
        faces = [seen.face for seen in batch]
        for name in in_order(self.settings.metrics):
            alive = [at for at, face in enumerate(faces) if face.status == "kept"]
            scores = self._scores(name, {at: batch[at] for at in alive})
            for at in alive:
                scored = replace(faces[at], scores=(*faces[at].scores, Score(metric=name, value=scores[at])))
                faces[at] = judge_score(scored, name, self.settings.metrics, lower_better=lower_better(name))
        return faces

    def save(self, candidate: Candidate, face: Face) -> list[Face]:
        """The row."""
        return [face]

    def failed(self, candidate: Candidate, reason: str, detail: str) -> list[Face]:
        """The row of a face whose photo could not be read again."""
        return [replace(candidate.face, status="failed", reason=reason, detail=detail)]

    def _scores(self, name: str, alive: Mapping[int, LoadedCandidate]) -> dict[int, float]:
        """The scores of metric `name`: known ones, or computed."""
        scores = {at: seen.candidate.known[name] for at, seen in alive.items() if name in seen.candidate.known}
        regions = {at: seen.region for at, seen in alive.items() if at not in scores and seen.region is not None}
        if regions:
            fresh = self._metric(name)(list(regions.values()))
            scores |= {at: round(float(score), DIGITS) for at, score in zip(regions, fresh, strict=True)}
        return scores

    def _metric(self, name: str) -> FaceMetric:
        if name not in self._metrics:
            self._metrics[name] = make_metric(name, self.device)
        return self._metrics[name]


def filter_photos(
    photoset: PhotoSet,
    settings: FilterSettings,
    console: Console,
    *,
    workers: int = 1,
    cluster: Cluster | None = None,
    limit: int = 0,
    device: str = "cpu",
) -> Summary:
    """Measure the kept photos in `workers` processes or on `cluster`, judge their faces in this one.

    `device` is where the metrics run. The caller holds the set's lock. Raises AuthfaceError if the run cannot
    continue, before any photo is read if a metric cannot be loaded; finished parts stay.
    """
    steps = {meta.provenance.step for _, meta in photoset.measured.each_meta() if meta}
    if REBUILD in steps or (not photoset.measured.parts() and photoset.exists(TO_FETCH)):
        raise UsageError(
            f"the faces of {one_line(photoset.root)} are a manifest's: authface annotate rebuild MANIFEST "
            f"{shell_word(photoset.root)} goes on; filter in another set"
        )
    asked = learned_reviewer(photoset, settings)
    measuring, judging = Measure(photoset.root, settings), JudgeFaces(photoset.root, settings, device, asked)
    photos = parts_of(photoset.photos, limit)
    if settings.metrics and not _current(measuring, photos, photoset):
        judging.load_metrics()
    first = run(measuring, photos, photoset.measured, console, workers=workers, cluster=cluster, prune=not limit)
    del photos  # before the search takes memory
    if asked:
        make_ready(photoset, asked, console, workers=workers, device=device)
    second = run(judging, candidates(photoset, settings, asked), photoset.faces, console)
    work = first if first.made else second
    return Summary(work.made, work.skipped, work.rows, first.seconds + second.seconds, second.counts)


def candidates(
    photoset: PhotoSet, settings: FilterSettings, asked: LearnedReviewer | None = None
) -> list[PartInput[Candidate]]:
    """Every row of the table `measured`, part by part.

    A part's digest covers its duplicates as well, and where a model is asked the faces that people judged.
    """
    duplicates = near_duplicates(photoset, settings)
    known = known_scores(photoset, settings) if settings.metrics else {}
    inputs = []
    for number, meta in photoset.measured.each_meta():
        if meta is None:
            continue  # a part that was just written is ours
        rows = partial(_candidates, photoset, number, duplicates, known, asked)
        named = photoset.measured.columns(number, ["id"]) if duplicates or asked else []
        more: list[object] = [{face_id: duplicates[face_id] for (face_id,) in named if face_id in duplicates}]
        if asked:
            more.append([face_id for (face_id,) in named if face_id in asked.decided])
        # Begins with the digest of the part it was made from, as `authface status` expects.
        digest = meta.digest + (hashlib.sha256(json.dumps(more).encode()).hexdigest() if any(more) else "")
        inputs.append(PartInput(number, sum(meta.counts.values()), digest, rows))
    return inputs


def near_duplicates(photoset: PhotoSet, settings: FilterSettings) -> Duplicates:
    """Near duplicates over the whole set, among the faces that break no limit."""
    if settings.duplicate_radius < 0:
        return {}
    return find_duplicates(_good(photoset, settings), settings.duplicate_radius)


def known_scores(photoset: PhotoSet, settings: FilterSettings) -> Scores:
    """Scores in the table `faces` of the metrics asked for, made by the installed releases of their packages."""
    found: dict[str, tuple[Points5, Mapping[str, float]]] = {}
    for part, meta in photoset.faces.each_meta():
        made_by = meta.provenance.weights if meta else {}
        current = {name for name in settings.metrics if versions([name]).items() <= made_by.items()}
        if not current:
            continue
        for face_id, points, scores in photoset.faces.columns(part, ["id", "points5", "scores"]):
            known = {score["metric"]: score["value"] for score in scores or () if score["metric"] in current}
            if known:
                found[face_id] = tuple(points), known
    return found


def _good(photoset: PhotoSet, settings: FilterSettings) -> Iterator[Face]:
    """The faces that break no limit, as far as `find_duplicates` looks at them."""
    asked = ("id", "photo_id", "box", "size", "sharpness", "hash")
    for part in photoset.measured.parts():
        rows = photoset.measured.arrow(part, [*dict.fromkeys((*asked, "index", "status", *MEASURES))])
        good = within_limits(rows, settings).tolist()
        columns = (compress(rows.column(name).to_pylist(), good) for name in asked)
        for name, photo, box, size, sharpness, text in zip(*columns, strict=True):
            place = box and tuple(box)
            yield Face(
                id=name, photo_id=photo, photo_file="", index=0, box=place, size=size, sharpness=sharpness, hash=text
            )


def _candidates(
    photoset: PhotoSet, number: int, duplicates: Duplicates, known: Scores, asked: LearnedReviewer | None
) -> list[Candidate]:
    rows = photoset.measured.rows(number)
    in_photo = Counter(face.photo_id for face in rows)
    opinions = asked.opinions(photoset, number) if asked else {}
    return [
        Candidate(
            face,
            Neighbours(in_photo[face.photo_id], *duplicates.get(face.id, ("", 0))),
            _known(face, known),
            opinions.get(face.id),
        )
        for face in rows
    ]


def _known(face: Face, known: Scores) -> Mapping[str, float]:
    points, scores = known.get(face.id, ((), {}))
    return scores if points == face.points5 else {}


def _current(measuring: Measure, photos: Sequence[PartInput[Photo]], photoset: PhotoSet) -> bool:
    """Whether every photo was measured as it would be now."""
    metas = photoset.measured.metas()
    made = [metas.get(part.number) for part in photos]
    return all(
        meta is not None and part.is_in(meta.inputs) and not meta.provenance.difference(measuring.provenance)
        for meta, part in zip(made, photos, strict=True)
    )


@dataclass(frozen=True)
class LearnedReviewer:
    """A reviewer's model as a step of the filter."""

    model: ReviewerModel
    sha256: str
    limit: float
    decided: frozenset[str]
    """Faces that a person judged: they are never asked of the model."""

    @property
    def weights(self) -> dict[str, str]:
        """What the verdicts depend on besides the settings."""
        return {f"what {self.model.facts.reviewer} keeps": self.sha256}

    def check(self, photoset: PhotoSet) -> None:
        """Raise UsageError where the set's features are other columns than those the model was learned from."""
        check_measured(photoset)
        if any(face_part(photoset, part).ids for part in photoset.features.parts()[:1]):
            self.model.check_columns(columns(photoset), one_line(photoset.root))

    def opinions(self, photoset: PhotoSet, part: int) -> dict[str, Opinion]:
        """What the model says of the faces of one part that nobody decided on."""
        faces = face_part(photoset, part) if part in photoset.features.parts() else None
        if faces is None or not faces.ids:
            return {}
        judged = zip(faces.ids, self.model.judge(faces.values), strict=True)
        return {face: opinion for face, opinion in judged if face not in self.decided}


def learned_reviewer(photoset: PhotoSet, settings: FilterSettings) -> LearnedReviewer | None:
    """The model that the settings name; None where they name none.

    Raises UsageError if it is not there.
    """
    if not settings.reviewer:
        return None
    model, sha256 = read_model(photoset, settings.reviewer)
    people = reviewed(photoset, ReviewSettings())
    decided = frozenset(face for said in people.decisions.values() for face in said)
    limit = model.facts.limit if settings.min_keep_probability is None else settings.min_keep_probability
    return LearnedReviewer(model, sha256, limit, decided)


def make_ready(photoset: PhotoSet, asked: LearnedReviewer, console: Console, *, workers: int, device: str) -> None:
    """Take the features that the model reads. Raises UsageError where it was learned from others."""
    take_features(photoset, asked.model.facts.network, console, workers=workers, device=device)
    asked.check(photoset)


def judge_opinion(face: Face, opinion: Opinion, limit: float) -> Face:
    """The verdict on a face that no limit rejected: it keeps the probability as a score, and the likely reason."""
    face = replace(face, scores=(*face.scores, Score(metric=SCORE, value=round(opinion.keep, 4))))
    if opinion.keep >= limit:
        return face
    why = f"would say: {one_line(opinion.reason, 60)}" if opinion.reason else ""
    return replace(rejected(face, LEARNED, round(opinion.keep, 4), limit), detail=why)
