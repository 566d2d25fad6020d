"""The challenge's arithmetic, by hand."""

import pytest

from authface.errors import UsageError
from authface.evaluate.challenge.rules import TERMS, ChallengeFigure, Gate, judge_set, rules, score, short_of

FIGURES = {"clipiqa": 0.7, "maniqa": 0.6, "musiq": 75.0, "niqe": 4.0, "qalign": 4.5, "fid_ffhq_basicsr": 40.0}
"""0.7 + 0.6 + 0.75 + 0.6 + 0.9 + 0.6."""


def test_the_score_is_the_sum_that_is_printed() -> None:
    found = score({name: ChallengeFigure(value, 450) for name, value in FIGURES.items()}, 450, {})
    assert found.total == pytest.approx(4.15) and found.missing == {} and list(found.terms) == list(TERMS)
    assert found.terms["niqe"] == pytest.approx(0.6) and found.terms["fid_ffhq_basicsr"] == pytest.approx(0.6)
    bad = FIGURES | {"niqe": 12.0, "fid_ffhq_basicsr": 130.0}
    found = score({name: ChallengeFigure(value, 450) for name, value in bad.items()}, 450, {})
    assert found.total == pytest.approx(2.95), "a NIQE over 10 and an FID over 100 take nothing off"


def test_a_score_never_lacks_a_term_in_silence() -> None:
    some = {name: ChallengeFigure(value, 450) for name, value in FIGURES.items() if name != "qalign"}
    found = score(some, 450, {"qalign": "its weights are missing"})
    assert found.total is None and found.sum == pytest.approx(3.25)
    assert found.missing == {"qalign": "its weights are missing"}
    fewer = score({name: ChallengeFigure(value, 450 - (name == "musiq")) for name, value in FIGURES.items()}, 450, {})
    assert fewer.total is None and fewer.missing == {"musiq": "of 449 of 450 faces"}


def test_eleven_failures_disqualify_and_ten_do_not() -> None:
    def gate(below: int, unseen: int = 0) -> Gate:
        likeness = {f"b{n}": 0.4999 for n in range(below)} | {f"u{n}": None for n in range(unseen)}
        return Gate((judge_set("CelebA", likeness | {"good": 0.5}, 0.5, 0.5),), rules().most_failures)

    assert (gate(10).verdict, gate(11).verdict, gate(10, 1).verdict) == ("passed", "disqualified", "disqualified")
    assert gate(10, 1).failures == gate(11).failures == 11, "a face that is no longer found fails"
    halves = [judge_set(on, {f"f{n}": 0.1 for n in range(6)}, 0.3, 0.2) for on in ("WIDER-Test", "WebPhoto-Test")]
    assert Gate(tuple(halves), 10).verdict == "disqualified", "failures of all sets count together"
    assert Gate((), 10, "no weights").verdict == "unknown"


def test_a_set_is_judged_by_its_own_limit_and_by_the_scripts() -> None:
    found = judge_set("WIDER-Test", {"a": 0.29, "b": 0.31, "c": 0.19, "d": None}, 0.30, 0.20)
    assert found.below == ("c", "a") and found.unseen == ("d",) and found.script == 2
    assert found.mean == pytest.approx((0.29 + 0.31 + 0.19) / 3)
    least = {one.name: (one.least, one.script) for one in rules().sets}
    assert least == {
        "CelebA": (0.5, 0.5), "LFW-Test": (0.6, 0.6), "CelebChild-Test": (0.6, 0.6), "WebPhoto-Test": (0.3, 0.25),
        "WIDER-Test": (0.3, 0.2),
    }  # fmt: skip
    assert rules().faces == 450 and rules().most_failures == 10


def test_names_of_sets() -> None:
    assert [rules().set_of(name).name for name in ("Wider-Test", "wider", "CelebA-Test")] == [
        "WIDER-Test", "WIDER-Test", "CelebA",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no set FFHQ"):
        rules().set_of("FFHQ")
    assert "without LFW-Test" in short_of(["CelebA"], 50)
    assert short_of([one.name for one in rules().sets], 450) == ""
    assert short_of([one.name for one in rules().sets], 449) == "449 faces, where the challenge has 450"
