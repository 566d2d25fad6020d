"""The curve of a training as a picture: loss by step, drawn with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.report.charts import round_span

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 40, 50
SMOOTHED = 50
"""The bold line is the mean over a share of 1 / SMOOTHED of the run's steps."""
_INK, _PALE, _LINE, _RULE = (60, 60, 60), (190, 205, 225), (20, 80, 170), (232, 232, 232)


def draw_curve(steps: Sequence[int], values: Sequence[float], title: str) -> NDArray[np.uint8]:
    """(420, 960, 3) uint8 RGB: `values` at `steps`, pale as they are and bold as their moving mean.

    Values that are not finite are left out; a run of one step is a dot.
    """
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    pairs = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    _write(picture, title, (LEFT, 26), 0.6)
    if not pairs:
        _write(picture, "no finite loss", (LEFT, HEIGHT // 2), 0.6)
        return picture
    x, y = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], float)
    mean = _smooth(y)
    low, high = round_span(
        float(min(mean.min(), np.quantile(y, 0.01))), float(max(mean.max(), np.quantile(y, 0.99))), 4
    )
    first, last = float(x[0]), float(max(x[-1], x[0] + 1))
    for tick in np.linspace(low, high, 5):
        height = _down(tick, low, high)
        cv2.line(picture, (LEFT, height), (WIDTH - RIGHT, height), _RULE, 1)
        _write(picture, f"{tick:.4g}", (8, height + 5), 0.45)
    for tick in np.linspace(first, last, 5):
        _write(picture, f"{tick:,.0f}", (int(_across(tick, first, last)) - 14, HEIGHT - 24), 0.45)
    _write(picture, "step", (WIDTH - RIGHT - 34, HEIGHT - 6), 0.45)
    for line, colour, width in ((y, _PALE, 1), (mean, _LINE, 2)):
        points = [[_across(a, first, last), _down(b, low, high)] for a, b in zip(x, line, strict=True)]
        cv2.polylines(picture, [np.array(points, np.int32)], False, colour, width, cv2.LINE_AA)
    cv2.circle(picture, (int(_across(x[-1], first, last)), _down(mean[-1], low, high)), 3, _LINE, -1, cv2.LINE_AA)
    return picture


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each value and those before it in the window."""
    window = max(1, len(values) // SMOOTHED)
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - window)
    mean: NDArray[np.float64] = (total[ends] - total[begins]) / (ends - begins)
    return mean


def _across(value: float, first: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - first) / (last - first)


def _down(value: float, low: float, high: float) -> int:
    place = min(1.0, max(0.0, (value - low) / (high - low)))
    return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * place)


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
