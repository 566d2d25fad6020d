"""Histograms of every measure of a photo set with the limits that were set, from the tables' columns alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from authface.report.charts import Histogram, HistogramCounter, round_span
from authface.store.photoset import PhotoSet, Table

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
