"""What was learned of a reviewer: how likely they keep a face, and why not. NumPy alone reads it.

A forest of extremely randomised trees (Geurts, Ernst, Wehenkel 2006) over the measures and statistics of a face, grown
by scikit-learn and kept as plain arrays, its probability calibrated (Platt 1999). The file is safetensors with one JSON
text beside the arrays: reading it runs no code, and it names no face.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load, save

from authface.curate.filter.measure import VERSION as MEASURED_VERSION
from authface.curate.learn.table import VERSION as FEATURES_VERSION
from authface.curate.learn.table import Matrix
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.files import place, write_file
from authface.imaging.decode import read_bytes
from authface.review.reviews import Reviewer, decision_log
from authface.store.photoset import PhotoSet

ROWS = 1000
"""Faces that go down the trees at a time: memory stays flat."""
_KINDS = {
    **dict.fromkeys(("roots", "column", "left", "right"), ("int32", 1)),
    "threshold": ("float64", 1),
    "shares": ("float32", 2),
}
"""Type and dimensions of each array of a forest."""
_SLACK = 1e-3
"""By how much the shares of a node may miss 1."""


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees one after the other; below a node lie nodes of greater numbers, so every way ends."""

    roots: NDArray[np.int32]
    """(trees,) first node of each tree."""
    column: NDArray[np.int32]
    """(nodes,) the column that is asked; -1 in a leaf."""
    threshold: NDArray[np.float64]
    """(nodes,) to the left where the column is at most this."""
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    """(nodes,) the nodes below; in a leaf itself."""
    shares: NDArray[np.float32]
    """(nodes, classes) of the decided faces of a leaf that are of each class; rows of sum 1."""

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], columns: int) -> Self:
        """A forest from arrays of any origin. Raises ValueError where they are no forest over so many columns."""
        if {name: (array.dtype.name, array.ndim) for name, array in arrays.items()} != _KINDS:
            raise ValueError(f"arrays {', '.join(f'{name} ({arrays[name].dtype})' for name in sorted(arrays))[:100]}")
        made = cls(**arrays)
        made._check(columns)
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, classes) mean share of each class over all trees, of (n, columns) without NaN."""
        pieces = [
            np.asarray(self.shares[self.leaves(values[at : at + ROWS])].mean(axis=1, dtype=np.float64))
            for at in range(0, len(values), ROWS)
        ]
        return np.concatenate([np.empty((0, self.shares.shape[1])), *pieces])

    def leaves(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        """(n, trees) the leaf of each tree in which faces end, of (n, columns) without NaN."""
        seen = values.astype(np.float32)  # as scikit-learn does: thresholds lie between numbers of this precision
        face = np.arange(len(seen))[:, None]
        node = np.repeat(self.roots[None], len(seen), axis=0)
        while (asked := self.column[node]).max(initial=-1) >= 0:
            goes_left = seen[face, np.maximum(asked, 0)] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return node

    def _check(self, columns: int) -> None:
        nodes, own = len(self.column), np.arange(len(self.column))
        leaf = self.column < 0
        below = np.stack([self.left, self.right])
        right = (
            nodes > 0
            and len(self.roots) > 0
            and all(array.shape == (nodes,) for array in (self.threshold, self.left, self.right))
            and len(self.shares) == nodes
            and (self.column < columns).all()
            and (below[:, leaf] == own[leaf]).all()
            and (below[:, ~leaf] > own[~leaf]).all()
            and (below < nodes).all()
            and (self.roots >= 0).all()
            and (self.roots < nodes).all()
            and np.isfinite(self.threshold).all()
            and (self.shares >= 0).all()
            and (np.abs(self.shares.sum(axis=1) - 1) < _SLACK).all()
        )
        if not right:
            raise ValueError("the nodes are no forest")


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
                f"{FEATURES_VERSION}): run authface curate learn {shell_word(where)} --reviewer {facts.reviewer}"
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
