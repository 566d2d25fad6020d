"""All that belong together are in one group, and a group is named by the id that comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from authface.curate.split import groups as groups_module
from authface.curate.split.groups import DisjointSets, connected_groups, first_members
from authface.store.rowfile import IdFile


def same_groups(one: ArrayLike, other: ArrayLike) -> bool:
    """Whether two labellings put the same members together."""
    one, other = np.asarray(one).tolist(), np.asarray(other).tolist()
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "x", "y", "z"])), max_size=30))
def test_all_that_share_a_key_are_together_and_nobody_else(members: list[tuple[int, str | None]]) -> None:
    letters = [-1 if letter is None else "xyz".index(letter) for _, letter in members]
    columns = [np.array(column, np.int32) for column in ([number for number, _ in members], letters)]
    labels = connected_groups(len(members), columns)
    expected = list(range(len(members)))
    for one in range(len(members)):
        for other in range(one):
            if members[one][0] == members[other][0] or (members[one][1] and members[one][1] == members[other][1]):
                expected = [expected[one] if label == expected[other] else label for label in expected]
    assert same_groups(labels, expected)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40), st.lists(st.integers(0, 19)))
def test_names_of_many_are_those_of_each(joined: list[tuple[int, int]], asked: list[int]) -> None:
    sets, others = DisjointSets(20), DisjointSets(20)
    for number, (one, other) in enumerate(joined):
        for each in (sets, others):
            each.join(one, other)
        if number % 5 == 0:
            sets.names(np.array(asked, np.int32))
    assert sets.names(np.array(asked, np.int32)).tolist() == [others.find(member) for member in asked]
    assert sets.labels().tolist() == [others.find(member) for member in range(20)]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.text("0123456789abcdef-", min_size=1, max_size=6)), max_size=40),
    st.integers(1, 50),
)
def test_a_group_is_named_by_the_member_whose_id_comes_first(members: list[tuple[int, str]], at_once: int) -> None:
    ids = [f"{id}-{number}" for number, (_, id) in enumerate(members)]
    groups = [[other for other, (label, _) in enumerate(members) if label == mine] for mine, _ in members]
    labels = np.array([group[-1] for group in groups], np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "_AT_ONCE", at_once)
        first = first_members(IdFile(ids), labels).tolist()
    assert [ids[number] for number in first] == [min(ids[number] for number in group) for group in groups]


def test_nobody_is_in_no_group() -> None:
    assert connected_groups(0, [np.zeros(0, np.int32)]).tolist() == []
