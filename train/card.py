"""The model card of a trained family: what it is, what it was trained on and how, under which licences."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]

from authface import __version__
from authface.errors import one_line
from authface.files import write_file
from authface.imaging.decode import encode_png
from authface.models.families import FAMILIES, NEW_LICENCE
from authface.models.layout import PARTS, part_files
from authface.report.markdown import cell, render
from authface.store.lineage import training_sources
from authface.train.curve import draw_curve
from authface.train.data import Faces
from authface.train.settings import TrainSettings

CARD = "README.md"
CURVE = "training-curve.png"
LAST = 100
"""Steps that the first and the final metrics are the mean of."""
_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "CreativeML Open RAIL++-M": "openrail++"}
"""The hub's names of licences that families have."""
_LOCAL = {"dataset", "out", "cache"}
"""Settings that name folders of this machine: nobody else's business."""
_STAGES = {
    "autoencoder": "its VAE, in pixel space",
    "prior": "stage I, its U-Net, a face prior on captioned faces",
    "cleaner": "a network in pixels that takes damage off faces before diffusion adds detail",
    "controlnet": "stage II, a ControlNet that leads the frozen prior from a degraded face to a restored one",
}
_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "datasets")


def write_card(out: Path, settings: TrainSettings, stage: str, seed: int, faces: Faces) -> None:
    """Write `out`/README.md and `out`/training-curve.png from what `out`/training says of the run.

    `stage` is autoencoder, prior or controlnet; `out` is the whole family. Raises AuthfaceError where the disk refuses.
    """
    lines = read_metrics(out / "training" / "metrics.jsonl")
    curve = draw_curve([int(line["step"]) for line in lines], [_number(line.get("loss")) for line in lines],
                       f"{stage}: loss")  # fmt: skip
    write_file(out / CURVE, encode_png(curve))
    write_file(out / CARD, card(out, settings, stage, seed, faces, lines).encode())


def card(
    out: Path, settings: TrainSettings, stage: str, seed: int, faces: Faces, lines: list[dict[str, Any]]
) -> str:  # fmt: skip
    """The text of the card, with the hub's metadata on top; `lines` are those of metrics.jsonl."""
    base, licence = _base(settings.model)
    hub = _HUB_LICENCES.get(licence, "other")
    sources = training_sources(out / "training")
    return render(
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
        licences=faces.tally("licence").most_common(50),
        origins=faces.tally("source").most_common(50),
        curve=CURVE,
        steps=int(lines[-1]["step"]) if lines else 0,
        metrics=_metrics(lines),
        mean_of=LAST,
        parts=[(part, _bytes(out, part)) for part in PARTS if part_files(out, part)],
        control=(out / "controlnet").is_dir(),
        versions=[("authface", __version__), ("python", platform.python_version()), *_versions()],
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that was cut is left out."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict) and "step" in line]


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
    told = front_matter(folder / CARD)
    named = str(told.get("license_name") or told.get("license") or "")
    licence = next((name for name, hub in _HUB_LICENCES.items() if hub == named), named)
    base = told.get("base_model")
    return (base if isinstance(base, str) else ""), licence


def front_matter(path: Path) -> Mapping[str, Any]:
    """The hub's metadata on top of a card; empty where there is none that can be read."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


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
            rows[shard.name.partition("-")[0]] += pq.ParquetFile(shard).metadata.num_rows
        except (OSError, pa.ArrowInvalid):
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
            yield name, cell(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
