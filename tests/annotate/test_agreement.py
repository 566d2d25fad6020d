"""Agreement of annotators, what excludes what, and the policies that choose among their tags."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.agreement import AgreementCounter, kappa
from authface.annotate.measured import tagger as measured
from authface.annotate.tagging import EXCLUDED, EXCLUSIVE, MEASURABLE, Policy, choose, contradictions
from authface.annotate.vocabulary.vocabulary import GROUP_OF, make_tag
from authface.records import Tag, Tags
from authface.store.photoset import PhotoSet
from tests.conftest import authface

CELLS = st.integers(0, 300)


def tags(*names: str, sure: float = 1.0) -> tuple[Tag, ...]:
    return tuple(make_tag(name, sure) for name in names)


def value_of(cells: list[float]) -> float:
    """Cohen's kappa of a 2 x 2 table, from its definition."""
    both, first, second, neither = (cell / sum(cells) for cell in cells)
    chance = (both + first) * (both + second) + (second + neither) * (first + neither)
    return (both + neither - chance) / (1 - chance)


@given(both=CELLS, first=CELLS, second=CELLS, neither=CELLS)
def test_kappa_and_its_interval_follow_from_the_definition(both: int, first: int, second: int, neither: int) -> None:
    """The interval is that of the delta method, whose derivatives are taken numerically here."""
    found = kappa(both, first, second, neither)
    cells = [float(cell) for cell in (both, first, second, neither)]
    total = sum(cells)
    if found is None:
        assert 0 in (both + first, both + second, neither + first, neither + second)
        return
    assert found.value == pytest.approx(value_of(cells), abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1
    if min(cells) < 5:
        return
    step = 1e-3
    slopes = []
    for i in range(4):
        up, down = ([c + sign * step * (i == j) for j, c in enumerate(cells)] for sign in (1, -1))
        slopes.append((value_of(up) - value_of(down)) / (2 * step))
    mean = sum(slope * cell for slope, cell in zip(slopes, cells, strict=True)) / total
    variance = sum(cell * (slope - mean) ** 2 for slope, cell in zip(slopes, cells, strict=True))
    half = 1.959964 * math.sqrt(variance)
    assert found.high - found.value == pytest.approx(min(half, 1 - found.value), rel=1e-3, abs=1e-6)


def test_kappa_of_known_tables() -> None:
    assert kappa(50, 0, 0, 50) is not None and kappa(50, 0, 0, 50).value == 1  # type: ignore[union-attr]
    assert kappa(25, 25, 25, 25).value == 0  # type: ignore[union-attr]
    assert kappa(20, 5, 10, 15).value == pytest.approx(0.4)  # type: ignore[union-attr]
    assert kappa(10, 0, 0, 0) is None and kappa(0, 0, 0, 0) is None and kappa(9, 5, 0, 0) is None


def test_the_table_of_exclusions_speaks_of_the_vocabulary_and_both_ways() -> None:
    for alternatives in EXCLUSIVE:
        assert len(alternatives) > 1
        for names in alternatives:
            assert names <= GROUP_OF.keys()
    for name, others in EXCLUDED.items():
        assert name not in others and all(name in EXCLUDED[other] for other in others)


def test_what_can_be_measured_is_what_the_measures_say() -> None:
    def words(code: types.CodeType) -> Iterator[str]:
        for constant in code.co_consts:
            yield from words(constant) if isinstance(constant, types.CodeType) else ()
            yield from (text for text in (constant if isinstance(constant, tuple) else (constant,)) if text in GROUP_OF)

    functions = [found for found in vars(measured).values() if isinstance(found, types.FunctionType)]
    said = {word for function in functions for word in words(function.__code__)}
    colours = {f"{colour} background" for colour in ("red", "green", "blue")}  # made of a colour's name
    assert said | colours == MEASURABLE


def test_contradictions_are_pairs_that_cannot_both_be_true() -> None:
    ours = ["black and white", "smiling", "light from the left"]
    theirs = ["vivid colours", "warm tones", "neutral expression", "light from the right", "soft light"]
    assert contradictions(ours, theirs) == [
        ("black and white", "vivid colours"),
        ("black and white", "warm tones"),
        ("light from the left", "light from the right"),
        ("smiling", "neutral expression"),
    ]
    assert contradictions(ours, ours) == []


def test_only_tags_that_both_know_of_groups_that_both_speak_of_are_compared() -> None:
    counter = AgreementCounter("measured", "llava", 0.5)
    counter.add("a", tags("smiling", "low key"), tags("smiling", "laughing", "long hair"))
    counter.add("b", tags("low key") + tags("mouth open", sure=0.2), tags("smiling", "mouth closed"))
    counter.add("c", tags("high key", "mouth open"), tags("mouth closed"))
    found = counter.result()
    assert found.crops == 3
    counted = {
        name: (counts.both, counts.only_first, counts.only_second, counts.neither)
        for name, counts in found.tags.items()
    }
    # laughing is nothing that can be measured; of the tone only one speaks, of the hair only the other
    assert counted == {"smiling": (1, 0, 1, 1), "mouth open": (0, 1, 0, 2), "mouth closed": (0, 0, 2, 1)}
    assert dict(found.contradictions) == {("mouth open", "mouth closed"): 1}
    assert found.examples[("mouth open", "mouth closed")] == ["c"] and found.examples[("", "smiling")] == ["b"]
    assert ("low key", "") not in found.examples


OURS = tags("smiling", "light from the left", "high contrast", sure=0.8)
THEIRS = tags("serious expression", "laughing", "light from the right", "window light", "long hair", "warm tones")


SEEN = {"laughing", "window light", "long hair"}
SAID = {*SEEN, "serious expression", "light from the right", "warm tones"}


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        ("first", SAID),
        ("measured", {*SEEN, "smiling", "light from the left", "high contrast"}),
        ("union", {*SAID, "high contrast"}),
        ("agreed", {*SEEN, "serious expression"}),
    ],
)
def test_policies(policy: Policy, names: set[str]) -> None:
    chosen = choose([("llava", THEIRS), ("measured", OURS)], 0.5, policy)
    assert {tag.name for _, tag in chosen} == names
    assert len(chosen) == len(names)


