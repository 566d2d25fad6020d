"""What was learned of a reviewer: how likely they keep a face, and why not. NumPy alone reads it.

A forest of extremely randomised trees (Geurts, Ernst, Wehenkel 2006) over the measures and statistics of a face, its
probability calibrated (Platt 1999). The file is safetensors with one JSON text beside the arrays: reading it runs no
code, and it names no face.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from authface.curate.filter.measure import VERSION as MEASURED_VERSION
from authface.curate.learn.forest import Forest
from authface.curate.learn.table import VERSION as FEATURES_VERSION
from authface.curate.learn.table import Matrix
from authface.errors import AuthfaceError, UsageError, one_line
from authface.files import place, write_file
from authface.imaging.decode import read_bytes
from authface.review.reviews import Reviewer, decision_log
from authface.store.photoset import PhotoSet

KEEP = ""
"""The class of faces that are kept, before those of the reasons."""
LEAST_REASON = 0.25
"""Share of the trees from which a reason is named."""
FORMAT: Final = 2
"""Of the file; rises where an earlier one cannot be read any more."""
_ENDING = ".model.safetensors"
_KEY = "reviewer_model"

Share = Annotated[float, Field(ge=0, le=1)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HeldOut(_Data):
    """One decision, and what a model said of its face that had seen neither its person nor its photo."""

    probability: Share
    """That the reviewer keeps the face."""
    kept: bool
    """What the reviewer did; a face to be retouched is kept."""
    weight: Annotated[float, Field(ge=1e-4, le=1e4)] = 1.0
    """Faces of the set it stands for, over the mean: reviewed faces are not drawn at random."""


class Platt(_Data):
    """Calibration: 1 / (1 + exp(-(slope x logit + shift)))."""

    slope: Annotated[float, Field(gt=0)] = 1.0
    shift: float = 0.0

    def __call__(self, share: Matrix) -> Matrix:
        """(n,) probabilities of (n,) shares of trees."""
        return np.asarray(0.5 * (1 + np.tanh((self.slope * logit(share) + self.shift) / 2)))


class ModelFacts(_Data):
    """All of a model but its trees."""

    format: Literal[2] = FORMAT
    reviewer: Reviewer
    at: str
    """ISO 8601, UTC."""
    seed: int
    measured: int
    """Version of the measures it was learned from, ..."""
    features: int
    """... and of the table `features`."""
    network: str
    columns: tuple[str, ...]
    """As `authface.curate.learn.table.columns` names them."""
    middle: tuple[float, ...]
    """Median of each column over the decided faces: what is missing counts as that."""
    classes: tuple[str, ...]
    """`KEEP`, then the reasons in the reviewer's words, of which the last may be "other"."""
    calibration: Platt
    limit: Share
    """Least probability at which as much as was asked for (`curate.learn.recall`) of what the reviewer keeps passes."""
    signs: dict[str, tuple[str, ...]]
    """By reason: the columns in which its faces differ most from those that are kept, in words."""
    held_out: tuple[HeldOut, ...]
    """Every decision, predicted by cross-validation: without ids, in the order of their probabilities."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.middle) != len(self.columns) or self.classes[:1] != (KEEP,) or len(self.classes) < 2:
            raise ValueError("columns, medians and classes do not agree")
        return self


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model says of one face."""

    keep: float
    """Probability that the reviewer keeps it."""
    reason: str
    """The likeliest reason to reject it; empty where none is likely."""


