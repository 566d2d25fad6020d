"""Photos by number, and what is noted of them, against sets of everything."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.fetch.keys import Key
from authface.curate.fetch.roll import CLAIMED, LISTED, MET, UNNAMED, Mark, Roll, Said

KEYS = st.tuples(st.sampled_from(["urls", "folder"]), st.text(max_size=3), st.sampled_from(["", "2026 1"]))
MARKS = st.sampled_from([LISTED, MET, UNNAMED, CLAIMED])
KINDS, TEXTS = ("licence", "attribution"), ["", "CC0", "CC BY 4.0"]


@given(st.lists(KEYS), st.lists(KEYS))
def test_each_photo_has_one_number(known: list[Key], others: list[Key]) -> None:
    roll, asked = Roll(known), sorted({*known, *others})
    numbers = {key: roll.number(key) for key in asked}
    assert len({*numbers.values()}) == len(asked)
    assert sorted(numbers[key] for key in {*known}) == list(range(len(roll)))
    assert all((key in roll) is (key in known) is (number >= 0) for key, number in numbers.items())
    assert roll.numbers(asked) == [*numbers.values()]


@given(st.lists(KEYS, unique=True), st.lists(st.tuples(KEYS, MARKS)))
def test_a_mark_is_new_once_and_no_other_is_made(known: list[Key], marks: list[tuple[Key, Mark]]) -> None:
    roll, model = Roll(known), set[tuple[Key, Mark]]()
    for key, mark in [*marks, *((key, MET) for key in known[::2])]:
        assert roll.mark(roll.number(key), mark) is ((key, mark) not in model)
        model.add((key, mark))
        for other in (LISTED, MET, UNNAMED, CLAIMED):
            assert roll.marked(roll.number(key), other) is ((key, other) in model)


@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(KINDS), st.sampled_from(TEXTS))),
    st.integers(1, 5),
)
def test_what_was_said_is_held_and_nothing_else(known: int, told: list[tuple[int, str, str]], merge: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("authface.store.numbers._MERGE", merge)
        said, model = Said(known, KINDS), set[tuple[int, str, str]]()
        for number, kind, text in told:
            if number < known:
                said.add(number, kind, text)
                model.add((number, kind, text))
        for number in range(-3, known):
            for kind in KINDS:
                for text in TEXTS:
                    assert said.holds(number, kind, text) is ((number, kind, text) in model)


def test_what_is_noted_of_a_known_photo_takes_17_bytes() -> None:
    count = 200_000
    tracemalloc.start()
    roll = Roll(("urls", f"http://a.test/{at}", "") for at in range(count))
    said = Said(len(roll), KINDS)
    for number in range(count):
        roll.mark(number, MET)
        said.add(number, "licence", "CC0")
        said.add(number, "attribution", TEXTS[number % 3])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 17.5 * count and peak < 22 * count
