"""What `annotate push` sends: the dataset as it is, or one without the pixels that may not be passed on.

Whether they may is read from where a photo comes from and what its licence says: only a licence that
`authface.store.statements` recognises as allowing it lets a photo through. That is no legal advice: the publisher
answers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from authface.annotate.export.card import ExportCounts, card, configs_of
from authface.annotate.export.formats import DatasetFormat, ExportTarget, ManifestFormat
from authface.annotate.export.run import (
    STATE,
    beyond_link,
    check_newest,
    inputs_of,
    photo_id_list,
    read_state,
)
from authface.annotate.settings import ExportSettings
from authface.console import Console
from authface.errors import UsageError, one_line
from authface.files import is_local, replacing_folder, write_file
from authface.review.reviews import ReviewSettings
from authface.store.journal import begun_exports, dataset_use, record_use
from authface.store.photoset import PhotoSet
from authface.store.rows import read_rows, read_text, reading
from authface.store.statements import is_stated, recognise

VERSION = 4
SENT = ("README.md", STATE, "data/*", "manifest/*")
"""Patterns of the only files that are sent."""
BATCH_ROWS = 50
_ADDRESSES: Final = ("page_url", "file_url", "photographer_url")
_TERMS = ("source", "source_id", "photo_id", "licence", *_ADDRESSES)
"""Columns that `Publisher.withholds` and `Publisher.sent` read."""
_NAMED_IN_PUBLIC: Final = frozenset({"unsplash", "unsplash-lite", "samples", "authface-hq"})
"""Sources whose own names of photos are public; those of all others are only where they are web addresses."""

UNSPLASH: Final = "Unsplash's terms: its photos are not passed on in a dataset"
"""Terms of the Unsplash Dataset, 2 A to C (no redistribution in whole or part); Unsplash API guidelines (hotlinks)."""
RELEASED: Final = "AuthFace-HQ: its photos are its makers' and their sources' to pass on"
NO_DERIVATIVES: Final = "the licence allows no derivatives, and a crop is one"
UNRECOGNISED: Final = "the licence is none that is recognised as allowing it"
UNKNOWN: Final = "no licence is known"
UNWANTED: Final = "asked for without pixels"

YOURS: Final = frozenset({UNKNOWN, UNRECOGNISED})
"""Reasons that do not hold for the owner of the rights."""

_SOURCES = {"unsplash": UNSPLASH, "unsplash-lite": UNSPLASH, "authface-hq": RELEASED}


@dataclass(frozen=True)
class Publisher:
    """What the publisher declares."""

    rights: bool = False
    """They own photos of no licence that is recognised; a source's terms hold all the same."""
    pixels: bool = True
    """Whether to send any pixels."""
    names: bool = False
    """Whether to send names and paths of local files, which may name the person in the photo."""

    def sent(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as it goes out: names of local files only where asked for; the photo's id stands for them."""
        return dict(row) if self.names else without_local_names(row)

    def withholds(self, origin: Mapping[str, str | None]) -> str:
        """Why the pixels of a row are not passed on; empty where they are.

        `origin` has the columns `source`, `licence`, `page_url` and `file_url`.
        """
        if not self.pixels:
            return UNWANTED
        reason = _reason(origin)
        return "" if self.rights and reason in YOURS else reason


@dataclass(frozen=True)
class PushPlan:
    """What may be sent of a dataset."""

    dataset: Path
    folder: Path
    """What is sent: the dataset itself where all of it may be, else a folder that is made of it."""
    rows: int
    with_pixels: int
    withheld: Counter[str]
    """Rows without pixels, by why."""
    unrecognised: Counter[str]
    """Of these, the licences as they are stated that nobody here recognises."""
    local_names: int
    """Rows with names or paths of local files."""
    names: bool
    """Whether these are sent."""
    queries: int
    """Rows with addresses that go on behind a ``?``: such may hold a key or a signature."""
    images: int
    """Bytes of the images in the dataset's files."""
    rest: int
    """Bytes of all else in them."""
    state: dict[str, Any]

    @property
    def unchanged(self) -> bool:
        """Whether the dataset is sent as it is."""
        return not self.withheld and (self.names or not self.local_names)

    @property
    def bytes(self) -> int:
        """About how much will be sent."""
        if self.unchanged:
            return sum(path.stat().st_size for path in files_of(self.folder))
        share = self.with_pixels / max(self.rows, 1)
        return int(self.images * share + self.rest * (1 + share))

    @property
    def files(self) -> list[str]:
        """What is sent, as far as it is there; where it is still to be made, its folders."""
        if self.unchanged:
            return [path.relative_to(self.folder).as_posix() for path in files_of(self.folder)]
        return [*(["data/*.parquet"] if self.with_pixels else []), "manifest/*.parquet", "README.md", STATE]

    def as_text(self) -> str:
        """For a person, before it is sent."""
        about = "" if self.unchanged else "about "
        lines = [f"{self.rows:,} rows, {self.with_pixels:,} with pixels, {about}{self.bytes / 1e6:,.1f} MB"]
        lines += [f"  {count:>9,}  without pixels: {why}" for why, count in self.withheld.most_common()]
        unknown = self.unrecognised.most_common(20)
        lines += [f"  {count:>9,}  of licence {one_line(said, 80)!r}" for said, count in unknown]
        if self.unrecognised:
            more = len(self.unrecognised) - 20
            lines += [f"             and {more:,} more licences (--json lists all)"] if more > 0 else []
            lines.append(
                "  state them by an SPDX identifier or Creative Commons' address (docs/licences.md lists what is "
                "recognised), or add --i-hold-the-rights if the photos are yours"
            )
        if self.local_names:
            done = "go out as they are" if self.names else "stay here, ids go instead (--names sends them)"
            lines.append(f"  {self.local_names:>9,}  rows with names or paths of local files: they {done}")
        if self.queries:
            lines.append(
                f"  {self.queries:>9,}  rows with an address that has a query (?...): see that none holds a key"
            )
        return "\n".join([*lines, *(f"  {name}" for name in self.files)])

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "rows": self.rows,
            "with_pixels": self.with_pixels,
            "without_pixels": dict(self.withheld),
            "local_names": self.local_names,
            "sends_local_names": self.names,
            "addresses_with_query": self.queries,
            "unrecognised_licences": dict(self.unrecognised),
            "files": self.files,
            "bytes": self.bytes,
        }


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that are sent, sorted."""
    return sorted(path for pattern in SENT for path in folder.glob(pattern) if path.is_file())


def plan(photoset: PhotoSet, folder: Path, publisher: Publisher) -> PushPlan:
    """Look at the terms of every row of a dataset; nothing is written.

    Raises UsageError where there is no dataset that is as new as the set.
    """
    state = check_newest(photoset, folder)
    withheld: Counter[str] = Counter()
    unrecognised: Counter[str] = Counter()
    rows = images = whole = local = queries = 0
    for shard in _shards(folder):
        for row in read_text(shard, _TERMS):
            rows += 1
            local += without_local_names(row) != row
            queries += _has_query(publisher.sent(row))
            if why := publisher.withholds(row):
                withheld[why] += 1
                if why == UNRECOGNISED:
                    unrecognised[row["licence"].strip()] += 1
        with reading(shard):
            pixels, total = _sizes(pq.read_metadata(shard))
        images, whole = images + pixels, whole + total
    if not rows:
        raise UsageError(f"{one_line(folder)} has no rows to publish: run authface annotate export again")
    as_it_is = not withheld and (publisher.names or not local)
    at_home = is_local(photoset.root)
    apart = beyond_link(photoset.root / "exports" / "hub") if at_home else folder.with_name(f"{folder.name}-hub")
    return PushPlan(
        folder, folder if as_it_is else apart, rows, rows - withheld.total(), withheld, unrecognised, local,
        publisher.names, queries, images,
        whole - images, state,
    )  # fmt: skip


def prepare(photoset: PhotoSet, planned: PushPlan, publisher: Publisher, console: Console) -> Path:
    """The folder to send, made if need be, whole or not at all; the caller holds the set's lock."""
    if planned.unchanged:
        return planned.folder
    made_from = json.dumps([VERSION, planned.state["made_from"], asdict(publisher), sorted(planned.withheld.items())])
    key = hashlib.sha256(made_from.encode()).hexdigest()
    if read_state(planned.folder).get("made_from") == key:
        record_use(photoset, dataset_use(planned.folder, key, planned.rows))
        return planned.folder
    record_use(photoset, dataset_use(planned.folder, key, planned.rows))  # before a row is there: a kill leaves some
    with replacing_folder(planned.folder, begun_exports(planned.folder)[0]) as beside:
        _write(photoset, planned, beside, key, publisher, console)
    return planned.folder


