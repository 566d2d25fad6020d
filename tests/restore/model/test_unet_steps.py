"""Recorded steps: the same faces from tensors that stay where they are. What CUDA does is stood in for on the CPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch.utils._pytree import tree_leaves

from authface.models.families import resolve
from authface.restore.model import unet_steps as graphs
from authface.restore.model.diffusion import DiffusionRestorer, LoadedModel
from authface.restore.model.placement import Placement, placement_of
from authface.restore.model.unet_steps import MAX_SHAPES, MIN_STEPS, CudaRecorder, Eager, Graphs, Recorded, StepInputs
from authface.restore.settings import RestoreSettings

SEEDS = [11, 5, 7]
CPU = Placement(torch.device("cpu"))
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Again:
    """A graph's stand-in: computes anew from the tensors it was recorded with, into those it made."""

    def __init__(self, function: Callable[[], Any], made: Any) -> None:
        self.function, self.made, self.replays = function, tree_leaves(made), 0

    def replay(self) -> None:
        self.replays += 1
        for own, new in zip(self.made, tree_leaves(self.function()), strict=True):
            own.copy_(new)


class Noted:
    """Records nothing but what it was asked for. As under CUDA, recording leaves no values in what is written to."""

    def __init__(self) -> None:
        self.warm = self.pairs = 0
        self.made: list[Again] = []
        self.broken = False

    def warm_up(self, function: Callable[[], object]) -> None:
        self.warm += 1
        function()

    def record(self, function: Callable[[], Any]) -> tuple[Again, Any]:
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        made = function()
        for part in tree_leaves(made):
            part.fill_(float("nan"))
        self.made.append(Again(function, made))
        return self.made[-1], made

    def concurrently(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        self.pairs += 1
        made = second()  # the other way round: neither needs the other
        return first(), made


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    photo = data.astronaut()
    return np.stack([photo[y : y + 64, 190:254] for y in (40, 90, 300)])


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    """Records on the CPU, too, where `graphs` is set."""
    noted = Noted()
    kept = Graphs(noted)
    monkeypatch.setattr(Placement, "records", property(lambda place: place.graphs))
    monkeypatch.setattr(graphs, "graphs_of", lambda unet, device: kept)
    yield noted


@pytest.fixture
def make(family: Path) -> Callable[..., DiffusionRestorer]:
    def make(place: Placement, **settings: object) -> DiffusionRestorer:
        chosen = RestoreSettings(**({"model": str(family), "steps": 8} | settings))  # type: ignore[arg-type]
        made = LoadedModel(resolve(str(family)), place).restorer(chosen)
        assert isinstance(made, DiffusionRestorer)
        return made

    return make


def step(value: float = 0.0, rows: int = 1) -> StepInputs:
    return StepInputs(torch.full((rows, 2), value), torch.tensor(9), *(torch.full((rows, 3), value) for _ in range(4)))


@pytest.mark.parametrize(
    "settings", [{}, {"guidance": 3.0}, {"reuse": 2}, {"guidance": 3.0, "reuse": 3, "scheduler": "euler"}]
)
def test_recorded_steps_give_the_same_faces(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted, settings: dict[str, Any]
) -> None:
    """Batches of two and of one; the second call, of other faces, is all replays."""
    recorded, eager = (make(replace(CPU, graphs=flag), batch=2, **settings) for flag in (True, False))
    np.testing.assert_array_equal(recorded.restore(crops, SEEDS), eager.restore(crops, SEEDS))
    names = 2 if "reuse" in settings else 1
    assert len(noted.made) == noted.warm == 2 * names  # of both batch sizes
    assert noted.pairs > 2 * 2  # ControlNet and encoder, warmed up, recorded and, here, replayed
    done = [one.replays for one in noted.made]
    assert done == [8, 8] if names == 1 else done[1::2] == [8, 8] and done[0] == -(-8 // settings["reuse"])
    other = crops[[2, 0, 1]]
    np.testing.assert_array_equal(recorded.restore(other, SEEDS), eager.restore(other, SEEDS))
    assert len(noted.made) == 2 * names


def test_a_prediction_outlives_the_next_step(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted
) -> None:
    """Solvers of higher order read earlier ones, as they are where the model predicts the sample itself."""
    recorded, eager = (make(replace(CPU, graphs=flag)) for flag in (True, False))
    for model in (recorded, eager):
        model.schedule = dict(model.schedule) | {"prediction_type": "sample"}
    np.testing.assert_array_equal(recorded.restore(crops[:1], SEEDS[:1]), eager.restore(crops[:1], SEEDS[:1]))


def test_few_steps_are_run_as_they_are_unless_they_were_recorded(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted
) -> None:
    model = make(CPU, steps=MIN_STEPS - 1)
    few = model.restore(crops[:1], SEEDS[:1])
    assert not noted.made
    model.sampling = replace(model.sampling, steps=MIN_STEPS)
    model.restore(crops[:1], SEEDS[:1])
    assert len(noted.made) == 1
    model.sampling = replace(model.sampling, steps=MIN_STEPS - 1)
    np.testing.assert_array_equal(model.restore(crops[:1], SEEDS[:1]), few)
    assert noted.made[0].replays == 2 * MIN_STEPS - 1


def test_graphs_are_known_by_shapes_kinds_and_scale_and_the_oldest_go() -> None:
    kept = Graphs(Noted())
    first = kept.run(step(), 1.0, 9)
    assert isinstance(first, Recorded) and kept.run(step(5.0), 1.0, 9) is first
    assert first("sum", lambda given: given.noisy + given.states[:, :2]).tolist() == [[10.0, 10.0]]
    first.load(torch.full((1, 2), 2.0), torch.tensor(3))
    assert first("sum", lambda given: given.noisy * 0).tolist() == [[7.0, 7.0]]  # what was recorded under this name
    assert first("time", lambda given: given.t * 1.0).tolist() == 3.0
    whole = step()._replace(t=torch.tensor(9.0))
    others = [kept.run(step(), 0.5, 9), kept.run(step(rows=2), 1.0, 9), kept.run(whole, 1.0, 9)]
    assert len({id(one) for one in (first, *others)}) == MAX_SHAPES
    assert kept.run(step(), 1.0, 1) is first  # used again: no longer the oldest
    kept.run(step(rows=3), 1.0, 9)
    assert kept.run(step(), 1.0, 1) is first and isinstance(kept.run(step(), 0.5, 1), Eager)


def test_what_was_given_is_left_alone() -> None:
    given = step(1.0)
    run = Graphs(Noted()).run(given, 1.0, 9)
    run.load(torch.zeros(1, 2), torch.tensor(1))
    assert given.noisy.tolist() == [[1.0, 1.0]] and int(given.t) == 9


def test_what_cannot_be_recorded_is_run_as_it_is_and_said_once(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted, caplog: pytest.LogCaptureFixture
) -> None:
    noted.broken = True
    recorded, eager = (make(replace(CPU, graphs=flag), reuse=2, batch=2) for flag in (True, False))
    with caplog.at_level("WARNING", "authface"):
        for _ in range(2):
            np.testing.assert_array_equal(recorded.restore(crops, SEEDS), eager.restore(crops, SEEDS))
    said = [one.getMessage() for one in caplog.records if one.name == "authface"]
    assert len(said) == noted.warm == 1 and "stream is capturing" in said[0]
    assert noted.pairs == 1  # while warming up; from then on one after the other


def test_networks_that_are_watched_are_run_as_they_are(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted
) -> None:
    model, seen = make(CPU), []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(1) if module is model.unet else None
    )
    try:
        model.restore(crops[:1], SEEDS[:1])
    finally:
        hook.remove()
    assert len(seen) == 8 and not noted.made


def test_each_step_is_told(make: Callable[..., DiffusionRestorer], crops: np.ndarray, noted: Noted) -> None:
    model, told = make(CPU, reuse=2), []
    model.on_step = lambda: told.append(1)
    model.restore(crops[:1], SEEDS[:1])
    assert len(told) == 8


def test_where_steps_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Placement(torch.device("cuda"))
    assert gpu.records and not CPU.records
    assert not any(replace(gpu, **other).records for other in ({"graphs": False}, {"compile": True}))
    assert not any(replace(gpu, offload=kind).records for kind in ("model", "sequential"))
    assert (
        placement_of(RestoreSettings(), "cpu").graphs and not placement_of(RestoreSettings(graphs=False), "cpu").graphs
    )


@CUDA
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("reuse", [1, 2])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_on_cuda_recorded_latents_are_those_of_eager_steps(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray, monkeypatch: pytest.MonkeyPatch,
    batch: int, guidance: float, reuse: int, dtype: str,
) -> None:  # fmt: skip
    gpu = Placement(torch.device("cuda"), dtype)
    latents: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    denoise = DiffusionRestorer._denoise

    def kept(model: DiffusionRestorer, *given: Any) -> torch.Tensor:
        latents[model.placement.graphs].append(denoise(model, *given).clone())
        return latents[model.placement.graphs][-1]

    monkeypatch.setattr(DiffusionRestorer, "_denoise", kept)
    for flag in latents:
        chosen = {"scheduler": "dpm++", "batch": batch, "guidance": guidance, "reuse": reuse}
        model = make(replace(gpu, graphs=flag), **chosen)
        for faces in (crops, crops[[2, 0, 1]]):  # the second all replays
            model.restore(faces, SEEDS)
        if flag:
            own = graphs.graphs_of(model.unet, gpu.device)
            assert not own._failed and [len(one._recorded) for one in own._kept.values()] == [1 if reuse == 1 else 2]
    assert len(latents[True]) == len(latents[False]) == 2 * 3 // batch
    for recorded, eager in zip(latents[True], latents[False], strict=True):
        assert float((recorded - eager).abs().max()) <= (0 if dtype == "float32" else 1e-3)


@CUDA
def test_on_cuda_more_shapes_than_are_kept_share_their_memory(
    make: Callable[..., DiffusionRestorer], crops: np.ndarray
) -> None:
    """Graphs come and go, each with its own result; a batch is replayed after others were recorded beside it."""
    gpu = Placement(torch.device("cuda"), "float32")
    recorded, eager = (make(replace(gpu, graphs=flag), reuse=2) for flag in (True, False))
    for count, fidelity in [(1, 0.5), (2, 0.5), (3, 0.5), (1, 0.2), (2, 0.2), (1, 0.5), (3, 0.5), (2, 0.5), (2, 0.2)]:
        given = [model.restore(crops[:count], SEEDS[:count], fidelity) for model in (recorded, eager)]
        assert np.abs(given[0].astype(int) - given[1]).max() <= 1
    own = graphs.graphs_of(recorded.unet, gpu.device)
    assert not own._failed and len(own._kept) == MAX_SHAPES


@CUDA
def test_on_cuda_two_functions_are_on_two_streams_and_what_follows_waits_for_both() -> None:
    recorder, streams = CudaRecorder(torch.device("cuda")), []
    given = torch.zeros(1024, 1024, device="cuda")

    def counted(times: int) -> torch.Tensor:
        streams.append(torch.cuda.current_stream().cuda_stream)
        made = given
        for _ in range(times):
            made = made + 1
        return made

    def whole() -> torch.Tensor:
        for long, short in ((200, 3), (5, 400)):  # the second pair takes the first one's memory
            one, other = recorder.concurrently(lambda n=long: counted(n), lambda n=short: counted(n))
            given.copy_(one * 2 + other)
        return given + 0

    recorder.warm_up(whole)
    graph, made = recorder.record(whole)
    assert len(set(streams)) == 2 and streams[0::2] == streams[:1] * (len(streams) // 2)
    for value in (0.0, 7.0, 1.0):
        given.fill_(value)
        graph.replay()
        assert torch.equal(made, torch.full_like(made, 9 * value + 3 * 403 + 410))


@CUDA
def test_on_cuda_graphs_go_with_their_weights(make: Callable[..., DiffusionRestorer], crops: np.ndarray) -> None:
    model = make(Placement(torch.device("cuda")))
    model.restore(crops, SEEDS)
    assert model.unet in graphs._OF
    network = weakref.ref(model.unet)
    del model
    gc.collect()
    assert network() is None
