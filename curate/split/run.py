"""`curate split`: training, validation and test sets that share no person, no near duplicate and no photo.

Groups of faces that belong together go to a split by a hash of their name, so the same set gives the same splits. Run
again with more photos, a group stays where its faces were. Only where new faces join groups of two splits, one has to
move: to training, else to validation, since what was trained on cannot be tested on.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.settings import SplitSettings
from authface.curate.split.dealing import NO_SPLIT, SPLITS, assign, former_splits
from authface.curate.split.groups import Embed, SplitFaces, groups_of, kept_crops, read_faces
from authface.curate.split.leaks import (
    LEAK_WORDS,
    FindRivals,
    Leak,
    RivalFile,
    against_table,
    find_leaks,
    rival_parts,
    write_page,
)
from authface.curate.split.likeness import cohort_of, likeness_of
from authface.curate.split.people import SMALL_SET, people_of
from authface.engine.ray import Cluster
from authface.engine.runner import PartInput, parts_of, run
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.faces.identity import usual_products, weights_sha256
from authface.records import Crop, Person, Rival
from authface.store.numbers import NumberSet, text_number
from authface.store.photoset import PhotoSet, Provenance

VERSION = 1
_AT_ONCE = 1 << 12
"""Faces whose rows are made at a time."""
_MOVES_NOTHING = {"against", "drop_leaks", "leak_likeness"}
"""Settings that affect neither groups nor where they go; if any other changes, former splits no longer count."""


def provenance(settings: SplitSettings, seed: int, weights: Mapping[str, str]) -> Provenance:
    """Everything that the splits depend on."""
    told = settings.model_dump(mode="json", exclude={"keep_embeddings", "arcface"})
    return Provenance("split", VERSION, told | {"seed": seed}, dict(weights))


def _settled(made: Provenance) -> Provenance:
    return replace(made, settings={key: value for key, value in made.settings.items() if key not in _MOVES_NOTHING})


def is_dealt_anew(photoset: PhotoSet, new: Provenance, log: Callable[[str], None]) -> bool:
    """Whether the shares or the seed were different, so that former splits do not count."""
    for meta in photoset.people.metas().values():
        if meta and (change := _settled(meta.provenance).difference(_settled(new))):
            log(f"split: all groups are dealt anew: {change}")
            return True
    return False


def state_of(
    photoset: PhotoSet, parts: Sequence[PartInput[Any]], rivals: Sequence[PartInput[Any]], *, photographers: bool
) -> str:
    """Digest of everything that the splits are computed from; with `photographers` of whose photos they are, too."""
    tables = [[meta.digest if meta else "" for meta in table.metas().values()] for table in (photoset.faces,)]
    told = [tables, [part.digest for part in parts], [part.digest for part in rivals]]
    if photographers:
        told.append(photoset.photos.state().contents)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def is_current(photoset: PhotoSet, new: Provenance, parts: Sequence[PartInput[Any]], state: str) -> bool:
    """Whether the table `people` is already what a run would write."""
    metas = photoset.people.metas()
    return set(metas) == {part.number for part in parts} and all(
        meta is not None and not meta.provenance.difference(new) and meta.inputs == f"{part.digest}:{state}"
        for part in parts
        for meta in (metas[part.number],)
    )


def write_people(
    photoset: PhotoSet, parts: Sequence[PartInput[Crop]], rows: Iterator[Person], made: Provenance, state: str
) -> Iterator[Person]:
    """Write the table `people`, a part for each of the crops', and pass its rows on."""
    for number in set(photoset.people.parts()) - {part.number for part in parts}:
        photoset.people.remove(number)
    for part in parts:
        of_part = list(islice(rows, part.count))
        photoset.people.write(part.number, of_part, made, f"{part.digest}:{state}")
        yield from of_part


