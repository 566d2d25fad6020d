"""Faces of one person come together, strangers who look alike do not, and nobody is chained to anybody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.split import people as people_module
from authface.curate.split.likeness import COHORT_LEAST, Likeness, cohort_of, likeness_of
from authface.curate.split.nearest import Faces, pairs_alike
from authface.curate.split.people import NEIGHBOURS, identities
from tests.curate.split.test_groups import same_groups

PLAIN = (0.0, 1.0)
"""Mean and spread under which likeness is the dot product."""


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain(vectors: np.ndarray) -> Likeness:
    return likeness_of(vectors, None, PLAIN)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 30))
def test_people_far_apart_are_found_exactly(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    person = rng.integers(0, people, 3 * people)
    vectors = unit(rng.standard_normal((people, 64))[person] + 0.2 * rng.standard_normal((len(person), 64)))
    photos = [f"photo {row}" for row in range(len(person))]
    assert same_groups(identities(vectors, photos, plain(vectors), 0.75), person.tolist())


def test_a_chain_of_look_alikes_does_not_become_one_person() -> None:
    angles = np.radians(np.arange(0, 90, 10))
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    groups = identities(vectors, [str(row) for row in range(9)], plain(vectors), float(np.cos(np.radians(11))))
    sizes = np.unique(groups, return_counts=True)[1]
    assert sizes.max() <= 2, "next to each other they are alike enough, further apart they are not"
    for label in set(groups):
        members = [row for row, other in enumerate(groups) if other == label]
        assert max(members) - min(members) <= 1


def test_the_mean_likeness_of_groups_is_that_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((40, 8)) + 1.5)
    scale = Likeness(rng.uniform(0.3, 0.6, 40).astype(np.float32), rng.uniform(0.05, 0.3, 40).astype(np.float32))
    groups = identities(vectors, [str(row) for row in range(40)], scale, 1.0)
    every = np.stack(np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), axis=-1).reshape(-1, 2)
    value = scale.of((vectors @ vectors.T).ravel(), every[:, 0], scale, every[:, 1]).reshape(40, 40)
    assert len(set(groups.tolist())) < 40
    for label in set(groups.tolist()):
        members = np.flatnonzero(groups == label)
        if len(members) == 2:
            assert value[members[0], members[1]] >= 1.0


def linked(vectors: np.ndarray, photos: list[int], scale: Likeness, least: float) -> list[int]:
    """`identities` by its definition: the likeliest pairs first, all pairs of two groups looked at."""
    n = len(vectors)
    every = np.indices((n, n)).reshape(2, -1)
    value = scale.of((vectors @ vectors.T).ravel(), every[0], scale, every[1]).reshape(n, n)
    groups = [{face} for face in range(n)]
    pairs = [pair for some, _ in pairs_alike(Faces(vectors, scale), least, NEIGHBOURS) for pair in some.tolist()]
    for first, second in pairs:
        one, other = groups[first], groups[second]
        shared = {photos[face] for face in one} & {photos[face] for face in other}
        if one is not other and not shared and value[np.ix_(list(one), list(other))].mean() >= least:
            joined = one | other
            for face in joined:
                groups[face] = joined
    return [min(group) for group in groups]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 70))
def test_groups_are_those_of_the_definition_however_many_pairs_are_looked_at_at_a_time(
    seed: int, count: int, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((6, 12))[rng.integers(0, 6, count)] + 0.8 * rng.standard_normal((count, 12)))
    photos = rng.integers(0, count, count).tolist()
    spread = rng.uniform(0.1, 0.3, count).astype(np.float32)
    scale = Likeness(rng.uniform(-0.1, 0.3, count).astype(np.float32), spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people_module, "_PAIRS", at_once)
        assert same_groups(identities(vectors, photos, scale, 1.2), linked(vectors, photos, scale, 1.2))


def test_two_faces_of_one_photo_are_two_people() -> None:
    vectors = unit(np.ones((4, 8)) + 0.01 * np.random.default_rng(0).standard_normal((4, 8)))
    groups = identities(vectors, ["a", "a", "b", "c"], plain(vectors), 0.9)
    assert groups[0] != groups[1]


def test_people_of_a_kind_the_network_knows_badly_are_not_joined() -> None:
    rng = np.random.default_rng(0)
    wide = unit(rng.standard_normal((150, 64)))
    narrow = unit(rng.standard_normal(64) + 0.45 * rng.standard_normal((600, 64)))
    again = unit(wide[:20] + 0.07 * rng.standard_normal((20, 64)))
    vectors = np.concatenate([wide, again, narrow])
    photos = [str(row) for row in range(len(vectors))]
    strangers = narrow @ narrow.T
    np.fill_diagonal(strangers, -1)
    assert (strangers > (wide[:20] * again).sum(axis=1).min()).any(), "no one limit of the dot product would do"
    groups = identities(vectors, photos, likeness_of(vectors, cohort_of(vectors), PLAIN), 4.5)
    assert all(groups[row] == groups[150 + row] for row in range(20))
    assert len(set(groups[170:])) > 550


def test_a_small_set_is_no_cohort() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((COHORT_LEAST, 8)))
    assert cohort_of(vectors[1:]) is None
    cohort = cohort_of(vectors)
    assert cohort is not None and len(cohort) == len(vectors)
    usual = likeness_of(vectors[:3], None, (0.25, 0.5))
    assert usual.mean.tolist() == [0.25] * 3 and usual.spread.tolist() == [0.5] * 3


def test_nobody_has_no_identity() -> None:
    none = np.zeros((0, 8), np.float32)
    assert identities(none, [], plain(none), 1).tolist() == []
