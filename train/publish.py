"""A trained family's model card, with the curve of its loss; `authface models push` sends it along."""

from __future__ import annotations

import math
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from authface import __version__
from authface.errors import AuthfaceError, one_line
from authface.files import write_file
from authface.imaging.decode import encode_png
from authface.models.families import FAMILIES, NEW_LICENCE
from authface.models.layout import PARTS, part_files
from authface.models.publish import CARD, front_matter
from authface.report.pages import markdown_cell, render_markdown, round_span
from authface.store.journal import training_sources
from authface.store.rows import row_count
from authface.train.data import FaceDataset
from authface.train.logbook import read_metrics
from authface.train.settings import TrainSettings

CURVE = "training-curve.png"
LAST = 100
"""Steps that the first and the final metrics are the mean of."""
WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 40, 50
SMOOTHED = 50
"""The bold line is the mean over a share of 1 / SMOOTHED of the run's steps."""
_INK, _PALE, _LINE, _RULE = (60, 60, 60), (190, 205, 225), (20, 80, 170), (232, 232, 232)
_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "CreativeML Open RAIL++-M": "openrail++"}
"""The hub's names of licences that families have."""
_LOCAL = {"dataset", "out", "cache"}
"""Settings that name folders of this machine, which no card shows."""
_STAGES = {
    "autoencoder": "its VAE, in pixel space",
    "prior": "stage I, its U-Net, a face prior on captioned faces",
    "cleaner": "a network in pixels that takes damage off faces before diffusion adds detail",
    "controlnet": "stage II, a ControlNet that leads the frozen prior from a degraded face to a restored one",
}
_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "datasets")


def write_card(out: Path, settings: TrainSettings, stage: str, seed: int, faces: FaceDataset) -> None:
    """Write `out`/README.md and `out`/training-curve.png from what `out`/training says of the run.

    `stage` is autoencoder, prior or controlnet; `out` is the whole family. Raises AuthfaceError where the disk refuses.
    """
    lines = read_metrics(out / "training" / "metrics.jsonl")
    curve = draw_curve([int(line["step"]) for line in lines], [_number(line.get("loss")) for line in lines],
                       f"{stage}: loss")  # fmt: skip
    write_file(out / CURVE, encode_png(curve))
    write_file(out / CARD, card(out, settings, stage, seed, faces, lines).encode())


def card(
    out: Path, settings: TrainSettings, stage: str, seed: int, faces: FaceDataset, lines: list[dict[str, Any]]
) -> str:  # fmt: skip
    """The text of the card, with the hub's metadata on top; `lines` are those of metrics.jsonl."""
    base, licence = _base(settings.model)
    hub = _HUB_LICENCES.get(licence, "other")
    sources = training_sources(out / "training")
    return render_markdown(
        "model_card.md.jinja",
        name=one_line(out.resolve().name, 80),
        version=__version__,
        stage=stage,
        what=_STAGES.get(stage, stage),
        licence_id=hub,
        licence_name=re.sub(r"[^a-z0-9.]+", "-", (licence or "unknown").lower()).strip("-") if hub == "other" else "",
        licence=licence or "unknown",
        base=base,
        base_name=base or ("random weights" if settings.model == "new" else one_line(Path(settings.model).name, 80)),
        tags=["authface", "face-restoration", "faces", "stable-diffusion-xl", stage],
        size=settings.size,
        seed=seed,
        settings=list(_flat(settings.model_dump(mode="json"))),
        faces=len(faces),
        sources=[(Path(s.dataset).parent.name + "/" + Path(s.dataset).name, s.rows, s.key[:12]) for s in sources],
        splits=_splits(faces.folder),
        licences=faces.value_counts("licence").most_common(50),
        origins=faces.value_counts("source").most_common(50),
        curve=CURVE,
        steps=int(lines[-1]["step"]) if lines else 0,
        metrics=_metrics(lines),
        mean_of=LAST,
        parts=[(part, _bytes(out, part)) for part in PARTS if part_files(out, part)],
        control=(out / "controlnet").is_dir(),
        versions=[("authface", __version__), ("python", platform.python_version()), *_versions()],
    )


def _base(model: str) -> tuple[str, str]:
    """Repository (empty: none on the hub) and licence of what a training began from.

    A folder made by an earlier training passes on what its own card says.
    """
    if model == "new":
        return "", NEW_LICENCE
    if model in FAMILIES:
        family = FAMILIES[model]
        return ("" if model == "tiny" else family.location), family.licence
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model, ""
    stated = front_matter(folder / CARD)
    named = str(stated.get("license_name") or stated.get("license") or "")
    licence = next((name for name, hub in _HUB_LICENCES.items() if hub == named), named)
    base = stated.get("base_model")
    return (base if isinstance(base, str) else ""), licence


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their path, with folders of this machine cut to their names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif not before and name in _LOCAL:
            continue
        else:
            yield f"{before}{name}", str(Path(value).name if not before and name == "model" else value)


def _splits(folder: Path) -> list[tuple[str, int]]:
    """Rows of each split of a dataset folder, as its Parquet files say."""
    rows: Counter[str] = Counter()
    for shard in sorted((folder / "data").glob("*.parquet")):
        try:
            rows[shard.name.partition("-")[0]] += row_count(shard)
        except AuthfaceError:
            continue
    return sorted(rows.items())


def _metrics(lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, mean over the first and over the last steps of every measure."""
    names = list(dict.fromkeys(name for line in lines for name in line if name not in {"step", "lr"}))
    return [(name, _mean(lines[:LAST], name), _mean(lines[-LAST:], name)) for name in names]


def _mean(lines: list[dict[str, Any]], name: str) -> str:
    values = [float(line[name]) for line in lines if isinstance(line.get(name), int | float)]
    return f"{sum(values) / len(values):.5g}" if values else "-"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _bytes(folder: Path, part: str) -> str:
    return f"{sum(path.stat().st_size for path in part_files(folder, part)) / 1e6:,.1f} MB"


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, markdown_cell(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue


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
