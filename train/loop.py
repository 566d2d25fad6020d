"""The one training loop: accelerate, float32 weights, moving average, resume, validation pictures, metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from authface.errors import AuthfaceError, one_line
from authface.files import write_file
from authface.images import encode_png
from authface.train.critic import Critic
from authface.train.data import Batch, Draw, Faces, Stream
from authface.train.picture import Drawn
from authface.train.settings import TrainSettings
from authface.train.state import Metrics, RunFolder, Stop
from authface.uses import record_training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authface.console import Console

B = TypeVar("B", bound=Batch)
B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)


@dataclass(frozen=True)
class Loss:
    """What one batch says. `total` (scalar) leads what is trained, `critic` (scalar) the discriminators.

    `parts` are figures to log beside their sum.
    """

    total: torch.Tensor
    critic: torch.Tensor | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol[B]):
    """What is trained, on what, towards what: the loop knows nothing else of a stage."""

    @property
    def trained(self) -> torch.nn.Module:
        """The module whose weights move, in float32; its forward is called through `loss`'s `model`."""
        ...

    @property
    def critic(self) -> Critic | None:
        """Discriminators that learn beside it."""
        ...

    @property
    def faces(self) -> Faces:
        """The dataset."""
        ...

    @property
    def count(self) -> int:
        """Faces in the dataset."""
        ...

    def batch(self, draws: Sequence[Draw]) -> B:
        """Read the faces of `draws`, on the CPU: runs in a loader's process."""
        ...

    def loss(self, model: torch.nn.Module, batch: B, random: torch.Generator, step: int) -> Loss:
        """The loss of step 0, 1, ...; all randomness comes from `random`, a CPU generator."""
        ...

    def picture(self) -> Drawn:
        """Fixed samples of the state of training, and figures of them."""
        ...

    def write(self, out: Path) -> None:
        """Make `out` a whole family with the trained part in it."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a training ended. `finished` is False where a signal stopped it; `loss` is the mean of the last steps."""

    out: Path
    step: int
    finished: bool
    loss: float | None


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of step 0, 1, ...: a linear rise over `warmup` steps, then constant or half a cosine to zero."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit(
    objective: Objective[B], settings: TrainSettings, console: Console, device: torch.device, seed: int, title: str
) -> Outcome:
    """Train until `settings.steps`, beginning or going on; write the family to `settings.out`.

    SIGINT and SIGTERM save and end early. Raises AuthfaceError where the loss stops being finite and UsageError
    where `out` holds a run of other settings.
    """
    folder = RunFolder(settings.out)
    with folder.lock(), Stop() as stop:
        folder.claim(settings, seed)
        record_training(folder.training, objective.faces.folder, objective.faces.photo_ids())
        trainer = Trainer(objective, settings, device, seed, folder)
        begun = trainer.resume()
        if 0 < begun < settings.steps:
            console.log(f"{title}: goes on from step {begun} of {settings.steps}")
        with console.progress(title, settings.steps - begun, "steps") as tick:
            for loss in trainer.steps():
                tick(1, f"loss {loss:.4f}")
                stopping = trainer.agree(stop)
                trainer.after(stopping)
                if stopping:
                    break
        return trainer.end()


