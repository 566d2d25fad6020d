"""`annotate export`: the photo set's faces as a dataset in one folder, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from authface.annotate.export import rows as dataset
from authface.annotate.export.bare import FilesFormat, KohyaFormat, renew_kohya_config
from authface.annotate.export.card import SPLIT_NAMES, CroissantFormat, ExportCounts, card, configs_of
from authface.annotate.export.fiftyone import FiftyOneFormat
from authface.annotate.export.formats import (
    DatasetFormat,
    ExportTarget,
    Format,
    ImageFolderFormat,
    ManifestFormat,
    WebDatasetFormat,
)
from authface.annotate.export.rows import Inputs
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.files import is_local, local, replacing_folder, write_errors, write_file
from authface.review.reviews import ReviewSettings, balanced, made_from_digest, made_from_tables, reviewed_crops
from authface.store.journal import PHOTO_IDS, begun_exports, dataset_use, record_use, uses
from authface.store.photoset import PhotoSet, Table
from authface.store.statements import conditions, disputed

VERSION = 4
STATE = "authface.json"
"""In an export's folder: what it was made from and how, and what it counts."""
FILES = "files.txt"
"""In an export's folder: the names of all its files, one a line, by which one that its user put there is known."""
FORMATS: Final[dict[str, Callable[[ExportTarget], Format]]] = {
    "dataset": DatasetFormat,
    "imagefolder": ImageFolderFormat,
    "webdataset": WebDatasetFormat,
    "kohya": KohyaFormat,
    "manifest": ManifestFormat,
    "croissant": CroissantFormat,
    "fiftyone": FiftyOneFormat,
    "files": FilesFormat,
}
"""Every format an export is written in, by its name."""


@dataclass(frozen=True)
class Exported:
    """Where an export is, and whether this run made it."""

    folder: Path
    rows: int
    files: int
    bytes: int
    written: bool
    splits: dict[str, int] = field(default_factory=dict)
    """Rows by split; ``train`` holds all where the set was not split."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Kept crops that are no row, by why."""
    conditions: dict[str, int] = field(default_factory=dict)
    """Rows under NC, SA and ND licences."""


def export(
    photoset: PhotoSet,
    settings: ExportSettings,
    console: Console,
    *,
    review: ReviewSettings = ReviewSettings(),  # noqa: B008  immutable
    limit: int = 0,
) -> Exported:
    """Write the folder with the first `limit` rows or all; the caller holds the set's lock.

    Raises UsageError where tags are missing or the folder may not be written, AuthfaceError where tables are outdated
    or nothing is kept.
    """
    folder = folder_of(photoset, settings)
    inputs = inputs_of(photoset, settings, review)
    dataset.check_current(inputs)
    key = key_of(inputs, settings, limit)
    before = read_state(folder)
    if before.get("made_from") == key:
        with write_errors(folder):  # the folder may have moved since, or a run was killed before it named it
            if settings.format == "kohya":
                renew_kohya_config(folder, next(iter(photoset.crops)).size)
            record_use(photoset, dataset_use(folder, key, int(before["rows"])))
        return _exported(folder, before, written=False)
    with write_errors(folder):
        _check_replaceable(photoset, folder, before, elsewhere=bool(settings.to))
    total = sum(part.count for part in inputs.crops)
    here = one_line(photoset.root)
    if not total:
        raise AuthfaceError(
            f"{here} has no kept crops: the contact sheet says why; loosen curate.filter and run it again"
        )
    record_use(photoset, dataset_use(folder, key, min(total, limit or total)))  # first of all: a kill leaves some rows
    with replacing_folder(folder, begun_exports(folder)[0]) as beside:
        counts, size = ExportCounts(stated=inputs.conditions), next(iter(photoset.crops)).size
        target = ExportTarget(photoset, beside, folder, key, settings.shard_megabytes * 1_000_000, size)
        with console.progress("export", min(total, limit or total), "images") as tick:
            for row in _write_rows(
                target, islice(dataset.rows(inputs, settings, counts.left_out), limit or None), settings
            ):
                counts.add(row)
                tick()
        if not counts.rows:
            raise AuthfaceError(
                f"{here}: no kept crop has kept tags and a split, nothing to export: {_reasons_text(counts.left_out)}; "
                f"see authface annotate tags {shell_word(here)}"
            )
        state = _state(key, counts, settings, inputs, review, limit)
        write_file(
            beside / "README.md", card(inputs, settings, counts, configs_of(settings.format, key, counts)).encode()
        )
        names = sorted({*_names(beside), FILES, STATE})
        write_file(beside / FILES, "".join(f"{name}\n" for name in names).encode())
        write_file(beside / STATE, json.dumps(state | {"files": len(names)}, indent=1).encode())
        record_use(photoset, dataset_use(folder, key, counts.rows))  # before it is there: no kill leaves it unnamed
    return _exported(folder, state, written=True)


