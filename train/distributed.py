"""Several processes as one training: accelerate's process groups, sharding, and failures that end all of them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from authface import devices
from authface.errors import AuthfaceError, UsageError
from authface.extras import need
from authface.train.settings import TrainSettings

T = TypeVar("T")

TIMEOUT = timedelta(hours=1)
"""How long the processes wait for each other: one encodes a larger share, or draws a picture."""

WRAPPED_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
"""Classes of diffusers whose weights FSDP gathers and drops together."""


def barrier(device: torch.device) -> None:
    """Wait for all processes of the launch, whose group begins here. Does nothing in a single process."""
    if devices.world_size() > 1:
        if not torch.distributed.is_initialized():
            atexit.register(_leave)  # not at the end of a training: another may follow in these processes
        PartialState(cpu=device.type == "cpu", timeout=TIMEOUT).wait_for_everyone()


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def shard(items: Sequence[T]) -> list[T]:
    """This process's part of work that each item needs once: neighbours, so that what lies together is read together.

    The same on every call, and together all of it.
    """
    rank, count = devices.rank(), devices.world_size()
    return list(items[len(items) * rank // count : len(items) * (rank + 1) // count])


def run_together(accelerator: Any, action: Callable[[], object], *, everywhere: bool = False) -> None:
    """Do `action` on the main process, or on all; where it fails on one, all of them end.

    The process that failed raises its AuthfaceError; the others end silently with its exit code.
    """
    failure: AuthfaceError | None = None
    if everywhere or accelerator.is_main_process:
        try:
            action()
        except AuthfaceError as error:
            failure = error
    code = 0 if failure is None else failure.exit_code
    if accelerator.num_processes > 1:
        code = int(accelerator.gather(torch.tensor([code], device=accelerator.device)).max())
    if failure is not None:
        raise failure
    if code:
        raise SystemExit(code)


def make_accelerator(device: torch.device, settings: TrainSettings, folder: Path) -> Any:
    """Accelerate's Accelerator as the launcher's configuration asks for it. Raises UsageError for
    settings that do not go together."""
    if settings.tracker != "none":
        extra = "train" if settings.tracker == "tensorboard" else settings.tracker
        need(f"tracker {settings.tracker}", extra, settings.tracker)
    barrier(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        gradient_accumulation_steps=settings.accumulate,
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=str(folder),
    )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and device.type == "cpu":
        _shard_on_cpu(accelerator)
    if accelerator.distributed_type == "FSDP":
        if not accelerator.is_fsdp2:
            raise UsageError("fsdp_version 1 shards in a way that resume does not know: set fsdp_version: 2")
        if settings.channels_last:
            raise UsageError("channels_last = true does not go with FSDP, which shards rows: set it to false")
    if accelerator.distributed_type == "DEEPSPEED":
        _deepspeed(accelerator, settings)
    return accelerator


def sharing_mode(accelerator: Any) -> str:
    """`copies`, `fsdp` or `deepspeed`: how the processes share a training, which its checkpoints depend on."""
    kind = str(accelerator.distributed_type.value).lower()
    return kind if kind in {"fsdp", "deepspeed"} else "copies"


def channels_last(accelerator: Any, settings: TrainSettings) -> bool:
    """Whether images are laid out with their channels side by side."""
    return accelerator.distributed_type != "FSDP" if settings.channels_last is None else settings.channels_last


def prepare(accelerator: Any, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """The module and its optimizer as the processes share them."""
    if accelerator.distributed_type == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        present = {type(part).__name__ for part in module.modules()}
        plugin.transformer_cls_names_to_wrap = [name for name in WRAPPED_BLOCKS if name in present]
        plugin.auto_wrap_policy = transformer_auto_wrap_policy if plugin.transformer_cls_names_to_wrap else None
    model, optimizer = accelerator.prepare(module, optimizer)
    return model, optimizer


@contextmanager
def resharded(model: torch.nn.Module) -> Iterator[None]:
    """Within the block weights may be replaced: what FSDP keeps gathered is dropped before, and again at its end."""
    _reshard(model)
    try:
        yield
    finally:
        _reshard(model)


def unshard(accelerator: Any, model: torch.nn.Module) -> None:
    """Make a sharded model an ordinary one again on the main process, in place; all processes call it at the end."""
    if accelerator.distributed_type != "FSDP":
        return
    full = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return
    for prefix, part in model.named_modules():
        if FSDPModule in type(part).__bases__:
            part.__class__ = type(part).__bases__[1]
            part._forward_pre_hooks.clear()
            part._forward_hooks.clear()
        for name, old in list(part._parameters.items()):
            if old is not None:
                new = full[f"{prefix}.{name}" if prefix else name].to(accelerator.device)
                part._parameters[name] = torch.nn.Parameter(new, requires_grad=old.requires_grad)


def _reshard(model: torch.nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _shard_on_cpu(accelerator: Any) -> None:
    """Accelerate reads FSDP's configuration on CPUs and then does not shard; torch does, so the state is set."""
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState().distributed_type = DistributedType.FSDP


def _deepspeed(accelerator: Any, settings: TrainSettings) -> None:
    """What DeepSpeed wants to know before its engine is made, from the settings: it clips and accumulates itself."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage > 2:
        raise UsageError(f"DeepSpeed's ZeRO stage {stage}, where 2 is the most: for sharded weights take fsdp.yaml")
    config.update(
        train_micro_batch_size_per_gpu=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        gradient_clipping=settings.clip,
        torch_autocast={"enabled": settings.half(accelerator.device), "dtype": "bfloat16"},
    )
