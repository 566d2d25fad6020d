"""The one training loop: accelerate, float32 weights, moving average, resume, validation pictures, metrics."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from authface.console import Console
from authface.errors import AuthfaceError, first_line, one_line
from authface.store.journal import record_training
from authface.train import distributed as parallel
from authface.train.data import Batch, Stream, loaded, prefetch
from authface.train.logbook import Logbook
from authface.train.objective import Noise, Objective
from authface.train.publish import write_card
from authface.train.settings import TrainSettings
from authface.train.state import (
    UNREADABLE,
    MovingAverage,
    RunFolder,
    StopSignal,
    digests_of,
    learning_rate,
    make_optimizer,
)

B = TypeVar("B", bound=Batch)


COMPILER = "inductor"
"""Backend of torch.compile."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended. `finished` is False where a signal stopped it; `loss` is the mean of the last steps."""

    out: Path
    step: int
    finished: bool
    loss: float | None


def fit(
    objective: Objective[B],
    settings: TrainSettings,
    console: Console,
    device: torch.device,
    seed: int,
    title: str,
    built_on: Mapping[str, Path],
) -> TrainingResult:
    """Train until `settings.steps`, beginning or going on; write the family to `settings.out`.

    `built_on` are the parts that were loaded and the folders of their families: a run goes on over the same weights
    only. SIGINT and SIGTERM save and end early. Raises AuthfaceError where the loss stops being finite and UsageError
    where `out` holds a run of other settings, on other faces or over other weights.
    """
    folder = RunFolder(settings.out)
    accelerator = parallel.make_accelerator(device, settings, folder.training)
    with ExitStack() as held:
        parallel.run_together(accelerator, lambda: held.enter_context(folder.lock()))
        stop = held.enter_context(StopSignal())
        together = {
            "stage": title,
            "processes": accelerator.num_processes,
            "sharing": parallel.sharing_mode(accelerator),
        }
        faces = objective.faces
        parallel.run_together(
            accelerator,
            lambda: folder.claim(settings, seed, together, len(faces), faces.content, digests_of(built_on, folder.out)),
        )
        parallel.run_together(
            accelerator,
            lambda: record_training(folder.training, faces.folder, faces.photo_ids()),
        )
        trainer = Trainer(objective, settings, accelerator, seed, folder, title)
        begun = trainer.resume()
        if 0 < begun < settings.steps:
            console.log(f"{title}: goes on from step {begun} of {settings.steps}")
        if settings.precision == "bf16" and not trainer.bf16:
            console.log(f"{title}: in float32, since this CPU has no instructions for bfloat16")
        with console.progress(title, settings.steps - begun, "steps") as tick:
            for loss in trainer.steps():
                tick(1, f"loss {loss:.4f}")
                stopping = trainer.should_stop(stop)
                trainer.save_and_validate(stopping)
                if stopping:
                    break
        return trainer.finish()


