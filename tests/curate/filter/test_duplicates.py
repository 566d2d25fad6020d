"""Copies of a picture have near hashes, other pictures far ones; what is near is found, all of it and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.curate.fetch.sources.folder import Samples
from authface.curate.filter import duplicates
from authface.curate.filter.duplicates import (
    BITS,
    RADIUS,
    NearIndex,
    find_duplicates,
    hash_codes,
    mirrored,
    near_pairs,
)
from authface.curate.filter.measure import face_hash
from authface.curate.filter.measures.quality import face_region
from authface.errors import AuthfaceError, UsageError
from authface.faces.detector import RetinaFace
from authface.imaging import decode as images
from authface.records import Face

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def portraits() -> dict[str, np.ndarray]:
    found = {Path(item.path).stem: item.path for item in Samples().items()}
    return {name: images.read(Path(found[name])).rgb for name in ("astronaut", "grace_hopper")}


def hashed(rgb: np.ndarray) -> str:
    luma = face_region(rgb, RetinaFace().detect(rgb)[0].points5).luma
    return face_hash(np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB)))


def apart(one: str, other: str) -> int:
    """By hand: bit by bit, as seen and mirrored."""
    first, second = (np.unpackbits(hash_codes([text])).reshape(12, 12) for text in (one, other))
    turned = np.where(np.arange(12) % 2, 1 - first, first)
    return int(min((first != second).sum(), (turned != second).sum()))


def jpeg(rgb: np.ndarray) -> np.ndarray:
    return images.decode(images.encode_jpeg(rgb, quality=50)).rgb


def half(rgb: np.ndarray) -> np.ndarray:
    return cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def bright(rgb: np.ndarray) -> np.ndarray:
    return np.clip(rgb * 1.15 + 8, 0, 255).astype(np.uint8)


def cropped(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    return rgb[height // 20 : -height // 30, width // 30 : -width // 20].copy()


def mirror(rgb: np.ndarray) -> np.ndarray:
    return rgb[:, ::-1].copy()


CHANGES: list[Change] = [jpeg, half, bright, cropped, lambda rgb: jpeg(half(bright(cropped(rgb))))]
MIRRORED: list[Change] = [
    mirror,
    lambda rgb: jpeg(mirror(rgb)),
    lambda rgb: half(mirror(rgb)),
    lambda rgb: bright(mirror(rgb)),
    lambda rgb: jpeg(half(mirror(rgb))),
]


@pytest.mark.parametrize("change", [*CHANGES, *MIRRORED])
def test_a_copy_is_near_and_another_face_is_not(portraits: dict[str, np.ndarray], change: Change) -> None:
    known = {name: hashed(rgb) for name, rgb in portraits.items()}
    assert all(len(text) == BITS // 4 for text in known.values())
    for name, rgb in portraits.items():
        copy = hashed(change(rgb))
        assert apart(copy, known[name]) <= RADIUS
        assert all(apart(copy, text) > 2 * RADIUS for other, text in known.items() if other != name)


def made(seed: int, count: int, flips: int) -> list[str]:
    """Hashes of which many are near one another: a few centres with up to `flips` bits turned."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (max(count // 4, 1), BITS), np.uint8)
    bits = centres[rng.integers(0, len(centres), count)]
    bits[rng.random(count) < 0.4, :] ^= np.tile(np.arange(12, dtype=np.uint8) % 2, 12)  # mirrored
    for row in bits:
        row[rng.choice(BITS, rng.integers(0, flips + 1), replace=False)] ^= 1
    return [code.tobytes().hex() for code in np.packbits(bits, axis=1)]