def _check_replaceable(photoset: PhotoSet, folder: Path, before: dict[str, Any], *, elsewhere: bool) -> None:
    """Raise UsageError where an export would take the place of what this set did not write."""
    if not folder.exists():
        if folder.is_symlink():
            raise UsageError(f"cannot write {one_line(folder)}: the link leads back to itself: name a folder")
        return
    if not before:
        if elsewhere and any(folder.iterdir()):
            raise UsageError(f"{one_line(folder)} holds something that is no export: name a new or an empty folder")
        return
    if elsewhere and all(use.key != before.get("made_from") for use in uses(photoset)):
        raise UsageError(f"{one_line(folder)} holds an export of another set: name a new or an empty folder")
    if count := _foreign(folder, before):
        raise UsageError(
            f"{one_line(folder)} holds {count:,} files that no export wrote and this one would delete: move them away"
        )


def _foreign(folder: Path, state: dict[str, Any]) -> int:
    """How many files of an export no export wrote. One of an earlier version knows only how many it wrote."""
    found = _names(folder)
    if (folder / FILES).is_file():
        return len(found - set((folder / FILES).read_text("utf-8", "replace").split("\n")))
    written = state.get("files")
    return max(0, len(found) - written) if isinstance(written, int) else 0


def _names(folder: Path) -> set[str]:
    """Names below a folder of all but folders, and but for those that a file manager leaves."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.name not in {".DS_Store", "Thumbs.db"}
    }


def folder_of(photoset: PhotoSet, settings: ExportSettings) -> Path:
    """Where the export goes. Raises UsageError for a set on an object store, where no folder can be renamed."""
    if settings.to:
        return beyond_link(local(settings.to))
    if not is_local(photoset.root):
        raise UsageError(
            f"{one_line(photoset.root)} is on an object store, an export needs a folder of this machine: "
            "name one with --to FOLDER"
        )
    return beyond_link(photoset.root / ("dataset" if settings.format == "dataset" else f"exports/{settings.format}"))


def beyond_link(folder: Path) -> Path:
    """The folder that a link leads to, and whose name may be changed: ``.`` and ``..`` have none of their own."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() or folder.name in {"", ".."} else folder


def annotators_of(photoset: PhotoSet, settings: ExportSettings) -> list[str]:
    """Whose tags make the prompts. Raises UsageError where there are none of theirs."""
    annotators = list(dict.fromkeys(settings.annotators)) or photoset.annotators()
    here = one_line(photoset.root)
    for name in annotators or ["measured"]:
        if not photoset.tags(name).parts():
            raise UsageError(
                f"{here} has no tags: run authface annotate tags {shell_word(here)} --with {shell_word(name)} first"
            )
    return annotators


