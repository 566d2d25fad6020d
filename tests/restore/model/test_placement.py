"""Memory and speed: weights that wait elsewhere, tiles and compiled code give the same faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from authface.errors import AuthfaceError, UsageError
from authface.models.families import resolve
from authface.restore.model import placement
from authface.restore.model.diffusion import DiffusionRestorer, LoadedModel
from authface.restore.model.placement import Placement, placement_of, tile
from authface.restore.settings import RestoreSettings

SEEDS = [3, 4]
CPU = Placement(torch.device("cpu"))


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    photo = data.astronaut()
    return np.stack([photo[y : y + 64, 190:254] for y in (40, 90)])


@pytest.fixture
def make(family: Path) -> Callable[[Placement], DiffusionRestorer]:
    settings = RestoreSettings(model=str(family), steps=2, strength=0.5, guidance=3, batch=1)

    def make(place: Placement) -> DiffusionRestorer:
        made = LoadedModel(resolve(settings.model), place).restorer(settings)
        assert isinstance(made, DiffusionRestorer)
        return made

    return make


def levels_apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_where_channels_go_last() -> None:
    def last(place: str, dtype: torch.dtype) -> list[str]:
        networks = {name: torch.nn.Conv2d(4, 4, 3).to(dtype) for name in ("unet", "controlnet", "vae")}
        for one in networks.values():
            one.dtype = dtype  # type: ignore[assignment]  # as diffusers' models tell theirs
        parts: Any = SimpleNamespace(**networks)
        Placement(torch.device(place)).apply(parts)
        layout = torch.channels_last
        return [name for name, one in networks.items() if one.weight.is_contiguous(memory_format=layout)]

    assert last("cuda", torch.float16) == last("cpu", torch.bfloat16) == ["unet", "controlnet", "vae"]
    assert last("cuda", torch.float32) == []
    assert last("cpu", torch.float32) == ["vae"]


def test_offloaded_by_layer_no_network_keeps_weights_on_the_device(
    make: Callable[[Placement], DiffusionRestorer], crops: np.ndarray
) -> None:
    model = make(replace(CPU, offload="sequential"))
    for _ in range(2):
        for network in (model.unet, model.controlnet, model.vae):
            assert {weight.device.type for weight in network.parameters()} == {"meta"}
        given = model.restore(crops, SEEDS)
    assert levels_apart(given, make(CPU).restore(crops, SEEDS)) == 0


def test_offloaded_by_model_networks_take_turns(
    make: Callable[[Placement], DiffusionRestorer], crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device of its own name stands for the GPU: what is sent there, and when it is sent away."""
    model, moved = make(CPU), []
    here = {"vae": model.vae, "unet": model.unet, "controlnet": model.controlnet}
    for name, network in here.items():
        monkeypatch.setattr(network, "to", lambda where, name=name: moved.append((name, str(where))))
    model.placement = replace(CPU, device=torch.device("cpu:0"), offload="model")
    expected = make(CPU).restore(crops[:1], SEEDS[:1])
    assert levels_apart(model.restore(crops[:1], SEEDS[:1]), expected) == 0
    turns = [["vae"], ["unet", "controlnet"], ["vae"]]  # encode, denoise, decode
    assert moved == [(name, where) for turn in turns for where in ("cpu:0", "cpu") for name in turn]


def test_compiled_networks_are_traced_once_and_watched_from_outside(
    make: Callable[[Placement], DiffusionRestorer], crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced here, generated code left out."""
    traced: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(placement, "COMPILER", backend)
    model = make(replace(CPU, compile=True))
    seen: list[int] = []
    first = model.restore(crops[:1], SEEDS[:1])
    graphs = len(traced)
    model.unet.register_forward_hook(lambda *_: seen.append(1))
    second = model.restore(crops[1:], SEEDS[1:])
    assert graphs and len(traced) == graphs and len(seen) == 2
    assert levels_apart(np.concatenate([first, second]), make(CPU).restore(crops, SEEDS)) <= 1


def test_a_compiler_that_fails_is_one_line(
    make: Callable[[Placement], DiffusionRestorer], crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no C++ compiler")

    monkeypatch.setattr(placement, "COMPILER", broken)
    with pytest.raises(AuthfaceError, match=r"no C\+\+ compiler.*restore.compile=false"):
        make(replace(CPU, compile=True)).restore(crops, SEEDS)


def test_memory_that_falls_short_says_what_helps(
    make: Callable[[Placement], DiffusionRestorer], crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DiffusionRestorer, "_denoise", full)
    model = make(CPU)
    with pytest.raises(AuthfaceError, match="restore.offload=sequential"):
        model.restore(crops, SEEDS)
    model.sampling = replace(model.sampling, batch=4)
    with pytest.raises(AuthfaceError, match="restore.batch=2"):
        model.restore(crops, SEEDS)


def test_tiles_of_the_vae() -> None:
    """The built-in VAE on a face: its norms see a tile in place of the picture, so tiles are near, not equal."""
    from authface.models.families import load, resolve
    from authface.models.sdxl import decode, encode, to_rgb, to_signed
    from authface.restore.model.crops import wavelet_fix

    vae = load(resolve("tiny"), ["vae"], "cpu", torch.float32).vae
    photo = data.astronaut()[0:256, 100:356]
    face = to_signed(photo[None])
    with torch.inference_mode():
        latents, whole = encode(vae, face), decode(vae, encode(vae, face))
        tile(vae, 256)
        assert torch.equal(encode(vae, face), latents) and torch.equal(decode(vae, latents), whole)
        tile(vae, 128)
        sizes: list[int] = []
        vae.decoder.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[-1]))
        tiled = decode(vae, latents)
    assert max(sizes) == 16 and len(sizes) == 9
    near, exact = (wavelet_fix(to_rgb(some)[0], photo, 5).astype(int) for some in (tiled, whole))
    assert 0 < np.abs(near - exact).mean() < 4  # levels; 2.6 when this was written


def test_an_autoencoder_without_norms_is_tiled_where_its_class_can() -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    vae = AutoencoderTiny(num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1)).eval()
    latents = torch.randn(1, 4, 48, 48)
    with torch.inference_mode():
        whole = vae.decode(latents).sample
        tile(vae, 256)
        apart = (vae.decode(latents).sample - whole).abs()
    assert 0 < apart.mean() < 0.02 * whole.std()
    with pytest.raises(UsageError, match="4 latent channels, this one has 8"):
        tile(AutoencoderTiny(latent_channels=8, num_encoder_blocks=(1, 1, 1, 1)), 256)


def test_settings_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(UsageError, match="0 mps devices here"):
            placement_of(RestoreSettings(), "mps")
    monkeypatch.setattr(placement, "pick_device", torch.device)
    for name in ("cpu", "mps"):
        with pytest.raises(UsageError, match=f"restore.offload=model .* where {name} has them"):
            placement_of(RestoreSettings(offload="model"), name)
        assert placement_of(RestoreSettings(compile=True), name).home == torch.device(name)
    chosen = placement_of(RestoreSettings(offload="sequential", tiling=512), "cuda")
    assert (chosen.device.type, chosen.home, chosen.tiling) == ("cuda", "cpu", 512)
    with pytest.raises(UsageError, match="do not go together"):
        placement_of(RestoreSettings(offload="model", compile=True), "cuda")
