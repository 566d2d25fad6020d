"""One forward and backward pass without memory or arithmetic: on torch's meta device, where tensors have shapes only.

Every operation that the real pass would do is done, so its bytes and FLOPs are counted, not guessed.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
BLOCK = 512
"""CUDA's allocator hands out multiples of so many bytes."""

_LOWER = {
    functional.linear, functional.conv2d, torch.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.addmm,
    torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__, functional.scaled_dot_product_attention,
}  # fmt: skip
_FLOAT32 = {
    functional.group_norm, functional.layer_norm, functional.mse_loss, functional.softmax, functional.softplus,
    torch.softmax, torch.Tensor.softmax,
}  # fmt: skip
"""CUDA's autocast lists, as far as the networks trained here call them (PyTorch documentation, automatic mixed
precision, op-specific behavior)."""


@dataclass(frozen=True)
class PassCost:
    """What one pass over one micro-batch takes on one GPU; bytes and FLOPs (a multiply and an add are two)."""

    kept: int
    """Bytes alive between forward and backward: what autograd keeps, with the copies of weights among them."""
    peak: int
    """The most bytes alive at once beside the weights and what else was there before, gradients included."""
    copies: int
    """Of `peak`: the weights' copies in bfloat16 that autocast makes."""
    gradients: int
    """Of `peak`: gradients of the trained weights."""
    flops: int


@dataclass(frozen=True)
class _OpResult:
    """What an operation makes of arguments of certain shapes."""

    flops: int
    tensors: tuple[tuple[Any, ...] | None, ...] | None
    """Size, stride and dtype of each, or nothing in its place; None: one is no new tensor, but a view or a change in
    place, so torch does it again each time."""
    single: bool = True
    """One tensor, not a tuple of them."""


_KNOWN_OPS: dict[Any, _OpResult] = {}
"""By operation and arguments: torch works shapes out in Python, and a network's blocks ask for the same ones over and
over."""


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Counts the FLOPs of operations, and the bytes of every storage from the operation that makes it until the last
    tensor on it is gone.

    Storages that were there before are not counted. FLOPs are torch's own formulas, those of its FlopCounterMode,
    which itself keeps what a checkpointed block recomputes and so would spoil the count of bytes.
    """

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = Counter[str]()
        """Alive now, by kind: activations, copies, gradients."""
        self.peak = Counter[str]()
        self.flops = 0
        self._kinds: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._before = weakref.WeakSet[Any](tensor.untyped_storage() for tensor in before)
        self._total = self._most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        key = _key(func, args, kwargs)
        made = None if key is None else _KNOWN_OPS.get(key)
        if made is not None and made.tensors is not None:
            new = tuple(one and _EMPTY(one[0], one[1], dtype=one[2], device=META) for one in made.tensors)
            result: Any = new[0] if made.single else new
        else:
            result = func(*args, **kwargs)
            if made is None:
                formula = flop_registry.get(func._overloadpacket)
                made = _made((args, kwargs), result, formula(*args, **kwargs, out_val=result) if formula else 0)
                if key is not None:
                    _KNOWN_OPS[key] = made
        self.flops += made.flops
        for value in (result,) if isinstance(result, torch.Tensor) else tree_flatten(result)[0]:
            if isinstance(value, torch.Tensor) and value.is_meta:
                self._meet(value)
        return result

    def mark(self, tensor: torch.Tensor, kind: str) -> None:
        """Count `tensor`'s storage as `kind`."""
        key = tensor.untyped_storage()._cdata
        if key in self._sizes:
            self.bytes[self._kinds[key]] -= self._sizes[key]
            self._kinds[key] = kind
            self.bytes[kind] += self._sizes[key]
            if self._total == self._most:  # its own making was the peak
                self.peak = self.bytes.copy()

    def _meet(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes or storage in self._before:
            return
        self._kinds[key], self._sizes[key] = "activations", -(-storage.nbytes() // BLOCK) * BLOCK
        self.bytes["activations"] += self._sizes[key]
        self._total += self._sizes[key]
        weakref.finalize(storage, self._forget, key).atexit = False
        if self._total > self._most:
            self._most, self.peak = self._total, self.bytes.copy()

    def _forget(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.bytes[self._kinds.pop(key)] -= size
        self._total -= size


_EMPTY = torch.ops.aten.empty_strided.default


def _key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the shapes of an operation's result depend on; None where it cannot be known."""
    key: list[Any] = [func]
    for value in (*args, *kwargs.items()):
        part = _part(value)
        if part is None:
            return None
        key.append(part)
    return tuple(key)


def _part(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if not value.is_meta:
            return None  # its values may count
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        parts = tuple(_part(one) for one in value)
        return None if None in parts else (type(value), parts)
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device, torch.layout)):
        return type(value), value  # 1 and 1.0 make other dtypes
    if isinstance(value, torch.memory_format):
        return torch.memory_format, str(value)
    return None


def _made(given: Any, result: Any, flops: int) -> _OpResult:
    single = isinstance(result, torch.Tensor)
    values = (result,) if single else result
    known = {value.untyped_storage()._cdata for value in tree_flatten(given)[0] if isinstance(value, torch.Tensor)}
    if not isinstance(values, tuple) or not all(value is None or _is_new(value, known) for value in values):
        return _OpResult(flops, None)
    layouts = tuple(None if value is None else (value.shape, value.stride(), value.dtype) for value in values)
    return _OpResult(flops, layouts, single)


def _is_new(value: Any, known: set[int]) -> bool:
    """Whether size, stride and dtype alone make a tensor like `value`; from then on its storage is `known`."""
    if not isinstance(value, torch.Tensor) or not value.is_meta or value.storage_offset():
        return False
    storage = value.untyped_storage()
    spanned = 1 + sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))
    shared = storage._cdata in known
    known.add(storage._cdata)
    return not shared and value.numel() > 0 and storage.nbytes() == spanned * value.element_size()


