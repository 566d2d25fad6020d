"""PSNR of authface's crop against the reference of `ffhq-dataset`, and how many times as fast it is, in one run.

    python benchmarks/align.py [FOLDER ...] [--each N]

Without folders: the photos that ship with scikit-image and matplotlib. Each photo is also cropped from enlarged,
grained copies, so that the crop is much smaller than the face. `reference` is the original; `half pixel` the
original with its shrink done about the pixels' corner, which differs from 4 photo pixels a crop pixel on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from ffhq_reference import psnr, reference
from numpy.typing import NDArray

from authface.faces.detector import RetinaFace
from authface.faces.geometry import align, ffhq_quad, quad_side, scale_quad
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images

ENLARGED = (1, 3, 6)
MAX_SIDE = 6500


def photos(folders: list[Path], each: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    if not folders:
        import skimage.data
        from matplotlib import cbook

        yield "astronaut", np.asarray(skimage.data.astronaut())
        yield "grace_hopper", images.read(Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))).rgb
    for folder in folders:
        found = sorted(folder.glob("*.jpg"))
        for path in found[:: max(1, len(found) // each)]:
            yield path.name, images.read(path).rgb


def enlarged(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The photo `factor` times as large, with fine grain (sigma 6) in place of the detail it lacks."""
    if factor == 1:
        return rgb
    wide = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=wide.shape[:2]).astype(np.float32), (0, 0), 0.7)
    return np.asarray(np.clip(wide + (grain * (6 / grain.std()))[..., None], 0, 255), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--each", type=int, default=6, help="photos taken from each folder")
    asked = parser.parse_args()
    detector, landmarker = RetinaFace(), Dlib68()
    say = sys.stdout.write
    say(f"{'photo':28}  size  ratio   pad     dB  half pixel dB      ms  times as fast\n")
    worst = {"reference": np.inf, "half pixel": np.inf}
    for name, photo in photos(asked.folders, asked.each):
        if not (found := detector.detect(photo)):
            continue
        quad = ffhq_quad(landmarker.landmarks(photo, found[0]))
        for factor in ENLARGED:
            if factor > 1 and max(photo.shape) * factor > MAX_SIDE:
                continue
            rgb, scaled = enlarged(photo, factor), scale_quad(quad, factor)
            for size in (256, 512, 1024):
                start = time.perf_counter()
                theirs = reference(rgb, scaled, size)
                middle = time.perf_counter()
                ours = align(rgb, scaled, size)
                end = time.perf_counter()
                even = psnr(ours.rgb, reference(rgb, scaled, size, half_pixel=True))
                plain = psnr(ours.rgb, theirs)
                worst["half pixel"] = min(worst["half pixel"], even)
                worst["reference"] = min(worst["reference"], plain)
                say(
                    f"{name + (f' x{factor}' if factor > 1 else ''):28} {size:5} {quad_side(scaled) / size:6.2f} "
                    f"{ours.pad_fraction:5.2f} {plain:6.1f} {even:14.1f} {(end - middle) * 1e3:7.1f} "
                    f"{(middle - start) / (end - middle):14.1f}\n"
                )
    say(", ".join(f"worst against {name}: {value:.1f} dB" for name, value in worst.items()) + "\n")


if __name__ == "__main__":
    main()
