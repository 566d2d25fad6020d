"""What a training says of itself while it runs: a line a step, a line and a picture a validation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from authface.files import write_errors, write_file
from authface.imaging.decode import encode_png
from authface.train.objective import ValidationPicture


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or validation.jsonl that are whole; a kill or a power cut may leave others."""
    return [line for _, line in _whole_lines(path)]


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a step, as it stands and what it says."""
    for text in path.read_text("utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if text.endswith("\n") and isinstance(line, dict) and isinstance(line.get("step"), int):
            yield text, line


class Metrics:
    """A JSON line a step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **values: float) -> None:
        """Append one line; infinite and missing numbers become null."""
        line = json.dumps({k: v if v == v and abs(v) != float("inf") else None for k, v in values.items()})
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def cut(self, step: int) -> None:
        """Drop what is no line, and the lines after `step`: a run that was killed wrote both after its checkpoint."""
        if self.path.is_file():
            kept = [text for text, line in _whole_lines(self.path) if line["step"] <= step]
            write_file(self.path, "".join(kept).encode())


class Logbook:
    """`folder`/metrics.jsonl, validation.jsonl, validation/*.png, and the accelerator's trackers."""

    def __init__(self, folder: Path, accelerator: Any) -> None:
        self._folder, self._accelerator = folder, accelerator
        self._steps = Metrics(folder / "metrics.jsonl")
        self._scores = Metrics(folder / "validation.jsonl")

    def cut(self, step: int, drawn: int) -> None:
        """Drop what was written after `step`, and of pictures after that of `drawn`, by a run that was killed."""
        self._steps.cut(step)
        self._scores.cut(drawn)

    def holds(self, step: int) -> bool:
        """Whether the picture after `step` was written; its figures are written before."""
        return self._picture(step).is_file()

    def write(self, step: int, values: dict[str, float]) -> None:
        """The figures of one step; the main process writes the line."""
        if self._accelerator.is_main_process:
            self._steps.write(step=step, **values)
        self._accelerator.log(values, step=step)

    def show(self, step: int, drawn: ValidationPicture | None) -> None:
        """A validation picture and its figures."""
        if drawn is None:
            return
        if drawn.scores:
            self._scores.write(step=step, **drawn.scores)
            self._accelerator.log({f"validation/{name}": value for name, value in drawn.scores.items()}, step=step)
        write_file(self._picture(step), encode_png(drawn.image))
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"validation": drawn.image[None]}, step=step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({"validation": [drawn.image]}, step=step)

    def _picture(self, step: int) -> Path:
        return self._folder / "validation" / f"step-{step:08}.png"