_EMULATED: list[EmulatedGpu] = []
"""Those whose block is being run, the innermost last."""


@contextmanager
def in_float32() -> Iterator[None]:
    """Within the block, as within one where a GPU's autocast is off, the emulated one is."""
    gpu = _EMULATED[-1]
    before, gpu.bf16 = gpu.bf16, False
    try:
        yield
    finally:
        gpu.bf16 = before


class EmulatedGpu(TorchFunctionMode):
    """What meta tensors lack of a GPU: attention that keeps no matrix, and, where `bf16`, CUDA's autocast.

    As there, the copy of a weight that is trained is made once and kept until the mode ends.
    """

    def __init__(self, alive: MemoryTracker, bf16: bool) -> None:
        super().__init__()
        self.alive, self.bf16 = alive, bf16
        self._copies: dict[int, torch.Tensor] = {}

    def __enter__(self) -> Self:
        _EMULATED.append(self)
        return super().__enter__()  # type: ignore[no-any-return,no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.bf16 and (func in _LOWER or func in _FLOAT32):
            cast = self._lower if func in _LOWER else _raise
            args = tuple(cast(value) for value in args)
            kwargs = {name: cast(value) for name, value in kwargs.items()}
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        self._copies.clear()
        _EMULATED.pop()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _lower(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        weight = isinstance(value, torch.nn.Parameter)
        if id(value) in self._copies:
            return self._copies[id(value)]
        lowered = value.bfloat16()
        if weight:
            self.alive.mark(lowered, "copies")
            if value.requires_grad:
                self._copies[id(value)] = lowered
        return lowered


def _raise(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, **rest: Any,
) -> torch.Tensor:  # fmt: skip
    """FlashAttention's operator: it keeps query, key, value, output and a logsumexp a row, whatever the mask."""
    made = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False)
    output: torch.Tensor = made[0]
    return output


def _checkpointing(alive: MemoryTracker, bf16: bool) -> Callable[..., Any]:
    """What diffusers' ``enable_gradient_checkpointing`` takes: the recomputation of a block has an autocast of its
    own, whose copies of the block's weights end with it."""

    def run(module: Any, *args: Any) -> Any:
        return checkpoint(
            module.__call__, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), EmulatedGpu(alive, bf16))
        )

    return run


def count_pass(
    modules: Iterable[torch.nn.Module],
    losses: Callable[[], Sequence[torch.Tensor]],
    *,
    bf16: bool,
    accumulating: bool,
    checkpointed: Iterable[torch.nn.Module] = (),
) -> PassCost:
    """Count one pass: `losses()` forward, then backward from each to every weight of `modules` that asks for gradients.

    All modules and what `losses` makes are on the meta device; where it makes nothing that asks for gradients, there
    is no backward. `accumulating`: gradients of earlier micro-batches are there from the start. Networks
    in `checkpointed` (diffusers' ``enable_gradient_checkpointing``) compute activations twice.
    """
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    alive = MemoryTracker(weights)
    for net in checkpointed:
        net.enable_gradient_checkpointing(_checkpointing(alive, bf16))  # type: ignore[operator]  # diffusers'
    trained = [tensor for tensor in weights if tensor.requires_grad]
    for tensor in trained:
        tensor.register_post_accumulate_grad_hook(lambda moved: alive.mark(moved.grad, "gradients"))  # type: ignore[no-untyped-call]
    with alive:
        if accumulating:
            for tensor in trained:
                tensor.grad = torch.empty_like(tensor)
                alive.mark(tensor.grad, "gradients")
        before = sum(alive.bytes.values())
        with EmulatedGpu(alive, bf16):
            made = list(losses())
        kept = sum(alive.bytes.values()) - before
        while made:
            if (loss := made.pop(0)).requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            del loss
    peak = alive.peak
    return PassCost(kept, sum(peak.values()), peak["copies"], peak["gradients"], alive.flops)
