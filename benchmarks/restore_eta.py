"""How well `authface restore` knows what is left: what photos cost, for the simulation, and a real run.

    python benchmarks/restore_eta.py costs PHOTOS FILE.csv [--model NAME]
    python benchmarks/restore_eta.py run PHOTOS OUT [-- OPTIONS OF RESTORE]

`costs` restores each photo alone and writes a row of it: its width, height, the sides of its faces' crops in its
pixels, and CPU seconds by part of the pipeline. `tests/restore/costs.csv` has those of 150 photos of 0.03
to 3 megapixels; `tests/restore/test_watch_left.py` makes folders of any size and order of them. `run` runs the real
command on a folder and tells what it says is left after 2, 5, 10, 25, 50 and 80 % of its CPU seconds, beside the truth.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np

from authface import cli
from authface.console import Console
from authface.faces.geometry import quad_side
from authface.restore import pipeline, watch
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.store.restore_line import RunState, write_state

PARTS = ("read", "detect", "align", "model", "guard", "paste", "encode")
SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.8)


class _Clock:
    """Stands for `time`: the command measures in CPU seconds of all its threads, which other programs do not change."""

    perf_counter = monotonic = staticmethod(time.process_time)
    time = staticmethod(time.time)


def _measure_by(clock: type[_Clock], *modules: ModuleType) -> None:
    """Let modules read this clock."""
    for module in modules:
        module.time = clock  # type: ignore[attr-defined]


def costs(photos: Path, file: Path, model: str) -> None:
    """A row for each photo."""
    _measure_by(_Clock, pipeline)
    session = Session(Request(RestoreSettings(model=model, report=False), device="cpu"), Console())
    with tempfile.TemporaryDirectory() as out, file.open("w", newline="") as rows:
        write = csv.writer(rows, lineterminator="\n").writerow
        write(("width", "height", "faces", *PARTS))
        jobs = jobs_of([photos], Path(out), "same")
        restore_jobs(jobs[:1], session, overwrite=True)  # what is loaded once
        for job in jobs:
            job.target.unlink(missing_ok=True)
            summary: RestoreSummary = restore_jobs([job], session, overwrite=True)
            lines = session.log(job.home).lines(job.name)
            sides = " ".join(f"{quad_side(np.reshape(line.quad, (4, 2))):.0f}" for line in lines if line.quad)
            spent = [f"{summary.seconds_by_part.get(name, 0):.4f}" for name in PARTS]  # type: ignore[call-overload]
            write((lines[0].width, lines[0].height, sides, *spent))
            rows.flush()


def run(photos: Path, out: Path, options: list[str]) -> None:
    """What is said to be left after some shares of the run, and the truth."""
    _measure_by(_Clock, pipeline, watch)
    told: list[tuple[float, RunState]] = []
    start = time.process_time()

    def noted(home: Path, state: RunState) -> None:
        told.append((time.process_time(), state))
        write_state(home, state)

    watch.write_state = noted  # type: ignore[attr-defined]
    watch.WRITE_SECONDS = 0.0
    sys.argv = ["authface", "restore", str(photos), "-o", str(out), *options]
    with suppress(SystemExit):
        cli.main()
    end = told[-1][0]
    print("| share | photos | said | truth | said / truth | by number alone |\n|---|---|---|---|---|---|")
    for share in SHARES:
        at, state = next((at, state) for at, state in told if at - start >= share * (end - start) and state.left)
        assert state.left is not None
        by_number = state.seconds / state.done * (state.photos - state.done)
        print(
            f"| {(at - start) / (end - start):.0%} | {state.done} | {state.left:.0f} s | {end - at:.0f} s "
            f"| {state.left / (end - at):.2f} | {by_number / (end - at):.2f} |"
        )


def main() -> None:
    """Measure as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["costs", "run"])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=RestoreSettings().model)
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    asked = parser.parse_args(given[:at])
    if asked.what == "costs":
        costs(asked.photos, asked.out, asked.model)
    else:
        run(asked.photos, asked.out, given[at + 1 :])


if __name__ == "__main__":
    main()
