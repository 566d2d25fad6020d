"""The contact sheet of a photo set: what was kept, and an even sample of what was not, with the reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from authface.curate.filter.histograms import histograms
from authface.errors import ImageError, one_line
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.report import pages as report
from authface.store.parquet import row_reader
from authface.store.photoset import PhotoSet, R, Table


@dataclass(frozen=True)
class Sample(Generic[R]):
    """The number of rows of each outcome in a table, and a sample of them."""

    counts: dict[str, int]
    """Rows by outcome: ``kept``, ``rejected: no_face``."""
    rows: dict[str, list[R]]
    """At most the size asked for of each outcome: those whose ids come first by `rank`, in that order."""

    @property
    def total(self) -> int:
        """Rows of all outcomes."""
        return sum(self.counts.values())


@dataclass(frozen=True, order=True)
class _Pick:
    rank: int
    part: int
    row: int


def sample(table: Table[R], size: int) -> Sample[R]:
    """Counts by outcome over all parts and `size` rows of each; only the rows of the sample become records."""
    counts: Counter[str] = Counter()
    picks: dict[str, list[_Pick]] = {}
    for part in table.parts():
        columns = table.arrow(part, ["id", "source_id", "status", "reason"])
        if not columns.num_rows:
            continue
        names, codes = outcomes(columns)
        ranks = _ranks(columns)
        for code, name in enumerate(names):
            of = (codes == code).nonzero()[0]
            counts[name] += len(of)
            first = of[ranks[of].argsort(kind="stable")[:size]]
            of_part = [_Pick(int(ranks[row]), part, int(row)) for row in first]
            picks[name] = sorted([*picks.get(name, []), *of_part])[:size]
    records = dict(_records(table, (pick for chosen in picks.values() for pick in chosen)))
    return Sample(dict(counts), {name: [records[pick] for pick in chosen] for name, chosen in picks.items()})


def outcomes(rows: pa.Table) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the outcomes in `rows` (columns status and reason), and each row's index into them."""
    status, reason = (pc.fill_null(rows.column(name), "") for name in ("status", "reason"))
    joined = pc.if_else(pc.equal(reason, ""), status, pc.binary_join_element_wise(status, reason, ": "))
    coded = joined.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)


def rank(name: str) -> int:
    """A 60-bit number for an even, stable order: from the digits of a sha256, or else of the hash of the name.

    Ids are sha256 in hex, so their first 15 digits are as good as any hash of them, and cost nothing.
    """
    digits = name[:15]
    if len(name) < 64 or digits.strip("0123456789abcdef"):
        digits = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:15]
    return int(digits, 16)


def _ranks(rows: pa.Table) -> NDArray[np.int64]:
    ids: list[str | None] = rows.column("id").to_pylist()
    others = rows.column("source_id").to_pylist() if "source_id" in rows.column_names else ids
    return np.array([rank(name or other or "") for name, other in zip(ids, others, strict=True)], np.int64)


def _records(table: Table[R], picks: Iterable[_Pick]) -> Iterator[tuple[_Pick, R]]:
    by_part: dict[int, list[_Pick]] = {}
    for pick in picks:
        by_part.setdefault(pick.part, []).append(pick)
    read = row_reader(table.row_type)
    for part, chosen in sorted(by_part.items()):
        rows: list[dict[str, Any]] = table.arrow(part).take([pick.row for pick in chosen]).to_pylist()
        yield from zip(chosen, map(read, rows), strict=True)


SAMPLE = 36
"""Pictures an outcome: the eye sees a pattern in a few dozen, and a sheet stays a few megabytes."""
THUMBNAIL = 160
_MARGIN = 0.35
"""Room around a face's box, of its size."""

_SHOWN_ALREADY = {"photos", "measured", "features", "faces", "crops", "embeddings"}
"""Tables whose outcomes stand in the funnel already: `measured`, `features` become `faces`, `embeddings` `people`."""

_WORDS = {
    "no_face": "no face found",
    "several_faces": "more than one face",
    "not_largest": "not the largest face",
    "unsure": "the detector is not sure",
    "small_face": "face too small",
    "blurred": "eyes not sharp",
    "noisy": "noisy",
    "turned_aside": "turned too far aside",
    "turned_up_or_down": "turned too far up or down",
    "leaning": "leans too far",
    "too_dark": "face too dark",
    "too_bright": "face too bright",
    "clipped": "black or burnt out in parts",
    "pepper_noise": "single pixels stand out",
    "blocky": "JPEG blocks show",
    "enlarged": "less detail than pixels: enlarged or soft",
    "pixelated": "pixels enlarged by software",
    "over_sharpened": "sharpened: edges too steep, with halos",
    "over_smoothed": "skin smoothed out",
    "hatched": "hatched all over: an engraving, a halftone or a drawing",
    "low_quality": "low quality by PIQE",
    "unlikely_kept": "a reviewer would hardly keep it, by what was learned",
    "near_duplicate": "nearly repeats a better face",
    "landmarks_disagree": "landmarks disagree",
    "outside_photo": "reaches outside the photo",
    "duplicate": "same file again",
    "small_photo": "photo too small",
    "forgotten": "forgotten",
    "opt_out_robots_txt": "opted out: its host's robots.txt",
    "opt_out_ai_txt": "opted out: its host's ai.txt",
    "opt_out_content_usage": "opted out: Content-Usage",
    "opt_out_content_signal": "opted out: Content-Signal",
    "opt_out_tdmrep": "opted out: TDM reservation",
    "opt_out_robots_tag": "opted out: noai, noimageai or noml",
    "opt_out_data_mining": "opted out: the file's DataMining",
    "opt_out_c2pa": "opted out: the file's C2PA assertion",
    "opt_out_unclear": "may be opted out: it is said unclearly",
    "opt_out_unread": "may be opted out: what is said could not be read",
    "opt_out_needs_c2pa": "may be opted out: reading its C2PA assertion needs authface[c2pa]",
    "over_represented": "more of this kind than asked for",
}