class Trainer(Generic[B]):
    """The state of one training: what fit holds between steps."""

    def __init__(
        self, objective: Objective[B], settings: TrainSettings, device: torch.device, seed: int, folder: RunFolder
    ) -> None:
        from accelerate import Accelerator
        from diffusers.training_utils import EMAModel

        if device.type == "cuda":
            torch.cuda.set_device(device)
        tracker = None if settings.tracker == "none" else settings.tracker
        self.accelerator = Accelerator(cpu=device.type == "cpu", log_with=tracker, project_dir=str(folder.training))
        self.objective, self.settings, self.seed, self.folder = objective, settings, seed, folder
        self.parameters = [p for p in objective.trained.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.model, self.optimizer = self.accelerator.prepare(objective.trained.train(), optimizer)
        self.ema = EMAModel(self.parameters, decay=settings.ema, foreach=True) if settings.ema else None
        if self.ema is not None:
            self.accelerator.register_for_checkpointing(self.ema)
        if objective.critic is not None:
            self.accelerator.register_for_checkpointing(objective.critic)
        self.bf16 = settings.half(device)
        self.metrics = Metrics(folder.training / "metrics.jsonl")
        self.scores = Metrics(folder.training / "validation.jsonl")
        self.step = 0
        self.losses: list[float] = []
        if self.accelerator.is_main_process and tracker:
            self.accelerator.init_trackers("tracker")

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one; the number of steps that are done."""
        found = self.folder.newest_checkpoint()
        if found is not None:
            self.step, path = found
            self.accelerator.load_state(str(path))
            if self.ema is not None:
                self.ema.to(self.accelerator.device)
        self.metrics.cut(self.step)
        self.scores.cut(self.step)
        return self.step

    def steps(self) -> Iterator[float]:
        """Do the steps that are left, yielding the loss of each."""
        per_step = self.settings.accumulate
        batches = iter(self._loader(self.step * per_step))
        for step in range(self.step, self.settings.steps):
            rate = learning_rate(step, self.settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sums: defaultdict[str, float] = defaultdict(float)
            for part in range(per_step):
                batch = next(batches).to(self.accelerator.device)
                last = part == per_step - 1
                for name, value in self._backward(batch, step, part, last).items():
                    sums[name] += value / per_step
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.objective.critic is not None:
                self.objective.critic.step(self.accelerator)
            if self.ema is not None:
                self.ema.step(self.parameters)
            self.step = step + 1
            self.losses = [*self.losses[-99:], sums["loss"]]
            self._log({**sums, "lr": rate, "gradient_norm": float(norm)})
            yield sums["loss"]

    def agree(self, stop: Stop) -> bool:
        """Whether any process was asked to stop: all of them must save after the same step."""
        if self.accelerator.num_processes == 1:
            return stop.asked
        asked = torch.tensor(float(stop.asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def after(self, stopping: bool) -> None:
        """Save and draw where it is due: the last step and a stop always save."""
        step = self.step
        last = step == self.settings.steps
        if last or stopping or step % self.settings.save_every == 0:
            self.folder.save(step, self.accelerator, self.settings.keep)
        every = self.settings.validate_every
        if every and (last or step % every == 0) and self.accelerator.is_main_process:
            with self.averaged():
                drawn = self.objective.picture()
            write_file(self.folder.training / "validation" / f"step-{step:08}.png", encode_png(drawn.image))
            self._show(drawn)

    def end(self) -> Outcome:
        """Write the family if all steps are done, and close the trackers."""
        finished = self.step >= self.settings.steps
        if finished and self.accelerator.is_main_process:
            with self.averaged():
                self.objective.write(self.settings.out)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        return Outcome(self.settings.out, self.step, finished, mean)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in place of the weights, in eval mode, within the block."""
        if self.ema is not None:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        self.objective.trained.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield
        finally:
            self.objective.trained.train()
            if self.ema is not None:
                self.ema.restore(self.parameters)

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 arithmetic where the settings ask for it."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16)

    def _loader(self, first: int) -> Any:
        stream = Stream(
            self.objective.batch,
            self.objective.count,
            self.settings.batch,
            self.seed,
            self.settings.flip,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        order = range(first, self.settings.steps * self.settings.accumulate)
        workers = self.settings.loader_workers
        if workers is None:
            import os

            workers = 0 if self.accelerator.device.type == "cpu" else max(1, (os.cpu_count() or 2) // 2)
        return torch.utils.data.DataLoader(stream, batch_size=None, sampler=order, num_workers=workers)  # type: ignore[arg-type]  # a map-style dataset by its method

    def _backward(self, batch: B, step: int, part: int, last: bool) -> dict[str, float]:
        """Add the gradient of one batch; its place in the run seeds the noise."""
        number = step * self.settings.accumulate + part
        entropy = np.random.SeedSequence((self.seed, number, self.accelerator.process_index)).generate_state(1)[0]
        random = torch.Generator().manual_seed(int(entropy))
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            with self.autocast():
                loss = self.objective.loss(self.model, batch, random, step)
            value = float(loss.total.detach())
            if not math.isfinite(value):
                ids = ", ".join(one_line(name, 70) for name in batch.ids[:4]) + (", ..." if len(batch.ids) > 4 else "")
                raise AuthfaceError(
                    f"the loss is {value} at step {self.step + 1} on {ids}: lower lr (now {self.settings.lr:g}) or take"
                    f" precision fp32; {self.folder.describe_newest()}"
                )
            self.accelerator.backward(loss.total / self.settings.accumulate)
        if loss.critic is not None:
            (loss.critic / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
        return {"loss": value, **loss.parts}

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.metrics.write(step=self.step, **values)
        self.accelerator.log(values, step=self.step)

    def _show(self, drawn: Drawn) -> None:
        """The picture and its figures for the trackers, and a line in validation.jsonl."""
        if drawn.scores:
            self.scores.write(step=self.step, **drawn.scores)
            self.accelerator.log({f"validation/{name}": value for name, value in drawn.scores.items()}, step=self.step)
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"validation": drawn.image[None]}, step=self.step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({"validation": [drawn.image]}, step=self.step)
