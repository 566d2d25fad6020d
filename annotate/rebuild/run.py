"""`annotate rebuild`: a set made again from a manifest, on photos that `curate fetch` brought, and what has changed.

Run first on an empty set, it lists the photos' addresses; run again after they were fetched, it puts the manifest's
faces on those whose bytes are the same: photos, faces, crops that are cut out again, people and tags. Photos are known
by the sha256 of their files, however they came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from authface.annotate.export.formats import pixels_sha256
from authface.annotate.export.rows import MEASURES, ORIGIN, SPLITS
from authface.annotate.rebuild.drift import DRIFT, DriftedRow, DriftKind, missing
from authface.annotate.rebuild.manifest import BadManifestRow, DatasetManifest, Entry, Origin, RowGroup
from authface.console import Console
from authface.engine.runner import PartInput, run
from authface.engine.workers import Step
from authface.errors import UsageError, one_line
from authface.faces.geometry import align, crop_to_photo, photo_points, whole_quad
from authface.files import is_local, replacing, sweep
from authface.imaging import decode as images
from authface.records import Crop, Face, Person, Photo, Score, Tag, Tags, now
from authface.store.lock import check_lease
from authface.store.numbers import NumberMap, NumberSet, text_number
from authface.store.photoset import REBUILD, TO_FETCH, PhotoSet, Provenance, Table
from authface.store.statements import name_of_list, restated

VERSION = 2
PIXELS_DIFFER = "its pixels are not those of the manifest"


@dataclass(frozen=True)
class ManifestFace:
    """A face of a manifest on a photo of the set."""

    entry: Entry
    photo_file: str
    status: str = "kept"
    """As the steps that run over rows expect it."""


def rebuilt_from(manifest: str) -> Provenance:
    """Provenance of tables made from the manifest of that digest."""
    return Provenance(REBUILD, VERSION, {"manifest": manifest}, {})


@dataclass
class CutStep(Step[ManifestFace, NDArray[np.uint8], NDArray[np.uint8], Crop]):
    """The step from a manifest's rows to a set's table `crops`."""

    root: Path
    manifest: str
    """Digest of the manifest."""
    batch_size: int = 4
    overwrites_files: bool = True

    @property
    def provenance(self) -> Provenance:
        """The manifest."""
        return rebuilt_from(self.manifest)

    def load(self, face: ManifestFace) -> NDArray[np.uint8]:
        """The crop's pixels. Raises ImageError where the photo cannot be read or the quad lies outside of it."""
        photo = images.decode(PhotoSet(self.root).read(face.photo_file)).rgb
        return cut(photo, face.entry.quad, face.entry.size)

    def save(self, face: ManifestFace, rgb: NDArray[np.uint8]) -> list[Crop]:
        """Write the crop; the row's `detail` says where its pixels differ from the manifest's."""
        photoset = PhotoSet(self.root)
        file = photoset.crop_file(face.entry.id)
        photoset.save(file, images.encode_png(rgb))
        same = pixels_sha256(rgb) == face.entry.pixels_sha256
        return [replace(crop_row(face.entry, file), detail="" if same else PIXELS_DIFFER)]

    def failed(self, face: ManifestFace, reason: str, detail: str) -> list[Crop]:
        """The row of a crop that could not be cut."""
        return [replace(crop_row(face.entry, ""), status="failed", reason=reason, detail=detail)]


def cut(photo: NDArray[np.uint8], quad: ArrayLike, size: int) -> NDArray[np.uint8]:
    """The (size, size, 3) crop of a quad. A picture that was taken in as it is, as AuthFace-HQ's are, comes back so:
    FFHQ's padding would blur its borders. Raises ImageError (`quad`)."""
    if photo.shape[:2] == (size, size) and np.array_equal(np.reshape(quad, (4, 2)), whole_quad(size)):
        return photo
    return align(photo, quad, size).rgb


def photo_row(photo: Photo, entry: Entry, by: str) -> Photo:
    """A fetched photo's row with the origin that the manifest states, whose list of addresses is `by`.

    Of its licence and of what other lists said of it the strictest holds.
    """
    row = restated(photo, [entry.licence], by, now(), whole=True)
    return replace(row, **{name: getattr(entry, name) for name in ORIGIN if name != "licence"})


