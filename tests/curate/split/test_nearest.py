"""The faces most alike: all of a small set, nearly all of a large one, each pair once and the likest first."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.split import cells, nearest
from authface.curate.split import pairs as pairs_module
from authface.curate.split.cells import Cells
from authface.curate.split.likeness import Likeness
from authface.curate.split.nearest import Faces, likest_others, pairs_alike
from authface.curate.split.people import identities
from tests.curate.split.test_groups import same_groups

PEOPLE = 400


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def faces_of(vectors: np.ndarray, seed: int = 0) -> Faces:
    """Faces whose likeness is nearly their product."""
    rng, count = np.random.default_rng(seed), len(vectors)
    spread = rng.uniform(0.9, 1.1, count).astype(np.float32)
    return Faces(vectors, Likeness(rng.uniform(-0.02, 0.02, count).astype(np.float32), spread))


def values_of(faces: Faces, others: Faces) -> np.ndarray:
    """(n, m) likeness of all to all."""
    vectors, theirs = faces.vectors[:], others.vectors[:]
    first, second = np.indices((len(vectors), len(theirs))).reshape(2, -1)
    products = (vectors @ theirs.T).ravel()
    return faces.likeness.of(products, first, others.likeness, second).reshape(len(vectors), -1)


def photos_of_people(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of four photos each of many people, and whose they are."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), 4)
    centres = np.random.default_rng(7).standard_normal((PEOPLE, 32)) + 0.3
    return unit(centres[person] + 0.15 * rng.standard_normal((len(person), 32))), person


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 8), st.integers(1, 60))
def test_of_few_all_pairs_are_found_where_one_is_among_the_likest_of_the_other(
    seed: int, count: int, most: int, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    faces = faces_of(
        unit(rng.standard_normal((5, 6))[rng.integers(0, 5, count)] + rng.standard_normal((count, 6))), seed
    )
    value = values_of(faces, faces)
    np.fill_diagonal(value, -9)
    place = np.argsort(np.argsort(-value, axis=1), axis=1)  # no two are equal
    wanted = {
        (a, b) for a, b in np.argwhere(value >= 0.4).tolist() if a < b and (place[a, b] < most or place[b, a] < most)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_PRODUCTS", at_once)
        patch.setattr(nearest, "_PAIRS", at_once)
        patch.setattr(pairs_module, "AT_ONCE", at_once)
        turns = list(pairs_alike(faces, 0.4, most))
    pairs = [tuple(pair) for some, _ in turns for pair in some.tolist()]
    values = [told for _, some in turns for told in some.tolist()]
    assert len(pairs) == len(set(pairs)) and set(pairs) == wanted
    assert values == sorted(values, reverse=True)
    assert np.allclose(values, [value[pair] for pair in pairs], atol=1e-5)


def test_cells_find_what_a_comparison_of_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, person = photos_of_people()
    faces = faces_of(vectors)
    exact = {tuple(pair) for some, _ in pairs_alike(faces, 0.8, 32) for pair in some.tolist()}
    few = {tuple(pair) for some, _ in pairs_alike(faces, 0.6, 2) for pair in some.tolist()}
    monkeypatch.setattr(nearest, "FLAT_ROWS", 1000)
    monkeypatch.setattr(nearest, "AT_ONCE", 300)
    turns = list(pairs_alike(faces, 0.8, 32))
    pairs = [tuple(pair) for some, _ in turns for pair in some.tolist()]
    assert len(exact) > 2000 and len(pairs) == len(set(pairs)), "no pair twice, though it meets in several cells"
    assert len(exact & set(pairs)) > 0.99 * len(exact) and set(pairs) <= exact
    assert all((np.diff(values) <= 0).all() for _, values in turns)
    assert same_groups(identities(vectors, np.arange(len(vectors)), faces.likeness, 0.8), person.tolist())
    monkeypatch.setattr(pairs_module, "AT_ONCE", 500)
    fewer = {tuple(pair) for some, _ in pairs_alike(faces, 0.6, 2) for pair in some.tolist()}
    assert len(few & fewer) > 0.95 * len(few) and len(fewer - few) < 0.05 * len(few), "two of all cells, not of each"


@pytest.mark.parametrize("flat", [1000, 10_000])
def test_the_likest_of_another_set_is_found(flat: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "FLAT_ROWS", flat)
    monkeypatch.setattr(nearest, "AT_ONCE", 100)
    vectors, _ = photos_of_people()
    faces, others = faces_of(photos_of_people(2)[0][::7]), faces_of(vectors, 3)
    strangers = Faces(
        unit(np.random.default_rng(5).standard_normal((50, 32)) - 0.8), Likeness(*np.ones((2, 50), np.float32))
    )
    value = values_of(faces, others)
    rows, found, told = likest_others(faces, others, 0.8)
    wanted = np.flatnonzero(value.max(axis=1) >= 0.8)
    assert len(wanted) > 200 and len(set(rows.tolist()) & set(wanted.tolist())) > 0.99 * len(wanted)
    assert (np.diff(rows) > 0).all() and np.allclose(told, value[rows, found], atol=1e-5)
    assert (found == value[rows].argmax(axis=1)).mean() > 0.99
    assert [len(column) for column in likest_others(strangers, others, 0.8)] == [0, 0, 0]


def test_cells_are_of_like_size_and_hold_what_is_near() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((6000, 32)) + 1)
    made = Cells(vectors, 1000)
    found = made.of(vectors)
    assert found.shape == (6000, cells.MEETINGS) and made.wide * made.own == pytest.approx(
        6000 / cells.CELL_ROWS, rel=0.1
    )
    assert all(len(set(row)) == cells.MEETINGS for row in found.tolist())
    sizes = np.bincount(found.ravel(), minlength=made.wide * made.own)
    assert sizes.std() < 0.7 * sizes.mean()
    few = Cells(vectors[:1000], 1000)
    assert not few.of(vectors[:10]).any() and few.of(vectors[:10]).shape == (10, 1)


def test_equal_faces_meet_wherever_they_stand() -> None:
    """Of equal centres rounding decided, which is another in each row: half of the faces met the other half nowhere."""
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal(128) / 128**0.5 + 0.04 * rng.standard_normal((10_000, 128)))
    same = np.flatnonzero(rng.random(10_000) < 0.5)
    vectors[same] = vectors[same[0]]
    made = Cells(vectors, 1000)
    found = np.concatenate([made.of(vectors[at : at + 4096]) for at in range(0, 10_000, 4096)])
    assert np.bincount(found[same].ravel()).max() == len(same)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_faces_that_are_all_the_same_are_found_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "FLAT_ROWS", 20)
    same = Faces(
        np.full((count, 4), 0.5, np.float32), Likeness(np.zeros(count, np.float32), np.ones(count, np.float32))
    )
    pairs = [tuple(pair) for some, _ in pairs_alike(same, 0.9, count) for pair in some.tolist()]
    assert sorted(pairs) == [(a, b) for a in range(count) for b in range(a + 1, count)]


def test_a_cell_whose_faces_are_all_alike_takes_no_more_than_its_products() -> None:
    """A sort of a million that are near was ten times the work of making them."""
    rng = np.random.default_rng(6)
    faces = faces_of(unit(rng.standard_normal(32) + 0.05 * rng.standard_normal((1000, 32))))
    tracemalloc.start()
    turns = list(pairs_alike(faces, 0.8, 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    value = values_of(faces, faces)
    np.fill_diagonal(value, -9)
    limit = np.sort(value, axis=1)[:, -8]
    pairs = np.concatenate([some for some, _ in turns])
    wanted = np.argwhere(np.triu((value >= limit[:, None]) | (value >= limit), 1))
    assert {*map(tuple, pairs.tolist())} == {*map(tuple, wanted.tolist())}
    assert peak < 40 * value.size
