"""What a training will take, before it starts: memory by part, steps, FLOPs, hours, and what makes it fit a GPU.

Counted, not guessed: the stage's own objective runs once on torch's meta device (see estimate.meta_pass). What FSDP2
shares and gathers is counted on its own groups of weights. Not counted: workspaces of convolutions,
what torch.compile saves, loading of images, DeepSpeed.

`fully_shard` cuts each weight along its first dimension (PyTorch documentation, `torch.distributed.fsdp`), so a weight
of fewer rows than processes lies whole on some. A group of weights is gathered together: those of each block of
`WRAPPED_BLOCKS`, and as the root's group all that are in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from authface.store.rows import row_count
from authface.train.data import FaceDataset
from authface.train.distributed import WRAPPED_BLOCKS
from authface.train.estimate import stages
from authface.train.estimate.hardware import RESERVE, GpuSpec
from authface.train.estimate.meta_pass import PassCost
from authface.train.estimate.stages import Architecture, MetaStage, size_of, vae_peak
from authface.train.settings import ControlNetSettings, DiffusionSettings, PriorSettings

Sharding = str
"""`none`: each process has a replica (DDP); `fsdp`: a part of the weights, their moments and gradients (FSDP2)."""


@dataclass(frozen=True)
class WeightShards:
    """Of one network over several processes; bytes."""

    sizes: tuple[int, ...]
    """Scalars that the fullest process has of each trained weight."""
    frozen: int
    """Bytes that it has of the weights that are not trained."""
    root: int
    """Bytes of the root's group whole: gathered from its first use in a pass to the pass's end."""
    block: int
    """Bytes of the largest other group whole."""
    root_gradients: int
    """Bytes of the gradients of the root's group whole."""
    block_gradients: int
    """The same of the largest other group."""

    @property
    def trained(self) -> int:
        """Scalars that the fullest process trains."""
        return sum(self.sizes)

    @property
    def gathered(self) -> int:
        """Bytes beside a process's own at the most: the root's group, a block, the one that is fetched ahead of its
        turn, and the buffer that it comes in."""
        return self.root + 3 * self.block

    @property
    def reducing(self) -> int:
        """Bytes of whole gradients at the most while a pass reduces them: the root's, which are done last, a block's,
        and the buffers that it and the block before are sent from."""
        return self.root_gradients + 3 * self.block_gradients


def shards_of(network: torch.nn.Module, processes: int) -> WeightShards:
    """How `network`, what the loop trains, lies on the fullest of `processes`."""
    groups = list(_groups(network))
    weights = [weight for group in groups for weight in group]
    root, blocks = groups[0], groups[1:] or [[]]
    return WeightShards(
        tuple(_part(weight, processes) for weight in weights if weight.requires_grad),
        sum(_part(weight, processes) * weight.element_size() for weight in weights if not weight.requires_grad),
        _bytes(root),
        max(map(_bytes, blocks)),
        _bytes([weight for weight in root if weight.requires_grad]),
        max(_bytes([weight for weight in block if weight.requires_grad]) for block in blocks),
    )


def _groups(network: torch.nn.Module) -> Iterator[list[torch.nn.Parameter]]:
    """The weights of the root's group, then of each block's."""
    taken: set[int] = set()
    blocks: list[list[torch.nn.Parameter]] = []
    for module in network.modules():
        if module is not network and type(module).__name__ in WRAPPED_BLOCKS:
            own = [weight for weight in module.parameters() if id(weight) not in taken]
            taken |= {id(weight) for weight in own}
            blocks.append(own)
    yield [weight for weight in network.parameters() if id(weight) not in taken]
    yield from blocks


