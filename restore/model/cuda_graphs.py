"""Steps on CUDA, recorded once as graphs and replayed: the same kernels, without the cost of launching each.

A step of SDXL's size is some thousand kernels, and at 512 px and a batch of 1 the host takes longer to launch them than
the GPU to run them. A graph works on the tensors it was recorded with: "CUDA Graphs" in PyTorch's "CUDA semantics".
Most of these kernels are too small to fill the GPU, so independent ones are recorded to run concurrently.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch

from authface.errors import first_line
from authface.restore.model.unet_split import StepInputs

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
