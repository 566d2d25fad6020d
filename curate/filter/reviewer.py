"""The step of `curate filter` that asks a reviewer's model of what no limit rejected, and overrules nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace

from authface.console import Console
from authface.curate.filter.judge import rejected
from authface.curate.learn.model import Opinion, ReviewerModel, read_model
from authface.curate.learn.run import LEARNED, SCORE
from authface.curate.learn.table import check_measured, columns, face_part, take_features
from authface.curate.settings import FilterSettings
from authface.errors import one_line
from authface.records import Face, Score
from authface.review.reviews import ReviewSettings, reviewed
from authface.store.photoset import PhotoSet


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
