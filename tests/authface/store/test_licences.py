"""What is recognised as a licence, and that nothing else ever is."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.store.statements import NAMES, conditions, disagree, recognise, strictest, strictness

CC = ("CC BY 4.0", "CC-BY-SA-3.0", "cc_by_nc_4.0", "CC BY-NC-SA 2.0", "CC BY-ND 4.0", "CC-BY-NC-ND-2.5")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cc_by_nd_4.0", "CC-BY-ND"), ("CC BY", "CC-BY"), ("ccbysa40", "CC-BY-SA"), ("CC-BY-NC-ND-4.0", "CC-BY-NC-ND"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License", "CC-BY-NC-SA"),
        ("Attribution-NoDerivs License", "CC-BY-ND"), ("CC BY 2.0 DE", "CC-BY"), ("CC BY-SA 3.0 IGO", "CC-BY-SA"),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.en", "CC-BY-NC"),
        ("http://www.creativecommons.org/licenses/by-nc-nd/2.0/", "CC-BY-NC-ND"),
        ("creativecommons.org/licenses/by/3.0/us/legalcode", "CC-BY"), ("https://spdx.org/licenses/MIT.html", "MIT"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "public domain"), ("cc zero", "public domain"),
        ("http://rightsstatements.org/vocab/NoC-US/1.0/", "public domain"), ("NoC", "public domain"),
        ("PD-USGov-NASA", "public domain"), ("U.S. Government Work", "public domain"), ("NoC-NC", "NoC-NC"),
    ],
)  # fmt: skip
def test_the_usual_spellings(text: str, name: str) -> None:
    found = recognise(text)
    assert found is not None and found.name == name
    assert found.derivatives == ("ND" not in name) and found.commercial == ("NC" not in name)


@pytest.mark.parametrize(
    "text",
    [
        "", "unknown", "NaN", "none", "null", "(c) 2021, all rights with the photographer", "Rights managed", "InC",
        "Editorial use only", "research only", "all rights reserved", "not CC0", "CC0?", "CC BY 4.0, ask first",
        "CC BY-ND-SA 4.0", "CC BY 9.0", "CC", "PD-not", "NoC-CR", "NoC-OKLR", "CC BY or all rights reserved", "free",
        "http://rightsstatements.org/vocab/InC/1.0/", "https://creativecommons.org.evil.example/licenses/by/4.0/",
        "https://example.org/licenses/by/4.0/", "https://creativecommons.org/licenses/by/4.0/?but=no", "royalty-free",
        "CC0 " * 100, "proprietary", "Attribution", "BY",
    ],
)  # fmt: skip
def test_no_other_text_is_recognised(text: str) -> None:
    assert recognise(text) is None


@pytest.mark.parametrize("name", [*NAMES, *CC])
def test_case_spaces_and_punctuation_do_not_matter(name: str) -> None:
    dice, found = random.Random(name), recognise(name)
    assert found is not None
    for _ in range(20):
        other = "".join(dice.choice((sign.upper(), sign.lower())) for sign in name)
        other = "".join(dice.choice(" -_.") if sign in " -_./" else sign for sign in other)
        assert recognise(f" {other}\n") == found, other


def test_a_word_more_is_another_text() -> None:
    dice = random.Random(19)
    for name in (*NAMES, *CC):
        for _ in range(20):
            more = "".join(dice.choices(string.ascii_letters + "?!;*", k=dice.randint(10, 20)))
            assert recognise(f"{name} {more}") is None and recognise(f"{more} {name}") is None
            assert recognise(more) is None


ORDER = (
    "CC0", "CC BY 4.0", "CC BY-SA 4.0", "NoC-NC", "CC BY-NC 4.0", "CC BY-NC-SA 4.0", "CC BY-ND 4.0", "CC BY-NC-ND 4.0",
    "Unsplash License", "Rights managed",
)  # fmt: skip


def test_licences_have_an_order_of_permission() -> None:
    assert sorted(ORDER, key=strictness) == list(ORDER)
    for at, text in enumerate(ORDER):
        assert all(strictest([text, other]) == other for other in ORDER[at + 1 :])
    assert strictest(["", "CC0", " Unknown "]) == "CC0" and strictest(["", "unknown"]) == strictest([]) == "unknown"


@given(st.lists(st.sampled_from([*ORDER, "", "unknown", "ask", "cc-by-2.0"]) | st.text(max_size=20)), st.randoms())
def test_the_strictest_does_not_hang_on_the_order_and_forbids_what_any_forbids(
    texts: list[str], dice: random.Random
) -> None:
    found, mixed = strictest(texts), dice.sample(texts, len(texts))
    assert strictest(mixed) == strictest([*texts, *mixed]) == found
    known, all_of = (
        recognise(found),
        [recognise(text) for text in texts if text.strip().casefold() not in {"", "unknown"}],
    )
    for one in all_of:
        assert known is None or one is not None
        if known and one:
            assert known.redistribution <= one.redistribution
            assert (known.redistribution and known.derivatives) <= (one.redistribution and one.derivatives)


def test_versions_and_spellings_do_not_disagree_and_conditions_add_up() -> None:
    assert not disagree(["CC BY 4.0", "cc-by-2.0", "", "unknown"]) and not disagree(["CC0", "PDM"])
    assert disagree(["CC BY 4.0", "CC BY-SA 4.0"]) and disagree(["ask", "CC0"]) and disagree(["ask", "ask me"])
    assert conditions(["CC BY-NC 4.0", "CC BY-SA 4.0", "ask"]) == ("NC", "SA") and conditions(["CC BY-ND 4.0"]) == (
        "ND",
    )
