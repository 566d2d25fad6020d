"""Groups go to one split each, new ones by their names, old ones where they were."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.settings import SplitSettings
from authface.curate.split.dealing import NO_SPLIT, SPLITS, assign
from authface.store.rowfile import IdFile

HALVES = SplitSettings(val=0.3, test=0.3)
Groups = dict[str, list[str]]


def dealt(sizes: list[int], first: int = 0) -> Groups:
    """Groups named by their first faces."""
    return {f"g{first + n}": [f"g{first + n}{'-' * face}" for face in range(size)] for n, size in enumerate(sizes)}


def assigned(groups: Groups, former: dict[str, str], settings: SplitSettings, seed: int) -> dict[str, str]:
    """`assign` with names for numbers."""
    ids = [face for faces in groups.values() for face in faces]
    numbers = [ids.index(name) for name, faces in groups.items() for _ in faces]
    had = [SPLITS.index(former[face]) if face in former else NO_SPLIT for face in ids]
    found = assign(np.array(numbers, np.int32), np.array(had, np.int8), IdFile(ids), settings, seed)
    splits = dict(zip(ids, (SPLITS[place] for place in found.tolist()), strict=True))
    assert all(splits[face] == splits[name] for name, faces in groups.items() for face in faces)
    return {name: splits[name] for name in groups}


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(0, 9))
def test_every_group_goes_to_one_split_whatever_the_order(sizes: list[int], seed: int) -> None:
    groups = dealt(sizes)
    found = assigned(groups, {}, HALVES, seed)
    assert found.keys() == groups.keys() and set(found.values()) <= {"train", "val", "test"}
    shuffled = list(groups.items())
    random.Random(seed).shuffle(shuffled)
    assert assigned(dict(shuffled), {}, HALVES, seed) == found


@given(st.lists(st.integers(1, 3), max_size=30), st.lists(st.integers(1, 3), max_size=30), st.booleans())
def test_new_groups_move_no_old_one(old: list[int], new: list[int], counted: bool) -> None:
    settings = SplitSettings(val_faces=7, test_faces=5) if counted else HALVES
    before = assigned(dealt(old), {}, settings, 0)
    former = {face: before[name] for name, faces in dealt(old).items() for face in faces}
    more = dealt(old) | dealt(new, first=len(old))
    more |= {name: [*faces, f"{name}-new"] for name, faces in list(more.items())[:3]}
    after = assigned(more, former, settings, 0)
    assert {name: after[name] for name in before} == before


def test_shares_and_counts_are_met() -> None:
    singles = dealt([1] * 4000)
    found = list(assigned(singles, {}, SplitSettings(), 0).values())
    assert found.count("val") == pytest.approx(200, abs=50) and found.count("test") == pytest.approx(200, abs=50)
    pairs = dealt([2] * 300)
    found = list(assigned(pairs, {}, SplitSettings(val_faces=50, test_faces=31), 0).values())
    assert (2 * found.count("val"), 2 * found.count("test")) == (50, 30)
    assert assigned(singles, {}, SplitSettings(), 1) != assigned(singles, {}, SplitSettings(), 0)
    assert set(assigned(dealt([50, *[1] * 50]), {}, HALVES, 0).items()) >= {("g0", "train")}, "half of all is training"


def test_groups_that_come_together_go_to_training_then_validation() -> None:
    former = {"a": "test", "b": "val", "c": "train"}
    assert assigned({"a": ["a", "b", "c"]}, former, HALVES, 0) == {"a": "train"}
    assert assigned({"a": ["a", "b", "new"]}, former, HALVES, 0) == {"a": "val"}


@pytest.mark.parametrize("count", [20, 71, 200])
def test_small_sets_leave_no_wanted_split_empty(count: int) -> None:
    """Of 20 people a twentieth each is one, whatever the draw; two stay with what a person of two can give."""
    for seed in range(20):
        split = assigned({str(n): [str(n)] for n in range(count)}, {}, SplitSettings(), seed)
        assert set(split.values()) == {"train", "val", "test"}
        assert Counter(split.values())["train"] > count * 0.7
    assert set(assigned({"a": ["a", "b"]}, {}, SplitSettings(), 0).values()) == {"train"}
