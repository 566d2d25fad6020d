"""Training on a machine that is lent for minutes: faces and weights go there in small parts, and a family comes back.

    python benchmarks/away.py pack DATASET FAMILY parts/ [--network FILE] [--megabytes 60] [--channels 16]
    # carry parts/, one file at a time if need be, and this checkout; there:
    python benchmarks/away.py train parts/ back/ --minutes 25 [--stage cleaner=2 --stage controlnet=3] [-O NAME=VALUE]
    python benchmarks/away.py train parts/ back/ --stage autoencoder=2 --stage prior=3 --stage controlnet=2  # wider VAE
    # carry back/family home; killed or cut off, the same command goes on

`pack` writes the dataset's faces as JPEG in Parquet files of at most so many megabytes, each a whole file of the
dataset, beside `family.tar` and, for losses on pixels, the network's weights: 5,012 faces of 256 px are five files.
`--channels` gives the family's latents more channels (see widen.py), for its VAE, U-Net and ControlNet to learn.

`train` shares the minutes among the stages. Each first runs `--probe` steps to see how fast the machine is, then as
many as fit into its share, so that a learning rate which falls to zero does so in time. It begins from the family's own
weights, the second stage over what the first made, and `back/family` is the last one's, whole, in float16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from widen import widen

QUALITY = 95
"""Of the JPEG files: their error, of 45 dB and more, is far below what a restorer is asked to mend."""
STAGES = {
    "autoencoder": (),
    "prior": (),
    "cleaner": ("begin_from", "pixels.weights"),
    "controlnet": ("begin_from", "pixels.weights"),
}
"""Stages, and which of the settings that name packed files they have."""
SPLITS = ("train", "validation", "test")
SPARE = 20.0
"""Seconds of a stage's share that its start and its last write take."""


def pack(dataset: Path, family: Path, out: Path, megabytes: int, network: Path | None, channels: int) -> None:
    """Write the parts. Ends the program where one is larger than it may be."""
    limit = megabytes * 1_000_000
    (out / "dataset" / "data").mkdir(parents=True, exist_ok=True)
    for path in dataset.iterdir():
        if path.is_file():
            shutil.copy(path, out / "dataset")
    for split in SPLITS:
        paths = sorted((dataset / "data").glob(f"{split}-*.parquet"))
        for number, table in enumerate(parts(_tables(paths), limit)):
            name = f"{paths[0].stem.rpartition('-')[0]}-{number:05d}.parquet"  # as the dataset's card has it
            pq.write_table(table, out / "dataset" / "data" / name, row_group_size=100)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(out / "family.tar", "w") as tar:
        if channels:
            widen(str(family), Path(folder) / "wide", channels)
            family = Path(folder) / "packed"
            authface("models", "pack", Path(folder) / "wide", "-o", family, "--dtype", "float16")
        tar.add(family, "family", filter=lambda entry: None if "/training" in entry.name else entry)
    if network is not None:
        shutil.copy(network, out / "network.safetensors")
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size / 1e6:7.1f} MB  {path.relative_to(out)}")
        if path.stat().st_size > limit:
            sys.exit(f"{path} is larger than {megabytes} MB: pack the family with --dtype float16, or allow more")