def face(number: int, text: str, **values: object) -> Face:
    row = Face(id=f"{number:04d}", photo_id=f"p{number}", photo_file="", index=0, hash=text, size=100 + number % 3)
    return replace(row, **values)  # type: ignore[arg-type]  # fields of the row


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(0, 30))
def test_the_index_finds_all_within_the_radius_and_none_beyond(seed: int, count: int, radius: int) -> None:
    texts = made(seed, count, radius + 4)
    codes = hash_codes(texts)
    rows, numbers, bits = NearIndex(codes[: count // 2], radius).search(codes)
    expected = [
        (row, other, apart(one, two))
        for row, one in enumerate(texts)
        for other, two in enumerate(texts[: count // 2])
        if apart(one, two) <= radius
    ]
    assert list(zip(rows.tolist(), numbers.tolist(), bits.tolist(), strict=True)) == expected


def by_hand(faces: list[Face], radius: int) -> dict[str, tuple[str, int]]:
    kept: list[Face] = []
    found = {}
    for each in sorted(faces, key=lambda f: (-(f.size or 0), f.id)):
        near = [(apart(each.hash, other.hash), rank, other.id) for rank, other in enumerate(kept)]
        near = [entry for entry in near if entry[0] <= radius]
        if near:
            found[each.id] = (min(near)[2], min(near)[0])
        else:
            kept.append(each)
    return found


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 20))
def test_duplicates_are_those_of_a_search_by_hand_in_any_order(seed: int, count: int, radius: int) -> None:
    faces = [face(number, text) for number, text in enumerate(made(seed, count, radius))]
    found = find_duplicates(faces, radius)
    assert found == by_hand(faces, radius)
    random.Random(seed).shuffle(faces)
    assert find_duplicates(faces, radius) == found
    with patch.multiple(duplicates, _CHUNK=9, _BLOCK=4):
        assert find_duplicates(faces, radius) == found


def test_more_faces_than_a_block_are_compared_across_blocks() -> None:
    texts = made(1, 700, 0)
    faces = [face(number, text) for number, text in enumerate(texts)]
    found = find_duplicates(faces, 0)
    pictures = {min(code.tobytes(), mirrored(code[None])[0].tobytes()) for code in hash_codes(texts)}
    assert len(found) == len(faces) - len(pictures)
    assert not {best for best, _ in found.values()} & found.keys()


def test_the_largest_then_the_sharpest_is_kept() -> None:
    text = made(2, 1, 0)[0]
    small, blurred, sharp = (
        face(1, text, size=90.0, sharpness=0.9),
        face(2, text, size=100.0, sharpness=0.1),
        face(3, text, size=100.0, sharpness=0.2),
    )
    assert find_duplicates([small, blurred, sharp]) == {"0001": ("0003", 0), "0002": ("0003", 0)}


def test_faces_of_one_photo_repeat_each_other_only_at_one_place() -> None:
    text = made(3, 1, 0)[0]
    left = face(1, text, photo_id="p", box=(0.0, 0.0, 10.0, 10.0))
    right = face(2, text, photo_id="p", box=(20.0, 0.0, 30.0, 10.0))
    again = face(3, text, photo_id="p", box=(2.0, 0.0, 12.0, 10.0), size=1.0)
    unknown = face(4, text, photo_id="p", size=1.0)
    assert find_duplicates([left, right, unknown]) == {}
    assert find_duplicates([left, right, again]) == {"0003": ("0001", 0)}


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(0, 20))
def test_pairs_join_all_that_are_near_one_another(seed: int, count: int, radius: int) -> None:
    texts = made(seed, count, radius)
    group = list(range(count))
    for one, other in near_pairs(texts, radius):
        assert apart(texts[one], texts[other]) <= radius
        group = [group[one] if label == group[other] else label for label in group]
    for one in range(count):
        assert all(group[one] == group[k] for k in range(count) if apart(texts[one], texts[k]) <= radius)


def test_faces_without_a_hash_are_passed_over_and_a_wrong_one_is_told() -> None:
    assert find_duplicates([face(1, ""), face(2, "")]) == {}
    assert find_duplicates([]) == {}
    with pytest.raises(AuthfaceError, match="36 hex digits: run authface curate filter again"):
        find_duplicates([face(1, "zz\n")])
    with pytest.raises(UsageError, match="a radius of 145 bits"):
        find_duplicates([], BITS + 1)