def inputs_of(photoset: PhotoSet, settings: ExportSettings, review: ReviewSettings) -> Inputs:
    """The tables an export is made from. Raises UsageError where tags are missing."""
    annotators = annotators_of(photoset, settings)
    reviewed = reviewed_crops(photoset, review)
    made: list[Table[Any]] = [photoset.photos, photoset.measured, photoset.faces, photoset.crops]
    if photoset.people.parts():
        made.append(photoset.people)
    tables = {table.folder.name: table.state() for table in made}
    tables |= {f"tags/{name}": photoset.tags(name).state() for name in annotators}
    stated = {
        photo_id: found
        for photo_id, said in disputed(photoset).items()
        if (found := conditions(one.statement.licence for one in said if one.stands))
    }
    return Inputs(photoset, reviewed, balanced(photoset, reviewed), annotators, tables, stated)


def key_of(inputs: Inputs, settings: ExportSettings, limit: int) -> str:
    """Digest of all that an export is made from, in hex."""
    made_from = made_from_tables(inputs.tables, inputs.crops, inputs.annotators)
    options = settings.model_dump(mode="json", exclude={"to"})
    stated = sorted(inputs.conditions.items())  # of which a licence that does not hold changes no table
    text = json.dumps([VERSION, list(inputs.annotators), options, limit, made_from, stated])
    return hashlib.sha256(text.encode()).hexdigest()


def read_state(folder: Path) -> dict[str, Any]:
    """What an export's folder says of itself; empty where there is none of ours."""
    try:
        found = json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_newest(photoset: PhotoSet, folder: Path) -> dict[str, Any]:
    """The state of an export, if the set still is what it was made from. Raises UsageError where it is not.

    So nothing is published that was rejected or forgotten since.
    """
    here, state = one_line(photoset.root), read_state(folder)
    if not state:
        raise UsageError(f"{here} has no dataset to publish: run authface annotate export {shell_word(here)} first")
    try:
        settings = ExportSettings.model_validate(state["settings"])
        inputs = inputs_of(photoset, settings, ReviewSettings(policy=state["review"]))
        current = key_of(inputs, settings, int(state["limit"])) == state["made_from"]
    except (KeyError, TypeError, ValueError):
        current = False
    if not current:
        raise UsageError(
            f"{one_line(folder)} is older than what the set holds: run "
            f"authface annotate export {shell_word(here)} again"
        )
    return state


def _state(
    key: str, counts: ExportCounts, settings: ExportSettings, inputs: Inputs, review: ReviewSettings, limit: int
) -> dict[str, Any]:
    return {
        "made_from": key,
        "tables": made_from_digest(inputs.tables, inputs.crops, inputs.annotators),
        "rows": counts.rows,
        "splits": {name: counts.splits[name] for name in SPLIT_NAMES if counts.splits[name]},
        "left_out": dict(counts.left_out),
        "conditions": counts.conditions(),
        "annotators": list(inputs.annotators),
        "settings": settings.model_dump(mode="json", exclude={"to"}),
        "review": review.policy,
        "limit": limit,
    }


def _write_rows(
    target: ExportTarget, rows: Iterator[dict[str, Any]], settings: ExportSettings
) -> Iterator[dict[str, Any]]:
    """Write the rows in the format that is asked for, passing them on."""
    with FORMATS[settings.format](target) as out, photo_id_list(target.folder) as ids:
        for row in rows:
            ids.write(f"{row['photo_id']}\n")
            out.add(row)
            yield row


def photo_id_list(folder: Path) -> TextIO:
    """The export's `PHOTO_IDS`, of which each line is written at once: a killed run's tells whom its files show."""
    return (folder / PHOTO_IDS).open("w", encoding="ascii", buffering=1)


def _exported(folder: Path, state: dict[str, Any], *, written: bool) -> Exported:
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    splits, left_out = state.get("splits", {}), state.get("left_out", {})
    return Exported(
        folder, int(state["rows"]), len(files), size, written, splits, left_out, state.get("conditions", {})
    )


def _reasons_text(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {one_line(why, 60)}" for why, count in left_out.most_common(4)) or "no rows"
