"""Steps of the stock U-Net: in two halves, so that its encoder's features serve several of them, and as CUDA graphs.

The encoder's features hardly change from a step to the next, the decoder's do: Faster Diffusion (Li et al. 2023)
computes the encoder, and a ControlNet that adds to it, in some steps only. diffusers' forward always runs both halves,
so they are separated here, module by module as in `UNet2DConditionModel.forward`, for a U-Net of SDXL's shape.

On CUDA steps are recorded once as graphs and replayed: the same kernels, without the cost of launching each. A step of
SDXL's size is some thousand kernels, and at 512 px and a batch of 1 the host takes longer to launch them than the GPU
to run them. A graph works on the tensors it was recorded with: "CUDA Graphs" in PyTorch's "CUDA semantics". Most of
these kernels are too small to fill the GPU, so independent ones are recorded to run concurrently.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch

from authface.errors import first_line


class StepInputs(NamedTuple):
    """Inputs of the networks in a step: n noisy latents, and as many rows of conditions."""

    noisy: torch.Tensor
    """(n, c, h, w)"""
    t: torch.Tensor
    """The timestep, a tensor without dimensions where the latents are."""
    image: torch.Tensor
    """The ControlNet's embedding of the images."""
    states: torch.Tensor
    """Text embeddings, token by token."""
    pooled: torch.Tensor
    """Text embeddings of the whole prompt."""
    time_ids: torch.Tensor

    @property
    def added(self) -> dict[str, torch.Tensor]:
        """SDXL's conditions besides the text's states, by diffusers' names."""
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}


class Features(NamedTuple):
    """Outputs of the encoder, and inputs of the decoder once the ControlNet's residuals are added."""

    skips: tuple[torch.Tensor, ...]
    """Features of each layer of the down blocks, from the finest on."""
    middle: torch.Tensor

    def with_residuals(self, down: Sequence[torch.Tensor], mid: torch.Tensor) -> Features:
        """The features plus the ControlNet's residuals: `down`, one for each of the skips, and `mid`."""
        skips = tuple(skip + residual for skip, residual in zip(self.skips, down, strict=True))
        return Features(skips, self.middle + mid)


def encode(unet: Any, step: StepInputs) -> Features:
    """The features of the down blocks and the mid block, without a ControlNet's residuals."""
    embedded, states = _embedded(unet, step)
    sample = unet.conv_in(step.noisy)
    skips = [sample]
    for block in unet.down_blocks:
        sample, more = block(hidden_states=sample, temb=embedded, **_text_inputs(block, states))
        skips += more
    sample = unet.mid_block(sample, embedded, **_text_inputs(unet.mid_block, states))
    return Features(tuple(skips), sample)


def decode(unet: Any, features: Features, step: StepInputs) -> torch.Tensor:
    """The U-Net's prediction (n, c, h, w) from `features`, of this or an earlier step, and this step's time and text.

    The latents' sides are multiples of what the U-Net halves, as `DiffusionRestorer` sees to.
    """
    embedded, states = _embedded(unet, step)
    sample, skips = features.middle, features.skips
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, taken = skips[:-count], skips[-count:]
        text = _text_inputs(block, states)
        sample = block(hidden_states=sample, temb=embedded, res_hidden_states_tuple=taken, **text)
    if unet.conv_norm_out:
        sample = unet.conv_act(unet.conv_norm_out(sample))
    predicted: torch.Tensor = unet.conv_out(sample)
    return predicted


def _embedded(unet: Any, step: StepInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The embedding of the timestep and SDXL's conditions, and the text's states as cross-attention takes them."""
    embedded = unet.time_embedding(unet.get_time_embed(sample=step.noisy, timestep=step.t))
    given = {"encoder_hidden_states": step.states, "added_cond_kwargs": step.added}
    embedded = embedded + unet.get_aug_embed(emb=embedded, **given)
    return embedded, unet.process_encoder_hidden_states(**given)


def _text_inputs(block: Any, states: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}


T = TypeVar("T")
U = TypeVar("U")

MAX_SHAPES = 4
"""Most recently used shapes whose graphs are kept: a batch, an incomplete one, and a second fidelity of each."""
MIN_STEPS = 4
"""Recording takes about as long as this many steps, so fewer are not recorded."""
WARM_UPS = 2
"""Runs before recording, in which libraries choose their kernels and make their workspaces."""


class Graph(Protocol):
    """A recorded function."""

    def replay(self) -> None:
        """Run it again on the present contents of its inputs; results go to the tensors that `record` returned."""
        ...


class Recorder(Protocol):
    """Records graphs."""

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run it as in a recording."""
        ...

    def record(self, function: Callable[[], T]) -> tuple[Graph, T]:
        """The function as a graph, and the tensors it will write to. Raises RuntimeError if it cannot be recorded."""
        ...

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Results of two functions that may run concurrently, within a warm-up or a recording."""
        ...


class CudaRecorder:
    """Records on a stream of its own, with a second one for concurrent work.

    All its graphs share their memory, since no two of them run at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream, self._side = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._alive: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run it on the stream."""
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                function()
        now.wait_stream(self._stream)

    def record(self, function: Callable[[], T]) -> tuple[Graph, T]:
        """The function as a CUDA graph; other threads may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._alive), None)
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
        ):
            made = function()
        self._alive.add(graph)
        return graph, made

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """The first on the second stream: a branch of the graph.

        Its results are in that stream's memory, which is reused only there: after the next fork, and so after
        they are read here.
        """
        now = torch.cuda.current_stream(self._device)
        self._side.wait_stream(now)
        try:
            with torch.cuda.stream(self._side):
                one = first()
            return one, second()
        finally:
            now.wait_stream(self._side)


