"""`curate forget`: delete photos and all that was made from them; what is left is a tombstone of hashes.

Order makes it safe to stop anywhere: tombstones first, rows last, so the same command finds what is left to do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from authface.curate.forget import rows as erase_rows
from authface.curate.forget import texts as erase_texts
from authface.errors import AuthfaceError, one_line
from authface.files import write_file
from authface.records import Photo
from authface.review import reviews
from authface.store import lineage as uses
from authface.store import tombstones as forgotten
from authface.store.lineage import Use
from authface.store.photoset import PhotoSet
from authface.store.tombstones import Tombstone


@dataclass
class Forgot:
    """What was deleted, or would be."""

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
    unread: list[str] = field(default_factory=list)
    """Files that mention them and are no JSON: left as they are."""


def forget(
    photoset: PhotoSet, photos: Sequence[Photo], *, reason: str, photographer: str = "", dry_run: bool = False
) -> Forgot:
    """Delete `photos`, whatever an earlier run left, and their traces; the caller holds the set's lock.

    `photographer` is a name or page that is to stay away altogether. Raises AuthfaceError where the disk refuses.
    """
    stones = [forgotten.tombstone(photo, reason) for photo in photos]
    sources = sorted({photo.source for photo in photos})
    stones += [
        Tombstone(photo="", photographer=forgotten.photographer_hash(source, name), at=forgotten.now(), reason=reason)
        for source in sources
        for name in _known_as(photos, photographer)
    ]
    begun = [stone.photo for stone in forgotten.tombstones(photoset) if not stone.done]
    gone = erase_rows.removal_of(list(photos))
    gone = erase_rows.Removal(gone.photos | (set(begun) - {""}), gone.items)
    said = Forgot(sorted({photo.id or photo.source_id for photo in photos} | (set(begun) - {""})))
    said.used_by = list(uses.holders(photoset, set(gone.photos)))
    said.near = _near(photoset, gone)
    if not dry_run:
        forgotten.bury(photoset, stones)
    orphans = _orphans(photoset, photos, gone)
    _texts(photoset, erase_texts.names_of(list(photos), orphans), gone, said, dry_run)
    _files(photoset, gone, said, dry_run)
    planned = erase_rows.changes(photoset, gone)
    said.rows = sum(change.rows for change in planned)
    if not dry_run:
        _forget_settings(photoset, orphans)
        erase_rows.apply(photoset, gone, planned)
        forgotten.close(photoset)
    return said


def _files(photoset: PhotoSet, gone: erase_rows.Removal, said: Forgot, dry_run: bool) -> None:
    """Originals, crops, thumbnails by their names; pages, which show pictures; exports that hold them."""
    named = {relative for photo_id in gone.photos for relative in files_of(photoset, photo_id)}
    named.update(path for path in erase_texts.texts(photoset) if any(photo_id in path for photo_id in gone.photos))
    doomed = sorted(named)
    said.files = len(doomed)
    doomed += _all_below(photoset, "reports")
    doomed += [name for top in photoset.root.glob(".tmp-*") for name in _all_below(photoset, top.name)]
    for top in ("dataset", *_exports(photoset)):
        files, state = _all_below(photoset, top), f"{top}/authface.json"
        if files and (state not in files or gone.photos & uses.dataset_ids(photoset.root / top)):
            said.dataset |= top == "dataset"
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


def _texts(photoset: PhotoSet, names: erase_texts.Names, gone: erase_rows.Removal, said: Forgot, dry_run: bool) -> None:
    """Decisions, journals, cached listings."""
    if not dry_run:
        said.entries += reviews.forget(photoset, set(_faces(photoset, gone)))
    names = erase_texts.Names(gone.photos, names.words)
    for relative in list(erase_texts.texts(photoset)):
        if any(photo_id in relative for photo_id in gone.photos):
            continue  # a file of its own, which goes as a whole
        count = erase_texts.clean(photoset, relative, names, write=not dry_run)
        if count is None:
            said.unread.append(relative)
        said.entries += count or 0


def _faces(photoset: PhotoSet, gone: erase_rows.Removal) -> Iterator[str]:
    """Ids of the faces of what goes, from any table that has them."""
    ids = pa.array(sorted(gone.photos), pa.string())
    for table in (photoset.faces, photoset.crops):
        for part in table.parts():
            rows = table.arrow(part, ["id", "photo_id"])
            yield from rows.filter(pc.is_in(rows.column("photo_id"), ids)).column("id").to_pylist()


def _near(photoset: PhotoSet, gone: erase_rows.Removal) -> list[str]:
    """Faces of photos that stay, which nearly repeat a face that goes or are repeated by it."""
    found: set[str] = set()
    for part in photoset.faces.parts():
        rows = photoset.faces.arrow(part, ["id", "duplicate_of"])
        pairs = rows.filter(pc.not_equal(rows.column("duplicate_of"), "")).to_pylist()
        for face, of in ((pair["id"], pair["duplicate_of"]) for pair in pairs):
            if (face[:64] in gone.photos) != (of[:64] in gone.photos):
                found.add(of if face[:64] in gone.photos else face)
    return sorted(found)


def _known_as(photos: Sequence[Photo], photographer: str) -> set[str]:
    """What a photographer who is to stay away is called: what was typed, and names and pages of their photos."""
    if not photographer:
        return set()
    return {name for photo in photos for name in (photo.photographer, photo.photographer_url) if name} | {photographer}


def _orphans(photoset: PhotoSet, photos: Sequence[Photo], gone: erase_rows.Removal) -> frozenset[str]:
    """Names and pages of photographers that no photo has which stays."""
    left = {name for photo in photos for name in (photo.photographer, photo.photographer_url) if name}
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
        raise AuthfaceError(f"{one_line(path)} cannot be read ({one_line(error, 60)}): mend it, run again") from error
    settings = tables.get("curate", {}).get("fetch", {})
    if settings.get("photographer") in orphans:
        settings["photographer"] = ""
        write_file(path, tomli_w.dumps(tables).encode())