class Trainer(Generic[B]):
    """The state of one training: what fit holds between steps."""

    def __init__(
        self, objective: Objective[B], settings: TrainSettings, accelerator: Any, seed: int, folder: RunFolder,
        title: str,
    ) -> None:  # fmt: skip
        self.accelerator = accelerator
        self.objective, self.settings, self.seed, self.folder, self.title = objective, settings, seed, folder, title
        device = accelerator.device
        module = objective.trained.train()
        self.channels_last = parallel.channels_last(accelerator, settings)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)
        optimizer = make_optimizer([p for p in module.parameters() if p.requires_grad], settings, device)
        if settings.compile:
            module.compile(backend=COMPILER)  # in place: no name gets a prefix
        self.model, self.optimizer = parallel.prepare(accelerator, module, optimizer)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.ema = MovingAverage(self.parameters, settings.ema, settings.ema_device) if settings.ema else None
        if objective.auxiliaries:
            accelerator.register_for_checkpointing(*objective.auxiliaries)
        self.bf16 = settings.half(device)
        self.logbook = Logbook(folder.training, accelerator)
        self.stream = Stream(
            objective.batch, len(objective.faces), settings.batch, seed, settings.flip,
            accelerator.process_index, accelerator.num_processes,
        )  # fmt: skip
        self.step = 0
        self.losses: list[float] = []
        if accelerator.is_main_process and settings.tracker != "none":
            accelerator.init_trackers("tracker")

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one; the number of steps that are done.

        Where a kill came between it and the picture that belongs to it, that is drawn now.
        """
        found = self.folder.newest_checkpoint()
        if found is not None:
            self.step, path = found
            parallel.run_together(self.accelerator, partial(self._load, path), everywhere=True)
        undrawn = self._draws_after(self.step) and not self.logbook.holds(self.step)
        parallel.run_together(self.accelerator, partial(self.logbook.cut, self.step, self.step - undrawn))
        if undrawn:
            self._validate()
        return self.step

    def _load(self, path: Path) -> None:
        """The state of a checkpoint. Raises AuthfaceError for one that is broken or of other weights."""
        try:
            self.accelerator.load_state(str(path))
            if self.ema is not None:
                self.ema.load(path)
        except UNREADABLE as error:
            raise AuthfaceError(
                f"{one_line(path)} cannot be gone on from ({first_line(error, 120)}): it is broken, or of another"
                f" family than {one_line(self.settings.model)}; delete it, or set another out"
            ) from error

    def steps(self) -> Iterator[float]:
        """Do the steps that are left, yielding the loss of each: the mean over all processes."""
        per_step = self.settings.accumulate
        with closing(self._batches(self.step * per_step)) as batches:
            for step in range(self.step, self.settings.steps):
                rate = learning_rate(step, self.settings)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                means = self._gradient(batches, range(step * per_step, (step + 1) * per_step))
                self.optimizer.step()
                self.optimizer.zero_grad()
                for auxiliary in self.objective.auxiliaries:
                    auxiliary.step(self.accelerator)
                if self.ema is not None:
                    self.ema.step()
                self.step = step + 1
                self.losses = [*self.losses[-99:], means["loss"]]
                self.logbook.write(self.step, {**means, "lr": rate})
                yield means["loss"]

    def should_stop(self, stop: StopSignal) -> bool:
        """Whether any process was asked to stop: all of them must save after the same step."""
        if self.accelerator.num_processes == 1:
            return stop.received
        asked = torch.tensor(float(stop.received), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def save_and_validate(self, stopping: bool) -> None:
        """Save and draw where it is due: the last step and a stop always save."""
        step = self.step
        last = step == self.settings.steps
        if last or stopping or step % self.settings.save_every == 0:
            self.folder.save(step, self.accelerator, self.settings.keep, self.ema)
        if self._draws_after(step):
            self._validate()

    def _draws_after(self, step: int) -> bool:
        """Whether a validation picture belongs to the state after so many steps."""
        every = self.settings.validate_every
        return step > 0 and every > 0 and (step == self.settings.steps or step % every == 0)

    def _validate(self) -> None:
        with self.averaged():
            drawn = self.objective.picture() if self._draws() else None
        parallel.run_together(self.accelerator, partial(self.logbook.show, self.step, drawn))

    def finish(self) -> TrainingResult:
        """Write the family if all steps are done, and close the trackers."""
        finished = self.step >= self.settings.steps
        if finished:
            with self.averaged():
                parallel.unshard(self.accelerator, self.objective.trained)
                if self.channels_last:
                    self.objective.trained.to(memory_format=torch.contiguous_format)
                parallel.run_together(self.accelerator, self._write)
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        return TrainingResult(self.settings.out, self.step, finished, mean)

    def _write(self) -> None:
        """The whole family with its card."""
        self.objective.write(self.settings.out)
        write_card(self.settings.out, self.settings, self.title, self.seed, self.objective.faces)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in place of the weights, in eval mode and not compiled, within the block."""
        with parallel.resharded(self.model), ExitStack() as undo:
            if self.ema is not None:
                self.ema.store()
                self.ema.copy_to()
                undo.callback(self.ema.restore)
            self.objective.trained.eval()
            undo.callback(self.objective.trained.train)
            undo.enter_context(torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext())
            with torch.no_grad(), self.autocast():
                yield

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 arithmetic where the settings ask for it."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16)

    def _draws(self) -> bool:
        """Whether this process draws pictures: the main one, or all where each holds a part of the weights."""
        return bool(self.accelerator.is_main_process) or parallel.sharing_mode(self.accelerator) == "fsdp"

    def _batches(self, first: int) -> Generator[B]:
        """The batches of this process from number `first` on, each read while the one before is trained on."""
        order = range(first, self.settings.steps * self.settings.accumulate)
        workers = self.settings.loader_workers
        if workers is None:
            cores = (os.cpu_count() or 2) // self.accelerator.num_processes
            workers = 0 if self.accelerator.device.type == "cpu" else max(1, cores // 2)
        if not workers:
            return prefetch(self.stream.__getitem__, order)
        return loaded(self.stream.__getitem__, order, workers)

    def _gradient(self, batches: Iterator[B], numbers: range) -> dict[str, float]:
        """Sum the gradients of a step's batches, counted by `numbers` over the run, and clip them.

        Means over all processes, and the norm before. Raises AuthfaceError where the loss or the norm is not finite.
        """
        losses: list[torch.Tensor] = []
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=self.accelerator.device))
        for number in numbers:
            batch = next(batches).to(self.accelerator.device)
            last = number == numbers[-1]
            self.accelerator.sync_gradients = last
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.autocast():
                    random = Noise(self.seed, self.stream.positions(number))
                    loss = self.objective.loss(self.model, batch, random, self.step)
                losses.append(loss.total.detach().float())
                for name, value in loss.parts.items():
                    sums[name] = sums[name] + value.detach().float() / len(numbers)
                if last:  # before the last backward: DeepSpeed changes the weights in it
                    table = self.accelerator.gather(torch.stack(losses)[None])
                    if not bool(torch.isfinite(table).all()):
                        parallel.run_together(self.accelerator, partial(self._not_finite, table, math.nan, numbers))
                self.accelerator.backward(loss.total)
            if loss.critic is not None:
                (loss.critic / len(numbers)).backward()  # type: ignore[no-untyped-call]
        parts = self.accelerator.gather(torch.stack(list(sums.values()))[None]).mean(0).tolist() if sums else []
        found = self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip)
        norm = math.nan if found is None else float(found)
        if found is not None and not math.isfinite(norm):
            parallel.run_together(self.accelerator, partial(self._not_finite, table, norm, numbers))
        return {"loss": float(table.mean()), **dict(zip(sums, parts, strict=True)), "gradient_norm": norm}

    def _not_finite(self, table: torch.Tensor, norm: float, numbers: range) -> None:
        """Write down the faces of the step and raise the error; `table` holds losses (processes, batches)."""
        named: list[dict[str, Any]] = []
        for process, row in enumerate(table.tolist()):
            for number, loss in zip(numbers, row, strict=True):
                draws = replace(self.stream, process=process).draws(number)
                names = [self.objective.faces.id(draw.index) for draw in draws]
                named.append({"loss": loss if math.isfinite(loss) else str(loss), "process": process, "ids": names})
        raise self.folder.not_finite(self.step + 1, self.settings.lr, norm, named)
