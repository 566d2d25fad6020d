"""Damage of faces by torch, as trainings on a GPU do it, against OpenCV's: pixels within one level, and time.

    python benchmarks/damage.py [FOLDER] [--size 256] [--faces 40] [--device cpu] [--presets NAME ...]

FOLDER holds square faces (PNG, at any depth), evenly picked; without it they are cut from two photos of scikit-image.
Of each preset are told the pixels within one level of OpenCV's, over all faces and in the worst one, those that are
equal, the greatest distance in levels, and ms a face: drawing and OpenCV in CPU time of one thread, torch so on a CPU
(one thread too), and by the clock on a GPU, all faces ready in memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from authface.faces.degrade import Drawn, apply, draw, preset
from authface.imaging.decode import read
from authface.train.damage import AT_ONCE, damaged, together

STRENGTHS = ("gfpgan", "mild", "medium", "heavy", "scan", "noise_jpeg", "nearly_clean")
Image = NDArray[np.uint8]


def squares(folder: Path | None, count: int, size: int) -> list[Image]:
    """`count` faces of `size` pixels."""
    if folder is not None:
        paths = sorted(folder.rglob("*.png"))
        found = [read(path).rgb for path in paths[:: max(1, len(paths) // count)][:count]]
    else:
        random, found = np.random.default_rng(0), []
        for number in range(count):
            photo = (skimage.data.astronaut()[:300, 60:380], skimage.data.chelsea())[number % 2]
            side = int(random.integers(150, 290))
            top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
            found.append(np.asarray(photo[top : top + side, left : left + side], np.uint8))
    shapes = [cv2.INTER_AREA if len(face) > size else cv2.INTER_CUBIC for face in found]
    return [
        np.asarray(cv2.resize(face, (size, size), interpolation=how), np.uint8)
        for face, how in zip(found, shapes, strict=True)
    ]


def by_torch(faces: Sequence[Image], drawn: Sequence[Drawn], device: torch.device) -> tuple[Image, float]:
    """(n, size, size, 3) damaged faces, and seconds a face, the upload counted."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    made, begun = [], clock()
    for start in range(0, len(faces), AT_ONCE):
        batch = together(faces[start : start + AT_ONCE])
        made.append(damaged(batch.to(device), drawn[start : start + AT_ONCE]))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent = (clock() - begun) / len(faces)
    levels = (torch.cat(made) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.asarray(levels.cpu()), spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--faces", type=int, default=40)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--presets", nargs="+", default=STRENGTHS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    faces = squares(asked.folder, asked.faces, asked.size)
    by_torch(faces[:2], [draw(n, asked.size, preset("scan")) for n in range(2)], asked.device)
    print(f"{len(faces)} faces of {asked.size} px, {asked.device}; % of pixels, levels, ms a face")
    print(f"{'':16}{'within 1':>10}{'worst':>8}{'equal':>8}{'most':>6}{'draw':>8}{'OpenCV':>8}{'torch':>8}")
    for name in asked.presets:
        begun = time.process_time()
        drawn = [draw((3, number), asked.size, preset(name)) for number in range(len(faces))]
        middle = time.process_time()
        expected = np.stack([apply(face, one) for face, one in zip(faces, drawn, strict=True)]).astype(np.int16)
        end = time.process_time()
        made, spent = by_torch(faces, drawn, asked.device)
        apart = np.abs(made - expected)
        near = (apart <= 1).reshape(len(faces), -1).mean(1)
        shares = "".join(f"{100 * value:{width}.2f}" for value, width in
                         ((near.mean(), 10), (near.min(), 8), ((apart == 0).mean(), 8)))  # fmt: skip
        times = "".join(f"{1e3 * value:8.2f}" for value in
                        ((middle - begun) / len(faces), (end - middle) / len(faces), spent))  # fmt: skip
        print(f"{name:16}{shares}{apart.max():6}{times}", flush=True)


if __name__ == "__main__":
    main()
