"""The limits on whole columns of faces: which of a part `measure.judge_alone` would keep, without a row of each."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from authface.curate.filter.measure import ANGLES, LIMITS
from authface.curate.settings import FilterSettings

Column = NDArray[np.float64]
Mask = NDArray[np.bool_]

MEASURES = tuple(dict.fromkeys(limit.measure for limit in LIMITS))


def within_limits(rows: pa.Table, settings: FilterSettings) -> Mask:
    """(n,) which faces of a whole part break no limit; with columns ``photo_id``, ``index``, ``status`` and `MEASURES`.

    By way of lists: pyarrow makes arrays of NumPy's only once it has loaded pandas, 40 MB where that is installed.
    """
    good = np.array([status == "kept" for status in rows.column("status").to_pylist()], np.bool_)
    if settings.faces == "largest":
        good &= np.array(rows.column("index").to_pylist(), np.int64) <= 0
    if settings.faces == "one":
        photos = rows.column("photo_id").to_pylist()
        in_photo = Counter(photos)
        good &= np.array([in_photo[photo] == 1 for photo in photos], np.bool_)
    measures = {name: np.array(rows.column(name).to_pylist(), np.float64) for name in MEASURES}
    for limit in LIMITS:
        column = measures[limit.measure]
        column = np.abs(column) if limit.measure in ANGLES else column
        good &= passes(column, getattr(settings, limit.setting), limit.least)
    return good


def passes(column: Column, bound: float, least: bool) -> Mask:
    """Which values pass a limit; a missing measure (NaN) passes."""
    return np.asarray(~(column < bound) if least else ~(column > bound))
