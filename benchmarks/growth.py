"""What a photo set costs as it grows: each command's CPU seconds and peak memory at 10,000, 100,000, 1,000,000 photos.

    python benchmarks/growth.py SEED OUT [--rows 10000 100000 1000000] [--only status 'curate split'] [--limit 1800]

SEED is a small photo set that went through fetch, filter, align, tags, split and export. OUT/N gets its rows again and
again until there are N photos, each time with other ids, addresses, hashes and embeddings (two copies are as little
alike as two people; within a copy all stays as it was); its files are hard links. The tables are therefore what the
commands would have written, and the commands find nothing to decode: what is measured is what grows with rows. Each
runs in a process of its own; `x` is how many times the seconds of the row before it takes, where linear is the ratio
of the photos. Steps that look at every photo's pixels are linear by construction: see docs/scale.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from resource import RLIMIT_CPU, setrlimit
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from authface.store.photoset import PartMeta, PhotoSet, Table
from authface.store.rows import arrow_schema

PLACE = re.compile(r"([0-9a-f]{2}/)?([0-9a-f]{64})")
"""An id, or the folder and the name of a file that is called after it."""
DIGEST = re.compile(r"[0-9a-f]{64}")
HASH_BITS = 144
LICENCE = "CC BY 4.0"


@dataclass(frozen=True)
class Copy:
    """One more copy of the seed's rows: what becomes of an id, a hash, an embedding."""

    number: int
    ids: Mapping[str, str]
    """New ids by those of the seed, in the same order: of two equal photos the one whose id comes first is kept."""
    middle: NDArray[np.float64]
    """Mean of the seed's embeddings: what all faces have in common stays."""
    listed: str
    """The list that names its photos."""

    @classmethod
    def of(cls, number: int, seed: Sequence[str], middle: NDArray[np.float64], listed: Path) -> Copy:
        new = sorted(sha256(f"{number}:{name}") for name in seed)
        return cls(number, dict(zip(sorted(seed), new, strict=True)), middle, str(listed.absolute()))

    def text(self, pieces: Sequence[str | None]) -> str:
        """A text, as `PLACE` cuts it, with the copy's ids and files named after them."""
        made = list(pieces)
        made[2::3] = [self.ids[name] for name in pieces[2::3] if name]
        made[1::3] = [new and folder and f"{new[:2]}/" for folder, new in zip(pieces[1::3], made[2::3], strict=True)]
        return "".join(piece or "" for piece in made)

    def rows(self, rows: Sequence[str | None]) -> list[dict[str, Any]]:
        """The copy's rows: two copies' hashes differ at random, their embeddings by which way each differs from all."""
        rng = np.random.default_rng(self.number)
        mask = int.from_bytes(rng.bytes(HASH_BITS // 8))
        signs = rng.choice([-1.0, 1.0], 1024)
        made: list[dict[str, Any]] = json.loads(self.text(rows))
        for row in made:
            if row.get("hash"):
                row["hash"] = f"{int(row['hash'], 16) ^ mask:0{HASH_BITS // 4}x}"
            if row.get("embedding"):
                own = self.middle + signs[: len(self.middle)] * (row["embedding"] - self.middle)
                row["embedding"] = (own / np.linalg.norm(own)).tolist()
            if "source_id" in row:
                row |= {"source": "urls", "source_id": address(row["id"]), "file_url": address(row["id"])}
                row["statements"] = [said | {"by": self.listed} for said in row["statements"]]
        return made


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def address(photo_id: str) -> str:
    return f"https://photos.example/{photo_id}"


def grow(seed: PhotoSet, target: PhotoSet, photos: int) -> None:
    """Write `target`: copies of `seed` until it has about that many photos."""
    shutil.copy(seed.root / "recipe.toml", target.root / "recipe.toml")
    tables = {name: table for name, table in seed.tables().items() if name != "people"}
    texts = {name: [(PLACE.split(json.dumps(table.arrow(at).to_pylist())), table.meta(at)) for at in table.parts()]
             for name, table in tables.items()}  # fmt: skip
    files = [(seed.root / file, PLACE.split(file)) for name in ("photos", "crops") for file in named(tables[name])]
    names = [name for part in seed.photos.parts() for (name,) in seed.photos.columns(part, ["id"])]
    middle = np.mean([row.embedding for row in seed.embeddings if row.embedding is not None], axis=0)
    for number in range(round(photos / len(names))):
        copy = Copy.of(number, sorted(set(names)), middle, list_of(target))
        digests = dict[str, str]()
        for name in sorted(texts, key=order):
            to = Table(target.root / "tables" / name, tables[name].row_type)
            for place, (pieces, meta) in enumerate(texts[name]):
                assert meta is not None, f"{name}: not a part"
                rows = copy.rows(pieces)
                inputs = moved(meta.inputs, digests) + (repeats(rows) if name == "faces" else "")
                new = replace(meta, inputs=inputs, digest=sha256(f"{number}:{meta.digest}"))
                digests[meta.digest] = new.digest
                put(to, number * len(texts[name]) + place, rows, new)
        for file, pieces in files:
            link(file, target.root / copy.text(pieces))


def order(name: str) -> int:
    """Tables after those they were made from."""
    names = ("photos", "measured", "faces", "crops")
    return names.index(name) if name in names else len(names)


def moved(inputs: str, digests: dict[str, str]) -> str:
    """The digest of the copy in place of the seed's. That of `curate split` is left out: a grown set is split anew."""
    return "".join(digests[name] for name in DIGEST.findall(inputs)[:1])


def repeats(faces: list[dict[str, Any]]) -> str:
    """What `curate filter` writes behind the digest of a part with near duplicates, for copies without others."""
    found = {row["id"]: (row["duplicate_of"], int(row["value"])) for row in faces if row["duplicate_of"]}
    return hashlib.sha256(json.dumps([found]).encode()).hexdigest() if found else ""


def named(table: Table[Any]) -> Iterator[str]:
    for part in table.parts():
        yield from (file for (file, status) in table.columns(part, ["file", "status"]) if file and status == "kept")


def put(table: Table[Any], part: int, rows: list[dict[str, Any]], meta: PartMeta) -> None:
    table.put(part, pa.Table.from_pylist(rows, schema=arrow_schema(table.row_type)), meta)


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)


def list_of(photoset: PhotoSet) -> Path:
    """Where the list of all photos of a grown set lies."""
    return photoset.root.with_suffix(".csv")


def listed(photoset: PhotoSet, path: Path) -> None:
    """A list of all photos of the set, as `curate fetch --from urls` reads it."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "licence"])
        for part in photoset.photos.parts():
            writer.writerows(photoset.photos.columns(part, ["file_url", "licence"]))


def commands(root: Path, photo: str) -> dict[str, list[str]]:
    """What is measured, in this order: the later ones change the set."""
    again = ["-O", "curate.filter.max_noise=8"]
    size = ["-O", f"curate.align.size={PhotoSet(root).remembered('curate.align')['size']}"]
    return {
        "status": ["status", str(root)],
        "why PHOTO": ["why", str(root), photo],
        "curate fetch (all there)": ["curate", "fetch", str(root), "--from", "urls", str(list_of(PhotoSet(root)))],
        "curate filter (done)": ["curate", "filter", str(root), "--workers", "1"],
        "curate filter --sweep": ["curate", "filter", str(root), "--sweep"],
        "curate align (done)": ["curate", "align", str(root), "--workers", "1", *size],
        "annotate tags (done)": ["annotate", "tags", str(root), "--with", "measured", "--workers", "1"],
        "curate split": ["curate", "split", str(root), "--workers", "1"],
        "curate split (done)": ["curate", "split", str(root), "--workers", "1"],
        "curate balance": ["curate", "balance", str(root)],
        "curate report": ["curate", "report", str(root)],
        "curate credits": ["curate", "credits", str(root)],
        "annotate export --format manifest": ["annotate", "export", str(root), "--format", "manifest"],
        "annotate rebuild (nothing there)": [
            "annotate",
            "rebuild",
            str(root / "exports" / "manifest"),
            f"{root}-again",
        ],
        "curate forget PHOTO": ["curate", "forget", str(root), photo],
        "curate filter (judged anew)": ["curate", "filter", str(root), "--workers", "1", *again],
    }


@dataclass(frozen=True)
class Cost:
    """Of one process: user and system seconds, MB at its peak, its exit status."""

    seconds: float
    megabytes: float
    status: int


def cost(arguments: list[str], log: Path, limit: int) -> Cost:
    """Run one command of authface, `limit` CPU seconds at most. What it prints goes behind what is in `log`."""
    command = [sys.executable, "-P", "-m", "authface.cli", *arguments]
    with log.open("a") as file:
        print("$ authface", *arguments, file=file, flush=True)
        running = subprocess.Popen(
            command, stdout=file, stderr=file, preexec_fn=partial(setrlimit, RLIMIT_CPU, (limit, limit))
        )
        _, status, used = os.wait4(running.pid, 0)
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, os.waitstatus_to_exitcode(status))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", nargs="+", default=[""], help="commands that begin so")
    parser.add_argument("--limit", type=int, default=3600, help="CPU seconds a command; then it is killed")
    options = parser.parse_args()
    seed, found = PhotoSet.open(options.seed), dict[str, dict[int, Cost]]()
    for rows in options.rows:
        target = PhotoSet(options.out / str(rows))
        if not target.photos.parts():
            target.root.mkdir(parents=True, exist_ok=True)
            grow(seed, target, rows)
        if not (path := list_of(target)).exists():
            listed(target, path)
        photo = target.photos.columns(0, ["id"])[0][0]
        for name, arguments in commands(target.root, photo).items():
            if name.startswith(tuple(options.only)):
                made = cost(arguments, options.out / f"{rows}.log", options.limit)
                found.setdefault(name, {})[rows] = made
                print(
                    f"{rows:>9,} {name:<36} {made.seconds:8.1f} s {made.megabytes:6.0f} MB  exit {made.status}",
                    flush=True,
                )
    print("| Command |" + "".join(f" {rows:,} |" for rows in options.rows))
    print("|---|" + "---|" * len(options.rows))
    for name, costs in found.items():
        print(f"| `{name}` |" + "".join(f" {cell} |" for cell in cells(costs)))


def cells(costs: dict[int, Cost]) -> Iterator[str]:
    """Seconds and memory at each number of photos, in brackets against those at the number before."""
    before: Cost | None = None
    for made in costs.values():
        times = f" ({made.seconds / before.seconds:.1f}x)" if before else ""
        yield f"{made.seconds:.1f} s{times}, {made.megabytes:.0f} MB"
        before = made


if __name__ == "__main__":
    main()
