"""What a training goes on from, and what moves the weights in it.

On disk are its settings and checkpoints; here is also how a signal stops it. What moves the weights are the
optimizers, their learning rate, and the moving average that becomes the model.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from authface.devices import rank
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.extras import need
from authface.files import TEMPORARY, refusal, take_place, write_errors, write_file
from authface.models.layout import digest
from authface.recipe import Settings
from authface.store.journal import SOURCES
from authface.store.lock import write_lock
from authface.train.distributed import run_together
from authface.train.settings import TrainSettings


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    """`settings.optimizer` over `parameters`. Raises UsageError where its package or device is missing."""
    rates = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        if device.type != "cuda":
            raise UsageError(f"optimizer adamw8bit needs CUDA, this is {device.type}: set optimizer = adamw")
        need("optimizer adamw8bit", "8bit", "bitsandbytes")
        import bitsandbytes

        made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(parameters, **rates)
        return made
    return torch.optim.AdamW(parameters, **rates, fused=device.type in {"cpu", "cuda"})  # type: ignore[arg-type]  # mypy joins the values' types


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of step 0, 1, ...: a linear rise over `warmup` steps, then constant or half a cosine to zero."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


_BEGUN = {"faces": int, "content": str, "built_on": dict}
"""What run.json says beside plain facts, by its type."""


class MovingAverage:
    """After update n (1, 2, ...): average + (1 - d) (weights - average), with d = min(decay, n / (9 + n)).

    The rise of d is that of diffusers' EMAModel, except that d is 0 at the first update: the average of one is itself.
    With `device` `cpu` the average lies in the machine's memory and a step copies the weights there.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], decay: float, device: Literal["same", "cpu"] = "same"
    ) -> None:
        self.decay, self.device, self.updates = decay, device, 0
        self._parameters = list(parameters)
        self._sharded = any(hasattr(parameter, "to_local") for parameter in self._parameters)
        self._average = [self._near(weights).clone() for weights in self._weights()]
        self._stored: list[torch.Tensor] | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Take the weights in, once a training step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (9 + self.updates)) if self.updates > 1 else 0.0
        torch._foreach_lerp_(self._average, [self._near(weights) for weights in self._weights()], 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Keep the weights aside, in the machine's memory, until `restore`."""
        self._stored = [weights.to("cpu", copy=True) for weights in self._weights()]

    @torch.no_grad()
    def copy_to(self) -> None:
        """Put the average in place of the weights."""
        torch._foreach_copy_(self._weights(), self._average)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights of `store` back."""
        if self._stored is None:
            raise RuntimeError("restore without store")
        torch._foreach_copy_(self._weights(), self._stored)
        self._stored = None

    def state_dict(self) -> dict[str, Any]:
        """The average, of this process's part, and how many updates it has seen."""
        return {"updates": self.updates, "average": self._average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.updates = int(state["updates"])
        torch._foreach_copy_(self._average, list(state["average"]))

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint: one file, or one a process where each holds a part."""
        if self._sharded or rank() == 0:
            torch.save(self.state_dict(), self._path(folder))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self.load_state_dict(torch.load(self._path(folder), map_location="cpu", weights_only=True))

    def _path(self, folder: Path) -> Path:
        return folder / (f"average-{rank()}.pt" if self._sharded else "average.pt")

    def _weights(self) -> list[torch.Tensor]:
        return [_local(parameter) for parameter in self._parameters]

    def _near(self, weights: torch.Tensor) -> torch.Tensor:
        return weights.to("cpu") if self.device == "cpu" else weights


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that lies in this process, sharing its memory."""
    data = parameter.detach()
    local: torch.Tensor = data.to_local() if hasattr(data, "to_local") else data
    return local


CHANGEABLE = {
    "steps", "save_every", "keep", "validate_every", "validate_count", "validate_steps", "tracker", "loader_workers",
    "cache", "dataset", "out",
}  # fmt: skip
"""Settings that may differ when a run goes on. Its own folder and the dataset may have moved; faces are compared."""


ONE_PROCESS: dict[str, int | str] = {"processes": 1, "sharing": "copies"}
"""What run.json means where it does not name these."""


UNREADABLE = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, pickle.UnpicklingError,
    SafetensorError, CheckpointException,
)  # fmt: skip
"""What torch, safetensors and accelerate raise of a checkpoint's file that is not what was saved."""


def digests_of(parts: Mapping[str, Path], out: Path) -> dict[str, str]:
    """The digest of each part in its family's folder, but of those that the run itself writes, to `out`."""
    there = out.resolve()
    return {part: digest(folder, (part,)) for part, folder in parts.items() if folder.resolve() != there}


class RunFolder:
    """`out`/training: run.json, sources.json, checkpoints/step-00000500/, metrics.jsonl, validation/."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.training = out / "training"
        self.checkpoints = self.training / "checkpoints"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder: a second training in it ends with one line. Raises AuthfaceError."""
        return write_lock(self.training)

    def claim(
        self,
        settings: TrainSettings,
        seed: int,
        together: dict[str, int | str],
        faces: int = 0,
        content: str = "",
        built_on: Mapping[str, str] | None = None,
    ) -> None:
        """Write run.json; `together` is the stage and how processes share it, `content` the digest of its `faces`.

        `built_on` are digests of the weights it was begun over, by part. Raises UsageError where the folder holds a
        run of other settings, on other faces or over other weights.
        """
        path = self.training / "run.json"
        weights = dict(built_on or {})
        on = {"faces": faces, "content": content, "built_on": weights}
        new: dict[str, Any] = {"seed": seed, **together, **on, "settings": json.loads(settings.model_dump_json())}
        if path.is_file() and self.newest_checkpoint() is not None:
            now = {**together, "seed": seed}
            old = {**now, **ONE_PROCESS, **self._begun(path)}  # runs of older versions do not say all
            facts = [(name, old.get(name), value) for name, value in now.items()]
            for name, before, value in [*facts, *_leaves(settings, type(settings)(), old.get("settings"))]:
                if name not in CHANGEABLE and before != value:
                    raise UsageError(
                        f"{one_line(self.out)} was begun with {name} {one_line(before, 60)}, now {one_line(value, 60)}:"
                        f" set another out, or delete {one_line(self.training)} to begin anew"
                    )
            if old.get("content", content) != content:  # runs of older versions do not say
                raise UsageError(
                    f"{one_line(self.out)} was begun on {old['faces']:,} faces, and {one_line(settings.dataset)} has "
                    f"{faces:,} others now: set another out (with model={one_line(self.out)} to go on from its weights)"
                    f", or delete {one_line(self.training)} to begin anew"
                )
            began: dict[str, str] = {**weights, **old.get("built_on", {})}  # runs of older versions do not say
            if other := next((part for part in weights if began[part] != weights[part]), None):
                raise UsageError(
                    f"{one_line(self.out)} was begun over another {other} than that of {one_line(settings.model)} now:"
                    f" set another out, or delete {one_line(self.training)} to begin anew"
                )
        write_file(path, json.dumps(new, indent=2).encode())

    def _begun(self, path: Path) -> dict[str, Any]:
        """What run.json says the run was begun with. Raises AuthfaceError where it is broken."""
        try:
            held = {"faces": 0, **json.loads(path.read_text("utf-8"))}
            for name, kind in _BEGUN.items():
                if not isinstance(held.get(name, kind()), kind):
                    raise ValueError(f"{name} is {held[name]!r}")
            return held
        except (OSError, ValueError, TypeError) as error:
            raise AuthfaceError(
                f"{one_line(path)} is broken ({first_line(error, 80)}): delete it to go on with the settings given now,"
                f" or delete {one_line(self.training)} to begin anew"
            ) from error

    def newest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and folder of the last whole checkpoint."""
        found = self._all()
        return found[-1] if found else None

    def describe_newest(self) -> str:
        """Which checkpoint there is to return to, in a few words."""
        found = self.newest_checkpoint()
        return f"the last good checkpoint is of step {found[0]}" if found else "there is no checkpoint yet"

    def not_finite(self, step: int, rate: float, norm: float, batches: list[dict[str, Any]]) -> AuthfaceError:
        """Write stopped.json for a step whose loss or whose gradient's `norm` is not finite; the error to raise.

        `batches` hold loss, process and ids.
        """
        bad = next((batch for batch in batches if isinstance(batch["loss"], str)), None)
        path = self.training / "stopped.json"
        told = {"step": step, "lr": rate, "gradient_norm": str(norm), "batches": batches}
        write_file(path, json.dumps(told, indent=2).encode())
        named = (bad or batches[0])["ids"]
        ids = ", ".join(one_line(name, 70) for name in named[:4]) + (", ..." if len(named) > 4 else "")
        what = f"gradient's norm is {norm}" if bad is None else f"loss is {bad['loss']}"
        return AuthfaceError(
            f"the {what} at step {step} on {ids}: lower lr (now {rate:g}) or take precision fp32; "
            f"{self.describe_newest()}; all faces of the step: {one_line(path)}"
        )

    def save(self, step: int, accelerator: Any, keep: int, average: MovingAverage | None) -> None:
        """Save the full state (weights, optimizer, moving average, random states); older than `keep` are deleted.

        All processes call it. Raises AuthfaceError where the disk refuses: what was saved before is still there.
        """
        temporary = self.checkpoints / f"{TEMPORARY}{step}"

        def begin() -> None:
            with write_errors(self.checkpoints):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)

        def write() -> None:
            with self._refusals(temporary):
                accelerator.save_state(str(temporary))
                if average is not None:
                    average.save(temporary)

        run_together(accelerator, begin)
        run_together(accelerator, write, everywhere=True)
        run_together(accelerator, lambda: self._finish(temporary, step, keep))

    def _finish(self, temporary: Path, step: int, keep: int) -> None:
        with self._refusals(temporary):
            if (sources := self.training / SOURCES).is_file():
                shutil.copyfile(sources, temporary / SOURCES)
            target = self.checkpoints / f"step-{step:08}"
            if target.exists():
                take_place(target, self.checkpoints / f"{TEMPORARY}{secrets.token_hex(6)}")
            take_place(temporary, target)
            for _, old in self._all()[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
            for left in self.checkpoints.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _refusals(self, temporary: Path) -> Iterator[None]:
        """Raise a refusal of the disk, by torch or safetensors, as one line; the partial checkpoint is deleted."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(self.out).free / 1e6
            raise AuthfaceError(
                f"cannot write a checkpoint to {one_line(self.checkpoints)}, {free:.0f} MB are free there: "
                f"{refusal(error)}; {self.describe_newest()}"
            ) from error

    def _all(self) -> list[tuple[int, Path]]:
        if not self.checkpoints.is_dir():
            return []
        named = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in self.checkpoints.iterdir())
        return sorted((int(match[1]), path) for match, path in named if match)


def _leaves(new: Settings, defaults: Settings, old: object) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value in `old` and value now of every setting, as JSON has them; `old` is what run.json says.

    What an older version's run.json lacks had no choice but what is now the default.
    """
    known = old if isinstance(old, dict) else {}
    values, usual = json.loads(new.model_dump_json()), json.loads(defaults.model_dump_json())
    for name in type(new).model_fields:
        inner = getattr(new, name)
        if isinstance(inner, Settings):
            for leaf, before, value in _leaves(inner, getattr(defaults, name), known.get(name)):
                yield f"{name}.{leaf}", before, value
        else:
            yield name, known.get(name, usual[name]), values[name]


class StopSignal:
    """`received` turns True at SIGINT or SIGTERM; a second signal acts as usual."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