Samples = Mapping[str, Sample[Any]]
"""Of photos, faces and crops, by `photo`, `face`, `crop`."""


def contact_sheet(photoset: PhotoSet) -> Path:
    """Write ``reports/curate.html`` and return its path: every outcome of all steps, and what was measured."""
    samples: Samples = {
        "photo": sample(photoset.photos, SAMPLE),
        "face": sample(photoset.faces, SAMPLE),
        "crop": sample(photoset.crops, SAMPLE),
    }
    path = photoset.root / "reports" / "curate.html"
    report.contact_sheet(
        path,
        title=f"Curation of {one_line(photoset.root.resolve().name)}",
        summary=[(f"{kind}s", _tally(sample)) for kind, sample in samples.items() if sample.counts],
        groups=_groups(photoset, samples),
        funnel=_funnel(photoset, samples),
        charts=histograms(photoset),
    )
    return path


def _tally(found: Sample[Any]) -> str:
    return f"{found.counts.get('kept', 0):,} kept of {found.total:,}"


def _funnel(photoset: PhotoSet, samples: Samples) -> report.Funnel:
    """Every outcome of every step, from the photos to the tags, the people and the choice."""
    counts = {f"{kind}s": found.counts for kind, found in samples.items()}
    for name, table in photoset.tables().items():
        if name not in _SHOWN_ALREADY and not name.startswith("against/"):
            counts[name.replace("/", " ")] = dict(table.counts())
    rows = [
        report.FunnelRow(f"{kind}: {_words(name)}", count)
        for kind, found in counts.items()
        for name, count in sorted(found.items(), key=lambda entry: (entry[0] != "kept", -entry[1]))
    ]
    return report.Funnel(rows, total=max(found.total for found in samples.values()))


def _words(name: str) -> str:
    status, _, reason = name.partition(": ")
    return f"{status}, {_WORDS.get(reason, reason.replace('_', ' '))}" if reason else status


def _groups(photoset: PhotoSet, samples: Samples) -> Iterator[report.SheetGroup]:
    """What the last step kept first, then every reason, from the last step back to the first."""
    kept_shown = False
    for kind in ("crop", "face", "photo"):
        found = samples[kind]
        for name in sorted(found.counts, key=lambda name: (name != "kept", -found.counts[name])):
            if name == "kept" and kept_shown:
                continue
            kept_shown = kept_shown or name == "kept"
            cells = [_cell(photoset, row) for row in found.rows[name]]
            yield report.SheetGroup(f"{kind}s: {_words(name)}", _note(name), found.counts[name], cells)


def _note(name: str) -> str:
    return {"kept": "what goes on to the next stage"}.get(name, "")


def _cell(photoset: PhotoSet, row: Photo | Face | Crop) -> report.Cell:
    """A picture of the row, its name and why it is there; a picture that cannot be read is left out."""
    link = ""
    image: NDArray[np.uint8] | None = None
    try:
        if isinstance(row, Crop):
            link = row.file
            image = images.preview(photoset.root / row.file, THUMBNAIL) if row.file else None
        elif isinstance(row, Face):
            link = row.photo_file
            image = images.preview(photoset.root / row.photo_file, THUMBNAIL, _around(row))
        elif row.file:
            link = row.file
            image = images.preview(photoset.root / row.file, THUMBNAIL)
    except ImageError:
        image = None
    name = row.source_id if isinstance(row, Photo) else row.id
    return report.Cell(image, _short(name), _why(row), link=f"../{link}" if link else "")


def _around(face: Face) -> tuple[float, float, float, float] | None:
    if face.box is None:
        return None
    x0, y0, x1, y1 = face.box
    margin = _MARGIN * max(x1 - x0, y1 - y0)
    return (x0 - margin, y0 - margin, x1 + margin, y1 + margin)


def _short(name: str) -> str:
    return name[:10] + name[64:] if len(name) > 64 and not name.strip("0123456789abcdef-") else name


def _why(row: Photo | Face | Crop) -> str:
    if row.value is not None and row.limit is not None:
        return f"{row.value:.3g}, limit {row.limit:.3g}"
    if row.detail:
        return row.detail
    if isinstance(row, Face) and row.sharpness is not None:
        return f"{row.size:.0f} px, sharp {row.sharpness:.2f}, noise {row.noise:.1f}, PIQE {row.piqe:.0f}"
    if isinstance(row, Crop) and row.disagreement is not None:
        enlarged = ", enlarged" if row.upscaled else ""
        return f"{row.size} px{enlarged}, pad {row.pad_fraction:.0%}, points {row.disagreement:.2f}"
    return ""
