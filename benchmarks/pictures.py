"""The pictures of README.md and docs/, made again by authface itself from photos in the public domain.

    python benchmarks/pictures.py            # docs/images/*.webp, two minutes on two cores; needs Chromium

Photos: Eileen Collins (NASA) of scikit-image, Grace Hopper (US Navy) of matplotlib. The square of twice the face
is cut out, degraded with a preset of `authface evaluate synth` and seed 0, and restored by the built-in model as it
comes: nothing is chosen by its look.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from authface import Restorer
from authface.curate.fetch.sources.folder import Samples
from authface.faces.degrade import degrade, preset
from authface.imaging import decode as images

OUT = Path(__file__).parent.parent / "docs" / "images"
SUBJECTS = ("astronaut", "grace_hopper")
STRENGTHS = ("mild", "medium", "heavy")
SIDE = 180
"""Of one panel, pixels."""
MARGIN, CAPTION = 6, 26
LARGEST = 200_000
"""Bytes of a picture."""


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        with Restorer() as restorer:
            restored(restorer, work)
        pages(work)


def portrait(subject: str, restorer: Restorer) -> np.ndarray:
    """The square of twice the largest face's longer side around that face."""
    item = next(item for item in Samples().items() if subject in item.photo.source_id)
    rgb = images.read(Path(item.path)).rgb
    x0, y0, x1, y1 = restorer.find(rgb)[0].box
    side = min(int(2 * max(x1 - x0, y1 - y0)), *rgb.shape[:2])
    left = int(np.clip((x0 + x1 - side) / 2, 0, rgb.shape[1] - side))
    top = int(np.clip((y0 + y1 - side) / 2, 0, rgb.shape[0] - side))
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def restored(restorer: Restorer, work: Path) -> None:
    """before-after: each strength and subject; change: what a restoration altered."""
    portraits = {name: portrait(name, restorer) for name in SUBJECTS}
    rows = []
    for strength in STRENGTHS:
        row = []
        for name, rgb in portraits.items():
            broken = work / f"{name}-{strength}.png"
            broken.write_bytes(images.encode_png(degrade(rgb, 0, preset(strength))))
            result = restorer.restore(broken)
            said = [(face.status, face.reason, face.identity) for face in result.faces]
            print(f"{name}, {rgb.shape[1]} px, {strength}: {said}")
            before = images.read(broken).rgb
            row += [(strength, before), ("restored", result.image), ("the photo", rgb)]
            if (strength, name) == ("medium", SUBJECTS[1]):
                shown = [("before", before), ("after", result.image), ("--change-map", result.change_map())]
                save(sheet([shown]), "change.webp")
        rows.append(row)
    save(sheet(rows), "before-after.webp")


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    """Panels in rows, each below its title."""
    wide, high = SIDE + MARGIN, SIDE + CAPTION
    board = Image.new("RGB", (wide * len(rows[0]) + MARGIN, high * len(rows) + MARGIN), "white")
    draw, font = ImageDraw.Draw(board), ImageFont.load_default(14)
    for row, panels in enumerate(rows):
        for column, (title, rgb) in enumerate(panels):
            x, y = MARGIN + column * wide, row * high
            draw.text((x, y + 5), title, fill="black", font=font)
            panel = Image.fromarray(rgb).convert("RGB")
            scale = SIDE / max(panel.size)
            panel = panel.resize((round(panel.width * scale), round(panel.height * scale)), Image.Resampling.BICUBIC)
            board.paste(panel, (x, y + CAPTION))
    return board


def pages(work: Path) -> None:
    """The contact sheet of `curate report`, the review page and that of `restore`, as a browser shows them."""
    photoset, results = work / "photoset", work / "results"
    for words in (
        ["curate", "fetch", photoset, "--from", "samples"],
        ["curate", "filter", photoset, "-O", "curate.filter.min_size=64"],
        ["curate", "align", photoset, "-O", "curate.align.size=256"],
        ["annotate", "tags", photoset, "--with", "measured"],
        ["curate", "report", photoset],
        ["restore", work / f"{SUBJECTS[0]}-medium.png", "-o", results, "--min-identity", "0.92"],
    ):
        subprocess.run([sys.executable, "-m", "authface.cli", *map(str, words)], check=True, stdout=sys.stderr)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto((photoset / "reports" / "curate.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
        shot(page, work / "sheet.png", "contact-sheet.webp", full_page=True)
        page.goto((results / "restore.html").as_uri())
        page.wait_for_timeout(1000)
        shot(page.locator("article").last, work / "face.png", "restored-face.webp")
        command = [sys.executable, "-m", "authface.cli", "curate", "review", str(photoset), "--reviewer", "anna"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as review:
            assert review.stdout is not None
            address = next(word for line in review.stdout for word in line.split() if word.startswith("http"))
            page.goto(address)
            page.wait_for_timeout(3000)
            shot(page, work / "review.png", "review.webp")
            review.send_signal(signal.SIGINT)
        browser.close()


def shot(page: Any, path: Path, name: str, **how: Any) -> None:
    """A page, or a part of it, as the browser shows it."""
    page.screenshot(path=str(path), **how)
    with Image.open(path) as picture:
        save(picture.convert("RGB"), name)


def save(picture: Image.Image, name: str) -> None:
    """As WebP, of the highest quality that is small enough."""
    path = OUT / name
    for quality in (90, 80, 70, 60):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size < LARGEST:
            break
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
