"""Presets and steps against quality: seconds a face, identity, PIQE and PSNR of restored held-out faces, as a curve.

    python benchmarks/presets.py SET OUT [MODEL [FACES]]

SET is what `authface evaluate synth` made: clean/ and degraded/. The same faces are restored with each preset and with
each number of steps from each start, and measured by `authface evaluate restoration`; OUT gets presets.csv and
presets.png. Seconds are those of the model alone, warm.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from authface import Restorer
from authface.restore.pipeline import counted

BATCH = 10
STEPS = (1, 2, 4, 8)
STRENGTHS = (0.1, 0.3, 0.5)
METRICS = ("psnr", "identity", "piqe")


def settings() -> dict[str, dict[str, Any]]:
    """What is compared: a name, and the settings of `restore` for it."""
    presets: dict[str, dict[str, Any]] = {name: {"preset": name} for name in ("quality", "fast", "fidelity")}
    steps = {
        f"from {strength:g} in {count}": {"steps": count, "strength": strength, "scheduler": "ddim"}
        for strength in STRENGTHS
        for count in STEPS
    }
    return presets | steps


def evaluated(*arguments: object) -> dict[str, Any]:
    """The JSON of `authface evaluate restoration`."""
    done = subprocess.run(["authface", "evaluate", "restoration", *map(str, arguments), "--json"],
                          check=True, capture_output=True, text=True)  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def restored(restorer: Restorer, faces: list[Path], out: Path) -> float:
    """The faces restored into `out`; seconds of the model a face."""
    out.mkdir(parents=True, exist_ok=True)
    with counted() as seconds:
        for start in range(0, len(faces), BATCH):
            some = faces[start : start + BATCH]
            for face, made in zip(some, restorer.restore_aligned(some), strict=True):
                made.save(out / face.name)
    return seconds["model"] / len(faces)


def main() -> None:
    """The table and the picture."""
    pairs, out = Path(sys.argv[1]), Path(sys.argv[2])
    model, count = sys.argv[3] if len(sys.argv) > 3 else "tiny", int(sys.argv[4]) if len(sys.argv) > 4 else 60
    faces = sorted((pairs / "degraded").glob("*.png"))[
        :: max(1, len(list((pairs / "degraded").glob("*.png"))) // count)
    ]
    truth = out / "clean"
    truth.mkdir(parents=True, exist_ok=True)
    for face in faces:
        (truth / face.name).write_bytes((pairs / "clean" / face.name).read_bytes())
    restorer = Restorer(model, batch=BATCH, guard=False)
    restorer.restore_aligned(faces[:BATCH])  # warm
    seconds = {}
    for name, chosen in settings().items():
        seconds[name] = restored(restorer.with_settings(**chosen), faces, out / name.replace(" ", "-"))
    outputs = [f"--outputs={name.replace(' ', '-')}={out / name.replace(' ', '-')}" for name in seconds]
    means = evaluated("--truth", truth, *outputs, "--metrics", ",".join(METRICS), "-o", out / "report")["means"]
    rows: list[dict[str, Any]] = [
        {"setting": name, "seconds": round(spent, 4)}
        | {metric: round(means[name.replace(" ", "-")][metric]["mean"], 4) for metric in METRICS}
        for name, spent in seconds.items()
    ]
    for row in rows:
        print(json.dumps(row))
    with (out / "presets.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    draw(rows, out / "presets.png", len(faces))


def draw(rows: list[dict[str, Any]], path: Path, count: int) -> None:
    """Each metric over the seconds of a face: a line for each start, a cross for each preset."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(METRICS), figsize=(15, 4.5), layout="constrained")
    for axis, metric in zip(axes, METRICS, strict=True):
        for strength in STRENGTHS:
            line = [row for row in rows if row["setting"].startswith(f"from {strength:g} ")]
            axis.plot([r["seconds"] for r in line], [r[metric] for r in line], "o-", label=f"from {strength:g}")
        for row in rows[:3]:
            axis.plot(row["seconds"], row[metric], "kx", markersize=10)
            axis.annotate(row["setting"], (row["seconds"], row[metric]), xytext=(5, 5), textcoords="offset points")
        axis.set(xscale="log", xlabel="seconds a face (model)", title=f"{metric}, {count} faces")
    axes[0].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
