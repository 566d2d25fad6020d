"""Training of a ControlNet: `authface train controlnet` against diffusers' own example script, in one run.

    python benchmarks/train.py FACES train_controlnet_sdxl.py [--rounds 2]

FACES is any folder of photos. The script is examples/controlnet/train_controlnet_sdxl.py of diffusers' repository,
which no wheel holds. Both train the same ControlNet (8.0 M parameters) over the same frozen U-Net of SDXL's classes
(16.6 M, three levels of 64, 128, 256 channels) at the same batch on the same faces, on the CPU, as processes that a
user starts. Steps are seen from outside: the script's by its bar, authface's by metrics.jsonl. Equation 1 alone: the
script knows no facial loss.

samples/s   batch / median time between steps, without the first two steps; all rounds together
first step  from the start of the process to the end of its first step, caches warm; the best of the rounds
peak        resident memory of the process and its children, the most of all rounds
floor       what no training can avoid: forward, backward and AdamW of authface's own objective on one batch that lies
            ready: no data, no moving average, no clipping, no log

Rounds take turns, so that whatever else the machine does falls on all of them. Linux (it reads /proc).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

CHANNELS = (64, 128, 256)
SKIPPED = 2
"""Steps at the start that do not count: memory is still being asked of the system."""
POLL = 0.01
"""Seconds between two looks at a process."""
PAGE = os.sysconf("SC_PAGE_SIZE")
GOALS = {"fp32": 1.5, "bf16": 2.8}
"""Times the script's samples/s."""


@dataclass
class Seen:
    """What was seen of one contestant: `first` seconds to the end of step 1 by round, `gaps` seconds between steps."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    peak: int = 0

    def rate(self, batch: int) -> float:
        """Samples a second."""
        return batch / median(self.gaps)


def watch(command: list[str], log: Path, count: Callable[[], int], steps: int, seen: Seen, **more: str) -> None:
    """Run a process to its end; `count` says how many steps it has done."""
    stamps: list[float] = []
    start = time.perf_counter()
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | more)
        while process.poll() is None:
            done = count() if len(stamps) < steps else steps
            stamps += [time.perf_counter()] * (done - len(stamps))
            seen.peak = max(seen.peak, resident(process.pid))
            time.sleep(POLL)
    if process.returncode or len(stamps) < steps:
        raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}:\n{log.read_text('utf-8')[-3000:]}")
    seen.first.append(stamps[0] - start)
    seen.gaps += [b - a for a, b in zip(stamps[SKIPPED:], stamps[SKIPPED + 1 :], strict=False)]


def resident(pid: int) -> int:
    """Bytes of a process and all below it; 0 where it is gone."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * PAGE
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except (OSError, IndexError):
        return 0
    return own + sum(resident(int(child)) for child in below)


def lines_of(path: Path) -> Callable[[], int]:
    """Counts lines of a file that grows."""
    return lambda: path.read_bytes().count(b"\n") if path.is_file() else 0


def bar_of(path: Path) -> Callable[[], int]:
    """Reads the script's progress bar."""

    def count() -> int:
        found = re.findall(rb"Steps:[^\r\n]*?\| *(\d+)/", path.read_bytes())
        return int(found[-1]) if found else 0

    return count