def _write(
    photoset: PhotoSet, planned: PushPlan, beside: Path, key: str, publisher: Publisher, console: Console
) -> None:
    settings = ExportSettings.model_validate(planned.state["settings"])
    target = ExportTarget(photoset, beside, planned.folder, key, settings.shard_megabytes * 1_000_000, 0)
    inputs = inputs_of(photoset, settings, ReviewSettings(policy=planned.state["review"]))
    counts, with_pixels = ExportCounts(stated=inputs.conditions), ExportCounts()
    counts.left_out.update(planned.state["left_out"])
    with ExitStack() as files:
        manifest = files.enter_context(ManifestFormat(target))
        pixels = files.enter_context(DatasetFormat(target)) if planned.with_pixels else None
        ids = files.enter_context(photo_id_list(beside))
        tick = files.enter_context(console.progress("publication", planned.rows, "rows"))
        for told in _rows(planned.dataset):
            row = publisher.sent(told)
            ids.write(f"{row['photo_id']}\n")
            manifest.add(row)
            counts.add(row)
            if pixels is not None and not publisher.withholds(told):  # by what is said, not by what goes out of it
                pixels.add(row)
                with_pixels.add(row)
            tick()
    assert with_pixels.rows == planned.with_pixels, "other rows than were judged"
    configs = configs_of("dataset", key, with_pixels) if with_pixels.rows else []
    configs += configs_of("manifest", key, counts, "manifest")
    write_file(beside / "README.md", card(inputs, settings, counts, configs, planned.withheld).encode())
    state = planned.state | {"made_from": key, "with_pixels": with_pixels.rows}
    write_file(beside / STATE, json.dumps(state, indent=1).encode())


