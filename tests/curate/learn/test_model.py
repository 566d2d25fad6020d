"""The model as a file and as arithmetic: NumPy says what scikit-learn says, and nothing odd is read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from authface.curate.filter.measure import LIMITS
from authface.curate.filter.measure import VERSION as MEASURED_VERSION
from authface.curate.learn import fit
from authface.curate.learn.fit import HeldOutTable, Lesson, grouped, make_lesson, weigh
from authface.curate.learn.model import (
    Forest,
    HeldOut,
    ModelFacts,
    Platt,
    ReviewerModel,
    filled,
    read_model,
    save_model,
)
from authface.curate.learn.table import VERSION, FaceTable, column_names, face_parts, together
from authface.errors import AuthfaceError, UsageError
from authface.review.reviews import ReviewSettings, reviewed
from tests.curate.learn.conftest import Taught

COLUMNS = column_names()
HELD = {"probability": 0.5, "kept": True}


@pytest.fixture(scope="module")
def lesson(taught: Taught) -> Lesson:
    pool = together(list(face_parts(taught.photoset)))
    return make_lesson(pool, reviewed(taught.photoset, ReviewSettings()).decisions["anna"], {})


@pytest.fixture(scope="module")
def model(lesson: Lesson) -> ReviewerModel:
    middle = fit.median_of(lesson.faces.values)
    facts = ModelFacts(
        reviewer="anna", at="2026", seed=0, measured=MEASURED_VERSION, features=VERSION, network="", columns=COLUMNS,
        middle=tuple(middle.tolist()), classes=fit.classes_of(lesson), calibration=Platt(), limit=0.5,
        signs=fit.signs(lesson, COLUMNS), held_out=(),
    )  # fmt: skip
    return ReviewerModel(facts, fit.grow(lesson, middle, 0, trees=30))


def test_numpy_says_what_scikit_learn_says(lesson: Lesson) -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    values = filled(lesson.faces.values, fit.median_of(lesson.faces.values))
    grown = ExtraTreesClassifier(20, min_samples_leaf=2, random_state=1).fit(values, lesson.kept.astype(int))
    forest = fit._as_arrays(grown, 2)
    np.testing.assert_allclose(forest(values), grown.predict_proba(values), atol=1e-6)
    assert forest(values[:0]).shape == (0, 2)


def test_it_comes_back_from_the_disk_the_same(taught: Taught, model: ReviewerModel, lesson: Lesson) -> None:
    save_model(taught.photoset, model)
    again, sha256 = read_model(taught.photoset, "anna")
    assert again.facts == model.facts and len(sha256) == 64
    assert again.judge(lesson.faces.values) == model.judge(lesson.faces.values)
    by_path, _ = read_model(taught.photoset, str(taught.photoset.root / "review" / "anna.model.safetensors"))
    assert by_path.facts == model.facts


def test_a_reason_is_the_reviewers_own_word(model: ReviewerModel, lesson: Lesson) -> None:
    said = model.judge(lesson.faces.values)
    named = [(one.reason, own) for one, own in zip(said, lesson.reasons, strict=True) if own and one.reason]
    assert len(named) > 60
    assert np.mean([mine == theirs for mine, theirs in named]) > 0.9
    assert "more skin_noise" in model.facts.signs["noise or artefacts"]
    assert "less sharpness" in model.facts.signs["blurred"]


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.int32(0)},  # a way that never ends
        {"column": np.int32(10_000)},
        {"right": np.int32(10**8)},
        {"threshold": np.float64("nan")},
    ],
    ids=str,
)
def test_what_is_no_forest_is_refused_in_one_line(
    taught: Taught, model: ReviewerModel, change: dict[str, np.generic]
) -> None:
    arrays = {name: array.copy() for name, array in model.forest.arrays().items()}
    inner = int(np.flatnonzero(arrays["column"] >= 0)[3])
    for name, value in change.items():
        arrays[name][inner] = value
    with pytest.raises(ValueError, match="no forest"):
        Forest.of(arrays, len(COLUMNS))
    file = taught.photoset.root / "review" / "eve.model.safetensors"
    file.write_bytes(save(arrays, metadata={"reviewer_model": model.facts.model_dump_json()}))
    with pytest.raises(AuthfaceError, match=r"^[^\n]+ is no reviewer's model: [^\n]+$"):
        read_model(taught.photoset, "eve")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("column", np.full(3, -1.0)),  # numbers that are no places
        ("roots", np.array([True])),
        ("roots", np.array([[0]], np.int32)),
        ("shares", np.array([[2.0, -1.0]] * 3, np.float32)),
    ],
    ids=str,
)
def test_arrays_of_another_kind_are_no_forest(name: str, array: NDArray[Any]) -> None:
    own = np.arange(3, dtype=np.int32)
    leaves = {"roots": own[:1], "column": np.full(3, -1, np.int32), "threshold": np.zeros(3), "left": own, "right": own}
    arrays: dict[str, NDArray[Any]] = {**leaves, "shares": np.array([[1, 0]] * 3, np.float32)}
    assert Forest.of(arrays, 1)(np.zeros((1, 1))).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match=r"^(arrays column|the nodes are no forest)"):
        Forest.of(arrays | {name: array}, 1)


@pytest.mark.parametrize(
    "change", [{"reviewer": "\x1b[31manna"}, {"reviewer": "anna\n"}, {"held_out": [HELD | {"weight": 1e300}]}], ids=str
)
def test_facts_that_curate_learn_does_not_write_are_refused(
    taught: Taught, model: ReviewerModel, change: dict[str, object]
) -> None:
    facts = json.loads(model.facts.model_dump_json()) | change
    file = taught.photoset.root / "review" / "eve.model.safetensors"
    file.write_bytes(save(model.forest.arrays(), metadata={"reviewer_model": json.dumps(facts)}))
    with pytest.raises(AuthfaceError, match=r"^[^\n]+ is no reviewer's model: [^\n]+$"):
        read_model(taught.photoset, "eve")


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x04K\x01.", b"\xff" * 400, _header(b"{}"), _header(b"[]"), _header(b"[" * 100_000),
        _header(b'{"__metadata__":null}'),
    ],
    ids=lambda data: repr(data[:32]),
)  # fmt: skip
def test_other_bytes_are_refused_in_one_line(taught: Taught, data: bytes) -> None:
    (taught.photoset.root / "review" / "eve.model.safetensors").write_bytes(data)
    with pytest.raises(AuthfaceError, match=r"^[^\n]+ is no reviewer's model: [^\n]+$"):
        read_model(taught.photoset, "eve")


def test_no_name_leaves_the_folder(taught: Taught) -> None:
    with pytest.raises(UsageError, match="use 1 to 40 of a-z"):
        read_model(taught.photoset, "../../anna")


def test_other_columns_are_said_in_one_line(model: ReviewerModel) -> None:
    said = r"other columns \(107 of versions \d+ and \d+, here 106 of \d+ and \d+\): run authface curate learn S"
    with pytest.raises(UsageError, match=said):
        model.check_columns(COLUMNS[1:], "S")
    earlier = ReviewerModel(model.facts.model_copy(update={"measured": MEASURED_VERSION - 1}), model.forest)
    with pytest.raises(UsageError, match=r"learned from other columns .*: run authface curate learn S"):
        earlier.check_columns(COLUMNS, "S")


def test_every_measure_that_a_limit_judges_is_a_column() -> None:
    """Pixelation and sharpening came after the models, and were forgotten."""
    assert {limit.measure for limit in LIMITS} <= set(COLUMNS)
    assert {"pixelation", "sharpening"} <= set(COLUMNS)


def test_a_model_of_an_earlier_format_is_said_to_be_learned_again(taught: Taught, model: ReviewerModel) -> None:
    facts = {name: value for name, value in json.loads(model.facts.model_dump_json()).items() if name != "measured"}
    file = taught.photoset.root / "review" / "eve.model.safetensors"
    file.write_bytes(save(model.forest.arrays(), metadata={"reviewer_model": json.dumps(facts | {"format": 1})}))
    with pytest.raises(UsageError, match=r"^[^\n]+ was learned by an earlier version of authface: [^\n]+$"):
        read_model(taught.photoset, "eve")


def test_the_file_names_no_face(taught: Taught, model: ReviewerModel) -> None:
    data = save_model(taught.photoset, model).read_bytes()
    assert not any(face[:64].encode() in data for face in taught.ids)
    assert set(load(data)) == set(model.forest.arrays())


def test_folds_hold_whole_groups_and_the_seed_decides(lesson: Lesson) -> None:
    pairs = np.repeat(np.arange(len(lesson.kept) // 2), 2)
    paired = Lesson(lesson.faces, lesson.kept, lesson.reasons, pairs)
    for train, test in fit.splits(paired, 3):
        assert not set(pairs[train]) & set(pairs[test])
    middle = fit.median_of(lesson.faces.values)
    first, second = (fit.cross_validated(lesson, middle, 3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_people_photos_and_near_pictures_are_grouped() -> None:
    codes = ("0" * 36, "0" * 35 + "1", "f0" * 18, "5a" * 18, "c3" * 18)
    table = FaceTable(tuple("abcde"), ("p", "q", "r", "r", "s"), codes, np.zeros((5, 3)))
    labels = grouped(table, {"d": "x", "e": "x"}).tolist()
    assert labels[0] == labels[1], "nearly one picture"
    assert labels[2] == labels[3] == labels[4], "one photo, and one person"
    assert labels[0] != labels[2]


def test_a_limit_keeps_what_was_asked_and_says_how_sure_it_is() -> None:
    rng = np.random.default_rng(0)
    kept = rng.random(400) < 0.7
    probability = np.clip(np.where(kept, 0.75, 0.3) + rng.normal(0, 0.15, 400), 0, 1)
    table = HeldOutTable(probability, kept, np.ones(400))
    limit = table.limit_for(0.95)
    passing = table.passing(limit)
    assert 0.95 <= passing.recall.share < 0.96
    assert passing.recall.low < 0.95 < passing.recall.high
    assert table.passing(limit + 0.02).recall.share < 0.95
    area = table.auc(0)
    assert area.low < area.share < area.high and area.share > 0.95
    assert passing.recall.text.startswith("95 % (")
    nothing = HeldOutTable(probability, np.ones(400, np.bool_), np.ones(400)).passing(0.5)
    assert (nothing.let_through.low, nothing.let_through.high) == (0.0, 1.0)


def test_faces_asked_for_their_doubt_are_weighed_back_to_the_set() -> None:
    """Nine in ten of the set are plain, asked were mostly the doubtful: unweighed, the figure is that of these."""
    rng = np.random.default_rng(1)
    pool = np.where(rng.random(5000) < 0.9, 0.95, 0.5)
    asked = np.concatenate([rng.choice(pool[pool > 0.9], 60), rng.choice(pool[pool < 0.9], 240)])
    kept = rng.random(300) < asked
    weights = weigh(asked, pool)
    assert kept.mean() < 0.65
    assert np.average(kept, weights=weights) == pytest.approx(0.905, abs=0.04)
    table = HeldOutTable.of(
        [
            HeldOut(probability=p, kept=k, weight=w)
            for p, k, w in zip(asked.tolist(), kept.tolist(), weights.tolist(), strict=True)
        ]
    )
    plain = HeldOutTable(asked, kept, np.ones(300))
    assert (
        table.passing(0.0).precision.high - table.passing(0.0).precision.low
        > (plain.passing(0.0).precision.high - plain.passing(0.0).precision.low) * 0.6
    ), "few effective decisions are not taken for many"
