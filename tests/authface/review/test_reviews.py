"""Decisions on disk and what follows from them: torn lines, undo, policies, digests, rejected rows, forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.console import Console
from authface.engine.runner import parts_of, run
from authface.errors import AuthfaceError, UsageError
from authface.files import place
from authface.records import Crop, Tags, now
from authface.review.reviews import (
    Decision,
    Retouch,
    ReviewedStep,
    ReviewSettings,
    decision_log,
    effective_decisions,
    final_verdict,
    forget,
    retouch_log,
    retouched_file,
    reviewed,
    reviewed_crops,
    reviewers,
)
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet, Provenance

IDS = [f"{digit}{'0' * 63}-0" for digit in "abcde"]
QUAD = (0.0, 0.0, 0.0, 9.1, 9.0, 9.0, 9.0, 0.0)

verdicts = st.sampled_from(["keep", "reject", "retouch"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
decisions = st.builds(
    Decision, id=st.sampled_from(IDS), verdict=st.one_of(verdicts, st.just("undo")), reason=texts, at=texts
)


@pytest.fixture
def photoset(tmp_path: Path) -> PhotoSet:
    """Five crops in two parts."""
    found = PhotoSet(tmp_path / "set")
    for part, ids in enumerate((IDS[:3], IDS[3:])):
        rows = [Crop(id=one, photo_id=one[:64], file=found.crop_file(one), size=8, quad=QUAD) for one in ids]
        rows.append(Crop(id=f"f{part}-0", photo_id="", file="", size=8, status="rejected", reason="outside_photo"))
        found.crops.write(part, rows, Provenance("test", 1, {}, {}), "")
    return found


def decide(photoset: PhotoSet, who: str, crop: int, verdict: str, reason: str = "") -> None:
    decision_log(photoset, who).append(Decision(id=IDS[crop], verdict=verdict, reason=reason, at=now("microseconds")))  # type: ignore[arg-type]


def retouch(photoset: PhotoSet, crop: int, **changes: object) -> str:
    file = retouched_file(IDS[crop], "12345678" * 8)
    values = {
        "id": IDS[crop], "file": file, "size": 8, "quad": QUAD, "before": "", "after": "12345678" * 8,
        "asked_by": "anna", "asked_at": now("microseconds"), "at": now("microseconds"),
        "changed": 0.5, "mean_change": 1.0,
    }  # fmt: skip
    retouch_log(photoset).append(Retouch(**values | changes))  # type: ignore[arg-type]
    photoset.save(file, b"png")
    return file


def left(photoset: PhotoSet, policy: str = "any_reject") -> list[tuple[int, str, str]]:
    """Crop, status and reason of all that align kept."""
    parts = reviewed_crops(photoset, ReviewSettings(policy=policy))  # type: ignore[arg-type]
    return [(IDS.index(crop.id), crop.status, crop.reason) for part in parts for crop in part.rows()]


@pytest.mark.parametrize("address", ["local", "memory://reviews"])
@given(written=st.lists(decisions, max_size=8), torn=st.lists(st.integers(0, 8), max_size=3), cut=st.integers(1, 40))
def test_a_log_gives_back_all_that_was_answered_and_loses_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, address: str, written: list[Decision], torn: list[int], cut: int
) -> None:
    root = place(address) if "://" in address else tmp_path_factory.mktemp("log")
    path = root / "review" / "anna.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path, Decision)
    cuts = 0
    for number, record in enumerate(written):
        journal.append(record)
        if number in torn:  # killed in the middle of the next line
            path.write_bytes(path.read_bytes() + b'{"id":"abcdefghijklmnopqrstuvwxyz0123456789'[:cut])
            cuts += 1
    assert journal.read() == (written, cuts)


@given(st.lists(decisions, max_size=30))
def test_an_undo_takes_back_one_decision_of_its_crop(lines: list[Decision]) -> None:
    stacks: dict[str, list[Decision]] = {one: [] for one in IDS}
    for line in lines:
        if line.verdict != "undo":
            stacks[line.id].append(line)
        elif stacks[line.id]:
            stacks[line.id].pop()
    live = effective_decisions(lines)
    assert {one: [line for line in live if line.id == one] for one in IDS} == stacks


@pytest.mark.parametrize(
    ("said", "any_reject", "majority"),
    [
        ([], None, None),
        (["keep"], "keep", "keep"),
        (["keep", "reject"], "reject", "reject"),
        (["keep", "keep", "reject"], "reject", "keep"),
        (["keep", "retouch"], "retouch", "retouch"),
        (["keep", "keep", "retouch"], "retouch", "keep"),
        (["keep", "retouch", "reject"], "reject", "retouch"),
        (["reject", "reject", "keep"], "reject", "reject"),
    ],
)
def test_policies(said: list[str], any_reject: str | None, majority: str | None) -> None:
    assert final_verdict(said, "any_reject") == final_verdict(said, "all_keep") == any_reject  # type: ignore[arg-type]
    assert final_verdict(said, "majority") == majority  # type: ignore[arg-type]


@given(st.lists(verdicts, min_size=1, max_size=7), st.sampled_from(["any_reject", "majority"]))
def test_one_more_reject_never_saves_a_crop(said: list[str], policy: str) -> None:
    if final_verdict(said, policy) == "reject":  # type: ignore[arg-type]
        assert final_verdict([*said, "reject"], policy) == "reject"  # type: ignore[list-item]
    if len(set(said)) == 1:
        assert final_verdict(said, policy) == said[0]  # type: ignore[arg-type]


def test_without_a_review_the_parts_are_those_of_the_table(photoset: PhotoSet) -> None:
    plain, judged = parts_of(photoset.crops), reviewed_crops(photoset, ReviewSettings())
    assert [(p.number, p.count, p.digest, p.rows()) for p in plain] == [
        (p.number, p.count, p.digest, p.rows()) for p in judged
    ]


def test_only_a_decision_that_changes_something_changes_the_digest_and_of_its_part_alone(photoset: PhotoSet) -> None:
    before = [part.digest for part in parts_of(photoset.crops)]

    def digests() -> list[str]:
        return [part.digest for part in reviewed_crops(photoset, ReviewSettings())]

    decide(photoset, "anna", 0, "keep")
    assert digests() == before
    decide(photoset, "anna", 0, "reject", "blurred")
    rejected = digests()
    assert rejected[0] != before[0] and rejected[1] == before[1]
    decide(photoset, "anna", 0, "undo")
    assert digests() == before
    retouch(photoset, 4)
    assert digests()[0] == before[0] and digests()[1] != before[1]


def test_what_goes_on(photoset: PhotoSet) -> None:
    decide(photoset, "anna", 0, "reject", "blurred")
    decide(photoset, "anna", 1, "retouch")
    decide(photoset, "ben", 3, "keep")
    kept = ("kept", "")
    assert left(photoset) == [
        (0, "rejected", "rejected_in_review"), (1, "rejected", "awaits_retouch"), (2, *kept), (3, *kept), (4, *kept)
    ]  # fmt: skip
    assert {entry[1:] for entry in left(photoset, "all_keep")} == {("rejected", "not_reviewed")}, (
        "nobody judged all of them"
    )
    for who in ("anna", "ben"):
        decide(photoset, who, 2, "keep")
    assert (2, *kept) in left(photoset, "all_keep")


def test_a_retouched_file_takes_the_crops_place_until_it_is_asked_for_again(photoset: PhotoSet) -> None:
    crop = photoset.crops.rows(0)[1]
    decide(photoset, "anna", 1, "retouch")
    file = retouch(photoset, 1)
    people = reviewed(photoset, ReviewSettings())
    assert (people.judged(crop).status, people.file(crop)) == ("kept", file)
    realigned = Crop(id=crop.id, photo_id="", file=crop.file, size=16, quad=QUAD)
    assert people.file(realigned) == crop.file and people.judged(realigned).status != "kept"
    decide(photoset, "anna", 1, "retouch")
    assert reviewed(photoset, ReviewSettings()).awaits(crop)
    decide(photoset, "anna", 1, "keep")
    assert reviewed(photoset, ReviewSettings()).file(crop) == file


def test_a_log_names_no_file_but_its_own(photoset: PhotoSet) -> None:
    for file in ("../../etc/passwd", "photos/ab/abc.jpg", f"crops/bb/{IDS[1]}.retouched-12345678.png"):
        retouch(photoset, 0, file=file)
    assert reviewed(photoset, ReviewSettings()).retouches == {}


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "a/b", "-a", "a" * 41, "anna\n", "ännä"])
def test_a_reviewers_name_is_no_path(photoset: PhotoSet, name: str) -> None:
    with pytest.raises(UsageError, match="a-z, 0-9 and dashes") as caught:
        decision_log(photoset, name)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_logs_are_no_reviewers(photoset: PhotoSet) -> None:
    decide(photoset, "ben-2", 0, "keep")
    for name in ("Anna.jsonl", ".tmp-1.jsonl", "notes.txt"):
        (photoset.root / "review" / name).write_text("{}")
    (photoset.root / "review" / "carl.jsonl").mkdir()
    (photoset.root / "review" / "dan.jsonl").symlink_to("nowhere")
    assert reviewers(photoset) == ["ben-2"]


@dataclass
class Plain:
    """Tags a crop with its file."""

    batch_size: int = 2

    @property
    def provenance(self) -> Provenance:
        return Provenance("plain", 1, {}, {})

    def open(self) -> None:
        pass

    def load(self, crop: Crop) -> str:
        assert crop.status == "kept"
        return crop.file

    def step(self, batch: Sequence[str]) -> Sequence[str]:
        return batch

    def save(self, crop: Crop, result: str) -> list[Tags]:
        return [Tags(id=crop.id, annotator="plain", detail=result)]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Tags]:
        return [Tags(id=crop.id, annotator="plain", status="failed", reason=reason, detail=detail)]


def test_a_step_sees_only_what_goes_on_and_every_crop_has_a_row(photoset: PhotoSet) -> None:
    table = photoset.tags("plain")

    def tag() -> int:
        parts = reviewed_crops(photoset, ReviewSettings())
        return run(ReviewedStep(Plain()), parts, table, Console()).made

    assert (tag(), tag()) == (2, 0)
    decide(photoset, "anna", 0, "reject", "blurred")
    file = retouch(photoset, 1)
    assert (tag(), tag()) == (1, 0)
    rows = {row.id: row for row in table}
    assert set(rows) == set(IDS)
    assert (rows[IDS[0]].status, rows[IDS[0]].reason, rows[IDS[0]].detail) == (
        "rejected",
        "rejected_in_review",
        "blurred",
    )
    assert rows[IDS[1]].detail == file
    decide(photoset, "anna", 0, "undo")
    assert tag() == 1 and {row.status for row in table} == {"kept"}


def test_what_is_forgotten_leaves_no_line_and_no_file(photoset: PhotoSet) -> None:
    for who in ("anna", "ben"):
        decide(photoset, who, 0, "keep")
        decide(photoset, who, 1, "reject")
    file = retouch(photoset, 0)
    assert forget(photoset, {IDS[0]}) == 4
    assert not photoset.exists(file)
    text = "".join(path.read_text() for path in (photoset.root / "review").rglob("*.jsonl"))
    assert IDS[0] not in text and text.count(IDS[1]) == 2


def test_a_disk_that_refuses_is_one_line(photoset: PhotoSet) -> None:
    (photoset.root / "review").write_text("a file where the folder should be")
    with pytest.raises(AuthfaceError, match="cannot write") as caught:
        decide(photoset, "anna", 0, "keep")
    assert len(str(caught.value).splitlines()) == 1