@dataclass(frozen=True)
class Dealt:
    """What was found of the n faces of a set: who they show, with whom they stay, where they go."""

    faces: SplitFaces
    people: NDArray[np.int32]
    """(n,) number of the face that names the person; -1 where nobody asked."""
    groups: NDArray[np.int32]
    """(n,) number of the face that names the group."""
    splits: NDArray[np.int8]
    """(n,) place in `SPLITS`."""

    def __iter__(self) -> Iterator[tuple[str, str, str, str]]:
        """Each face's id, its person, its group and its split."""
        ids = self.faces.ids
        for start in range(0, len(ids), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            people = self.people[some]
            named = (name if known else "" for name, known in zip(ids[np.maximum(people, 0)], people >= 0, strict=True))
            splits = (SPLITS[place] for place in self.splits[some].tolist())
            yield from zip(ids[some], named, ids[self.groups[some]], splits, strict=True)


def person_rows(
    crops: Iterable[tuple[str, str]], dealt: Dealt, leaks: Mapping[str, Leak], drop: str
) -> Iterator[Person]:
    """The rows of all crops, which are told by their ids and their photos'.

    Training loses what `drop` names: repeated pictures, or all faces of a person.
    """
    dropped: dict[str, Leak] = {}
    if drop != "nothing":
        dropped = {face: leak for face, leak in leaks.items() if drop == "people" or leak.kind != "same_person"}
    gone_people: dict[str, Leak] = {}
    if drop == "people":
        for face, person in named_people(dealt, dropped).items():
            gone_people.setdefault(person, dropped[face])
    known = iter(dealt)
    for crop, photo in crops:
        if lost := dealt.faces.failed.get(crop):
            row = Person(id=crop, photo_id=photo)
            yield replace(row, status=lost.status, reason=lost.reason, detail=lost.detail)
            continue
        face, person, group, split = next(known)
        assert face == crop, f"{face} is not {crop}"
        leak = dropped.get(face) or gone_people.get(person or face)
        row = Person(id=face, photo_id=photo, identity=person, group=group, split=split)
        yield row if leak is None or split != "train" else _leaked(row, leak)


def named_people(dealt: Dealt, asked: Container[str]) -> dict[str, str]:
    """The person of some faces, by their ids; the face itself where nobody asked."""
    return {face: person or face for face, person, _, _ in dealt if face in asked}


def _leaked(row: Person, leak: Leak) -> Person:
    detail = f"{leak.kind} as {one_line(leak.file, 100)} in {leak.folder}"
    return replace(row, status="rejected", reason="leak", value=leak.value, limit=leak.limit, detail=detail)


@dataclass(frozen=True)
class SplitResult:
    """The outcome of a split."""

    counts: Counter[str]
    """Faces by split, of those kept; ``rejected: leak``, ``failed: ...`` of the others."""
    identities: int
    groups: int
    largest: int
    """Faces of the largest group."""
    moved: int
    """Faces that were in another split before."""
    leaks: Mapping[str, Leak] = field(default_factory=dict)
    page: Path | None = None
    """Where the leaks are shown."""

    def as_text(self) -> str:
        """For a person."""
        names = [name for name in SPLITS if name in self.counts]
        lines = [f"  {self.counts[name]:>9,}  {name}" for name in [*names, *sorted(self.counts.keys() - set(SPLITS))]]
        if self.identities:
            lines.append(f"{self.identities:,} people")
        lines.append(f"{self.groups:,} groups that stay together, the largest of {self.largest:,} faces")
        lines += self.warnings()
        if self.moved:
            lines.append(f"{self.moved:,} faces moved: new ones join them to people of another split")
        if self.page:
            kinds = Counter(leak.kind for leak in self.leaks.values())
            shared = ", ".join(f"{kinds[kind]:,} {LEAK_WORDS[kind]}" for kind in LEAK_WORDS)
            lines.append(f"faces shared with the folders: {shared}\nleaks: {one_line(self.page)}")
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """What later steps will lack, and what to do."""
        kept = sum(self.counts[name] for name in SPLITS)
        found = []
        if empty := [name for name in SPLITS if kept and not self.counts[name]]:
            found.append(
                f"warning: no faces in {' and '.join(empty)}, which evaluate needs: add photos of more people, or set "
                "curate.split.test_faces and val_faces, or keep fewer together with curate.split.keep_together"
            )
        if kept >= 10 and self.largest > kept / 5:
            found.append(
                f"warning: {self.largest:,} of {kept:,} faces count as one group: if they are not one person, raise "
                "curate.split.same_person (now strangers may be joined), at most to about 6"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        values: dict[str, Any] = {
            "warnings": self.warnings(),
            "counts": dict(self.counts),
            "identities": self.identities,
            "groups": self.groups,
            "largest": self.largest,
            "moved": self.moved,
        }
        if self.page:
            values["leaks"] = dict(Counter(leak.kind for leak in self.leaks.values()))
            values["leaking"] = {leak.face: f"{leak.folder}/{leak.file}" for leak in self.leaks.values()}
            values["report"] = str(self.page)
        return values


def split(
    photoset: PhotoSet,
    settings: SplitSettings,
    console: Console,
    *,
    seed: int,
    workers: int = 1,
    cluster: Cluster | None = None,
    limit: int = 0,
) -> SplitResult:
    """Embed what is new, group, assign, write the table `people` and the page of leaks; the caller holds the lock.

    Raises UsageError for a path in `against` that is no folder and for a limit of fewer faces than were dealt before,
    AuthfaceError if there are no crops.
    """
    parts = parts_of(photoset.crops, limit)
    if not any(part.count for part in parts):
        here = one_line(photoset.root)
        raise AuthfaceError(f"{here} has no kept crops: authface curate report {shell_word(here)} says why")
    if limit and (lost := _dealt_beyond(photoset, parts)):
        raise UsageError(f"split: --limit {limit} would take their split from {lost:,} faces: leave it out")
    folders = {name: (Path(name), rival_parts(Path(name), console.log)) for name in settings.against}
    embedded = bool("identity" in settings.keep_together or folders)
    weights: dict[str, str] = {}
    if embedded:
        weights[settings.embedder] = weights_sha256(settings.embedder, settings.arcface)
    made = provenance(settings, seed, weights)
    photographers = "photographer" in settings.keep_together
    others = [part for _, rivals in folders.values() for part in rivals]
    state = state_of(photoset, parts, others, photographers=photographers)
    if not folders and is_current(photoset, made, parts, state):
        console.log("split: nothing to do")
        return _result(photoset.people, moved=0)
    if embedded:
        step = Embed(photoset.root, settings)
        run(step, parts, photoset.embeddings, console, workers=workers, cluster=cluster, prune=not limit)
    theirs, paths = _rivals(photoset, settings, folders, console, workers)
    faces = read_faces(photoset, parts, embedded=embedded, photographers=photographers)
    cohort = cohort_of(faces.vectors) if settings.cohort == "set" else None
    compare = partial(likeness_of, cohort=cohort, usual=usual_products(settings.embedder))
    extra = SMALL_SET if cohort is None and settings.cohort == "set" else 0.0
    people = people_of(faces, compare(faces.vectors), settings.same_person + extra)
    leaks: dict[str, Leak] = {}
    if folders:
        leaks = find_leaks(faces, theirs, compare, settings.duplicate_radius, settings.leak_likeness)
    groups = groups_of(faces, people, settings)
    former = np.full(len(faces.ids), NO_SPLIT, np.int8)
    if not is_dealt_anew(photoset, made, console.log):
        former = former_splits(photoset, faces.ids)
    dealt = Dealt(faces, people, groups, assign(groups, former, faces.ids, settings, seed))
    rows = person_rows(_crop_names(photoset, parts), dealt, leaks, settings.drop_leaks)
    moved = int(((former != NO_SPLIT) & (former != dealt.splits)).sum())
    result = _result(write_people(photoset, parts, rows, made, state), moved)
    page = write_page(photoset, leaks, named_people(dealt, leaks), paths) if folders else None
    if not settings.keep_embeddings:
        forget_embeddings(photoset)
    return replace(result, leaks=leaks, page=page)


def _crop_names(photoset: PhotoSet, parts: Sequence[PartInput[Crop]]) -> Iterator[tuple[str, str]]:
    """The ids of the crops and of their photos."""
    for part in parts:
        table = kept_crops(photoset, part)
        yield from zip(table.column("id").to_pylist(), table.column("photo_id").to_pylist(), strict=True)


def _dealt_beyond(photoset: PhotoSet, parts: Sequence[PartInput[Crop]]) -> int:
    """How many kept crops that are in none of these parts have a split."""
    people, crops, asked = photoset.people, photoset.crops, {part.number: part.count for part in parts}
    dealt = NumberSet(text_number(id) for part in people.parts() for (id,) in people.columns(part, ("id",)))
    beyond = 0
    for part in crops.parts():
        kept = [id for id, status in crops.columns(part, ("id", "status")) if status == "kept"]
        beyond += sum(text_number(id) in dealt for id in kept[asked.get(part, 0) :])
    return beyond


def _rivals(
    photoset: PhotoSet,
    settings: SplitSettings,
    folders: Mapping[str, tuple[Path, list[PartInput[RivalFile]]]],
    console: Console,
    workers: int,
) -> tuple[list[tuple[str, Rival]], dict[str, str]]:
    """The faces of the folders with their folder's name, and the path of each file by sha256."""
    theirs: list[tuple[str, Rival]] = []
    paths: dict[str, str] = {}
    for folder, parts in folders.values():
        table = against_table(photoset, folder)
        run(FindRivals(settings), parts, table, console, workers=workers)
        theirs += [(one_line(folder.name, 80), row) for row in table]
        paths |= {file.sha256: file.path for part in parts for file in part.rows()}
    return theirs, paths


def forget_embeddings(photoset: PhotoSet) -> None:
    """Delete every embedding of the set: its own and those of folders it was compared with."""
    for name, table in photoset.tables().items():
        if name == "embeddings" or name.startswith("against/"):
            for part in table.parts():
                table.remove(part)


def _result(rows: Iterable[Person], moved: int) -> SplitResult:
    counts, groups, people = Counter[str](), array("q"), array("q")
    for row in rows:
        counts[row.split if row.status == "kept" else f"{row.status}: {row.reason}"] += 1
        if row.group:
            groups.append(hash(row.group))  # 8 bytes in place of 120
        if row.identity:
            people.append(hash(row.identity))
    sizes = np.unique(groups, return_counts=True)[1]
    largest = int(sizes.max(initial=0))
    return SplitResult(counts, len(np.unique(people)), groups=len(sizes), largest=largest, moved=moved)