@dataclass(frozen=True)
class ReviewerModel:
    """What one reviewer keeps, learned from their decisions: the file ``review/<reviewer>.model.safetensors``."""

    facts: ModelFacts
    forest: Forest

    @cached_property
    def _middle(self) -> NDArray[np.float64]:
        return np.array(self.facts.middle)

    def shares(self, values: Matrix) -> Matrix:
        """(n, classes) what the trees say of faces, of their (n, columns)."""
        return self.forest(filled(values, self._middle))

    def judge(self, values: Matrix) -> list[Opinion]:
        """What the reviewer would likely say of faces, of their (n, columns)."""
        shares = self.shares(values)
        keeps = self.facts.calibration(shares[:, 0]).tolist()
        likeliest = shares[:, 1:].argmax(axis=1) + 1
        return [
            Opinion(keep, self.facts.classes[why] if row[why] >= LEAST_REASON else "")
            for keep, why, row in zip(keeps, likeliest.tolist(), shares, strict=True)
        ]

    def check_columns(self, columns: tuple[str, ...], where: str) -> None:
        """Raise UsageError where a set's faces have other columns than those it was learned from."""
        facts = self.facts
        if (columns, MEASURED_VERSION, FEATURES_VERSION) != (facts.columns, facts.measured, facts.features):
            raise UsageError(
                f"the model of {facts.reviewer} was learned from other columns ({len(facts.columns)} of versions "
                f"{facts.measured} and {facts.features}, here {len(columns)} of {MEASURED_VERSION} and "
                f"{FEATURES_VERSION}): run authface curate learn {where} --reviewer {facts.reviewer}"
            )


def filled(values: Matrix, middle: NDArray[np.float64]) -> Matrix:
    """(n, columns) with what is missing replaced by the column's `middle`."""
    return np.where(np.isfinite(values), values, middle)


def logit(share: Matrix) -> Matrix:
    """ln(p / (1 - p)) of shares, cut so that it is finite."""
    cut = np.clip(share, 0.005, 0.995)
    return np.asarray(np.log(cut / (1 - cut)))


def model_file(photoset: PhotoSet, reviewer: str) -> Path:
    """Where the model of a reviewer lies. Raises UsageError for a name that is none."""
    return decision_log(photoset, reviewer).path.with_name(f"{reviewer}{_ENDING}")


def save_model(photoset: PhotoSet, model: ReviewerModel) -> Path:
    """Write a model into the set. Raises AuthfaceError where the disk refuses."""
    file = model_file(photoset, model.facts.reviewer)
    write_file(file, save(model.forest.arrays(), metadata={_KEY: model.facts.model_dump_json()}))
    return file


def read_model(photoset: PhotoSet, name: str) -> tuple[ReviewerModel, str]:
    """The model of a reviewer of the set, or of a file that `name` is the path of, and its sha256.

    Raises UsageError if there is none, AuthfaceError if it is no model.
    """
    file = place(name) if name.endswith(_ENDING) else model_file(photoset, name)
    if not file.is_file():
        raise UsageError(
            f"curate.filter.reviewer: no model at {one_line(file)}: run authface curate learn "
            f"{one_line(photoset.root)} --reviewer NAME"
        )
    data = read_bytes(file, max_bytes=1 << 28)
    try:
        arrays = load(data)  # which also holds the header to its form, and to a depth
        _check_format(data, file)
        facts = ModelFacts.model_validate_json(_facts_text(data))
        forest = Forest.of(arrays, len(facts.columns))
        if forest.shares.shape[1] != len(facts.classes):
            raise ValueError("the trees know other classes")
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise AuthfaceError(
            f"{one_line(file)} is no reviewer's model: {one_line(error, 120)}: learn again with authface curate learn"
        ) from error
    return ReviewerModel(facts, forest), hashlib.sha256(data).hexdigest()


def _check_format(data: bytes, file: Path) -> None:
    """Raise UsageError for a model of an earlier version, ValueError and the like where there is no such text."""
    if json.loads(_facts_text(data)).get("format") in range(1, FORMAT):
        raise UsageError(
            f"{one_line(file)} was learned by an earlier version of authface: run authface curate learn SET "
            "--reviewer NAME again"
        )


def _facts_text(data: bytes) -> str:
    """The JSON text in a safetensors file's header."""
    length = int.from_bytes(data[:8], "little")
    header: Mapping[str, Any] = json.loads(data[8 : 8 + min(length, len(data))])
    return str(header["__metadata__"][_KEY])
