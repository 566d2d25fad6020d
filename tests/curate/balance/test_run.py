"""Balance: skin tone by known colours, sums that point at nobody, subsets whose margins are as asked."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.balance.goals import Goal, fit, goal, largest_subset, parse, round_counts
from authface.curate.balance.margins import (
    FEWEST,
    MeasuredFace,
    marginal,
    skin_band,
    suppressed_cells,
    typology_angle,
    words_of,
)
from authface.curate.balance.run import BalanceReport, balance, pick
from authface.curate.settings import BalanceSettings
from authface.engine.runner import parts_of
from authface.errors import AuthfaceError, UsageError
from authface.records import Tag
from authface.review.reviews import ReviewSettings, balanced, choice_table
from authface.store.photoset import PhotoSet, Table
from tests.conftest import authface

Furnished = Callable[[Path], PhotoSet]


def mean_face() -> NDArray[np.float64]:
    """68 points of a frontal face in a crop of 256 px; the cheeks lie between lids, nose, mouth and jaw."""
    points = np.zeros((68, 2))
    points[:17] = [(128 - 80 * math.cos(math.pi * i / 16), 110 + 110 * math.sin(math.pi * i / 16)) for i in range(17)]
    points[27:36] = [(128, 100 + 8 * i) for i in range(4)] + [(112 + 8 * i, 150) for i in range(5)]
    points[36:42] = [(85, 108), (93, 103), (102, 103), (110, 108), (102, 112), (93, 112)]
    points[42:48] = [(146, 108), (154, 103), (163, 103), (171, 108), (163, 112), (154, 112)]
    points[48:60] = [(128 + 28 * math.cos(t), 180 - 10 * math.sin(t)) for t in np.linspace(math.pi, -math.pi, 13)[:12]]
    points[60:68] = (128, 180)
    return points


def patch(lightness: float, a: float, b: float) -> NDArray[np.uint8]:
    """A crop of one CIE Lab colour."""
    from skimage.color import lab2rgb

    rgb = lab2rgb(np.array([[[lightness, a, b]]], np.float64))
    return np.full((256, 256, 3), np.rint(rgb[0, 0] * 255), np.uint8)


@pytest.mark.parametrize(
    ("lightness", "b", "name"),
    [(75, 12, "very-light"), (68, 17, "light"), (62, 17, "intermediate"), (57, 18, "tan"), (48, 17, "brown"),
     (35, 12, "dark")],
)  # fmt: skip
def test_the_angle_of_a_known_colour(lightness: float, b: float, name: str) -> None:
    angle = typology_angle(patch(lightness, 10, b), mean_face())
    assert angle == pytest.approx(math.degrees(math.atan2(lightness - 50, b)), abs=1.5) and skin_band(angle) == name
    large = np.kron(patch(lightness, 10, b), np.ones((4, 4, 1), np.uint8))
    assert typology_angle(large, (mean_face() + 0.5) * 4 - 0.5) == pytest.approx(angle, abs=0.5)


def test_only_the_cheeks_count_and_burnt_or_grey_skin_has_no_tone() -> None:
    skin = patch(65, 10, 18)
    painted = skin.copy()
    painted[:100] = painted[200:] = painted[:, 118:138] = 0  # forehead, chin, nose
    assert typology_angle(painted, mean_face()) == typology_angle(skin, mean_face()) is not None
    for useless in (patch(60, 0, 0), patch(60, 5, -20), np.full((256, 256, 3), 255, np.uint8)):
        assert typology_angle(useless, mean_face()) is None
    assert skin_band(None) == "unknown"


def test_brighter_light_moves_the_angle() -> None:
    """What the docstring warns of: the same skin under a stop more light is another band."""
    dim, bright = (typology_angle(patch(lightness, 10, 15), mean_face()) for lightness in (55, 70))
    assert dim is not None and bright is not None and bright - dim > 30


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_no_small_count_is_published(counts: list[int]) -> None:
    shares = marginal([f"w{i}" for i in range(len(counts))], counts)
    assert sum(share.count for share in shares) == sum(counts)
    assert all(share.count >= FEWEST for share in shares) or len(shares) <= 1


@given(st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=2, max_size=5))
def test_no_sum_gives_a_hidden_cell_away(cells: list[list[int]]) -> None:
    counts = np.array(cells)
    out = suppressed_cells(counts)
    assert out[(counts > 0) & (counts < FEWEST)].all()
    for table, mask in ((counts, out), (counts.T, out.T)):
        for line, chosen in zip(table, mask, strict=True):
            assert chosen.sum() != 1 or not (~chosen & (line > 0)).any()


def test_targets_are_read_and_wrong_ones_refused() -> None:
    assert parse("pose=uniform, skin: light .3 tan .2") == {"pose": None, "skin": {"light": 0.3, "tan": 0.2}}
    assert parse("a=uniform;b=uniform") == {"a": None, "b": None}
    for wrong in ("pose", "pose=", "=uniform", "pose: light", "pose: light x", "pose: light 2", "a=uniform,a=uniform",
                  "pose: a .7 b .7", "pose: a .1 a .1"):  # fmt: skip
        with pytest.raises(UsageError):
            parse(wrong)


@given(st.text(alphabet="ab=:,; .5u", max_size=20))
def test_any_target_is_read_or_refused(text: str) -> None:
    try:
        for shares in parse(text).values():
            assert shares is None or all(0 <= share <= 1 for share in shares.values())
    except UsageError:
        pass


def test_goals_add_up_and_rare_words_keep_their_share() -> None:
    words, counts = ["frontal", "left", "far", "unknown"], [80, 10, 2, 8]
    even = goal("pose", words, counts, None, least=5)
    assert even.shares == pytest.approx((0.45, 0.45, 0.02, 0.08))
    given_ = goal("pose", words, counts, {"left": 0.5}, least=5)
    assert given_.shares[1] == 0.5 and sum(given_.shares) == pytest.approx(1)
    for wrong in ({"up": 0.5}, {"frontal": 0.1, "left": 0.1, "far": 0.1, "unknown": 0.1}):
        with pytest.raises(UsageError):
            goal("pose", words, counts, wrong, least=5)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=40, max_size=200),
    st.integers(5, 40),
)
def test_a_fit_takes_no_more_than_there_is(faces: list[tuple[int, int]], keep: int) -> None:
    cells, available = np.unique(np.array(faces), axis=0, return_counts=True)
    even = [Goal(name, (1 / 3, 1 / 3, 1 / 3)) for name in ("a", "b")]
    found = fit(cells, available, even, keep)
    counts = round_counts(found.take, available)
    assert (counts <= available).all() and (counts >= 0).all() and counts.sum() == round(found.take.sum())
    most, best = largest_subset(cells, available, even, 0.02)
    assert best.off <= 0.02 or most == 1


def test_two_margins_at_once_come_out_even() -> None:
    rng = np.random.default_rng(5)
    faces = np.stack([rng.choice(3, 3000, p=[0.7, 0.2, 0.1]), rng.choice(2, 3000, p=[0.8, 0.2])], axis=1)
    cells, available = np.unique(faces, axis=0, return_counts=True)
    goals = [Goal("a", (1 / 3, 1 / 3, 1 / 3)), Goal("b", (0.5, 0.5))]
    most, found = largest_subset(cells, available, goals, 0.02)
    counts = round_counts(found.take, available)
    assert 700 < most < 1100 and abs(int(counts.sum()) - most) <= len(cells)
    for column, wanted in enumerate(goals):
        shares = np.bincount(cells[:, column], counts) / counts.sum()
        assert np.abs(shares - wanted.shares).max() < 0.025


def test_a_pick_is_the_same_and_stays_when_faces_are_added() -> None:
    def picked(names: list[str], seed: int) -> set[str]:
        odd = np.array([int(name[4:]) % 2 for name in names])
        chosen = pick(names, odd, np.array([50, 7]), seed)
        assert np.bincount(odd[chosen]).tolist() == [50, 7]
        return {name for name, taken in zip(names, chosen, strict=True) if taken}

    names = [f"face{number}" for number in range(200)]
    chosen = picked(names, 1)
    assert chosen == picked(names[::-1], 1) != picked(names, 2)
    assert len(picked([*names, "face200"], 1) & chosen) >= 56


def test_words_come_from_measures_and_tags() -> None:
    face = MeasuredFace(source="folder", licence="", yaw=-12.0, size=300.0, angle=30.0)
    tags = [Tag(name=name, group=group, confidence=1.0) for name, group in (
        ("light from the left", "lighting"), ("soft light", "lighting"), ("smiling", "expression"))]  # fmt: skip
    said = words_of(face, [tags])
    assert said == {
        "pose": "left", "light": "from-left", "hardness": "soft", "expression": "smiling", "age": "unknown",
        "skin": "intermediate", "size": "256-511", "source": "folder", "licence": "unknown", "glasses": "unknown",
        "beard": "unknown",
    }  # fmt: skip
    worn = [
        Tag(name=name, group=group, confidence=1.0) for name, group in (("glasses", "accessories"), ("goatee", "hair"))
    ]
    seen = words_of(face, [tags, worn])
    assert (seen["glasses"], seen["beard"]) == ("glasses", "beard"), "said by the second annotator"
    silent = words_of(face, [tags, [Tag(name="elderly", group="age", confidence=1.0)]])
    assert (silent["glasses"], silent["beard"], silent["age"]) == ("none", "none", "elderly")
    assert words_of(face, [])["light"] == "unknown", "nobody looked"
    assert words_of(face, [worn])["light"] == "unknown", "a captioner's silence says nothing of light"
    assert words_of(face, [tags[2:]])["light"] == "from-neither", "measured, and on neither side"


def run(photoset: PhotoSet, **settings: object) -> BalanceReport:
    values = BalanceSettings(**settings)  # type: ignore[arg-type]
    return balance(photoset, values, ReviewSettings(), Console(), workers=1, seed=0)


def test_a_choice_is_a_table_that_the_export_can_ask(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    crops = parts_of(photoset.crops)
    assert balanced(photoset, crops) == crops, "no choice, no change"
    total = sum(part.count for part in crops)
    done = run(photoset, target="light=uniform", least=1, keep=2)
    rows = list(choice_table(photoset))
    assert Counter(row.status for row in rows) == {"kept": 2, "rejected": total - 2} and done.kept == 2
    assert all(row.reason == "over_represented" and row.value is not None for row in rows if row.status == "rejected")
    left = [crop for part in balanced(photoset, crops) for crop in part.rows()]
    assert {c.id for c in left if c.status == "kept"} == {r.id for r in rows if r.status == "kept"} and len(
        left
    ) == total
    assert [p.digest for p in balanced(photoset, crops)] != [p.digest for p in crops]
    meta = photoset.crops.meta(0)
    assert meta is not None
    photoset.crops.write(0, photoset.crops.rows(0)[:1], meta.provenance, meta.inputs)
    with pytest.raises(AuthfaceError, match="curate balance"):
        balanced(photoset, parts_of(photoset.crops))


@pytest.mark.parametrize("keep", [1, 2])
def test_parts_of_two_choices_are_none(
    furnished: Furnished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    photoset = furnished(tmp_path / "set")
    run(photoset, target="light=uniform", least=1, keep=2)
    before = [(part.number, part.digest) for part in balanced(photoset, parts_of(photoset.crops))]
    for change in ("remove", "write"):
        stops_at(1, change, monkeypatch, partial(run, photoset, target="light=uniform", least=1, keep=keep))
        with pytest.raises(AuthfaceError, match=r"was stopped.*curate balance"):
            balanced(photoset, parts_of(photoset.crops))
    stops_at(0, "write", monkeypatch, partial(run, photoset, target="light=uniform", least=1, keep=keep))
    with pytest.raises(AuthfaceError, match=r"was stopped.*curate balance"):
        balanced(photoset, parts_of(photoset.crops))
    run(photoset, target="light=uniform", least=1, keep=2)
    assert [(part.number, part.digest) for part in balanced(photoset, parts_of(photoset.crops))] == before


def stops_at(count: int, change: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do the work until it would write or remove one more part than `count`."""
    real, done = getattr(Table, change), list[int]()

    def stopped(table: Table[Any], part: int, *more: Any) -> None:
        if len(done) >= count:
            raise KeyboardInterrupt
        done.append(part)
        real(table, part, *more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Table, change, stopped)
        work()


