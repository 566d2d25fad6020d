"""What a training says of itself while it runs: a line a step, figures and pictures, for files and trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from authface.files import write_file
from authface.imaging.decode import encode_png
from authface.train.picture import Drawn
from authface.train.state import Metrics


class Logbook:
    """`folder`/metrics.jsonl, validation.jsonl, validation/*.png, and the accelerator's trackers."""

    def __init__(self, folder: Path, accelerator: Any) -> None:
        self._folder, self._accelerator = folder, accelerator
        self._steps = Metrics(folder / "metrics.jsonl")
        self._scores = Metrics(folder / "validation.jsonl")

    def cut(self, step: int) -> None:
        """Drop what was written after `step`, by a run that was killed."""
        self._steps.cut(step)
        self._scores.cut(step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """The figures of one step; the main process writes the line."""
        if self._accelerator.is_main_process:
            self._steps.write(step=step, **values)
        self._accelerator.log(values, step=step)

    def show(self, step: int, drawn: Drawn | None) -> None:
        """A validation picture and its figures."""
        if drawn is None:
            return
        write_file(self._folder / "validation" / f"step-{step:08}.png", encode_png(drawn.image))
        if drawn.scores:
            self._scores.write(step=step, **drawn.scores)
            self._accelerator.log({f"validation/{name}": value for name, value in drawn.scores.items()}, step=step)
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"validation": drawn.image[None]}, step=step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({"validation": [drawn.image]}, step=step)
