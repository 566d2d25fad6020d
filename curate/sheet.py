"""The contact sheet of a photo set: what was kept, an even sample of what was not, with the reason, and histograms.

The histograms are of every measure, with the limits that were set, from the tables' columns alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from authface.errors import ImageError, one_line
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.report import pages as report
from authface.report.pages import Histogram, HistogramCounter, round_span
from authface.store.photoset import PhotoSet, R, Table
from authface.store.rows import row_reader

Values = dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""Values of each measure in one part, and which of them belong to kept rows."""

SPAN_PARTS = 32
"""Parts, evenly spaced, whose values decide the ends of the axes: 32,000 rows of a set with parts of 1,000."""
OUTLIERS = 0.002
"""Share of the values at either end that may lie beyond the axis; they are counted in its last bars."""

_NOTES = {
    "long_side": "longer side of the photo, pixels",
    "score": "confidence of the detector, 0 to 1",
    "size": "longer side of the face's box, pixels of the photo",
    "yaw": "degrees; above 0 turned to the picture's right",
    "pitch": "degrees; above 0 looking up",
    "roll": "degrees; above 0 leaning clockwise",
    "sharpness": "fine detail at the eyes over coarser detail; higher is sharper",
    "noise": "standard deviation of the noise on the face, 0 to 255",
    "pepper": "share of single pixels that stand out",
    "smoothing": "how far the skin lacks its texture, 0 to 1",
    "hatching": "fine texture all over the face, levels; engravings and halftones have most",
    "blockiness": "steps at JPEG's block borders over those within; 1 is none",
    "pixelation": "how surely the pixels were enlarged, 0 to 1",
    "sharpening": "how surely edges were sharpened, 0 to 1",
    "exposure": "mean luma of the skin, 0 to 255",
    "clipped": "share of black or burnt pixels",
    "resolution": "true detail over nominal, 0 to 1",
    "piqe": "PIQE of the face, 0 to 100; lower is better",
    "disagreement": "distance of dlib's and RetinaFace's points, of the eyes' distance",
    "pad_fraction": "share of the crop outside the photo",
}
_NO_MEASURES = {"photos": {"width", "height", "bytes", "value", "limit"}, "faces": {"index", "value", "limit"},
                "crops": {"size", "value", "limit"}}  # fmt: skip
_SECTIONS = {"photos": "fetch", "faces": "filter", "crops": "align"}
_SETTING = {"pad_fraction": "pad"}
"""A measure's name within the name of its limit, where it is another."""


def histograms(photoset: PhotoSet) -> list[Histogram]:
    """One histogram for each measure that any photo, face or crop has, in the order of the steps."""
    tables: dict[str, Table[Any]] = {"photos": photoset.photos, "faces": photoset.faces, "crops": photoset.crops}
    return [chart for name, table in tables.items() for chart in _of_table(photoset, name, table)]


def _of_table(photoset: PhotoSet, name: str, table: Table[Any]) -> Iterator[Histogram]:
    parts = table.parts()
    every = max(1, -(-len(parts) // SPAN_PARTS))
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for part in parts[::every]:
        for measure, (values, _) in _values(table, name, part).items():
            seen.setdefault(measure, []).append(values[np.isfinite(values)])
    settings = _settings(photoset, name, table)
    tallies: dict[str, HistogramCounter] = {}
    limits = {measure: _limits(measure, settings) for measure in seen}
    for measure, found in seen.items():
        if len(together := np.concatenate(found)):
            tallies[measure] = HistogramCounter(*_span(together, [value for _, value in limits[measure]]))
    for part in parts:
        for measure, (values, kept) in _values(table, name, part).items():
            if measure in tallies:
                tallies[measure].add(values, kept)
    for measure, tally in tallies.items():
        yield tally.histogram(measure.replace("_", " "), _NOTES.get(measure, ""), limits[measure])


def _values(table: Table[Any], name: str, part: int) -> Values:
    """The measures of one part: its columns of numbers, the longer side of photos, the scores by their metric."""
    schema = [
        column.name
        for column in table.schema(part)
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    ]
    rows = table.arrow(part, [*schema, "scores", "status"])
    kept = rows.column("status").to_numpy() == "kept"
    found: Values = {
        measure: (_numbers(rows, measure), kept) for measure in schema if measure not in _NO_MEASURES[name]
    }
    if name == "photos":
        longer = np.maximum(_numbers(rows, "width"), _numbers(rows, "height"))
        found["long_side"] = np.where(longer > 0, longer, np.nan), kept
    if "scores" in rows.column_names:
        scores = rows.column("scores").combine_chunks()
        owners = pc.list_parent_indices(scores).to_numpy()
        flat = pc.list_flatten(scores)
        metrics = np.asarray(pc.struct_field(flat, "metric").to_numpy(zero_copy_only=False))
        values = np.asarray(pc.struct_field(flat, "value").to_numpy(zero_copy_only=False), np.float64)
        for metric in sorted(set(metrics.tolist())):
            found[metric] = values[metrics == metric], kept[owners[metrics == metric]]
    return found


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(rows.column(name).cast(pa.float64()).to_numpy(), np.float64)


def _settings(photoset: PhotoSet, name: str, table: Table[Any]) -> dict[str, Any]:
    """The settings the last part was made with, over those of the set's recipe."""
    parts = table.parts()
    meta = table.meta(parts[-1]) if parts else None
    return {**photoset.remembered(f"curate.{_SECTIONS[name]}"), **(meta.provenance.settings if meta else {})}


def _limits(measure: str, settings: dict[str, Any]) -> list[tuple[str, float]]:
    """Name and value of every threshold on a measure; one on an angle holds for both sides."""
    metrics = settings.get("metrics")
    found = [(measure, metrics[measure])] if isinstance(metrics, dict) and measure in metrics else []
    for bound in ("min", "max"):
        value = settings.get(setting := f"{bound}_{_SETTING.get(measure, measure)}")
        if value is None or (bound == "min" and value == 0):  # a least value of 0 asks for nothing
            continue
        sides = (-1, 1) if measure in {"yaw", "pitch", "roll"} else (1,)
        found += [(setting, side * value) for side in sides]
    return [(name, float(value)) for name, value in found if isinstance(value, int | float)]


def _span(values: NDArray[np.float64], limits: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: nearly all values, and the limits that lie near them."""
    low, high = (float(end) for end in np.quantile(values, [OUTLIERS, 1 - OUTLIERS]))
    reach = max(high - low, 1e-9)
    near = [limit for limit in limits if low - reach <= limit <= high + reach]
    return round_span(min([low, *near]), max([high, *near]))


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
