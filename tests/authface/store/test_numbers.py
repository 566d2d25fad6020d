"""Sets and maps of numbers do what Python's do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.store.numbers import NumberMap, NumberSet, text_number

NUMBERS = st.integers(0, 2**64 - 1) | st.integers(0, 9)


@given(st.lists(NUMBERS), st.integers(1, 5))
def test_a_number_is_new_once(numbers: list[int], merge: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("authface.store.numbers._MERGE", merge)
        half = len(numbers) // 2
        seen, model = NumberSet(numbers[:half]), set(numbers[:half])
        for number in numbers[half:]:
            assert seen.add(number) is (number not in model)
            model.add(number)
        assert all(number in seen for number in model)


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 2**31 - 1))), st.lists(NUMBERS))
def test_the_last_of_a_number_counts(known: list[tuple[int, int]], others: list[int]) -> None:
    found, model = NumberMap(known), dict(known)
    asked = [*model, *others]
    assert found.get(asked) == [model.get(number, -1) for number in asked]
    assert [number in found for number in asked] == [number in model for number in asked]


def test_texts_have_numbers_of_64_bits() -> None:
    numbers = {text_number(text) for text in ("", "a", "b", "\0", "\ud800", "é" * 1000)}
    assert len(numbers) == 6 and all(0 <= number < 2**64 for number in numbers)
