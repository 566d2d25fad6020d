"""Time, memory and recall of near duplicates and identities over made-up faces, for a set of any size.

    python benchmarks/neighbours.py hashes --rows 1000000
    python benchmarks/neighbours.py people --rows 1000000

`hashes`: random hashes whose bits are as uneven as those of portraits, one in twenty a copy with up to 17 bits
flipped. `people`: unit vectors around as many centres as there are people, three faces each on average, on a cap as
narrow as that of dlib's network. Both know the truth and print what was found of it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np

from authface.curate.filter.duplicates import BITS, RADIUS, find_duplicates
from authface.curate.split.likeness import cohort_of, likeness_of
from authface.curate.split.nearest import FLAT_ROWS, Faces, pairs_alike
from authface.curate.split.people import NEIGHBOURS, identities
from authface.records import Face

LENGTH = 128
PER_PERSON = 3
LEAST = 4.5
CENTRE_SPREAD, FACE_SPREAD = 0.42, 0.2
"""Length of what sets people apart, and the photos of one person, beside what all faces have in common, which is 1."""


def hashes(rows: int, rng: np.random.Generator) -> None:
    """Planted near duplicates among random hashes."""
    ones = np.concatenate([np.linspace(0.15, 0.5, BITS // 2), np.linspace(0.5, 0.85, BITS - BITS // 2)])
    bits = rng.random((rows, BITS), np.float32) < rng.permutation(ones).astype(np.float32)
    planted = rows // 20
    bits[:planted] = bits[rng.integers(planted, rows, planted)]
    for row in bits[:planted]:
        row[rng.choice(BITS, rng.integers(0, RADIUS + 1), replace=False)] ^= True
    faces = [
        Face(id=str(row), photo_id=str(row), photo_file="", index=0, size=float(row), hash=code.tobytes().hex())
        for row, code in enumerate(np.packbits(bits, axis=1))
    ]
    del bits
    begin(rows)
    start = time.perf_counter()
    found = find_duplicates(faces)
    end(
        start,
        f"{sum(str(row) in found for row in range(planted)):,} of {planted:,} planted found, {len(found):,} in all",
    )


def people(rows: int, rng: np.random.Generator) -> None:
    """Faces of known people."""
    person = rng.integers(0, rows // PER_PERSON, rows)
    common = rng.standard_normal(LENGTH).astype(np.float32)
    common /= np.linalg.norm(common)
    centres = rng.standard_normal((rows // PER_PERSON, LENGTH), np.float32) * np.float32(CENTRE_SPREAD / LENGTH**0.5)
    vectors = common + centres[person]
    vectors += rng.standard_normal((rows, LENGTH), np.float32) * np.float32(FACE_SPREAD / LENGTH**0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    del centres
    begin(rows)
    start = time.perf_counter()
    likeness = likeness_of(vectors, cohort_of(vectors), (0, 1))
    names = identities(vectors, np.arange(rows), likeness, LEAST)
    end(start, told(names, person))
    if rows > FLAT_ROWS:
        asked = np.sort(rng.choice(rows, 1000, replace=False))
        codes = [
            pairs[np.isin(pairs, asked).any(axis=1)].astype(np.int64) @ (rows, 1)
            for pairs, _ in pairs_alike(Faces(vectors, likeness), LEAST, NEIGHBOURS)
        ]
        every = np.arange(rows)[None]
        alike = [
            likeness.of(vectors[row] @ vectors.T, np.array([row]), likeness, every)[0] >= LEAST
            for row in asked.tolist()
        ]
        one, other = asked[:, None], every
        there = np.unique((np.minimum(one, other) * rows + np.maximum(one, other))[np.array(alike) & (one != other)])
        found = np.isin(there, np.concatenate(codes)).mean()
        sys.stdout.write(f"{found:.1%} of {len(there):,} pairs found that are as alike as asked for\n")


def told(names: np.ndarray, person: np.ndarray) -> str:
    """How pure and how whole the groups are, over pairs that share a group and pairs that share a person."""
    both = pairs(names * (person.max() + 1) + person)
    pure, whole = both / max(pairs(names), 1), both / max(pairs(person), 1)
    return f"of pairs in a group {pure:.1%} are one person; of pairs of one person {whole:.2%} are in a group"


def pairs(labels: np.ndarray) -> int:
    """Pairs of rows of the same label."""
    sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    return int((sizes * (sizes - 1) // 2).sum())


def begin(rows: int) -> None:
    sys.stdout.write(f"{rows:,} rows; {memory():,.0f} MB with the rows made up\n")


def end(start: float, said: str) -> None:
    sys.stdout.write(f"{time.perf_counter() - start:,.0f} s, peak {memory():,.0f} MB; {said}\n")


def memory() -> float:
    """Peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("hashes", "people"))
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    {"hashes": hashes, "people": people}[asked.what](asked.rows, np.random.default_rng(0))


if __name__ == "__main__":
    main()