@given(
    said=st.lists(st.lists(st.sampled_from(sorted(GROUP_OF)), unique=True, max_size=12), min_size=1, max_size=3),
    policy=st.sampled_from(["first", "measured", "union", "agreed"]),
)
def test_what_is_chosen_was_said_once_and_never_contradicts_another(said: list[list[str]], policy: Policy) -> None:
    found = [(who, tags(*names)) for who, names in zip(["llava", "measured", "openai"], said, strict=False)]
    chosen = choose(found, 0.5, policy)
    names = [tag.name for _, tag in chosen]
    assert len(set(names)) == len(names)
    assert all(tag in dict(found)[who] for who, tag in chosen)
    if policy != "first":
        for who, tag in chosen:
            others = {other.name for whose, other in chosen if whose != who}
            assert not EXCLUDED.get(tag.name, frozenset()) & others
    if len(found) == 1 and policy != "measured":
        assert set(names) == set(said[0])


def test_the_command_counts_and_shows_the_crops(make_set: Callable[..., PhotoSet], tmp_path: Path) -> None:
    plain = {"llava": ("smiling", "light from the left", "warm tones")}
    grey = {"measured": ("black and white",), "llava": ("warm tones",)}
    photoset = make_set(tmp_path / "set", [{}, {}, plain, grey])
    done = authface("annotate", "compare", photoset.root, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["comparisons"][0]
    assert (found["first"], found["second"], found["crops"]) == ("measured", "llava", 4)
    rows = {row["tag"]: row for row in found["tags"]}
    assert (rows["smiling"]["both"], rows["smiling"]["neither"], rows["smiling"]["kappa"]) == (3, 1, 1.0)
    assert "long hair" not in rows and "window light" not in rows
    assert rows["light from the left"]["only_first"] == 2
    said = {(row["first"], row["second"]): row["crops"] for row in found["contradictions"]}
    assert said == {("light from the left", "light from the right"): 2, ("black and white", "warm tones"): 1}
    page = (photoset.root / "reports" / "compare.html").read_text()
    assert "measured: black and white | llava: warm tones" in page and page.count("data:image/jpeg") >= 3
    told = authface("annotate", "compare", photoset.root, "measured", "llava")
    assert "light from the left | light from the right" in told.stdout, told.stderr
    for part in photoset.tags("llava").parts():
        meta = photoset.tags("llava").meta(part)
        assert meta is not None
        failed = [Tags(id=row.id, annotator="qwen", status="failed") for row in photoset.tags("llava").rows(part)]
        photoset.tags("qwen").write(part, failed, meta.provenance, meta.inputs)
    every = authface("annotate", "compare", photoset.root, "--json")
    assert every.returncode == 0 and len(json.loads(every.stdout)["comparisons"]) == 1
    assert "no crop was tagged by both measured and qwen" in every.stderr
    none = authface("annotate", "compare", photoset.root, "qwen", "llava")
    assert none.returncode == 2 and "tagged by both qwen and llava" in none.stderr
    alone = authface("annotate", "compare", photoset.root, "llava")
    assert alone.returncode == 2 and "two annotators" in alone.stderr and alone.stderr.count("\n") == 1
