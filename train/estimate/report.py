"""An estimate as text for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from authface.console import render_table
from authface.train.estimate.estimate import MOMENTS, Sharding, TrainingCost, Verdict
from authface.train.settings import DiffusionSettings

GIB = 2**30
TITLES = {"prior": "stage I, prior", "controlnet": "stage II, controlnet"}


@dataclass(frozen=True)
class Report:
    """One estimate with all that it depends on; `stage` is ``prior`` or ``controlnet``."""

    stage: str
    origin: str
    """Where the architecture is from."""
    settings: DiffusionSettings
    half: bool
    processes: int
    sharding: Sharding
    utilisation: float
    counted: TrainingCost
    faces: int | None
    verdicts: Sequence[Verdict]

    @property
    def images_a_step(self) -> int:
        """The whole batch."""
        return self.settings.batch * self.settings.accumulate * self.processes

    @property
    def epochs(self) -> float | None:
        """Passes over the dataset; None where the number of faces is not known."""
        return self.images_a_step * self.settings.steps / self.faces if self.faces else None

    @property
    def flops_a_step(self) -> int:
        """On all GPUs together."""
        return self.counted.flops * self.settings.accumulate * self.processes

    def as_json(self) -> dict[str, Any]:
        """All figures; bytes, scalars, TFLOPs, hours."""
        s, c = self.settings, self.counted
        return {
            "stage": self.stage, "architecture": self.origin, "processes": self.processes, "sharding": self.sharding,
            "precision": "bf16" if self.half else "fp32", "utilisation": self.utilisation,
            "trained": c.trained, "frozen": c.frozen,
            "steps": s.steps, "micro_batches": s.steps * s.accumulate, "images_a_step": self.images_a_step,
            "faces": self.faces, "epochs": self.epochs, "tflops_a_step": self.flops_a_step / 1e12,
            "tflops_a_micro_batch": c.flops / 1e12,
            "memory": c.memory.parts, "peak": c.memory.peak,
            "on": [
                {
                    "gpu": v.gpu.name, "memory": v.gpu.bytes, "fits": v.over <= 0, "over": max(0, v.over),
                    "hours": v.hours, "changes": None if v.changes is None else _overrides(self.stage, v.changes),
                }
                for v in self.verdicts
            ],
        }  # fmt: skip

    def to_text(self) -> str:
        """Tables of memory and of GPUs."""
        return "\n".join([*self._head(), "", *self._memory(), "", *self._work(), "", *self._gpus()])

    def _head(self) -> list[str]:
        s, c = self.settings, self.counted
        batch = " x ".join(
            [f"batch {s.batch}", *([f"accumulate {s.accumulate}"] if s.accumulate > 1 else []),
             *([f"{self.processes} GPUs"] if self.processes > 1 else [])]
        )  # fmt: skip
        still = f", {c.frozen / 1e6:,.1f} M frozen" if c.frozen else ""
        return [
            f"{TITLES[self.stage]}: {self.origin}",
            f"{c.trained / 1e6:,.1f} M weights trained{still}; {'bf16' if self.half else 'fp32'}, {s.optimizer}"
            + (", gradient checkpointing" if s.gradient_checkpointing else "")
            + (", weights in parts (FSDP2)" if self.sharding == "fsdp" else ""),
            f"{s.size} px, {batch} = {self.images_a_step} images a step",
        ]

    def _memory(self) -> list[str]:
        memory = self.counted.memory
        order = [name for name in _ORDER if any(memory.parts[moment].get(name) for moment in MOMENTS)]
        rows = [["GiB on each GPU", *MOMENTS]]
        rows += [[name, *(_gib(memory.parts[m].get(name, 0)) for m in MOMENTS)] for name in order]
        rows.append(["together", *(_gib(memory.total(m)) for m in MOMENTS)])
        lines = _table(rows)
        lines.append(f"peak {memory.peak / GIB:.1f} GiB; {_MOMENTS_EXPLAINED}")
        return lines

    def _work(self) -> list[str]:
        s = self.settings
        epochs = "epochs need the number of faces: --faces N" if self.epochs is None else f"{self.epochs:,.1f} epochs"
        seen = f" of {self.faces:,} faces" if self.faces else ""
        return [
            f"{s.steps:,} optimizer steps, {s.steps * s.accumulate:,} micro-batches a GPU,"
            f" {s.steps * self.images_a_step:,} images, {epochs}{seen}",
            f"{self.flops_a_step / 1e12:,.2f} TFLOP a step, {self.flops_a_step * s.steps / 1e18:,.2f} EFLOP in all",
        ]

    def _gpus(self) -> list[str]:
        many = f"{self.processes} x " if self.processes > 1 else ""
        rows = [["GPU", "GiB", "hours", "fits"]]
        for v in self.verdicts:
            fits = "yes" if v.over <= 0 else f"no, {v.over / GIB:.1f} GiB over"
            hours = "?" if v.hours is None else f"{v.hours:,.1f}"
            rows.append([many + v.gpu.name, f"{v.gpu.bytes / GIB:.1f}", hours, fits])
        lines = _table(rows, left=(0, 3))
        lines.append(f"hours at {self.utilisation:.0%} of the dense peak, an assumption; --utilisation sets another")
        for v in self.verdicts:
            if v.over > 0:
                shared = "--sharding fsdp, or " if self.processes > 1 and self.sharding == "none" else ""
                lines.append(f"to fit {v.gpu.name}: {shared}{self._how(v.changes)}")
        return lines

    def _how(self, changes: dict[str, Any] | None) -> str:
        if changes is None:
            return "a smaller size or a larger GPU: all other changes known here are not enough"
        return " ".join(f"-O {change}" for change in _overrides(self.stage, changes))


_ORDER = (
    "trained weights", "frozen weights", "optimizer's moments", "moving average", "discriminators, their moments",
    "buckets of DDP", "gathered weights", "gradients", "copies in bfloat16", "activations", "CUDA and its libraries",
)  # fmt: skip
_MOMENTS_EXPLAINED = "encoding: once, before the first step; backward: each micro-batch; picture: each validation"


def _overrides(stage: str, changes: dict[str, Any]) -> list[str]:
    """As they are written after ``-O``."""
    return [
        f"train.{stage}.{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in changes.items()
    ]


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}" if count else "-"


def _table(rows: list[list[str]], left: Collection[int] = (0,)) -> list[str]:
    """Lines of a table whose first row is its header."""
    return render_table(rows[0], rows[1:], right=set(range(len(rows[0]))) - set(left)).splitlines()