def face_row(entry: Entry, photo_file: str) -> Face:
    """The face of a row."""
    measures: dict[str, Any] = {name: entry.quality.get(name) for name in MEASURES}
    size = entry.quality.get("face_size")
    return Face(
        id=entry.id,
        photo_id=entry.photo_id,
        photo_file=photo_file,
        index=entry.face.index,
        box=entry.face.box,
        points5=entry.face.points5,
        size=size,
        scores=tuple(Score(metric=score.metric, value=score.value) for score in entry.scores),
        **measures,
    )


def crop_row(entry: Entry, file: str) -> Crop:
    """The crop of a row, its matrices from its quad."""
    turn = crop_to_photo(entry.quad, entry.size)
    return Crop(
        id=entry.id,
        photo_id=entry.photo_id,
        file=file,
        size=entry.size,
        quad=entry.quad,
        to_photo=tuple(turn.ravel().tolist()),
        to_crop=tuple(cv2.invertAffineTransform(turn).ravel().tolist()),
        landmarks=tuple(photo_points(entry.landmarks, entry.quad, entry.size).ravel().tolist()),
        disagreement=entry.quality.get("disagreement"),
        pad_fraction=entry.quality.get("pad_fraction"),
        upscaled=bool(entry.quality.get("upscaled")),
    )


def person_row(entry: Entry) -> Person:
    """The split of a row; a manifest does not say whom it shows."""
    split = next((ours for ours, name in SPLITS.items() if name == entry.split), "")
    return Person(id=entry.id, photo_id=entry.photo_id, split=split)


def tags_row(entry: Entry, annotator: str) -> Tags:
    """The tags of one annotator, as far as the manifest holds them."""
    tags = tuple(
        Tag(name=tag.name, group=tag.group, confidence=tag.confidence)
        for tag in entry.tags
        if tag.annotator == annotator
    )
    return Tags(id=entry.id, annotator=annotator, tags=tags)


@dataclass
class Rebuilt:
    """What a run did."""

    rows: int
    """Of the manifest."""
    crops: int = 0
    """Of the set."""
    to_fetch: int = 0
    """Photos with an address."""
    drift: Counter[DriftKind] = field(default_factory=Counter)

    def told(self, line: DriftedRow, file: IO[bytes]) -> None:
        """Count a row and write it down; of a forgotten photo no id and no address comes back."""
        self.drift[line.kind] += 1
        if line.kind != "forgotten":
            file.write(json.dumps(asdict(line)).encode() + b"\n")

    @property
    def lost(self) -> int:
        """Rows that will not come back by fetching."""
        return sum(count for kind, count in self.drift.items() if kind not in {"to_fetch", "no_address"})


def rebuild(photoset: PhotoSet, manifest: DatasetManifest, console: Console, *, workers: int) -> Rebuilt:
    """Put the manifest's faces on the set's photos, list those that lack, and say what differs; the caller holds the
    set's lock.

    Raises UsageError where the set has faces that are no rebuild's.
    """
    here = one_line(photoset.root)
    for table in (photoset.measured, photoset.faces, photoset.crops):
        if any(meta is None or meta.provenance.step != REBUILD for meta in table.metas().values()):
            raise UsageError(f"{here} has {table.folder.name} of its own: rebuild into another set")
    found, asked = Rebuilt(len(manifest)), NumberSet()
    held = _photo_parts(photoset)
    with _lines(photoset, DRIFT) as drift, _lines(photoset, TO_FETCH) as urls:
        for origin, line in missing(photoset, manifest.origins(), held):
            found.told(line, drift)
            if line.kind == "to_fetch" and asked.add(text_number(origin.photo_id)):
                found.to_fetch += 1
                urls.write(_url_line(origin))
        for line in _write_tables(photoset, manifest, console, held, workers):
            found.told(line, drift)
    found.crops = photoset.crops.counts()["kept"]
    return found


@contextmanager
def _lines(photoset: PhotoSet, name: str) -> Iterator[IO[bytes]]:
    """A file of the set that is written line by line, and is there when the block ends well."""
    path = photoset.root / name
    if is_local(path):
        sweep(path.parent)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            yield file
        check_lease(path)


def _photo_parts(photoset: PhotoSet) -> NumberMap:
    """The part of every kept photo by the `text_number` of its id."""
    parts = photoset.photos.parts()
    return NumberMap((text_number(photo_id), part) for part in parts for photo_id in _kept_ids(photoset, part))


def _kept_ids(photoset: PhotoSet, part: int) -> Iterator[str]:
    return (id for id, status in photoset.photos.columns(part, ["id", "status"]) if status == "kept")