def _tables(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Some rows at a time, their images as JPEG."""
    for path in paths:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(100):
            rows = pa.Table.from_batches([batch], file.schema_arrow)
            images = [{**image, "bytes": as_jpeg(image["bytes"])} for image in rows["image"].to_pylist()]
            place = rows.schema.get_field_index("image")
            yield rows.set_column(place, rows.schema.field(place), pa.array(images, rows.schema.field(place).type))


def as_jpeg(data: bytes) -> bytes:
    """An image file as JPEG, its colours in full resolution."""
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return bytes(cv2.imencode(".jpg", pixels, options)[1])


def parts(tables: Iterator[pa.Table], limit: int) -> Iterator[pa.Table]:
    """Tables joined up to nine tenths of `limit` bytes each: JPEG bytes do not shrink in Parquet."""
    held: list[pa.Table] = []
    for table in tables:
        if held and sum(one.nbytes for one in (*held, table)) > 0.9 * limit:
            yield pa.concat_tables(held)
            held = []
        held.append(table)
    if held:
        yield pa.concat_tables(held)


def train(given: argparse.Namespace) -> None:
    """Unpack, train each stage for its share of the minutes, and pack the family. Ends the program where one fails."""
    work = given.out / "work"
    if not (work / "family").is_dir():
        shutil.copytree(given.parts / "dataset", work / "dataset", dirs_exist_ok=True)
        with tarfile.open(given.parts / "family.tar") as tar:
            tar.extractall(work, filter="data")
    family = work / "family"
    files = {"begin_from": family, "pixels.weights": (given.parts / "network.safetensors").resolve()}
    total = sum(share for _, share in given.stage)
    for stage, share in given.stage:
        packed = [f"train.{stage}.{name}={files[name]}" for name in STAGES[stage] if files[name].exists()]
        options = [f"train.{stage}.model={family}", *packed, *given.option]
        family = run_stage(stage, work, options, 60 * given.minutes * share / total, given.probe)
    shutil.rmtree(given.out / "family", ignore_errors=True)
    authface("models", "pack", family, "-o", given.out / "family", "--dtype", "float16")


def run_stage(stage: str, work: Path, options: Sequence[str], seconds: float, probe: int) -> Path:
    """The family that a stage makes in so many seconds, those of earlier runs counted."""
    out, ledger = work / stage, work / f"{stage}.json"
    known = json.loads(ledger.read_text("utf-8")) if ledger.is_file() else {}
    common = [f"train.{stage}.out={out}", f"train.{stage}.save_every=100", f"train.{stage}.tracker=none", *options]
    if "steps" not in known:
        took = [timed_run(stage, work, [*common, f"train.{stage}.steps={steps}"]) for steps in (probe, 2 * probe)]
        rate = probe / max(took[1] - took[0] / 2, 1e-3)  # the second run has no caches to make
        known["steps"] = 2 * probe + max(1, int(rate * (seconds - sum(took) - SPARE)))
        ledger.write_text(json.dumps(known), "utf-8")
        print(f"{stage}: {rate:.2f} steps/s, {known['steps']} steps in {seconds:.0f} s", flush=True)
    timed_run(stage, work, [*common, f"train.{stage}.steps={known['steps']}"])
    return out


def timed_run(stage: str, work: Path, options: Sequence[str]) -> float:
    """Seconds that `authface train` took."""
    start = time.monotonic()
    settings = [word for option in options for word in ("-O", option)]
    authface("train", stage, work / "dataset", "--recipe", "tiny", *settings)
    return time.monotonic() - start


def authface(*words: object) -> None:
    """Run the command; ends the program where it fails."""
    done = subprocess.run([sys.executable, "-m", "authface.cli", *map(str, words)])
    if done.returncode:
        sys.exit(f"authface {words[0]} {words[1]} ended with {done.returncode}; the same command goes on")


def share_of(text: str) -> tuple[str, float]:
    """``cleaner=2``: a stage and its share."""
    stage, _, share = text.partition("=")
    if stage not in STAGES or not (value := float(share or 1)) > 0:
        raise argparse.ArgumentTypeError(f"{text}: {', '.join(STAGES)}, and a share above 0")
    return stage, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("dataset", type=Path)
    packing.add_argument("family", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--network", type=Path)
    packing.add_argument("--megabytes", type=int, default=60)
    packing.add_argument("--channels", type=int, default=0, help="of the family's latents, more than it has")
    training = commands.add_parser("train")
    training.add_argument("parts", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--minutes", type=float, default=25)
    training.add_argument("--stage", type=share_of, action="append")
    training.add_argument("--probe", type=int, default=60)
    training.add_argument("-O", dest="option", action="append", default=[])
    given = parser.parse_args()
    if given.command == "pack":
        pack(given.dataset, given.family, given.out, given.megabytes, given.network, given.channels)
    else:
        given.stage = given.stage or [("cleaner", 2.0), ("controlnet", 3.0)]
        train(given)


if __name__ == "__main__":
    main()
