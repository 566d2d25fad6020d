"""Photos a second and memory of `authface restore` by its number of processes: runs in turns, so that all see one load.

    python benchmarks/spread.py PHOTOS WORK [--devices cpu:1 cpu:2] [--rounds 3] [-- OPTIONS OF RESTORE]

Prints for each a line: median photos a second of the whole command and without its start, the least and the most, and
the peak memory of a worker and of the process that writes. The results of all runs must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One run."""

    seconds: float
    """Of the run as the command counts them, without its imports."""
    whole: float
    cpu: float
    """Seconds of CPU of all its processes."""
    writer_mb: float
    worker_mb: float
    """Largest of the workers; 0 where there is none."""


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process so far; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in text.splitlines() if line.startswith("VmHWM")), 0.0)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


def children(pid: int) -> list[int]:
    """Processes that any thread of a process started and that are there: a film's workers begin in one of their own."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended
            found += map(int, listed.read_text().split())
    return found


def run(photos: Path, out: Path, device: str, options: list[str]) -> Measured:
    """Restore all photos by `device`, watched."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-P", "-m", "authface.cli", "restore", str(photos), "-o", str(out), "--json"]
    start = time.monotonic()
    memory: dict[int, float] = {}
    cpu: dict[int, float] = {}
    with subprocess.Popen([*command, "--device", device, *options], stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while process.poll() is None:
                for pid in (process.pid, *children(process.pid)):
                    memory[pid] = max(memory.get(pid, 0), peak_mb(pid))
                    cpu[pid] = max(cpu.get(pid, 0), cpu_seconds(pid))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = process.communicate()[0]
        watcher.join()
    if process.returncode not in {0, 3}:
        raise SystemExit(f"{device}: exit code {process.returncode}")
    workers = [mb for pid, mb in memory.items() if pid != process.pid]
    whole = time.monotonic() - start
    return Measured(json.loads(said)["seconds"], whole, sum(cpu.values()), memory[process.pid], max(workers, default=0))


def digest(out: Path) -> str:
    """Of all results, by name."""
    found = hashlib.sha256()
    for path in sorted(out.iterdir()):
        if path.is_file() and path.suffix not in {".jsonl", ".html"}:
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--devices", nargs="+", default=["cpu:1", "cpu:2"])
    parser.add_argument("--rounds", type=int, default=3)
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    asked, options = parser.parse_args(given[:at]), given[at + 1 :]
    count = sum(path.is_file() for path in asked.photos.iterdir())
    found: dict[str, list[Measured]] = {device: [] for device in asked.devices}
    digests = set[str]()
    for _ in range(asked.rounds):
        for device in asked.devices:
            found[device].append(run(asked.photos, asked.work / "out", device, options))
            digests.add(digest(asked.work / "out"))
            print(device, found[device][-1], file=sys.stderr, flush=True)
    for device, runs in found.items():
        rates = sorted(count / one.seconds for one in runs)
        print(
            f"{device}: {statistics.median(rates):.2f} photos/s ({rates[0]:.2f} to {rates[-1]:.2f}), "
            f"{statistics.median(one.cpu for one in runs) / count:.2f} CPU s a photo, "
            f"{max(one.worker_mb for one in runs):.0f} MB a worker, "
            f"{max(one.writer_mb for one in runs):.0f} MB the writer"
        )
    print("results: the same" if len(digests) == 1 else "results: DIFFER")


if __name__ == "__main__":
    main()
