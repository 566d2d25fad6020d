"""Agreement of reviewers: Cohen's kappa against numbers known elsewhere, and the page of disagreements."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.review.compare import ReviewerAgreement
from authface.review.reviews import Decision, Verdict, decision_log
from authface.store.photoset import PhotoSet
from tests.conftest import authface

VERDICTS = st.sampled_from(["keep", "reject", "retouch"])


def agreement(*pairs: tuple[Verdict, Verdict, int]) -> ReviewerAgreement:
    return ReviewerAgreement("a", "b", Counter({(one, other): count for one, other, count in pairs}))


def test_kappa_of_the_textbook() -> None:
    """50 grants, 35 agreed, 0.54 by chance to 0.4 (Wikipedia's example of Cohen's kappa)."""
    found = agreement(("keep", "keep", 20), ("keep", "reject", 5), ("reject", "keep", 10), ("reject", "reject", 15))
    assert (found.both, found.agreed) == (50, 35)
    assert found.kappa == pytest.approx(0.4)


def test_kappa_where_it_says_nothing() -> None:
    assert agreement().kappa is None
    assert agreement(("keep", "keep", 9)).kappa is None, "both said the same of all: chance explains it"
    assert agreement(("keep", "reject", 5), ("reject", "keep", 5)).kappa == pytest.approx(-1)


@given(st.lists(st.tuples(VERDICTS, VERDICTS), max_size=40))
def test_kappa_is_symmetric_and_the_share_beyond_chance(pairs: list[tuple[Verdict, Verdict]]) -> None:
    found = ReviewerAgreement("a", "b", Counter(pairs))
    swapped = ReviewerAgreement("b", "a", Counter((other, one) for one, other in pairs))
    assert found.kappa == pytest.approx(swapped.kappa)
    if found.kappa is not None:
        by_chance = sum(one == other for one, _ in pairs for _, other in pairs) / len(pairs) ** 2
        agreed = sum(one == other for one, other in pairs) / len(pairs)
        assert found.kappa == pytest.approx((agreed - by_chance) / (1 - by_chance))
        assert (found.kappa == 1) == (found.agreed == found.both)


def test_the_command_prints_each_pair_and_shows_disagreements(photoset: PhotoSet, ids: Callable[[int], str]) -> None:
    said = {"anna": "KKRT..", "ben": "KRRK..", "cho": "....KK"}
    words: dict[str, Verdict] = {"K": "keep", "R": "reject", "T": "retouch"}
    for who, letters in said.items():
        for number, letter in enumerate(letters):
            if letter in words:
                reason = "<b>blurred</b>" if letter == "R" else ""
                decision_log(photoset, who).append(Decision(id=ids(number), verdict=words[letter], reason=reason))
    command = ["curate", "review", photoset.root, "--compare"]
    done = authface(*command)
    assert done.returncode == 0, done.stderr
    assert "anna and ben: kappa 0.20, 50 % agreement on 4 crops" in done.stdout
    assert "anna and cho: no crop was judged by both" in done.stdout
    assert "policy = any_reject: 3 keep, 1 retouch, 2 reject" in done.stdout
    page = (photoset.root / "reports" / "review.html").read_text()
    assert page.count("<figure") == 2 and "anna: keep, ben: reject" in page and "anna: retouch, ben: keep" in page
    assert "&lt;b&gt;blurred" in page and "<b>blurred" not in page
    majority = authface(*command, "--json", "-O", "curate.review.policy=majority")
    values = json.loads(majority.stdout)
    assert values["pairs"][0]["confusion"] == {"keep/keep": 1, "keep/reject": 1, "reject/reject": 1, "retouch/keep": 1}
    assert values["final"] == {"keep": 3, "retouch": 1, "reject": 2}
