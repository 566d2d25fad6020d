"""What people decided about crops, and which crops and files the later stages use.

Each reviewer has a log of `Decision` lines in ``review/<reviewer>.jsonl``, retouched crops one of `Retouch` lines.
Logs are append-only; a line cut by a kill is ignored. Without a log every kept crop is used as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal

from pydantic import Field, StringConstraints

from authface.engine.runner import PartInput, parts_of
from authface.engine.workers import L, M, Step
from authface.errors import AuthfaceError, ImageError, UsageError, one_line, shell_word
from authface.recipe import Settings
from authface.records import Choice, Crop
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet, Provenance, R, Table, TableState, digest

Verdict = Literal["keep", "reject", "retouch"]
"""A person's verdict on a crop; `retouch`: good once flaws are removed by hand."""
VERDICTS: tuple[Verdict, ...] = ("keep", "retouch", "reject")
FOLDER = "review"
_REVIEWER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_RETOUCHED = re.compile(r"crops/([0-9a-f]{2})/(\1[0-9a-f]*-[0-9]+)\.retouched-[0-9a-f]{8}\.png")
Reviewer = Annotated[str, StringConstraints(pattern=rf"^{_REVIEWER.pattern}$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of ``review/<reviewer>.jsonl``; the file's name says who decided."""

    id: str
    """The face's id."""
    verdict: Literal["keep", "reject", "retouch", "undo"]
    """`undo` cancels the reviewer's latest decision on this crop that is not cancelled yet."""
    reason: str = ""
    """Reason for a `reject`, in the reviewer's words."""
    at: str = ""
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retouch:
    """One line of ``review/retouched/log.jsonl``: a crop that came back from retouching by hand."""

    id: str
    """The face's id."""
    file: str
    """Where it lies inside the set, beside the crop: ``crops/ab/abcd…-0.retouched-<8 digits of its sha256>.png``."""
    size: int
    quad: tuple[float, ...] | None
    """Side and quad of the original crop: the retouched file replaces that crop only."""
    before: str
    """sha256 in hex of the exported file."""
    after: str
    """sha256 in hex of `file`."""
    asked_by: str
    """The reviewers who asked for it, separated by commas."""
    asked_at: str
    """ISO 8601, UTC: the latest time they asked."""
    at: str
    """ISO 8601, UTC: when it came back."""
    changed: float
    """Share of the pixels that differ, above 0 to 1."""
    mean_change: float
    """Mean absolute difference of all pixels and channels, 0..255."""


def effective_decisions(lines: Iterable[Decision]) -> list[Decision]:
    """The decisions that were not undone, oldest first; the last one on each crop is valid."""
    live: list[Decision] = []
    for line in lines:
        if line.verdict != "undo":
            live.append(line)
            continue
        back = next((at for at in reversed(range(len(live))) if live[at].id == line.id), None)
        if back is not None:
            del live[back]
    return live


def final_verdict(verdicts: Sequence[Verdict], policy: str) -> Verdict | None:
    """The combined verdict of several reviewers on a crop under a policy (`ReviewSettings.policy`); None without any.

    Under `majority` half of the votes suffice to reject, and half of the rest to ask for retouching.
    """
    if not verdicts:
        return None
    rejects, retouches = verdicts.count("reject"), verdicts.count("retouch")
    if policy != "majority":
        return "reject" if rejects else "retouch" if retouches else "keep"
    if 2 * rejects >= len(verdicts):
        return "reject"
    return "retouch" if 2 * retouches >= len(verdicts) - rejects else "keep"


def as_verdict(verdict: str) -> Verdict:
    """A verdict that is not `undo`, as its type."""
    return next(known for known in VERDICTS if known == verdict)


class ReviewSettings(Settings):
    """How people judge crops (recipe table `curate.review`), and how several verdicts are combined."""

    host: str = "127.0.0.1"
    """Address on which the page is served; any but 127.0.0.1 is open to other machines that know the secret URL."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the page; 0 takes a free one."""
    reasons: Annotated[tuple[Reason, ...], Field(max_length=9)] = (
        "blurred",
        "noise or artefacts",
        "over-smoothed skin",
        "face covered",
        "bad light",
        "bad crop",
        "no real face",
        "seen before",
        "other",
    )
    """Reasons to reject, on the keys 1 to 9."""
    policy: Literal["any_reject", "majority", "all_keep"] = "any_reject"
    """How several verdicts are combined: one reject is enough; half of the votes reject; or a crop is kept only if each
    reviewer of the set judged it and nobody rejected it. Under the first two a crop without verdicts is kept."""


def decision_log(photoset: PhotoSet, reviewer: str) -> Journal[Decision]:
    """The log of one reviewer. Raises UsageError for a name that is not of [a-z0-9-], 40 at most."""
    if not _REVIEWER.fullmatch(reviewer):
        raise UsageError(
            f"reviewer {one_line(reviewer, 60)!r}: use 1 to 40 of a-z, 0-9 and dashes, as in --reviewer anna"
        )
    return Journal(photoset.root / FOLDER / f"{reviewer}.jsonl", Decision)


def retouched_file(crop_id: str, sha256: str) -> str:
    """Path of a retouched crop, relative to the set."""
    return f"crops/{crop_id[:2]}/{crop_id}.retouched-{sha256[:8]}.png"


def is_retouched(file: str) -> bool:
    """Whether a crop's file was retouched."""
    return ".retouched-" in file


def retouch_log(photoset: PhotoSet) -> Journal[Retouch]:
    """The log of retouched crops."""
    return Journal(photoset.root / FOLDER / "retouched" / "log.jsonl", Retouch)


def reviewers(photoset: PhotoSet) -> list[str]:
    """Names of the reviewers who have a log."""
    folder = photoset.root / FOLDER
    names = [path.stem for path in folder.glob("*.jsonl") if path.is_file()] if folder.is_dir() else []
    return sorted(name for name in names if _REVIEWER.fullmatch(name))


@dataclass(frozen=True)
class Reviewed:
    """All decisions of reviewers on a set's crops, and their results."""

    policy: str
    decisions: Mapping[str, Mapping[str, Decision]]
    """The valid decision, by reviewer and crop id."""
    retouches: Mapping[str, Sequence[Retouch]]
    """By crop id, oldest first."""
    damaged: int = 0
    """Lines of the logs that could not be read."""

    def decisions_on(self, crop_id: str) -> dict[str, Decision]:
        """The decisions on a crop by reviewer."""
        return {who: found[crop_id] for who, found in self.decisions.items() if crop_id in found}

    def verdict(self, crop_id: str) -> Verdict | None:
        """The verdict on a crop under the policy; None if nobody decided."""
        return final_verdict([as_verdict(found.verdict) for found in self.decisions_on(crop_id).values()], self.policy)

    def retouch(self, crop: Crop) -> Retouch | None:
        """The latest retouching of this crop as it is aligned now; None if there is none."""
        fitting = [r for r in self.retouches.get(crop.id, ()) if (r.size, r.quad) == (crop.size, crop.quad)]
        return fitting[-1] if fitting else None

    def awaits(self, crop: Crop) -> bool:
        """Whether the crop is to be retouched and has not been re-imported since that was last requested."""
        if self.verdict(crop.id) != "retouch":
            return False
        done = self.retouch(crop)
        asked = [said.at for said in self.decisions_on(crop.id).values() if said.verdict == "retouch"]
        return done is None or done.at < max(asked)

    def judged(self, crop: Crop) -> Crop:
        """A kept crop after review: with its retouched file, or rejected with the reason."""
        if crop.status != "kept":
            return crop
        if self.policy == "all_keep" and len(self.decisions_on(crop.id)) < len(self.decisions):
            missing = ", ".join(sorted(self.decisions.keys() - self.decisions_on(crop.id).keys()))
            return replace(crop, status="rejected", reason="not_reviewed", detail=f"not judged by {missing}")
        if self.verdict(crop.id) == "reject":
            reasons = {d.reason for d in self.decisions_on(crop.id).values() if d.verdict == "reject" and d.reason}
            detail = one_line(", ".join(sorted(reasons)))
            return replace(crop, status="rejected", reason="rejected_in_review", detail=detail)
        if self.awaits(crop):
            return replace(crop, status="rejected", reason="awaits_retouch")
        return replace(crop, file=self.file(crop))

    def file(self, crop: Crop) -> str:
        """The file to use for the crop: the retouched one, or its own."""
        done = self.retouch(crop)
        return done.file if done else crop.file


def reviewed(photoset: PhotoSet, settings: ReviewSettings) -> Reviewed:
    """Read all decisions and retouchings of a set."""
    decisions, damaged = {}, 0
    for who in reviewers(photoset):
        lines, bad = decision_log(photoset, who).read()
        decisions[who] = {decision.id: decision for decision in effective_decisions(lines)}
        damaged += bad
    rounds, bad = retouch_log(photoset).read()
    retouches: dict[str, list[Retouch]] = {}
    for done in rounds:
        if _own_file(done):
            retouches.setdefault(done.id, []).append(done)
    return Reviewed(settings.policy, decisions, retouches, damaged + bad)


def _own_file(done: Retouch) -> bool:
    """Whether the file's name has the form that is written here: a log may be edited by hand."""
    shape = _RETOUCHED.fullmatch(done.file)
    return shape is not None and shape[2] == done.id


def reviewed_crops(photoset: PhotoSet, settings: ReviewSettings, limit: int = 0) -> list[PartInput[Crop]]:
    """`parts_of(photoset.crops)` after review: rejected crops have status `rejected`, retouched ones
    their new file. A part's digest changes with the decisions on it; without any it is that of the table."""
    people = reviewed(photoset, settings)
    parts = parts_of(photoset.crops, limit)
    return [_judged_part(people, part) for part in parts] if people.decisions or people.retouches else parts


def _judged_part(people: Reviewed, part: PartInput[Crop]) -> PartInput[Crop]:
    rows = part.rows()
    judged = [people.judged(crop) for crop in rows]
    if judged == rows:
        return part
    return PartInput(part.number, len(judged), digest(judged), lambda: [people.judged(crop) for crop in part.rows()])


@dataclass
class ReviewedStep(Step[Crop, L, M, R], Generic[L, M, R]):
    """Wraps a step over `reviewed_crops`: crops that reviewers rejected become rejected rows without being read."""

    work: Step[Crop, L, M, R]

    @property
    def provenance(self) -> Provenance:
        """The wrapped step's."""
        return self.work.provenance

    def open(self) -> None:
        """The wrapped step's."""
        self.work.open()
        self.batch_size = self.work.batch_size

    def load(self, crop: Crop) -> L:
        """The wrapped step's. Raises ImageError for a rejected crop."""
        if crop.status == "rejected":
            raise ImageError(crop.reason, crop.detail)
        return self.work.load(crop)

    def step(self, batch: Sequence[L]) -> Sequence[M]:
        """The wrapped step's."""
        return self.work.step(batch)

    def save(self, crop: Crop, result: M) -> list[R]:
        """The wrapped step's."""
        return self.work.save(crop, result)

    def failed(self, crop: Crop, reason: str, detail: str) -> list[R]:
        """The step's row, `rejected` for a rejected crop."""
        rows = self.work.failed(crop, reason, detail)
        return rows if crop.status == "kept" else [replace(row, status=crop.status) for row in rows]


def forget(photoset: PhotoSet, crop_ids: set[str]) -> int:
    """Erase all decisions on some crops, and their retouched files; the caller holds the set's lock.

    People may go on deciding meanwhile: they wait for no lock of the set, and what they decide is kept. Returns how
    many lines and files went. Raises AuthfaceError where the disk refuses.
    """
    gone = 0
    retouches = retouch_log(photoset)
    for done in retouches.read()[0]:
        if done.id in crop_ids and _own_file(done):
            photoset.delete(done.file)
            gone += 1
    logs: list[Journal[Any]] = [retouches, *(decision_log(photoset, who) for who in reviewers(photoset))]
    gone += sum(log.drop(lambda line: line.id in crop_ids) for log in logs)
    return gone


def choice_table(photoset: PhotoSet) -> Table[Choice]:
    """The table `balance`."""
    return Table(photoset.root / "tables" / "balance", Choice)


def balanced(photoset: PhotoSet, parts: Sequence[PartInput[Crop]]) -> list[PartInput[Crop]]:
    """The crops after balancing: the surplus of each kind has status `rejected`.

    `parts` are the reviewed crops (`reviewed_crops`) from which the choice was made. Without a
    choice they are returned unchanged. Raises AuthfaceError where crops changed since the choice, or a kill left parts
    of two choices.
    """
    table = choice_table(photoset)
    if not (metas := table.metas()):
        return list(parts)
    made = [meta for part in parts if (meta := metas.get(part.number)) and meta.inputs == part.digest]
    if len(made) < len(parts) or any(meta.provenance != made[0].provenance for meta in made):
        whole = metas.keys() >= {part.number for part in parts} and len(made) < len(parts)
        why = (
            "its crops changed since it was chosen" if whole else "a run that chose it was stopped, or crops were added"
        )
        here = one_line(photoset.root)
        raise AuthfaceError(
            f"the balance of {here} is stale: {why}: "
            f"run authface curate balance {shell_word(here)} again, or with --clear to take all"
        )
    return [_chosen(table, part) for part in parts]


def made_from_tables(
    tables: Mapping[str, TableState], crops: Sequence[PartInput[Crop]], annotators: Sequence[str]
) -> list[Any]:
    """Digests of all rows that an export is made from; `crops` are those after review and `balanced`."""

    def contents(name: str) -> list[str]:
        return tables[name].contents if name in tables else []

    above = [contents("photos"), contents("faces"), [part.digest for part in crops]]
    return [*above, contents("people"), *(contents(f"tags/{name}") for name in annotators)]


def made_from_digest(
    tables: Mapping[str, TableState], crops: Sequence[PartInput[Crop]], annotators: Sequence[str]
) -> str:
    """`made_from_tables` as one digest in hex, which an export stores."""
    text = json.dumps(made_from_tables(tables, crops, annotators))
    return hashlib.sha256(text.encode()).hexdigest()


def _chosen(table: Table[Choice], part: PartInput[Crop]) -> PartInput[Crop]:
    out = {choice.id: choice for choice in table.rows(part.number) if choice.status == "rejected"}
    if not out:
        return part
    both = hashlib.sha256(f"{part.digest}\n{digest(list(out.values()))}".encode()).hexdigest()
    return PartInput(part.number, part.count, both, lambda: [_left(crop, out) for crop in part.rows()])


def _left(crop: Crop, out: Mapping[str, Choice]) -> Crop:
    choice = out.get(crop.id)
    if choice is None or crop.status != "kept":
        return crop
    return replace(crop, status="rejected", reason=choice.reason, value=choice.value, limit=choice.limit)
