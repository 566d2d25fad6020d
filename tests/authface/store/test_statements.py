"""What was said of a photo's licence: the strictest that stands holds, nothing is erased, and no step begins anew.

What is recognised as a licence, and that nothing else ever is.
"""

from __future__ import annotations

import random
import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.inspect.why import told
from authface.records import Photo, Statement
from authface.store.photoset import PhotoSet, Provenance
from authface.store.statements import (
    _PERMISSIVE,
    _PUBLIC_DOMAIN,
    _SHARE_ALIKE,
    UNKNOWN,
    Said,
    conditions,
    count_disputed,
    disagree,
    disputed,
    hold,
    recognise,
    restated,
    rewrite,
    same_list,
    standing,
    strictest,
    strictness,
)

NAMES = (*_PERMISSIVE, *_SHARE_ALIKE, *_PUBLIC_DOMAIN, "Unsplash License", "NoC-NC")
"""As they are usually written; Creative Commons' six with attribution are recognised by their parts beside these."""
TEXTS = st.sampled_from(
    ["", "unknown", "CC0", "CC BY 4.0", "cc-by-2.0", "CC BY-SA 4.0", "CC BY-NC 4.0", "CC BY-ND 4.0", "CC BY-NC-SA 4.0",
     "CC BY-NC-ND 4.0", "Unsplash License", "Rights managed", "ask me", "PDM", "NoC-NC"]
)  # fmt: skip
PHOTO = Photo(id="a", source="urls", source_id="x", file="")
SAID = st.lists(st.tuples(st.sampled_from(["/a/l.csv", "/b/m.csv", "/c/n.csv"]), st.sets(TEXTS, min_size=1)))


@given(SAID)
def test_what_holds_is_as_strict_as_the_strictest_that_each_list_says_now(said: list[tuple[str, set[str]]]) -> None:
    photo, last = replace(PHOTO, statements=(Statement(licence="", by="/a/l.csv"),)), {}
    for number, (by, texts) in enumerate(said):
        before, photo = photo, restated(photo, texts, by, f"{number}", whole=True)
        last[by] = texts
        assert restated(photo, texts, by, "later", whole=True) is photo, "said twice is nothing new"
        assert {(s.licence, s.by) for s in before.statements} <= {(s.licence, s.by) for s in photo.statements}
        now = {text for texts in last.values() for text in texts}
        assert set(standing(photo.statements)) | {""} == now | {""}
        assert strictness(photo.licence) == strictness(strictest(now)) or photo.licence == strictest(now)


@given(SAID)
def test_a_list_that_was_read_in_part_loosens_nothing(said: list[tuple[str, set[str]]]) -> None:
    photo = PHOTO
    for by, texts in said:
        before, photo = photo.licence, restated(photo, texts, by, "1", whole=False)
        assert before in {"", UNKNOWN} or strictness(photo.licence) >= strictness(before)


@given(st.lists(st.tuples(st.sampled_from(["/a/l.csv", "/b/m.csv", "/c/n.csv"]), TEXTS), unique_by=lambda s: s[0]))
def test_the_order_of_lists_does_not_matter(said: list[tuple[str, str]]) -> None:
    found = []
    for order in (said, said[::-1], sorted(said)):
        photo = PHOTO
        for by, text in order:
            photo = restated(photo, [text], by, "1", whole=True)
        found.append(photo.licence)
    assert len({strictness(licence) for licence in found}) == 1


def test_a_list_that_was_moved_is_the_list_that_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "list.csv", tmp_path / "new" / "list.csv"
    assert same_list(str(old), str(new)) and same_list("", str(new)) and same_list(str(new), str(new))
    assert not same_list(str(old), str(new.with_name("other.csv")))
    old.parent.mkdir()
    old.write_text("url")
    assert not same_list(str(old), str(new)), "it is there still, so there are two"


def made(root: Path, *photos: Photo) -> PhotoSet:
    photoset = PhotoSet(root)
    for part, photo in enumerate(photos):
        photoset.photos.write(part, [photo], Provenance("fetch", 1, {}, {}), "")
    return photoset


def of(licence: str, name: str, **more: str) -> Photo:
    one = Statement(licence=licence, by=f"/lists/{name}.csv", at="2026-11-29T10:00:00+00:00")
    return replace(PHOTO, source_id=name, licence=licence, statements=(one,), **more)  # type: ignore[arg-type]


def test_of_the_same_bytes_under_several_names_the_strictest_holds_and_a_set_of_before_opens(tmp_path: Path) -> None:
    copy = of("CC BY-NC 4.0", "y", status="rejected", reason="duplicate")
    photoset = made(tmp_path / "set", of("CC BY 4.0", "x"), copy)
    for part in (0, 1):
        meta = photoset.photos.meta(part)
        assert meta is not None
        photoset.photos.put(part, photoset.photos.arrow(part).drop_columns(["statements"]), meta)
    before = photoset.photos.metas()
    assert hold(photoset) == {"a": ("CC BY 4.0", "CC BY-NC 4.0")} and hold(photoset) == {}
    after = photoset.photos.metas()
    assert before[0] and after[0] and before[0].digest == after[0].digest, "no step begins anew"
    assert after[0].origins and before[1] == after[1], "an export is older than this"
    assert count_disputed(disputed(photoset)) == {"disputed": 1, "corrected": 0}
    rows = photoset.photos.rows(1)
    new = [replace(rows[0], licence="CC0", statements=(Statement(licence="CC0"),))]
    rewrite(photoset.photos, 1, rows, new)
    assert hold(photoset) == {"a": ("CC BY-NC 4.0", "CC BY 4.0")}, "what it said itself was kept"


def test_versions_and_spellings_are_no_dispute_and_change_nothing(tmp_path: Path) -> None:
    copy = of("CC BY 2.0", "y", status="rejected", reason="duplicate")
    photoset = made(tmp_path / "set", of("CC-BY-4.0", "x"), copy)
    assert hold(photoset) == {} and disputed(photoset) == {}


def test_what_is_told_names_lists_without_their_place() -> None:
    gone = Statement(licence="CC0", by="/home/anna/l.csv", at="2026-11-29T10:00:00+00:00", until="2026-11-30T09:00:00")
    assert told([Said("x", gone)]) == "CC0 (l.csv, since 2026-11-29 10:00 UTC until 2026-11-30 09:00 UTC)"
    assert told([Said("x", Statement(licence=" "))]) == UNKNOWN


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
