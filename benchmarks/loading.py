"""Loading and degrading faces against what a training of the tiny family eats, on two cores.

    python benchmarks/loading.py DATASET [--size 256] [--batch 8] [--degradation gfpgan]

DATASET is an export with the column image. Batches are those of stage II (`ControlNetObjective.batch`): the image read
from its shard, decoded, resized, degraded, and its latents from the cache. A step is forward, backward and AdamW of
stage II on one batch that lies ready: the tiny family's ControlNet over its U-Net, float32, no facial loss.

Both are told in CPU seconds (user and system) of one process with one thread a face, so that other work on the machine
hardly counts; faces/s are those of two cores that do nothing else. A step on two threads takes more CPU seconds than on
one, so a real training eats less than is said here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from authface.console import Console
from authface.faces.degrade import degrade, mixture
from authface.models.families import load, make_tiny, resolve
from authface.train.cache import TensorStore, cache_latents, cache_texts
from authface.train.controlnet import ControlNetObjective, init_controlnet
from authface.train.data import Draw, FaceDataset
from authface.train.objective import Noise
from authface.train.settings import ControlNetSettings, FacialSettings

CORES = 2
GOAL = 3
"""Times what the training eats."""
CPU = torch.device("cpu")


def cpu_seconds(action: Callable[[int], object], times: int) -> float:
    """CPU seconds of one `action`, the median of `times` after one that does not count."""
    action(0)
    spent = []
    for number in range(times):
        begun = time.process_time()
        action(number + 1)
        spent.append(time.process_time() - begun)
    return sorted(spent)[times // 2]


def make_objective(faces: FaceDataset, work: Path, settings: ControlNetSettings) -> ControlNetObjective:
    """Stage II over a new tiny family, with latents cached in `work`."""
    make_tiny(work / "tiny", 0, settings.size)
    source, store = resolve(str(work / "tiny")), TensorStore(work / "cache")
    null = cache_texts([], source, CPU, store, Console()).read([""])
    parts = load(source, ["vae", "unet", "scheduler"], CPU, torch.float32)
    latents = cache_latents(faces, source, parts.vae, store, settings.batch, Console())
    parts.unet.requires_grad_(False)
    parts.controlnet = init_controlnet(parts.unet, settings, 0, settings.size // latents.read(0, False).shape[-1])
    for part in (parts.unet, parts.controlnet):
        part.to(memory_format=torch.channels_last)
    return ControlNetObjective(faces, parts, latents, null, mixture(settings.degradation), settings, seed=0)


def step_of(objective: ControlNetObjective, batch: int) -> Callable[[int], None]:
    """One step on a batch that lies ready."""
    ready = objective.batch([Draw(index % len(objective.faces), 0, False) for index in range(batch)])
    optimizer = torch.optim.AdamW(objective.trained.parameters(), lr=1e-5)

    def step(number: int) -> None:
        loss = objective.loss(objective.trained, ready, Noise(0, range(batch * number, batch * (number + 1))), number)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def parts_of(objective: ControlNetObjective, draws: Sequence[Draw]) -> dict[str, Callable[[int], Any]]:
    """What a batch is made of, a face a call."""
    faces = objective.faces
    rgb = faces.rgb(0)

    def of(number: int) -> Draw:
        return draws[number % len(draws)]

    return {
        "read": lambda n: faces.data(of(n).index),
        "read, decode, resize": lambda n: faces.rgb(of(n).index, of(n).flip),
        "degrade": lambda n: degrade(rgb, (0, n), objective.degradation),
        "latents": lambda n: objective.latents.read(of(n).index, of(n).flip),
    }


def main() -> int:
    """Print the table; 1 where loading is below the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--degradation", default="gfpgan")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings = ControlNetSettings(
        size=asked.size, batch=asked.batch, degradation=asked.degradation, facial=FacialSettings(weight="off")
    )
    with tempfile.TemporaryDirectory() as folder:
        faces = FaceDataset(asked.dataset, asked.size, asked.faces)
        objective = make_objective(faces, Path(folder), settings)
        draws = [Draw(index, epoch, bool(epoch)) for epoch in (0, 1) for index in range(len(faces))]
        print(f"{asked.size} px, batch {asked.batch}, {asked.degradation}; CPU ms a face")
        for name, action in parts_of(objective, draws).items():
            print(f"{name:24}{1e3 * cpu_seconds(action, len(draws)):8.2f}")
        batches = [draws[start : start + asked.batch] for start in range(0, len(draws), asked.batch)]
        loading = cpu_seconds(lambda n: objective.batch(batches[n % len(batches)]), 2 * len(batches)) / asked.batch
        step = cpu_seconds(step_of(objective, asked.batch), asked.steps) / asked.batch
    print(f"{'a batch':24}{1e3 * loading:8.2f}{CORES / loading:10.1f} faces/s on {CORES} cores")
    print(f"{'a step':24}{1e3 * step:8.2f}{CORES / step:10.1f} faces/s on {CORES} cores")
    print(f"loading makes {step / loading:.1f} times what the training eats (goal {GOAL})")
    return int(step / loading < GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
