"""What headers, tags and files of hosts say, from any text; drafts and reports by their own examples."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.fetch.optouts.statements import (
    OptOut,
    RobotRules,
    TdmLocations,
    content_usage,
    dictionary,
    page_tags,
    robots_words,
    statements_of,
    tdm_reservation,
)

SITE = "http://a.test"
ATTACH = """
User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: / train-ai=n
Content-Usage: /ai-ok/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: / train-ai=y
"""
"""The example of draft-ietf-aipref-attach."""
TDMREP = json.dumps(
    [
        {"location": "/directory-a/", "tdm-reservation": 1},
        {"location": "/directory-b/html/", "tdm-reservation": 1, "tdm-policy": "https://provider.com/policy.json"},
        {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0},
    ]
)
"""The example of TDMRep's report."""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["noai"], ["noai"]), (["noindex", "all, noimageai"], ["noimageai"]), (["googlebot: noai"], []),
        (["authface: noai"], ["noai"]), (["*: noai"], ["noai"]), (["noaino, xnoai"], []), ([], []), ([":,:"], []),
        (["unavailable_after: Wednesday, 25-Jun-25 15:00:00 PST, noai"], ["noai"]),
        (["max-snippet: 0, noml"], ["noml"]),
        (["googlebot: noindex, authface: noai"], ["noai"]), (["googlebot: noai, noimageai"], []),
        (["googlebot: noai", "noimageai"], ["noimageai"]), (["NoAI, NOIMAGEAI"], ["noai", "noimageai"]),
    ],
)  # fmt: skip
def test_the_words_of_x_robots_tag(lines: list[str], words: list[str]) -> None:
    assert [one.said for one in robots_words(lines)] == words
    assert {one.verdict for one in robots_words(lines)} <= {"refused"}


@pytest.mark.parametrize(
    ("values", "verdicts"),
    [(["1"], ["refused"]), (["0"], ["allowed"]), ([" 1 "], ["refused"]), (["0", "1"], ["refused"]),
     (["0, 0"], ["allowed"]), (["2"], ["unclear"]), ([""], ["unclear"]), (["true"], ["unclear"]), ([], [])],
)  # fmt: skip
def test_a_reservation_is_one_nought_or_unclear(values: list[str], verdicts: list[str]) -> None:
    assert [one.verdict for one in tdm_reservation(values)] == verdicts


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("train-ai=n", ["refused"]), ("train-ai=y, search=n", ["allowed"]), ("search=n", []), ("", []),
        ("train-ai=n;x=1;y, search=y", ["refused"]), ("train-ai;allow=n, train-ai=y", ["allowed"]),
        ("train-ai=y, train-ai, search=n", ["unclear"]), ('train-ai="n"', ["unclear"]), ("train-ai=(n y)", ["unclear"]),
        ("train-ai=n,", ["unclear"]), ("Train-AI=n", []), ("train-ai = n", ["unclear"]),
        ("search=y,train-ai=n", ["refused"]),
        ('a="x,y train-ai=n", train-ai=y', ["allowed"]), ("ai-use=n", []),
    ],
)  # fmt: skip
def test_a_preference_is_read_as_the_draft_says(text: str, verdicts: list[str]) -> None:
    assert [one.verdict for one in content_usage(text)] == verdicts


def test_the_drafts_example_of_a_robots_txt() -> None:
    rules = RobotRules(ATTACH)
    assert [rules.disallows(SITE + path) for path in ("/test", "/never/test", "/ai-ok/test")] == [False, True, False]
    verdicts = [[one.verdict for one in rules.preferences(SITE + path)] for path in ("/test", "/ai-ok/test")]
    assert verdicts == [["refused"], ["allowed"]]
    assert RobotRules(ATTACH.replace("ExampleBot", "authface")).preferences(SITE + "/test")[0].verdict == "allowed"


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("User-agent: *\nContent-Usage: /a train-ai=n\nContent-Usage: /a train-ai=y", ["refused"]),
        ("User-agent: *\nContent-Usage: train-ai=n", ["refused"]),
        ("User-agent: *\nContent-Usage: /b train-ai=n", []),
        ("User-agent: other\nContent-Usage: / train-ai=n", []),
        ("User-agent: *\nContent-Usage: / train-ai=n\nUser-agent: authface\nAllow: /", []),
        ("User-agent: other\nUser-agent: authface\nContent-Usage : / train-ai=n # not for training", ["refused"]),
        ("User-agent: *\r\nContent-Signal: search=yes, ai-train=no\r\nContent-Usage: /a* train-ai=y",
         ["allowed", "refused"]),
        ("Content-Usage: / train-ai=n", []),
    ],
)  # fmt: skip
def test_a_preference_of_a_path_is_that_of_its_longest_rule(text: str, verdicts: list[str]) -> None:
    assert [one.verdict for one in RobotRules(text).preferences(SITE + "/a/b.jpg")] == verdicts