def without_local_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the photo's id for a name that is no public one, and without addresses that are none of the web."""
    public = row["source"] in _NAMED_IN_PUBLIC or _on_the_web(row["source_id"])
    addresses = {name: row[name] if _on_the_web(row[name]) else "" for name in _ADDRESSES if row[name]}
    return {**row, **addresses, "source_id": row["source_id"] if public else row["photo_id"]}


_AT_HOME: Final = frozenset(
    {"local", "localhost", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "box"}
)
"""Ends of names that no public name server knows."""


def _on_the_web(address: str | None) -> bool:
    """Whether an address is one that others can ask, too: not of a machine at home, whose name is nobody's business."""
    try:
        parts = urlsplit(address or "")
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc:  # a password is nobody's business either
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".")
        end = name.rpartition(".")[2]
        return "." in name and end not in _AT_HOME and not end[:1].isdigit()


def _has_query(row: Mapping[str, Any]) -> bool:
    return any("?" in (row[name] or "") for name in (*_ADDRESSES, "source_id"))


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, in constant memory."""
    for shard in _shards(folder):
        yield from read_rows(shard, rows=BATCH_ROWS)


def _shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("*.parquet"))


def _sizes(metadata: Any) -> tuple[int, int]:
    """Bytes of the images in a Parquet file, and of everything."""
    sizes = Counter[bool]()
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            column = metadata.row_group(group).column(at)
            sizes[column.path_in_schema == "image.bytes"] += column.total_compressed_size
    return sizes[True], sizes.total()


def _reason(origin: Mapping[str, str | None]) -> str:
    licence = (origin["licence"] or "").strip()
    if found := _SOURCES.get((origin["source"] or "").casefold()):
        return found
    if "unsplash" in licence.casefold() or any(_of_unsplash(origin[name] or "") for name in ("page_url", "file_url")):
        return UNSPLASH
    if not is_stated(licence):
        return UNKNOWN
    allowed = recognise(licence)
    if allowed is None or not allowed.redistribution:
        return UNRECOGNISED
    return "" if allowed.derivatives else NO_DERIVATIVES


def _of_unsplash(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return host == "unsplash.com" or host.endswith(".unsplash.com")