def test_nothing_left_after_review_and_a_number_without_a_target_are_one_line(
    furnished: Furnished, tmp_path: Path
) -> None:
    photoset = furnished(tmp_path / "set")
    with pytest.raises(UsageError, match="keep 5: no target"):
        run(photoset, keep=5)
    lines = [json.dumps({"id": crop.id, "verdict": "reject", "at": "2026"}) for crop in photoset.crops]
    photoset.save("review/anna.jsonl", "".join(f"{line}\n" for line in lines).encode())
    for target in ("pose=uniform", ""):
        with pytest.raises(AuthfaceError, match="no kept crops after review"):
            run(photoset, target=target)


def test_what_is_written_holds_sums_only(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    done = run(photoset)
    text = done.page.read_text("utf-8") + json.dumps(done.as_json())
    assert done.faces == sum(part.count for part in parts_of(photoset.crops)) and done.kept is None
    assert not any(photo.id and photo.id[:10] in text for photo in photoset.photos)
    assert choice_table(photoset).parts() == []


def test_the_command(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    line = ["curate", "balance", photoset.root]
    options = ["--target", "light=uniform", "--keep", "2", "-O", "curate.balance.least=1"]
    done = authface(*line, *options)
    assert done.returncode == 0 and "chosen: 2 of" in done.stdout, done.stderr
    done = authface(*line, "--clear", "--json")
    assert json.loads(done.stdout)["kept"] is None and choice_table(photoset).parts() == []
    done = authface(*line, "--target", "skyn=uniform")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "skin" in done.stderr