def test_the_reports_example_of_a_list_of_locations() -> None:
    found = TdmLocations(TDMREP)
    said = {
        path: [one.verdict for one in found.statements(SITE + path)]
        for path in ("/directory-a/x.pdf", "/directory-b/html/x", "/directory-b/images/a/x.jpg", "/directory-b/x", "/")
    }
    assert list(said.values()) == [["refused"], ["refused"], ["allowed"], [], []]
    assert "https://provider.com/policy.json" in found.statements(SITE + "/directory-b/html/x")[0].said


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ('{"location": "/", "tdm-reservation": 1}', ["unclear"]), ("[1]", ["unclear"]),
        ('[{"location": "/"}]', ["unclear"]),
        ('[{"location": "/", "tdm-reservation": true}]', ["unclear"]), ("", []), ("Not found", []), ("[]", []),
        ('\ufeff[{"location": "x", "tdm-reservation": 1}]', ["refused"]), ("[" * 100_000, ["unclear"]),
        ('[{"location": "/x", "tdm-reservation": 0}, {"tdm-reservation": 1}]', ["allowed"]),
        ('[{"location": "/x\\nAllow: /", "tdm-reservation": 1}]', ["unclear"]),
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_unclear_and_a_page_says_nothing(text: str, verdicts: list[str]) -> None:
    assert [one.verdict for one in TdmLocations(text).statements(SITE + "/x.jpg")] == verdicts


def test_the_tags_of_a_page() -> None:
    html = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="tdm-reservation" content="1">
    <meta name="tdm-policy" content="https://provider.com/policies/policy.json">
    <META NAME='Robots' CONTENT='noindex,NoAI'/>
    <meta name="googlebot" content="noimageai"><!-- <meta name="robots" content="noml"> --><script>"<meta name=robots
    content=noml>"</script></head>"""
    assert page_tags(html) == [
        OptOut(
            "meta tdm-reservation",
            "tdm-reservation: 1, tdm-policy: https://provider.com/policies/policy.json",
            "refused",
        ),
        OptOut("meta robots", "noai", "refused"),
    ]


def manifest(label: str, name: str, use: str) -> dict[str, Any]:
    return {"assertions": [{"label": label, "data": {"entries": {name: {"use": use}}}}]}


def test_what_a_photo_was_made_from_is_asked_too() -> None:
    older = manifest("cawg.training-mining", "cawg.ai_training", "notAllowed")
    newest = manifest("c2pa.training-mining__1", "c2pa.data_mining", "allowed")
    store = {"active_manifest": "b", "manifests": {"a": older, "b": newest}}
    assert [one.verdict for one in statements_of(store)] == ["refused", "allowed"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["allowed", "notAllowed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "assertions", "label", "data", "entries", "use", "location", "tdm-reservation"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TEXTS = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ["User-agent: *", "User-agent: authface", "Disallow: /", "Allow: *$", "Content-Usage: / train-ai=n",
         "train-ai=n", "Content-Signal: ai-train=no", "noai", "<meta name=tdm-reservation content=1>", "<![x", ":", ",",
         "*", "#", "\0"]
    ),
    max_size=8,
).map("\n".join)  # fmt: skip


@given(TEXTS)
def test_any_text_says_something_or_nothing(text: str) -> None:
    found = [*robots_words([text]), *tdm_reservation([text]), *content_usage(text), *page_tags(text)]
    rules = RobotRules(text)
    assert rules.disallows(SITE + "/a") in {True, False}
    found += rules.preferences(SITE + "/a") + TdmLocations(text).statements(SITE + "/a")
    for one in found:
        signal = one.at(SITE, "2026")
        assert signal.said.isprintable() and len(signal.said) <= 201
        assert signal.verdict in {"allowed", "refused", "unclear"}


@given(VALUES)
def test_any_json_is_a_list_of_locations_or_unclear(value: Any) -> None:
    assert len(TdmLocations(json.dumps([value])).statements(SITE + "/a")) <= 1
    assert all(one.kind == "c2pa" for one in statements_of({"manifests": {"a": value}}))
    assert all(one.kind == "c2pa" for one in statements_of(value))


KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
ITEMS = st.sampled_from(["y", "n", "?0", '"a, b=c"', "1.5", ":aa=:", "(a b)"])


@given(st.lists(st.tuples(KEYS, ITEMS), max_size=6))
def test_a_dictionary_that_was_written_is_read(members: list[tuple[str, str]]) -> None:
    assert dictionary(", ".join(f"{name}={value};p=1" for name, value in members)) == dict(members)


@given(st.sampled_from(["/", "/img/", "/img/a", "*.jpg", "/*/a.jpg$", "/other"]), st.booleans())
def test_a_path_that_is_allowed_longer_or_as_long_is_allowed(pattern: str, also: bool) -> None:
    text = f"User-agent: authface\nDisallow: {pattern}\n" + (f"Allow: {pattern}\n" if also else "")
    matches = pattern != "/other"
    assert RobotRules(text).disallows(f"{SITE}/img/a.jpg") is (matches and not also)
