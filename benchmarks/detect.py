"""How well RetinaFace finds faces of a given height, one look each, and how fast it looks through a folder.

    python benchmarks/detect.py FOLDER [--every N]

FOLDER holds portraits of one face. Each is resized so that its face has the given height as the network sees it.
Prints the share found (overlap above a half), false faces a photo, and the error of the five points over the eyes'
distance, against the photo as it is: the table behind the constants in authface/faces/detector.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import RetinaFace
from authface.faces.looks import Candidates, merge
from authface.imaging import decode as images

HEIGHTS = (16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 320, 400, 500, 600, 700, 800, 1000)
MAX_SIDE = 1500


def overlap(found: Candidates, truth: Candidates) -> NDArray[np.float64]:
    """(n,) intersection over union with the one true box."""
    low = np.maximum(found.boxes[:, :2], truth.boxes[0, :2])
    high = np.minimum(found.boxes[:, 2:], truth.boxes[0, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(shared / (found.areas + truth.areas[0] - shared))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=170, help="take one photo in so many")
    asked = parser.parse_args()
    detector = RetinaFace()
    photos = [images.read(path).rgb for path in sorted(asked.folder.glob("*.jpg"))[:: asked.every]]
    start = time.perf_counter()
    for photo in photos:
        detector.detect(photo)
    say = sys.stdout.write
    say(f"{len(photos)} photos, {(time.perf_counter() - start) / len(photos) * 1e3:.1f} ms each\n")
    sure = [(photo, merge([detector.look(photo, 1.0)])) for photo in photos]
    sure = [(photo, truth) for photo, truth in sure if len(truth.scores) == 1]
    for height in HEIGHTS:
        hits, false, gaps, tried = 0, 0, [], 0
        for photo, truth in sure:
            scale = height / (truth.boxes[0, 3] - truth.boxes[0, 1])
            if max(photo.shape) * scale > MAX_SIDE:
                continue
            tried += 1
            found = merge([detector.look(photo, float(scale))])
            right = np.flatnonzero(overlap(found, truth) > 0.5)
            hits += len(right) > 0
            false += len(found.scores) - len(right)
            for index in right[:1]:
                apart = (found.points[index] - truth.points[0]).reshape(5, 2)
                eyes = np.hypot(*(truth.points[0, 2:4] - truth.points[0, 0:2]))
                gaps.append(float(np.hypot(*apart.T).mean() / eyes))
        if tried:
            error = f"{np.median(gaps):.3f}" if gaps else "-"
            say(f"{height:5} px: found {hits}/{tried}, false {false / tried:.2f} a photo, point error {error}\n")


if __name__ == "__main__":
    main()
