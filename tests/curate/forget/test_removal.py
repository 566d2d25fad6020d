"""A word that means something else is no mention: what reviewers wrote, parts of words, files that are no text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authface.curate.forget.removal import ForgottenNames, clean
from authface.curate.forget.run import forget
from authface.records import Photo
from authface.review.reviews import (
    Decision,
    Retouch,
    ReviewSettings,
    decision_log,
    retouch_log,
    retouched_file,
    reviewed_crops,
)
from authface.store.photoset import PhotoSet
from tests.curate.forget.test_run import mentions, photo

Furnished = Callable[[Path], PhotoSet]


def called(photoset: PhotoSet, name: str) -> Photo:
    """The first photo, by a photographer of that name."""
    meta = photoset.photos.meta(0)
    assert meta is not None
    first, *others = photoset.photos.rows(0)
    photoset.photos.write(0, [replace(first, photographer=name), *others], meta.provenance, "")
    return photo(photoset, 0)


def test_what_people_decided_of_other_photos_stays(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    stays = f"{photo(photoset, 1).id}-0"
    log, retouches = decision_log(photoset, "anna"), retouch_log(photoset)
    log.append(Decision(id=stays, verdict="reject", reason="anna"))
    retouches.append(
        Retouch(id=stays, file=retouched_file(stays, "12345678"), size=8, quad=None, before="", after="12345678",
                asked_by="anna", asked_at="", at="", changed=0.5, mean_change=1.0)
    )  # fmt: skip
    gone = called(photoset, "anna")
    retouches.append(replace(retouches.read()[0][0], id=f"{gone.id}-7"))  # of a face that no table has any more
    forget(photoset, [gone], reason="")
    assert [line.reason for line in log.read()[0]] == ["", "anna"]
    assert [line.id for line in retouches.read()[0]] == [stays]
    assert mentions(photoset.root / "review", [gone.id]) == []


@pytest.mark.parametrize("verdicts", [{0: "reject"}, {1: "reject"}, {0: "reject", 1: "retouch"}, {0: "keep"}])
@pytest.mark.parametrize("policy", ["any_reject", "majority", "all_keep"])
def test_what_was_made_of_judged_crops_stays_current(
    verdicts: dict[int, Any], policy: Any, furnished: Furnished, tmp_path: Path
) -> None:
    photoset, settings = furnished(tmp_path / "set"), ReviewSettings(policy=policy)
    crops, tags = list(photoset.crops), photoset.tags("measured")
    for number, verdict in verdicts.items():
        decision_log(photoset, "ben").append(Decision(id=crops[number].id, verdict=verdict, at="2026"))
    for judged in reviewed_crops(photoset, settings):
        meta = tags.meta(judged.number)
        assert meta is not None
        tags.write(judged.number, tags.rows(judged.number), meta.provenance, judged.digest)
    gone = next(one for one in photoset.photos if one.id == crops[0].photo_id)
    forget(photoset, [gone], reason="")
    after = {part.number: part.digest for part in reviewed_crops(photoset, settings)}
    assert after == {number: meta.inputs for number, meta in tags.metas().items() if meta}


def test_short_words_in_files_that_are_no_text_are_chance(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    photoset.save("review/anna.model.safetensors", b"\x10\0\0 Al \0")
    photoset.save("sources/cache.bin", b"\0\1 Al \0")
    photoset.save("sources/notes.txt", b"Also Hal, All of them")
    gone = called(photoset, "Al")
    assert forget(photoset, [gone], reason="", dry_run=True).unread == []
    photoset.save("sources/notes.txt", b"of Al, and of others")
    photoset.save("sources/cache.bin", b"\0" + gone.id.encode())
    assert forget(photoset, [gone], reason="").unread == ["sources/cache.bin", "sources/notes.txt"]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_words_are_found_however_json_writes_them(tmp_path: Path, ascii_only: bool) -> None:
    photoset = PhotoSet(tmp_path)
    for word in ("Al", "Weiß", 'a "b"', "/x/", "e\u0301", "\n"):
        line = json.dumps({"n": word}, ensure_ascii=ascii_only)
        for name, text in (("a.jsonl", line), ("b.json", line), ("torn.jsonl", line[:-1]), ("nul.jsonl", "\0" + line)):
            photoset.save(name, text.encode())
            assert clean(photoset, name, ForgottenNames(frozenset(), frozenset({word})), write=True) == 1, (word, name)
            assert json.dumps(word, ensure_ascii=ascii_only) not in (tmp_path / name).read_text("utf-8")
