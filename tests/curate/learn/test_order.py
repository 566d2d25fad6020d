"""Which face is asked next, and what is said of how sure the model is."""

from __future__ import annotations

import numpy as np
import pytest

from authface.curate.learn.fit import Estimate, Passing
from authface.curate.learn.model import Forest
from authface.curate.learn.order import RANDOM, Certainty, diverse, next_faces, teaches
from authface.curate.learn.table import FaceTable, column_names, face_parts, together
from authface.curate.settings import LearnSettings
from authface.review.reviews import Decision
from tests.curate.learn.conftest import Taught

SETTINGS = LearnSettings()


@pytest.fixture(scope="module")
def pool(taught: Taught) -> FaceTable:
    return together(list(face_parts(taught.photoset)))


def decisions(taught: Taught, count: int) -> dict[str, Decision]:
    return {
        face: Decision(id=face, verdict="reject" if why else "keep", reason=why)
        for face, why in zip(taught.ids[:count], taught.reasons[:count], strict=True)
    }


def test_before_anything_is_known_faces_are_drawn_and_it_says_what_lacks(taught: Taught, pool: FaceTable) -> None:
    found = next_faces(pool, {}, {}, SETTINGS, 0)
    assert sorted(found.order) == sorted(taught.ids)
    assert found.order != tuple(taught.ids)
    assert found.certainty.text == "0 reviewed: nothing can be said before 30 more to keep and 30 more to reject"


def test_doubtful_faces_come_first_and_every_fifth_is_drawn(taught: Taught, pool: FaceTable) -> None:
    found = next_faces(pool, decisions(taught, 120), {}, SETTINGS, 0)
    assert sorted(found.order) == sorted(taught.ids[120:])
    assert found.order == next_faces(pool, decisions(taught, 120), {}, SETTINGS, 0).order
    sharpness = dict(zip(pool.ids, pool.values[:, column_names().index("sharpness")], strict=True))
    asked = [abs(sharpness[face] - 0.32) for at, face in enumerate(found.order[:30]) if at % RANDOM != RANDOM - 1]
    others = [abs(sharpness[face] - 0.32) for face in found.order[60:]]
    assert np.mean(asked) < np.mean(others)
    sure = found.certainty
    assert sure.passing is not None and 0 < sure.doubt < 0.5
    assert sure.text.startswith("120 reviewed: keeps 9")
    assert not set(found.order) & set(taught.ids[:120])


def test_faces_of_the_same_leaves_are_not_asked_one_after_the_other() -> None:
    """Two trees of one split each: rows 0 to 2 share both leaves, row 3 shares none with them."""
    forest = Forest(
        np.array([0, 3], np.int32), np.array([0, -1, -1, 1, -1, -1], np.int32), np.array([0.5, 0, 0, 0.5, 0, 0]),
        np.array([1, 1, 2, 4, 4, 5], np.int32), np.array([2, 1, 2, 5, 4, 5], np.int32),
        np.full((6, 2), 0.5, np.float32),
    )  # fmt: skip
    values = np.array([[0, 0], [0, 0], [0, 0], [1, 1]], float)
    assert diverse(forest, values, np.array([0.6, 0.59, 0.58, 0.3]))[:2] == [0, 3]


def test_an_even_split_teaches_most() -> None:
    assert teaches(np.array([0.0, 0.1, 0.5, 0.9, 1.0])).argmax() == 2


def test_the_sentence_and_where_it_stops() -> None:
    passing = Passing(0.4, Estimate(0.95, 0.9, 0.98), Estimate(0.02, 0, 0.05), Estimate(0.9, 0.8, 0.95))
    more = Certainty(150, 50, (0, 0), passing, 0.04, 0.03)
    assert more.text == (
        "200 reviewed: keeps 95 % (90 to 98) of what you keep, lets through 2 % (0 to 5); in doubt on 4.0 % of the "
        "faces, 200 more would make that about 3.0 %"
    )
    assert Certainty(150, 50, (0, 0), passing, 0.004, 0.003, enough=True).text.endswith("that is enough")


def test_where_more_would_not_matter_nothing_is_asked(taught: Taught, pool: FaceTable) -> None:
    found = next_faces(pool, decisions(taught, 220), {}, LearnSettings(enough=0.9), 0)
    assert found.order == () and found.certainty.enough


def test_at_random_is_a_sample_that_goes_on_where_it_was(taught: Taught, pool: FaceTable) -> None:
    whole = next_faces(pool, {}, {}, SETTINGS, 0, "random").order
    said = {face: Decision(id=face, verdict="keep") for face in whole[:40]}
    assert next_faces(pool, said, {}, SETTINGS, 0, "random").order == whole[40:]
    enough = next_faces(pool, decisions(taught, 220), {}, LearnSettings(enough=0.9), 0, "random")
    assert enough.certainty.enough and sorted(enough.order) == sorted(taught.ids[220:]), "a sample may be any size"
