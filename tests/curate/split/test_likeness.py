"""What reads vectors from a file does the same as with an array."""

from __future__ import annotations

import numpy as np
import pytest

from authface.curate.split import nearest
from authface.curate.split.likeness import cohort_of, likeness_of
from authface.curate.split.people import identities
from authface.store.rowfile import RowFile


def filed(vectors: np.ndarray, cuts: list[int]) -> RowFile:
    made = RowFile(vectors.shape[1])
    for block in np.split(vectors, sorted(cut % (len(vectors) + 1) for cut in cuts)):
        made.append(block)
    return made


@pytest.mark.parametrize("flat", [100, 10_000])
def test_people_are_the_same_from_a_file(flat: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "FLAT_ROWS", flat)
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((300, 32))[rng.integers(0, 300, 1200)] + 0.3 * rng.standard_normal((1200, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    held, made = vectors.copy(), filed(vectors, [500])
    found = [
        identities(some, np.arange(1200) // 2, likeness_of(some, cohort_of(some), (0, 1)), 4.0)
        for some in (vectors, made)
    ]
    assert np.array_equal(*found) and len(set(found[0].tolist())) < 1000
    assert np.array_equal(vectors, held) and np.array_equal(made[:], held), "they are read only"