def make_dataset(photos: list[Path], size: int, out: Path) -> None:
    """Faces with the columns of both: image, prompt, id; conditioning_image and text."""
    import datasets
    import numpy as np

    from authface.faces.degrade import PRESETS, degrade
    from authface.imaging.decode import decode, encode_png

    rows = []
    for number, path in enumerate(photos):
        import cv2

        rgb = decode(path.read_bytes()).rgb
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        square = cv2.resize(rgb[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
        square = np.ascontiguousarray(square)
        degraded = degrade(square, number, PRESETS["gfpgan"])
        images = {"image": square, "conditioning_image": degraded}
        row: dict[str, Any] = {name: {"bytes": encode_png(rgb), "path": None} for name, rgb in images.items()}
        rows.append(row | {"prompt": "a portrait", "text": "a portrait", "id": path.stem})
    kinds = {name: datasets.Value("string") for name in ("prompt", "text", "id")}
    features = datasets.Features({"image": datasets.Image(), "conditioning_image": datasets.Image(), **kinds})
    (out / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(out / "data" / "train-00000-of-00001.parquet")


@dataclass
class Bench:
    """One comparison."""

    work: Path
    script: Path
    size: int
    batch: int
    steps: int

    def theirs(self, seen: Seen) -> None:
        """One run of the script; the same arguments each time, which its cache is keyed by."""
        words = {
            "pretrained_model_name_or_path": self.work / "family", "dataset_name": self.work / "dataset",
            "output_dir": self.work / "script", "resolution": self.size, "train_batch_size": self.batch,
            "max_train_steps": self.steps, "learning_rate": 1e-4, "lr_warmup_steps": 0, "mixed_precision": "no",
            "dataloader_num_workers": 0, "report_to": "tensorboard", "seed": 0, "cache_dir": self.work / "cache",
        }  # fmt: skip
        given = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        log = self.work / "script.log"
        log.write_bytes(b"")
        command = [sys.executable, str(self.script), *given]
        watch(command, log, bar_of(log), self.steps, seen, ACCELERATE_USE_CPU="true")

    def ours(self, precision: str, seen: Seen, steps: int = 0) -> None:
        """One run of the command, anew, with latents and text cached by the runs before it."""
        steps = steps or self.steps
        out = Path(tempfile.mkdtemp(dir=self.work)) / "out"
        settings = {
            "model": self.work / "family", "out": out, "cache": self.work / "latents", "size": self.size,
            "batch": self.batch, "steps": steps, "precision": precision, "validate_every": 0, "save_every": 10**6,
            "facial.weight": "off",
        }  # fmt: skip
        flags = [word for name, value in settings.items() for word in ("-O", f"train.controlnet.{name}={value}")]
        command = [sys.executable, "-m", "authface.cli", "train", "controlnet", str(self.work / "dataset"), *flags]
        metrics = out / "training" / "metrics.jsonl"
        watch([*command, "--device", "cpu"], self.work / "ours.log", lines_of(metrics), steps, seen)

    def floor(self, precision: str, seen: Seen) -> None:
        """The floor in a process of its own, which is asked by this module's --floor."""
        log = self.work / "floor.log"
        words = ["--size", self.size, "--batch", self.batch, "--steps", self.steps, "--floor", precision]
        command = [sys.executable, __file__, str(self.work), "-", *map(str, words)]
        watch(command, log, lines_of(log), self.steps, seen, OMP_WAIT_POLICY="PASSIVE")


def floor(work: Path, size: int, batch: int, steps: int, precision: str) -> None:
    """Forward, backward and optimizer of stage II's objective on one batch that lies ready; a line a step."""
    import torch
    from diffusers import ControlNetModel

    from authface.console import Console
    from authface.faces.degrade import PRESETS
    from authface.models.families import load, resolve
    from authface.train.cache import TensorStore, cache_latents, cache_texts
    from authface.train.controlnet import ControlNetObjective
    from authface.train.data import Draw, FaceDataset
    from authface.train.objective import Noise
    from authface.train.settings import ControlNetSettings, FacialSettings

    half, cpu, source, console = precision == "bf16", torch.device("cpu"), resolve(str(work / "family")), Console()
    faces, store = FaceDataset(work / "dataset", size), TensorStore(work / "latents")
    null = cache_texts([], source, cpu, store, console).read([""])
    parts = load(source, ["vae", "unet", "scheduler"], cpu, torch.float32)
    latents = cache_latents(faces, source, parts.vae, store, batch, console)
    parts.unet.requires_grad_(False)
    parts.controlnet = ControlNetModel.from_unet(parts.unet).train()
    if half:
        parts.unet.to(torch.bfloat16)
    settings = ControlNetSettings(size=size, batch=batch, facial=FacialSettings(weight="off"))
    objective = ControlNetObjective(faces, parts, latents, null, PRESETS["gfpgan"], settings, seed=0)
    for part in (parts.unet, parts.controlnet):
        part.to(memory_format=torch.channels_last)
    ready = objective.batch([Draw(index, 0, False) for index in range(batch)])
    optimizer = torch.optim.AdamW(objective.trained.parameters(), lr=1e-4)
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = objective.loss(objective.trained, ready, Noise(0, range(batch * step, batch * (step + 1))), step)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        print(step, flush=True)


def libraries() -> int:
    """Bytes that a process holds once it has imported what any such training needs."""
    code = "import torch, diffusers, transformers, datasets, accelerate; from diffusers import ControlNetModel"
    said = f"{code}\nprint(int(open('/proc/self/statm').read().split()[1]) * {PAGE})"
    return int(subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout)


def weights(family: Path, parts: tuple[str, ...]) -> int:
    """Bytes of the weights of `parts`."""
    return sum(file.stat().st_size for part in parts for file in (family / part).glob("*.safetensors"))


def report(seen: dict[str, Seen], bench: Bench, libs: int) -> dict[str, Any]:
    """Print what was seen beside the goals, and return it as numbers."""
    rate = {name: one.rate(bench.batch) for name, one in seen.items()}
    out = max(bench.work.glob("tmp*/out/controlnet"), key=lambda path: path.stat().st_mtime).parent
    control = weights(out, ("controlnet",))
    base = weights(bench.work / "family", ("unet", "vae")) + control
    text = weights(bench.work / "family", ("text_encoder", "text_encoder_2"))
    print(f"{bench.size} px, batch {bench.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'':14}{'samples/s':>10}{'spread':>14}{'first step':>12}{'peak':>10}{'- weights':>12}{'- libraries':>13}")
    above: dict[str, int] = {}
    for name, one in seen.items():
        gaps = sorted(one.gaps)
        low, high = bench.batch / gaps[-1 - len(gaps) // 4], bench.batch / gaps[len(gaps) // 4]
        above[name] = one.peak - base - (text if name == "script" else 0)
        print(
            f"{name:14}{rate[name]:10.2f}{low:7.1f}..{high:5.1f}{min(one.first):10.1f} s{one.peak / 1e6:7.0f} MB"
            f"{above[name] / 1e6:9.0f} MB{(above[name] - libs) / 1e6:10.0f} MB"
        )
    print(f"spread: middle half of the steps; weights {base / 1e6:.0f} MB (the script's text encoders {text / 1e6:.0f}")
    print(f"MB more); libraries: a process that imports them holds {libs / 1e6:.0f} MB")
    for precision, goal in GOALS.items():
        ours, least = rate[f"authface {precision}"], rate[f"floor {precision}"]
        first = min(seen[f"authface {precision}"].first)
        mine, script = above[f"authface {precision}"], above["script"]
        print(
            f"{precision}: {ours / rate['script']:.2f} times the script (goal {goal}), {100 * ours / least:.0f} % of"
            f" the floor (95), first step {first:.1f} s (8), memory above the weights"
            f" {mine / script:.2f} of the script's (0.5; {(mine - libs) / (script - libs):.2f} without the libraries)"
        )
    return {
        name: {"samples_per_s": rate[name], "first_step_s": min(one.first), "peak_bytes": one.peak,
               "above_weights_bytes": above[name]}
        for name, one in seen.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="photos, in any folders below it")
    parser.add_argument("script", type=Path, help="diffusers' train_controlnet_sdxl.py")
    parser.add_argument("--faces", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="names of contestants, with commas: floor bf16,authface bf16")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.floor:
        return floor(asked.folder, asked.size, asked.batch, asked.steps, asked.floor)
    from authface.models.families import make_tiny
    from authface.models.tiny import VAES

    every = sorted(path for path in asked.folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not every or not asked.script.is_file():
        raise SystemExit(
            f"{len(every)} photos in {asked.folder}; script {asked.script} there: {asked.script.is_file()}"
        )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.script.resolve(), asked.size, asked.batch, asked.steps)
        make_dataset(every[:: max(1, len(every) // asked.faces)][: asked.faces], asked.size, bench.work / "dataset")
        make_tiny(
            bench.work / "family", 0, asked.size, channels=CHANNELS, vae=VAES["f8c16"]
        )  # theirs has 8 px a latent
        bench.ours("fp32", Seen(), steps=1)  # fills the caches
        runs: dict[str, Callable[[Seen], None]] = {
            "script": bench.theirs,
            "authface fp32": lambda seen: bench.ours("fp32", seen),
            "floor fp32": lambda seen: bench.floor("fp32", seen),
            "authface bf16": lambda seen: bench.ours("bf16", seen),
            "floor bf16": lambda seen: bench.floor("bf16", seen),
        }
        chosen = asked.only.split(",") if asked.only else list(runs)
        seen = {name: Seen() for name in chosen}
        for _ in range(asked.rounds):
            for name in chosen:
                runs[name](seen[name])
        if len(chosen) < len(runs):
            for name, one in seen.items():
                print(f"{name:14}{one.rate(asked.batch):8.2f}/s, first {min(one.first):.1f} s, {one.peak / 1e6:.0f} MB")
            return
        found = report(seen, bench, libraries())
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