class StepRunner(Protocol):
    """Runs the functions of a step."""

    @property
    def recorded(self) -> bool:
        """Whether as graphs, if possible."""
        ...

    def load(self, noisy: torch.Tensor, t: torch.Tensor) -> None:
        """Go on to the next step."""
        ...

    def __call__(self, name: str, function: Callable[[StepInputs], T]) -> T:
        """The result of the function `name` on the step; its tensors are valid until it is run again."""
        ...

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Within such a function, the results of two independent ones: concurrently if possible."""
        ...


class Eager:
    """Runs functions without recording."""

    recorded = False

    def __init__(self, step: StepInputs) -> None:
        self._step = step

    def load(self, noisy: torch.Tensor, t: torch.Tensor) -> None:
        """Go on to the next step."""
        self._step = self._step._replace(noisy=noisy, t=t)

    def __call__(self, name: str, function: Callable[[StepInputs], T]) -> T:
        """The result of the function on the step."""
        return function(self._step)

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """One after the other."""
        return first(), second()


class Recorded:
    """Runs functions as graphs over one step's tensors, into which those of later steps of the same shapes are copied.

    Each function is recorded when it is first run. A function may read the results of one that was run before.
    """

    recorded = True

    def __init__(self, step: StepInputs, graphs: Graphs) -> None:
        self._step, self._graphs = StepInputs(*(part.clone() for part in step)), graphs
        self._recorded: dict[str, tuple[Graph, Any]] = {}

    def begin(self, step: StepInputs) -> None:
        """Copy all tensors of the step."""
        for own, given in zip(self._step, step, strict=True):
            own.copy_(given)

    def load(self, noisy: torch.Tensor, t: torch.Tensor) -> None:
        """Go on to the next step."""
        self._step.noisy.copy_(noisy)
        self._step.t.copy_(t)

    def __call__(self, name: str, function: Callable[[StepInputs], T]) -> T:
        """The result of the function on the step; if it cannot be recorded, it is run without."""
        if name not in self._recorded:
            recorded = self._graphs.record(lambda: function(self._step))
            if recorded is None:
                return function(self._step)
            self._recorded[name] = recorded
        graph, made = self._recorded[name]
        graph.replay()
        return made  # type: ignore[no-any-return]  # of the function of this name

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """Concurrently; one after the other if they cannot be recorded."""
        return self._graphs.concurrently(first, second)


class Graphs:
    """The graphs of one model's weights, by the shapes they were recorded for."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._kept: OrderedDict[Hashable, Recorded] = OrderedDict()
        self._failed = False

    def run(self, step: StepInputs, scale: float, steps: int) -> StepRunner:
        """How to run `steps` steps that begin with `step`; `scale`, the ControlNet's, is a number that graphs hold.

        Modules with hooks are run without recording: graphs call no hooks.
        """
        key = (scale, *((part.shape, part.dtype) for part in step))
        watched = torch.nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        if self._failed or watched:
            return Eager(step)
        if key in self._kept:
            self._kept.move_to_end(key)
            self._kept[key].begin(step)
        elif steps < MIN_STEPS:
            return Eager(step)
        else:
            self._kept[key] = Recorded(step, self)
            if len(self._kept) > MAX_SHAPES:
                self._kept.popitem(last=False)
        return self._kept[key]

    def record(self, function: Callable[[], T]) -> tuple[Graph, T] | None:
        """A graph of the function and the tensors it writes to; None after any recording has failed."""
        if self._failed:
            return None
        self._recorder.warm_up(function)
        try:
            return self._recorder.record(function)
        except RuntimeError as error:
            self._failed = True
            warning = "steps are not recorded (%s): slower, same results; restore.graphs=false says so beforehand"
            logging.getLogger("authface").warning(warning, first_line(error, 200))
            return None

    def concurrently(self, first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
        """The results of both, concurrently unless a recording failed."""
        return (first(), second()) if self._failed else self._recorder.concurrently(first, second)


_OF: WeakKeyDictionary[torch.nn.Module, Graphs] = WeakKeyDictionary()


def graphs_of(unet: torch.nn.Module, device: torch.device) -> Graphs:
    """The graphs of a U-Net on this device, shared by all restorers that use it."""
    if unet not in _OF:
        _OF[unet] = Graphs(CudaRecorder(device))
    return _OF[unet]