def _part(weight: torch.nn.Parameter, processes: int) -> int:
    rows = weight.shape[0] if weight.ndim else 1
    return -(-rows // processes) * (weight.numel() // max(rows, 1))


def _bytes(weights: Sequence[torch.nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


MOMENTS = ("encoding", "backward", "step", "picture")
"""When memory may peak: faces are encoded once before training, each micro-batch, each step, each validation."""
_QUANTISED = 4096
"""Tensors of fewer weights keep float32 moments in bitsandbytes' 8-bit AdamW; larger ones a scale each 256."""
LORA_RANK = 64
"""What is proposed where nothing else makes stage I fit."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, by part, at each of `MOMENTS`."""

    parts: dict[str, dict[str, int]]
    """moment -> part -> bytes."""

    def total(self, moment: str) -> int:
        """All parts of one moment."""
        return sum(self.parts[moment].values())

    @property
    def peak(self) -> int:
        """The most there is at once."""
        return max(self.total(moment) for moment in self.parts)


@dataclass(frozen=True)
class TrainingCost:
    """One training, counted. `flops` are of one micro-batch on one GPU, weights are numbers of scalars."""

    memory: Memory
    flops: int
    trained: int
    frozen: int


class Estimator:
    """Counts trainings of one stage over one architecture; each different pass is rehearsed once.

    `half`: arithmetic in bfloat16. `processes` train together, a GPU each, as `sharding` says.
    """

    def __init__(self, architecture: Architecture, half: bool, processes: int = 1, sharding: Sharding = "none") -> None:
        self.architecture, self.half, self.processes, self.sharding = architecture, half, processes, sharding
        self._passes: dict[tuple[Any, ...], tuple[MetaStage, PassCost, int, int]] = {}

    def count(self, settings: DiffusionSettings) -> TrainingCost:
        """Memory and FLOPs of a training with these settings."""
        counted = self._counted_pass(settings)
        memory = self._sharded(settings, *counted) if self.sharding == "fsdp" else self._whole(settings, *counted)
        stage, passed, _, _ = counted
        trained = sum(p.numel() for p in stage.trained.parameters() if p.requires_grad)
        still = sum(p.numel() for m in (stage.trained, *stage.frozen) for p in m.parameters()) - trained
        return TrainingCost(memory, passed.flops, trained, still)

    def _whole(
        self, settings: DiffusionSettings, stage: MetaStage, passed: PassCost, encode: int, decode: int
    ) -> Memory:
        """Of a process that has all weights."""
        weights = [p for p in stage.trained.parameters() if p.requires_grad]
        frozen = size_of(*stage.frozen) + sum(
            p.numel() * p.element_size() for p in stage.trained.parameters() if not p.requires_grad
        )
        discriminators = sum(p.numel() for net in stage.discriminators for p in net.parameters())
        trained = sum(p.numel() for p in weights)
        gradients = 4 * (trained + discriminators)
        always = {
            "trained weights": 4 * trained,
            "frozen weights": frozen,
            "optimizer's moments": _moments([weight.numel() for weight in weights], settings.optimizer),
            "moving average": 4 * trained if settings.ema and settings.ema_device == "same" else 0,
            "discriminators, their moments": 12 * discriminators,
            "buckets of DDP": 4 * trained if self.processes > 1 else 0,
            "CUDA and its libraries": RESERVE,
        }
        return Memory(
            {
                "encoding": {
                    "frozen weights": stage.encoding, "activations": encode,
                    "discriminators, their moments": 4 * discriminators, "CUDA and its libraries": RESERVE,
                },
                "backward": {
                    **always, "gradients": passed.gradients, "copies in bfloat16": passed.copies,
                    "activations": passed.peak - passed.copies - passed.gradients,
                },
                "step": {**always, "gradients": gradients},
                "picture": {**always, "frozen weights": frozen + stage.fetched, "activations": decode},
            }
        )  # fmt: skip

    def _sharded(
        self, settings: DiffusionSettings, stage: MetaStage, passed: PassCost, encode: int, decode: int
    ) -> Memory:
        """Of a process that has a part of what is trained (FSDP2): whole are what is frozen beside it, discriminators,
        and for a while what is gathered. While batches accumulate nothing is reduced, so gradients stay whole.
        """
        shards = shards_of(stage.trained, self.processes)
        frozen = size_of(*stage.frozen)
        discriminators = sum(p.numel() for net in stage.discriminators for p in net.parameters())
        apart = min(passed.gradients, 4 * discriminators)
        reduced = (passed.gradients - apart) // self.processes + shards.reducing + apart
        whole = shards.reducing - shards.root_gradients + passed.gradients
        always = {
            "trained weights": 4 * shards.trained,
            "frozen weights": frozen + shards.frozen,
            "optimizer's moments": _moments(shards.sizes, settings.optimizer),
            "moving average": 4 * shards.trained if settings.ema and settings.ema_device == "same" else 0,
            "discriminators, their moments": 12 * discriminators,
            "CUDA and its libraries": RESERVE,
        }
        return Memory(
            {
                "encoding": {
                    "frozen weights": stage.encoding, "activations": encode,
                    "discriminators, their moments": 4 * discriminators, "CUDA and its libraries": RESERVE,
                },
                "backward": {
                    **always, "gathered weights": shards.gathered,
                    "gradients": whole if settings.accumulate > 1 else min(whole, reduced),
                    "copies in bfloat16": passed.copies,
                    "activations": passed.peak - passed.copies - passed.gradients,
                },
                "step": {**always, "gradients": 4 * (shards.trained + discriminators)},
                "picture": {
                    **always, "frozen weights": frozen + shards.frozen + stage.fetched,
                    "gathered weights": shards.gathered, "activations": decode,
                },
            }
        )  # fmt: skip

    def smaller(self, settings: DiffusionSettings) -> Iterator[tuple[dict[str, Any], TrainingCost]]:
        """Changes that make a training smaller, each with those before it: first what costs nothing, last what trains
        something else, which is tried alone too."""
        given: dict[str, Any] = {}
        for change in _changes(settings):
            if "lora_rank" in change:
                yield change, self.count(settings.model_copy(update=change))
            given = {**given, **change}
            yield given, self.count(settings.model_copy(update=given))

    def _counted_pass(self, settings: DiffusionSettings) -> tuple[MetaStage, PassCost, int, int]:
        free = {"optimizer", "ema", "ema_device", "steps", "accumulate"}
        key = (settings.accumulate > 1, settings.model_dump_json(exclude=free))
        if key not in self._passes:
            with stages.fitting(self.architecture.origin):
                self._passes[key] = self._rehearsed(settings)
        return self._passes[key]

    def _rehearsed(self, settings: DiffusionSettings) -> tuple[MetaStage, PassCost, int, int]:
        if isinstance(settings, PriorSettings):
            stage = stages.meta_prior(settings, self.architecture, self.half)
        else:
            assert isinstance(settings, ControlNetSettings)
            stage = stages.meta_controlnet(settings, self.architecture, self.half)
        passed = stage.count()
        encode = vae_peak(stage.parts, settings.batch, settings.size, decoding=False)
        decode = vae_peak(stage.parts, 1, settings.size, decoding=True)
        return stage, passed, encode, decode


@dataclass(frozen=True)
class Verdict:
    """Whether a training fits a GPU, how long it takes on as many of them as were named, and what makes it fit."""

    gpu: GpuSpec
    over: int
    """Bytes that are missing; 0 or less: it fits."""
    hours: float | None
    """None where the GPU's speed is not known."""
    changes: dict[str, Any] | None
    """Settings with which it fits; None where it fits as it is, or where nothing known here makes it fit."""


def judge(
    estimator: Estimator,
    settings: DiffusionSettings,
    counted: TrainingCost,
    gpus: tuple[GpuSpec, ...],
    utilisation: float,
) -> list[Verdict]:
    """A verdict for each of `gpus`; changes are only counted as far as the smallest of them needs."""
    tried: list[tuple[dict[str, Any], int]] = []
    more = estimator.smaller(settings)

    def changes_that_fit(room: int) -> dict[str, Any] | None:
        for changes, peak in tried:
            if peak <= room:
                return changes
        for changes, smaller in more:
            tried.append((changes, smaller.memory.peak))
            if tried[-1][1] <= room:
                return changes
        return None

    flops = counted.flops * settings.steps * settings.accumulate
    verdicts = []
    for gpu in gpus:
        over = counted.memory.peak - gpu.bytes
        known = gpu.bf16 > 0
        hours = gpu.hours(flops, estimator.half, utilisation) if known else None
        verdicts.append(Verdict(gpu, over, hours, changes_that_fit(gpu.bytes) if over > 0 else None))
    return verdicts


def count_faces(folder: Path, limit: int) -> int | None:
    """How many faces a training on `folder` sees, None where there is no such folder."""
    if not folder.is_dir():
        return None
    if shards := list(folder.glob("data/train-*.parquet")):  # read without decoding, or copying into a cache
        count = sum(map(row_count, shards))
        return min(limit, count) if limit else count
    return len(FaceDataset(folder, 64, limit))


def _moments(sizes: Sequence[int], optimizer: str) -> int:
    """Bytes of AdamW's moments of weights of so many scalars."""
    if optimizer == "adamw":
        return 8 * sum(sizes)
    return sum(8 * size if size < _QUANTISED else 2 * (size + 4 * -(-size // 256)) for size in sizes)


def _changes(settings: DiffusionSettings) -> Iterator[dict[str, Any]]:
    """What can still be changed, the cheapest first."""
    if settings.optimizer != "adamw8bit":
        yield {"optimizer": "adamw8bit"}
    if settings.ema and settings.ema_device != "cpu":
        yield {"ema_device": "cpu"}
    if not settings.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    batch, images = settings.batch, settings.batch * settings.accumulate
    while batch > 1:
        batch = next(n for n in range(batch // 2, 0, -1) if not images % n)
        yield {"batch": batch, "accumulate": images // batch}
    if isinstance(settings, PriorSettings) and not settings.lora_rank and not settings.train_text:
        yield {"lora_rank": LORA_RANK}
