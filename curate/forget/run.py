"""`curate forget`: delete photos and all that was made from them; what is left is a tombstone of hashes.

Order makes it safe to stop anywhere: tombstones first, rows last, so the same command finds what is left to do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from authface.curate.forget import removal
from authface.curate.forget.unwritten import FETCHED, clean_fetched, unwritten_photos
from authface.errors import AuthfaceError, UsageError, first_line, one_line, shell_word
from authface.files import write_file
from authface.inspect.why import find_photo, forgotten_at, is_by, photos_of, rows_of
from authface.records import Photo, now
from authface.review import reviews
from authface.store import journal
from authface.store.journal import Tombstone, Use
from authface.store.photoset import PhotoSet


@dataclass
class ForgetResult:
    """What was deleted, or with ``--dry-run`` would be."""

    photos: list[str] = field(default_factory=list)
    """Ids, or the names in their source of photos without one."""
    files: int = 0
    rows: int = 0
    entries: int = 0
    """Of logs and cached listings."""
    dataset: bool = False
    """``SET/dataset`` held some of them and went."""
    used_by: list[tuple[Use, int]] = field(default_factory=list)
    """Datasets and trainings that hold some of them, and how many."""
    near: list[str] = field(default_factory=list)
    """Faces that nearly repeat one of theirs, in photos that stay."""
    same_people: list[str] = field(default_factory=list)
    """Faces in photos that stay, of whom `curate split` says that they show a person of theirs."""
    unread: list[str] = field(default_factory=list)
    """Files that mention them and are no JSON: left as they are."""

    def as_text(self, photoset: PhotoSet, what: str) -> str:
        """For a person: `what` (deleted, would go) happens to how much, and where copies may still be."""
        here = one_line(photoset.root)
        lines = [
            f"{what}: {len(self.photos):,} photos, {self.files:,} files, {self.rows:,} rows, "
            f"{self.entries:,} log entries"
        ]
        if self.dataset:
            lines.append(
                f"{here}/dataset held some of them: {what}; authface annotate export {shell_word(here)} makes it again"
            )
        for use, count in self.used_by:
            where = one_line(use.path)
            if use.kind == "training":
                lines.append(
                    f"trained on {count:,} of them: {where}: its weights and its training/cache stay as they are"
                )
            elif use.path.startswith(str((photoset.root / "exports").resolve())):
                lines.append(f"{where} held {count:,} of them: {what}")
            elif not self.dataset or Path(use.path) != (photoset.root / "dataset").resolve():
                lines.append(f"dataset {where} holds {count:,} of them: delete it and export it again")
        if self.dataset or self.used_by:
            lines.append(
                "copies elsewhere are yours to find: the cache of datasets (HF_DATASETS_CACHE), uploads, backups"
            )
        for kind, faces in (
            ("near duplicates", self.near),
            ("other photos of the same people, as far as curate split tells,", self.same_people),
        ):
            if faces:
                names = ", ".join(one_line(name, 80) for name in faces[:5])
                lines.append(f"{kind} that stay: {names}{' ...' if len(faces) > 5 else ''}")
        lines += [f"{here}/{one_line(name)} mentions them and is no JSON: look at it yourself" for name in self.unread]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "photos": self.photos,
            "files": self.files,
            "rows": self.rows,
            "entries": self.entries,
            "dataset": self.dataset,
            "used_by": [{"kind": use.kind, "path": use.path, "key": use.key, "photos": n} for use, n in self.used_by],
            "near_duplicates": self.near,
            "same_people": self.same_people,
            "unread": self.unread,
        }


def find_photos(photoset: PhotoSet, ids: Sequence[str], photographer: str | None) -> list[Photo]:
    """The photos that `ids` name and those of a photographer; an id forgotten before names none. Raises UsageError.

    Photos that a killed fetch completed are among them, though they have no row in a table.
    """
    found, more = [], unwritten_photos(photoset)
    for text in ids:
        try:
            found += [each.photo for each in find_photo(photoset, text, more)]
        except UsageError:
            if not forgotten_at(photoset, text):
                raise
    if photographer is not None:
        theirs = [each.photo for each in photos_of(photoset, photographer, more)]
        if not theirs:
            raise UsageError(f"{one_line(photoset.root)} has no photo by {one_line(photographer, 100)}")
        found += theirs
    return found


def forget(
    photoset: PhotoSet, photos: Sequence[Photo], *, reason: str, photographer: str = "", dry_run: bool = False
) -> ForgetResult:
    """Delete `photos`, whatever an earlier run left, and their traces; the caller holds the set's lock.

    The same bytes under other names go too. `photographer` is a name or page to keep out from now on. Raises
    AuthfaceError if the disk refuses.
    """
    begun = [stone for stone in journal.tombstones(photoset) if not stone.done]
    more = unwritten_photos(photoset)
    rows = _all_rows(photoset, photos, begun, more)
    stones = [journal.tombstone(photo, reason) for photo in rows]
    stones += [
        Tombstone(photo="", photographer=journal.photographer_hash(source, name), at=now(), reason=reason)
        for source in sorted({photo.source for photo in photos})
        for name in _known_as(photos, photographer)
    ]
    open_ids = {stone.photo for stone in begun} - {""}
    gone = removal.removal_of(rows)
    gone = removal.Removal(gone.photos | open_ids, gone.items)
    result = ForgetResult(sorted({photo.id or photo.source_id for photo in rows} | open_ids))
    result.used_by = list(journal.holders(photoset, set(gone.photos)))
    result.near = _near(photoset, gone)
    result.same_people = _same_people(photoset, gone)
    if not dry_run:
        journal.bury(photoset, stones)
    orphans = _orphans(photoset, rows, gone, more)
    if not dry_run:
        _forget_settings(photoset, orphans)
    judged = removal.judged_digests(photoset, gone)  # while the decisions are there
    _texts(photoset, removal.names_of(rows, orphans), gone, result, dry_run)
    _files(photoset, gone, result, dry_run)
    planned = removal.changes(photoset, gone, judged)
    result.rows = sum(change.rows for change in planned)
    if not dry_run:
        removal.apply(photoset, gone, planned)
        journal.close(photoset)
    return result


def _all_rows(
    photoset: PhotoSet, photos: Sequence[Photo], begun: Sequence[Tombstone], more: Sequence[Photo]
) -> list[Photo]:
    """`photos`, all rows of the same bytes, and the rows of what an earlier run had `begun` to forget."""
    ids = {photo.id for photo in photos} | {stone.photo for stone in begun}
    bare = {stone.item for stone in begun if not stone.photo}  # one with bytes may share its name with one that stays
    found = [*photos, *(each.photo for each in rows_of(photoset, ids, bare, more))]
    return list({(photo.source, photo.source_id, photo.as_of, photo.id): photo for photo in found}.values())


def _files(photoset: PhotoSet, gone: removal.Removal, result: ForgetResult, dry_run: bool) -> None:
    """Originals, crops, thumbnails by their names; pages, which show pictures; exports that hold them."""
    named = {relative for photo_id in gone.photos for relative in files_of(photoset, photo_id)}
    named.update(path for path in removal.text_files(photoset) if any(photo_id in path for photo_id in gone.photos))
    doomed = sorted(named)
    result.files = len(doomed)
    doomed += _all_below(photoset, "reports")
    doomed += [name for top in photoset.root.glob(".tmp-*") for name in _all_below(photoset, top.name)]
    for top in ("dataset", *_exports(photoset)):
        files, state = _all_below(photoset, top), f"{top}/authface.json"
        if files and (state not in files or gone.photos.intersection(journal.dataset_ids(photoset.root / top))):
            result.dataset |= top == "dataset"
            doomed += [state, *files]  # its state first: a dataset without one is none
    if not dry_run:
        for relative in doomed:
            photoset.delete(relative)


def files_of(photoset: PhotoSet, photo_id: str) -> list[str]:
    """Files named by a photo in the folders sorted by its first two digits: photos, crops, thumbnails."""
    found = {
        path
        for depth in ("*", "*/*")
        for path in photoset.root.glob(f"{depth}/{photo_id[:2]}/{photo_id}*")
        if path.is_file()
    }
    return sorted(path.relative_to(photoset.root).as_posix() for path in found)


def _exports(photoset: PhotoSet) -> list[str]:
    """Folders of `annotate export` in other formats."""
    top = photoset.root / "exports"
    return sorted(f"exports/{path.name}" for path in top.iterdir() if path.is_dir()) if top.is_dir() else []


def _all_below(photoset: PhotoSet, name: str) -> list[str]:
    top = photoset.root / name
    if top.is_file():
        return [name]
    files = (path for path in top.rglob("*") if path.is_file()) if top.is_dir() else ()
    return sorted(path.relative_to(photoset.root).as_posix() for path in files)


def _texts(
    photoset: PhotoSet, names: removal.ForgottenNames, gone: removal.Removal, result: ForgetResult, dry_run: bool
) -> None:
    """Decisions, journals, cached listings."""
    if not dry_run:
        result.entries += reviews.forget(photoset, set(_faces(photoset, gone)))
    names = removal.ForgottenNames(gone.photos, names.words)
    # Its rows go last: until then a run that resumes reads the names of their photos there.
    for relative in sorted(removal.text_files(photoset), key=lambda name: name == FETCHED):
        if any(photo_id in relative for photo_id in gone.photos):
            continue  # a file of its own, which goes as a whole
        if relative == FETCHED:
            count: int | None = clean_fetched(photoset, names, gone, write=not dry_run)
        else:
            count = removal.clean(photoset, relative, names, write=not dry_run)
        if count is None:
            result.unread.append(relative)
        result.entries += count or 0


def _faces(photoset: PhotoSet, gone: removal.Removal) -> Iterator[str]:
    """Ids of the faces of what goes, from any table that has them."""
    ids = pa.array(sorted(gone.photos), pa.string())
    for table in (photoset.faces, photoset.crops):
        for part in table.parts():
            rows = table.arrow(part, ["id", "photo_id"])
            yield from rows.filter(pc.is_in(rows.column("photo_id"), ids)).column("id").to_pylist()


def _near(photoset: PhotoSet, gone: removal.Removal) -> list[str]:
    """Faces of photos that stay, which nearly repeat a face that goes or are repeated by it."""
    found: set[str] = set()
    for part in photoset.faces.parts():
        rows = photoset.faces.arrow(part, ["id", "duplicate_of"])
        pairs = rows.filter(pc.not_equal(rows.column("duplicate_of"), "")).to_pylist()
        for face, of in ((pair["id"], pair["duplicate_of"]) for pair in pairs):
            if (face[:64] in gone.photos) != (of[:64] in gone.photos):
                found.add(of if face[:64] in gone.photos else face)
    return sorted(found)


def _same_people(photoset: PhotoSet, gone: removal.Removal) -> list[str]:
    """Faces of photos that stay, which the set takes for a person whose face goes."""
    people, ids = photoset.people, pa.array(sorted(gone.photos), pa.string())
    theirs = set[str]()
    for part in people.parts():
        rows = people.arrow(part, ["photo_id", "identity"])
        theirs.update(rows.filter(pc.is_in(rows.column("photo_id"), ids)).column("identity").to_pylist())
    known, found = pa.array(sorted(theirs - {""}), pa.string()), list[str]()
    for part in people.parts() if len(known) else ():
        rows = people.arrow(part, ["id", "photo_id", "identity"])
        stays = pc.invert(pc.is_in(rows.column("photo_id"), ids))
        found += rows.filter(pc.and_(stays, pc.is_in(rows.column("identity"), known))).column("id").to_pylist()
    return sorted(found)


def _known_as(photos: Sequence[Photo], photographer: str) -> set[str]:
    """All names of a photographer to keep out: what was typed, and the names and pages of their photos."""
    if not photographer:
        return set()
    theirs = [photo for photo in photos if is_by(photo, photographer)]
    return {name for photo in theirs for name in (photo.photographer, photo.photographer_url) if name} | {photographer}


def _orphans(
    photoset: PhotoSet, photos: Sequence[Photo], gone: removal.Removal, more: Sequence[Photo]
) -> frozenset[str]:
    """Names and pages of photographers of whom no photo stays, in a table or among `more`."""
    left = {name for photo in photos for name in (photo.photographer, photo.photographer_url) if name}
    left -= {
        name for photo in more if not gone.holds(asdict(photo)) for name in (photo.photographer, photo.photographer_url)
    }
    for part in photoset.photos.parts():
        rows = photoset.photos.arrow(part, ["id", "source", "source_id", "photographer", "photographer_url"])
        for column in ("photographer", "photographer_url"):
            theirs = pc.is_in(rows.column(column), pa.array(sorted(left), pa.string()))
            left -= {row[column] for row in rows.filter(theirs).to_pylist() if not gone.holds(row)}
    return frozenset(left)


def _forget_settings(photoset: PhotoSet, orphans: frozenset[str]) -> None:
    """Blank a photographer in the settings the set remembers."""
    path = photoset.root / "recipe.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise AuthfaceError(f"{one_line(path)} cannot be read ({first_line(error, 60)}): mend it, run again") from error
    settings = tables.get("curate", {}).get("fetch", {})
    if settings.get("photographer") in orphans:
        settings["photographer"] = ""
        write_file(path, tomli_w.dumps(tables).encode())
