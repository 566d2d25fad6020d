"""The paper's retouching round: crops are exported to be retouched by hand, then imported and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from authface.errors import ImageError, UsageError, first_line, one_line, shell_word
from authface.files import write_file
from authface.imaging import decode as images
from authface.records import Crop, now
from authface.review.reviews import Retouch, Reviewed, retouch_log, retouched_file
from authface.store.photoset import PhotoSet

MANIFEST = "retouch.json"
"""Lists the exported pictures; it lies beside them and has to come back with them."""


class RetouchTask(BaseModel):
    """One exported picture: an entry of the manifest."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]+-[0-9]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int
    """Side of the square picture, pixels."""
    asked_by: str
    asked_at: str
    note: str = ""
    """What the reviewers remarked."""

    @property
    def name(self) -> str:
        """The picture's file name in the folder."""
        return f"{self.id}.png"


_GIVEN = TypeAdapter(list[RetouchTask])


@dataclass(frozen=True)
class RetouchResult:
    """The outcome for one file; `wrong` ones need a person's attention."""

    name: str
    outcome: Literal["written", "there", "imported", "unchanged", "missing", "wrong"]
    detail: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        return f"{self.outcome}: {one_line(self.name, 120)}" + (f": {self.detail}" if self.detail else "")


def export_retouch(photoset: PhotoSet, people: Reviewed, folder: Path) -> Iterator[RetouchResult]:
    """Write every crop that awaits retouching to `folder`, with the manifest; existing files are left alone.

    Raises UsageError if no crop awaits retouching, AuthfaceError if the disk refuses.
    """
    waiting = [crop for crop in photoset.crops if crop.status == "kept" and people.awaits(crop)]
    if not waiting:
        here = shell_word(photoset.root)
        raise UsageError(f"no crop awaits retouching: mark some with t in authface curate review {here}")
    given = {entry.id: entry for entry in _manifest(folder)} if (folder / MANIFEST).exists() else {}
    outcomes = []
    for crop in waiting:
        data = photoset.read(people.file(crop))
        entry = _given(people, crop, hashlib.sha256(data).hexdigest())
        before = given.setdefault(crop.id, entry)
        if before.sha256 != entry.sha256:
            outcomes.append(
                RetouchResult(entry.name, "wrong", "another picture was given out here: take an empty folder")
            )
        elif (folder / entry.name).exists():
            outcomes.append(RetouchResult(entry.name, "there", "given out before, left as it is"))
        else:
            write_file(folder / entry.name, data)
            outcomes.append(RetouchResult(entry.name, "written"))
    write_file(folder / MANIFEST, _GIVEN.dump_json(list(given.values()), indent=1))
    yield from outcomes


def _given(people: Reviewed, crop: Crop, sha256: str) -> RetouchTask:
    asking = {who: said for who, said in people.decisions_on(crop.id).items() if said.verdict == "retouch"}
    return RetouchTask(
        id=crop.id,
        sha256=sha256,
        size=crop.size,
        asked_by=", ".join(sorted(asking)),
        asked_at=max(said.at for said in asking.values()),
        note=one_line("; ".join(said.reason for said in asking.values() if said.reason)),
    )


def import_retouch(photoset: PhotoSet, people: Reviewed, folder: Path) -> Iterator[RetouchResult]:
    """Store the edited pictures of a folder that `export_retouch` wrote, each beside its crop; one outcome a file.

    The caller holds the set's lock. Raises UsageError without a manifest, AuthfaceError where the disk refuses.
    """
    given = _manifest(folder)
    ids = {entry.id for entry in given}
    crops = {crop.id: crop for crop in photoset.crops if crop.status == "kept" and crop.id in ids}
    for entry in given:
        try:
            yield _take(photoset, people, crops.get(entry.id), entry, folder / entry.name)
        except ImageError as error:
            yield RetouchResult(entry.name, "wrong", one_line(error))
    expected = {MANIFEST, *(entry.name for entry in given)}
    for path in sorted(folder.iterdir()):
        if path.name not in expected and not path.name.startswith("."):
            yield RetouchResult(path.name, "wrong", "not given out under this name: keep names, save as PNG")


def _take(photoset: PhotoSet, people: Reviewed, crop: Crop | None, given: RetouchTask, path: Path) -> RetouchResult:
    """Check one file and store it. Raises ImageError where it cannot be read or decoded."""
    if not path.exists():
        return RetouchResult(given.name, "missing")
    if crop is None:
        return RetouchResult(given.name, "wrong", "the set has no such crop any more")
    data = images.read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == given.sha256:
        return RetouchResult(given.name, "unchanged")
    base = _base(photoset, people, crop, given.sha256)
    if base is None:
        return RetouchResult(given.name, "wrong", "the crop was aligned anew since: give it out again")
    edited, original = images.decode(data), images.decode(photoset.read(base)).rgb
    if edited.format != "PNG" or edited.alpha is not None:
        what = "is transparent" if edited.format == "PNG" else f"is a {edited.format}"
        return RetouchResult(given.name, "wrong", f"{what}: save it as an opaque PNG")
    if edited.rgb.shape != original.shape:
        height, width = edited.rgb.shape[:2]
        return RetouchResult(given.name, "wrong", f"{width} x {height} px, the crop has {crop.size} x {crop.size}")
    return _store(photoset, people, crop, given, original, edited.rgb)


def _base(photoset: PhotoSet, people: Reviewed, crop: Crop, sha256: str) -> str | None:
    """The file of the set that was exported: the crop, or an earlier retouching of it; None if neither matches."""
    files = [crop.file, *(done.file for done in people.retouches.get(crop.id, ()))]
    there = (file for file in files if photoset.exists(file))
    return next((file for file in there if hashlib.sha256(photoset.read(file)).hexdigest() == sha256), None)


def _store(
    photoset: PhotoSet,
    people: Reviewed,
    crop: Crop,
    given: RetouchTask,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
) -> RetouchResult:
    difference = np.abs(after.astype(np.int16) - before)
    changed = float((difference > 0).any(axis=2).mean())
    if not changed:
        return RetouchResult(given.name, "unchanged", "saved again with the same pixels")
    data = images.encode_png(after)
    sha256 = hashlib.sha256(data).hexdigest()
    file = retouched_file(crop.id, sha256)
    if any(done.after == sha256 for done in people.retouches.get(crop.id, ())):
        return RetouchResult(given.name, "unchanged", "imported before")
    photoset.save(file, data)
    done = Retouch(
        id=crop.id,
        file=file,
        size=crop.size,
        quad=crop.quad,
        before=given.sha256,
        after=sha256,
        asked_by=one_line(given.asked_by),
        asked_at=one_line(given.asked_at, 40),
        at=now("microseconds"),
        changed=changed,
        mean_change=float(difference.mean()),
    )
    retouch_log(photoset).append(done)
    return RetouchResult(
        given.name, "imported", f"{changed:.1%} of the pixels changed, by {done.mean_change:.2f} on average"
    )


def _manifest(folder: Path) -> list[RetouchTask]:
    path = folder / MANIFEST
    try:
        return _GIVEN.validate_json(images.read_bytes(path, max_bytes=1 << 28))
    except ImageError as error:
        raise UsageError(
            f"{one_line(path)}: {one_line(error)}; give the folder that --export-retouch wrote, with its {MANIFEST}"
        ) from error
    except ValidationError as error:
        raise UsageError(f"{one_line(path)} is no manifest: {first_line(error)}") from error
