"""`evaluate restoration` on 1,000 pairs: outputs a second against the metrics alone, memory, and the same run again.

    python benchmarks/evaluate.py DATASET FOLDER [--split train] [--sizes 250 1000] [--workers 2]

The pairs are made by `authface evaluate synth`; the degraded faces are the outputs that are measured, by all metrics
that need no download. The floor decodes each file once and calls the metrics, in one thread of one process without
torch's or OpenCV's own. Seconds of the processor stand beside those of the clock: they bear other work on the machine.
Memory is that of all processes together, what they share counted in each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

METRICS = "psnr,psnr_y,ssim,ssim_y,identity,landmarks,landmarks_px,piqe"


@dataclass(frozen=True)
class Cost:
    """Of one command or function."""

    wall: float
    cpu: float
    memory: float
    """Peak, MB."""


def costs(command: list[str]) -> Cost:
    """Run a command of authface, and watch it with all that it starts."""
    began, before = time.perf_counter(), _cpu()
    process = subprocess.Popen([sys.executable, "-m", "authface.cli", *command], stdout=subprocess.DEVNULL)
    peak = max(_memory(process), default=0.0)
    if process.wait():
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(time.perf_counter() - began, _cpu() - before, peak)


def _cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _memory(process: subprocess.Popen[bytes]) -> Iterator[float]:
    """MB of a process and all below it, until it ends."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                held += one.memory_info().rss
        except psutil.Error:
            continue
        yield held / 1e6
        time.sleep(0.1)


def floor(pairs: Path, count: int) -> dict[str, float]:
    """Processor seconds an output of decoding and of each metric, by name."""
    import cv2
    import torch

    from authface.evaluate.works import FaceGauge
    from authface.imaging.decode import read
    from authface.metrics import quality
    from authface.metrics.quality import QualityMetric

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    gauge, piqe = FaceGauge(0.5), QualityMetric("piqe", torch.device("cpu"))
    spent: dict[str, float] = {}

    def timed(name: str, call: Callable[..., Any], *given: Any) -> Any:
        began = time.process_time()
        result = call(*given)
        spent[name] = spent.get(name, 0.0) + (time.process_time() - began) / count
        return result

    def rgb(path: Path) -> Any:
        return read(path).rgb

    names = sorted(path.name for path in (pairs / "clean").iterdir())[: count + 1]
    for number, name in enumerate(names):
        if number == 1:  # the first loads the networks
            spent.clear()
        output = timed("decode", rgb, pairs / "degraded" / name)
        truth = timed("decode", rgb, pairs / "clean" / name)
        for metric in (quality.psnr, quality.psnr_y, quality.ssim, quality.ssim_y):
            timed(metric.__name__, metric, output, truth)
        found = timed("find", gauge.find, name, truth)
        timed("identity", gauge.identity, output, truth, name, found)
        timed("landmarks", gauge.landmarks, output, found)
        timed("piqe", piqe, [output])
    return spent


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--floor", type=int, default=60, help="outputs the floor is measured on")
    asked = parser.parse_args()
    pairs = asked.folder / "pairs"
    most = max(asked.sizes)
    words = ["evaluate", "synth", str(asked.dataset), "-o", str(pairs), "--limit", str(most)]
    made = costs([*words, "-O", f"evaluate.synth.split={asked.split}"])
    print(f"synth: {most} pairs in {made.wall:.0f} s, {made.cpu:.0f} s of the processor, {made.memory:,.0f} MB")
    parts = floor(pairs, asked.floor)
    least = sum(parts.values())
    print(f"floor: {1 / least:.2f} outputs/s a core: " + ", ".join(f"{n} {1000 * s:.1f} ms" for n, s in parts.items()))
    for size in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as out:
            command = ["evaluate", "restoration", "--truth", str(pairs / "clean"), "--device", "cpu", "-o", out]
            command += ["--outputs", f"input={pairs / 'degraded'}", "--metrics", METRICS, "--limit", str(size)]
            command += ["--workers", str(asked.workers)]
            first, again = costs(command), costs(command)
            measured = json.loads((Path(out) / "restoration.json").read_text())["protocol"]["faces"]
        print(
            f"{measured} outputs, {asked.workers} workers: {measured / first.wall:.2f} outputs/s by the clock, "
            f"{measured / first.cpu:.2f} a core second ({least * measured / first.cpu:.0%} of the floor), "
            f"{first.memory:,.0f} MB; again {again.wall:.1f} s, {again.cpu:.1f} s of the processor"
        )


if __name__ == "__main__":
    main()