def _write_tables(
    photoset: PhotoSet, manifest: DatasetManifest, console: Console, held: NumberMap, workers: int
) -> Iterator[DriftedRow]:
    """Write the tables, part by part of the photos, and tell the rows that are not as they were."""
    key = manifest.key
    annotators = manifest.annotators() or ["measured"]
    groups, parts = manifest.groups(held), photoset.photos.parts()
    usable = {part: partial(_usable, photoset, part, manifest, groups.get(part, [])) for part in parts}
    inputs = []
    for part in parts:
        entries, bad = usable[part]()
        yield from bad
        files = _write_faces(photoset, part, entries, key)
        meta = photoset.faces.meta(part)
        assert meta is not None
        inputs.append(PartInput(part, len(entries), meta.digest, partial(_manifest_faces, usable[part], files)))
    run(CutStep(photoset.root, key), inputs, photoset.crops, console, workers=workers)
    for part in parts:
        yield from _write_people_and_tags(photoset, part, usable[part]()[0], annotators, key)


Usable = tuple[list[Entry], list[DriftedRow]]


def _usable(photoset: PhotoSet, part: int, manifest: DatasetManifest, groups: list[RowGroup]) -> Usable:
    """The rows of a part's photos, each face once, and those that are of no use."""
    entries: dict[str, Entry] = {}
    drift = []
    for row in manifest.entries(set(_kept_ids(photoset, part)), groups):
        if isinstance(row, BadManifestRow):
            drift.append(DriftedRow(row.id, row.photo_id, "bad_row", row.detail))
        elif row.id in entries:
            drift.append(DriftedRow(row.id, row.photo_id, "repeated"))
        else:
            entries[row.id] = row
    return list(entries.values()), drift


def _manifest_faces(usable: Callable[[], Usable], files: Mapping[str, str]) -> list[ManifestFace]:
    return [ManifestFace(entry, files[entry.photo_id]) for entry in usable()[0]]


def _write_faces(photoset: PhotoSet, part: int, entries: list[Entry], key: str) -> dict[str, str]:
    """Write a part of `photos` with the origins of the manifest, of `measured` and of `faces`; return the files of the
    photos by id."""
    photos = photoset.photos
    meta = photos.meta(part)
    assert meta is not None
    of_photo = {entry.photo_id: entry for entry in entries}
    by = name_of_list(str(photoset.root / TO_FETCH))
    before = photos.rows(part)
    after = [
        photo_row(photo, of_photo[photo.id], by) if photo.status == "kept" and photo.id in of_photo else photo
        for photo in before
    ]
    if after != before:
        photos.write(part, after, meta.provenance, meta.inputs)
    files = {photo.id: photo.file for photo in after if photo.status == "kept"}
    rows = [face_row(entry, files[entry.photo_id]) for entry in entries]
    _write_part(photoset.measured, photos, part, rows, key)
    _write_part(photoset.faces, photoset.measured, part, rows, key)
    return files


def _write_people_and_tags(
    photoset: PhotoSet, part: int, entries: list[Entry], annotators: list[str], key: str
) -> list[DriftedRow]:
    """Write a part of `people`, where there are splits, and of `tags`; return the crops that are not as they were."""
    crops = photoset.crops
    kept = {crop.id: crop for crop in crops.rows(part)}
    there = [entry for entry in entries if kept[entry.id].status == "kept"]
    if any(entry.split for entry in entries) or photoset.people.parts():
        _write_part(photoset.people, crops, part, [person_row(entry) for entry in there], key)
    for name in annotators:
        _write_part(photoset.tags(name), crops, part, [tags_row(entry, name) for entry in there], key)
    drift = []
    for entry in entries:
        crop = kept[entry.id]
        if crop.status != "kept":
            detail = one_line(f"{crop.reason}: {crop.detail}", 200)
            drift.append(DriftedRow(entry.id, entry.photo_id, "failed", detail, entry.file_url))
        elif crop.detail:
            kind: DriftKind = "retouched" if entry.retouched else "pixels"
            drift.append(DriftedRow(entry.id, entry.photo_id, kind, crop.detail, entry.file_url))
    return drift


def _write_part(table: Table[Any], source: Table[Any], part: int, rows: list[Any], key: str) -> None:
    """A part made from one of `source`."""
    meta = source.meta(part)
    assert meta is not None
    table.write(part, rows, rebuilt_from(key), meta.digest)


def _url_line(origin: Origin) -> bytes:
    names = ("photographer", "photographer_url", "licence", "page_url", "terms", "photo_id")
    return json.dumps({"url": origin.file_url} | {name: getattr(origin, name) for name in names}).encode() + b"\n"
