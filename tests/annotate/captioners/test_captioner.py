"""What all captioners share: prompts, rows of answers, empty and looping ones, rules that change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.annotate.captioners.captioner import (
    MOST_CHARACTERS,
    Caption,
    Captioner,
    CaptionStep,
    flaw,
    load_prompt,
    loops,
    prompt_names,
    reread_parts,
    stored_answer,
    tag_row,
)
from authface.annotate.settings import TagsSettings
from authface.annotate.tagging import MOST_UNKNOWN, count_tags, write_report
from authface.annotate.vocabulary.vocabulary import SEMANTIC, VOCABULARY, prompt
from authface.console import Console
from authface.engine.runner import parts_of, run
from authface.errors import UsageError
from authface.records import Crop, Tags
from authface.store.photoset import PhotoSet, Provenance


@dataclass
class Scripted(Captioner):
    """A captioner that says what it is told to, by the try."""

    script: dict[str, list[str]]
    name: str = "scripted"
    parameters: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    batch_size: int = 2
    retries: tuple[bool, ...] = (False, True)
    tries: dict[str, list[bool | None]] = field(default_factory=dict)
    """Photos by the penalty of each try; None: among others."""

    def prepare(self, photoset: PhotoSet, crop: Crop) -> str:
        return crop.id[:2]

    def answer(self, photos: Sequence[str], *, penalty: bool = False) -> list[Caption]:
        for photo in photos:
            self.tries.setdefault(photo, []).append(None if len(photos) > 1 else penalty)
        return [Caption(self.script.get(photo, ["smiling"])[len(self.tries[photo]) - 1]) for photo in photos]


def rows(photoset: PhotoSet) -> dict[str, Tags]:
    return {row.id[:2]: row for row in photoset.tags("scripted")}


def test_the_shipped_prompts_ask_for_their_groups() -> None:
    assert prompt_names() == ["photographic", "semantic"]
    semantic, photographic = load_prompt("semantic"), load_prompt("photographic")
    assert semantic.sha256 != photographic.sha256
    assert photographic.text.count("(") == len(VOCABULARY) and semantic.text.count("(") == len(SEMANTIC)


def test_a_prompt_is_read_from_a_file_and_refused_where_it_is_none(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Tags, please.\n")
    assert load_prompt(str(file)).text == "Tags, please."
    for text, words in ((b"", "0 characters"), (b"\xff\xfe\x00", "cannot read"), (b"a" * 9000, "9000 characters")):
        file.write_bytes(text)
        with pytest.raises(UsageError, match=words):
            load_prompt(str(file))
    with pytest.raises(UsageError, match="photographic, semantic"):
        load_prompt("photogenic")


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("smiling, smiling, smiling, smiling, smiling, smiling", True),
        ("soft light, bokeh, " * 4, True),
        ("freckles, " + "long hair, black hair, and " * 5, True),
        ("a" * 60, True),
        ("very very very very long hair", False),
        ("red hair, red lipstick, red background, red hat, red scarf, red light, red lips", False),
        ("smiling, long hair, soft light, bokeh, smiling, long hair, soft light", False),
        ("", False),
    ],
)
def test_loops_are_seen(text: str, looping: bool) -> None:
    assert loops(text) is looping


@given(st.text(), st.booleans())
def test_a_stored_answer_is_short_and_has_printable_lines(text: str, cut: bool) -> None:
    answer = stored_answer(Caption(text, cut))
    assert len(answer) <= MOST_CHARACTERS and all(line.isprintable() for line in answer.replace("\t", " ").split("\n"))
    assert answer.encode() is not None and (not cut or answer.endswith("…"))  # a lone surrogate would not encode
    assert flaw(Caption(text)) in {"", "empty_answer", "looping_answer"}


def test_flawed_answers_are_tried_alone_and_then_fail_with_the_reason(photoset: PhotoSet) -> None:
    loop = "bokeh, " * 9
    script = {
        "00": ["", "freckles"],
        "01": [loop, loop, "smiling"],
        "10": [" \n", "...", "?"],
        "11": [loop] * 3,
        "12": ["Yes."],
    }
    captioner = Scripted(script)
    work = CaptionStep(photoset.root, captioner, TagsSettings())
    run(work, parts_of(photoset.crops), photoset.tags("scripted"), Console())
    found = rows(photoset)
    assert captioner.tries["00"] == [None, False] and captioner.tries["01"] == [None, False, True]
    assert captioner.tries["13"] == [None]
    assert [prompt(found[name].tags) for name in ("00", "01", "13")] == ["freckles", "smiling", "smiling"]
    assert {name: found[name].reason for name in ("10", "11", "12")} == {
        "10": "empty_answer", "11": "looping_answer", "12": "no_tags",
    }  # fmt: skip
    assert found["11"].answer.startswith("bokeh") and found["13"].tokens == 1


def test_other_rules_read_the_answers_again_without_a_model(photoset: PhotoSet) -> None:
    script = {"00": ["smiling, dimples"], "01": ["dimples"]}
    closed = CaptionStep(photoset.root, Scripted(script), TagsSettings())
    target = photoset.tags("scripted")
    run(closed, parts_of(photoset.crops), target, Console())
    assert (prompt(rows(photoset)["00"].tags), rows(photoset)["01"].reason) == ("smiling", "no_tags")
    settings = TagsSettings(vocabulary="open")
    opened = CaptionStep(photoset.root, Scripted(script), settings)
    assert reread_parts(target, opened.provenance, settings) == 2
    assert prompt(rows(photoset)["00"].tags) == "smiling, dimples" and rows(photoset)["01"].status == "kept"
    assert run(opened, parts_of(photoset.crops), target, Console()).made == 0
    asked = CaptionStep(photoset.root, Scripted(script, parameters={"prompt": "another"}), settings)
    assert reread_parts(target, asked.provenance, settings) == 0


def test_a_row_reads_the_same_from_what_is_stored() -> None:
    row = Tags(id="a", annotator="x", answer=stored_answer(Caption("smiling\nlong hair\nbok", truncated=True)))
    assert prompt(tag_row(row, TagsSettings()).tags) == "smiling, long hair"
    assert tag_row(tag_row(row, TagsSettings()), TagsSettings()) == tag_row(row, TagsSettings())


def test_the_report_shows_tags_unknown_words_and_failures_escaped(photoset: PhotoSet) -> None:
    script = {"00": ["smiling, wonky <b>grin</b>, zebra crossing"], "01": ["<script>alert(1)</script>"]}
    work = CaptionStep(photoset.root, Scripted(script), TagsSettings())
    run(work, parts_of(photoset.crops), photoset.tags("scripted"), Console())
    page, tallies = write_report(photoset)
    text = page.read_text()
    assert tallies["scripted"].unknown["zebra crossing"] == 1
    assert "zebra crossing" in text and "no_tags" in text and "&lt;script&gt;alert" in text
    assert "<script>alert" not in text and "<b>grin" not in text
    assert text.count("data:image/jpeg") == 6


def test_the_most_frequent_unknown_words_are_told_and_all_are_counted(photoset: PhotoSet) -> None:
    """However many there are, no more of them are in memory than are told."""
    table, letters = photoset.tags("scripted"), "bcdfgjkmpq"
    words = [f"zz {a}{b}{c}" for a in letters for b in letters for c in letters]
    rows = [
        Tags(id=f"{at}", annotator="scripted", answer=f"{word}, smiling, zz {'often' if at % 2 else 'ten'}")
        for at, word in enumerate([*words, *words[:50], *words[:2]])
    ]
    table.write(0, rows, Provenance("test", 1, {}, {}), "")
    found = count_tags("scripted", table)
    assert list(found.unknown.items())[:5] == [
        ("zz often", 526),
        ("zz ten", 526),
        *((w, 3) for w in words[:2]),
        (words[2], 2),
    ]
    assert (len(found.unknown), found.unknown_words) == (MOST_UNKNOWN, 1002)


def test_the_provenance_knows_the_prompt_and_the_rules(photoset: PhotoSet) -> None:
    settings = TagsSettings()
    one = CaptionStep(photoset.root, Scripted({}, parameters={"prompt_sha256": "a"}), settings).provenance
    assert one == CaptionStep(photoset.root, Scripted({}, parameters={"prompt_sha256": "a"}), settings).provenance
    other = CaptionStep(photoset.root, Scripted({}, parameters={"prompt_sha256": "b"}), settings).provenance
    assert "prompt_sha256 a -> b" in one.difference(other)
    assert one.difference(replace(one, weights={"m": "1"})) == "changed weights of m"
