"""What `authface restore` of a folder costs as the folder grows: seconds, peak memory, log and pages.

    python benchmarks/restore_many.py [1000 10000 ...] [--resumed N ...] [--model NAME] [--keep FOLDER]

For each count it makes so many small PNG (48 x 48 px, no photo of anybody) and runs the real command on them, with
`--aligned` and the model `identity`, which leaves a face as it is: what is measured is all but the model. A second run
finds nothing to do. `--resumed` writes the log and the results of a run over N photos but one, as the command would
have, and runs the command on all: the cost of a large folder without the days that make it.

Told are seconds by the clock and of CPU, the most memory that the process had, seconds before the first photo was done,
and, where a Chromium is found, the seconds in which it draws the index and a page, less those of an empty one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from authface.files import sha256_of
from authface.restore.outcome import SETTLED, traits_of
from authface.store.restore_line import as_text, values_of
from authface.store.restore_log import LOG, PAGE, PART_BYTES, Log, part_numbers, part_path


def log_bytes(path: Path) -> int:
    """Size of all parts of a log."""
    return sum(part_path(path, number).stat().st_size for number in part_numbers(path))


SIDE = 48
IN_A_FOLDER = 1000


@dataclass(frozen=True)
class Cost:
    """Of one run of a command."""

    seconds: float
    cpu: float
    megabytes: float
    """The most memory that it had."""
    first: float | None = None
    """Seconds before the first photo was done."""


def make(folder: Path, count: int) -> None:
    """Made photos, all different."""
    rng = np.random.default_rng(1)
    cloth = cv2.GaussianBlur(rng.integers(0, 255, (512, 512, 3), dtype=np.uint8), (0, 0), 4)
    for i in range(count):
        y, x = rng.integers(0, 512 - SIDE, 2)
        photo = cloth[y : y + SIDE, x : x + SIDE].copy()
        photo[0, 0] = i % 256, i // 256 % 256, i // 65536
        path = folder / f"{i // IN_A_FOLDER:04d}" / f"{i:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", photo, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def command(photos: Path, out: Path, model: str, *more: str) -> list[str]:
    """The command as it would be typed."""
    measured = ["-O", "restore.guard=false"] if model == "identity" else []
    return [sys.executable, "-P", "-m", "authface.cli", "restore", str(photos), "-o", str(out), "--model", model,
            *measured, *more]  # fmt: skip


def run(typed: Sequence[str]) -> tuple[Cost, float]:
    """Run a command to its end; what it cost, and when it began."""
    began = time.time()
    process = subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(said[-2000:])
    return Cost(time.time() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3), began


def first_made(out: Path, began: float) -> float | None:
    """Seconds from there to the log's first line of this run."""
    for number in part_numbers(out / LOG):
        for line in part_path(out / LOG, number).read_bytes().splitlines():
            values = values_of(line)
            if values and (at := datetime.fromisoformat(values["made"]).timestamp()) >= began:
                return at - began
    return None


def resume(photos: Path, out: Path, count: int, model: str) -> None:
    """Let all photos but the last be done: their lines as the command writes them, the photo itself as the result."""
    run(command(photos, out, model, "--aligned", "--limit", "1"))
    log = Log(out / LOG)
    (pattern,) = log.lines(next(path for path, _ in log.traces()))
    paths = sorted(photos.rglob("*.png"))[1 : count - 1]
    for path in paths:
        target = out / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    time.sleep(SETTLED + 1)
    number, size = 0, log_bytes(out / LOG)
    file = (out / LOG).open("ab")
    for path in paths:
        digest, linked = sha256_of(path), path.stat().st_ctime
        line = replace(
            pattern, target=path.relative_to(photos).as_posix(), source=str(path), content=digest, result=digest,
            result_bytes=path.stat().st_size, seed=int(digest[:8], 16), traits=traits_of(path),
            made=datetime.fromtimestamp(linked - 1, UTC).isoformat(),
        )  # fmt: skip
        if size >= PART_BYTES:
            file.close()
            number, size = number + 1, 0
            file = part_path(out / LOG, number).open("ab")
        size += file.write(as_text(line).encode())
    file.close()


def browser() -> str:
    """A Chromium; empty where none is found."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


def drawn(page: str) -> float:
    """Seconds in which a browser opens and draws a page."""
    with tempfile.TemporaryDirectory() as home:
        start = time.monotonic()
        subprocess.run(
            [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}",
             "--window-size=1200,1600", f"--screenshot={home}/shot.png", page],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        return time.monotonic() - start


def pages(out: Path) -> str:
    """Size of the index and of the largest page, and the seconds in which they are drawn."""
    index, files = out / PAGE, sorted((out / f"{PAGE}.files").glob("*.html"))
    if not index.exists():
        return "no page"
    largest = max(files, key=lambda path: path.stat().st_size, default=index)
    text = f"{len(files)} pages; index {index.stat().st_size / 1e3:.0f} kB, page {largest.stat().st_size / 1e3:.0f} kB"
    if not browser():
        return text
    empty = min(drawn("about:blank") for _ in range(2))
    own = [min(drawn(path.absolute().as_uri()) for _ in range(2)) - empty for path in (index, largest)]
    return f"{text}; drawn in {own[0]:.1f} and {own[1]:.1f} s"


def tell(name: str, count: int, cost: Cost, more: str = "") -> None:
    """A row of the table."""
    first = "" if cost.first is None else f"{cost.first:.1f}"
    print(
        f"| {name} | {count:,} | {cost.seconds:.0f} | {cost.cpu:.1f} | {first} | {cost.megabytes:.0f} | {more} |",
        flush=True,
    )


def measure(home: Path, count: int, model: str, *, resumed: bool) -> None:
    """A run over so many photos, or over one with all others done, and one that finds nothing to do; its rows."""
    photos, out = home / f"in-{count}", home / f"{'resumed' if resumed else 'out'}-{count}"
    if not photos.exists():
        make(photos, count)
    if resumed:
        resume(photos, out, count, model)
    cost, began = run(command(photos, out, model, "--aligned"))
    parts = len(part_numbers(out / LOG))
    told = f"log {log_bytes(out / LOG) / 1e6:.1f} MB in {parts} part{'s'[: parts > 1]}; {pages(out)}"
    tell("one left" if resumed else "all", count, replace(cost, first=first_made(out, began)), told)
    tell("nothing to do", count, run(command(photos, out, model, "--aligned"))[0])
    status = [sys.executable, "-P", "-m", "authface.cli", "status", str(out)]
    tell("status", count, run(status)[0])


def main() -> None:
    """Measure as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", help="photos of a whole run")
    parser.add_argument("--resumed", type=int, nargs="*", default=[], help="photos of a run of which one is left")
    parser.add_argument("--model", default="identity")
    parser.add_argument("--keep", default="", help="a folder for photos and results, which then stay")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(given.keep or temporary)
        print("| run | photos | s | CPU s | s to the first | MB | |\n|---|---|---|---|---|---|---|", flush=True)
        for count in given.counts:
            measure(home, count, given.model, resumed=False)
        for count in given.resumed:
            measure(home, count, given.model, resumed=True)


if __name__ == "__main__":
    main()
