"""Estimates: counted figures against counts by hand and against real passes on the CPU; what is said of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from authface.cli import app
from authface.errors import AuthfaceError, UsageError
from authface.faces.degrade import mixture
from authface.models import sdxl
from authface.models.cleaner import make_cleaner
from authface.models.families import Parts
from authface.models.tiny import VAE, VAES, unet_config
from authface.options import SECTIONS
from authface.recipe import builtin_recipes, load
from authface.train import cli as train_cli
from authface.train.controlnet import ControlBatch, ControlNetObjective, init_controlnet
from authface.train.estimate import hardware, meta_pass
from authface.train.estimate.estimate import LORA_RANK, Estimator, TrainingCost, count_faces, judge, shards_of
from authface.train.estimate.hardware import RESERVE, GpuSpec, known_as
from authface.train.estimate.meta_pass import META, EmulatedGpu, MemoryTracker, count_pass, in_float32
from authface.train.estimate.stages import SDXL_UNET, Architecture, find_architecture, meta_controlnet, size_of
from authface.train.losses.critic import ComponentDiscriminator
from authface.train.losses.pixels import PixelTerms
from authface.train.objective import Noise
from authface.train.settings import ControlNetSettings, DiffusionSettings, PriorSettings

SIZE = 64
MANY = 512 * 1000
"""Copies are counted in blocks of 512 bytes: so much more for a thousand of them."""


@pytest.fixture(scope="module")
def tiny() -> Architecture:
    return find_architecture("new", SIZE, {})


@pytest.fixture(scope="module")
def estimator(tiny: Architecture) -> Estimator:
    return Estimator(tiny, half=True)


def prior(**given: Any) -> PriorSettings:
    return PriorSettings(size=SIZE, **given)


def controlnet(**given: Any) -> ControlNetSettings:
    return ControlNetSettings(size=SIZE, **given)


def weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("driver", "known"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"), ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None), ("NVIDIA L4", "L4"), ("NVIDIA L40", None), ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10", None), ("NVIDIA A10G", None), ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-PCIE-40GB", "A100-80"), ("NVIDIA A100 80GB PCIe", "A100-80"), ("NVIDIA A1000", None),
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 NVL", None), ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200", "H200"), ("NVIDIA H200 NVL", None), ("NVIDIA GH200 480GB", None),
    ],
)  # fmt: skip
def test_a_gpu_is_known_by_whole_words_of_its_drivers_name(driver: str, known: str | None) -> None:
    found = known_as(driver)
    assert (found.name if found else None) == known


def test_sdxl_has_its_published_numbers_of_weights() -> None:
    parts = find_architecture("sdxl", 1024, {}).parts(text=True)
    assert weights(parts.unet) == 2_567_463_684
    with META:
        assert weights(ControlNetModel.from_unet(parts.unet)) == 1_251_014_160
    assert weights(parts.vae) == 83_653_863
    assert [weights(parts.text_encoder), weights(parts.text_encoder_2)] == [123_060_480, 694_659_840]


def linear(bf16: bool, accumulating: bool = False) -> Any:
    with META:
        layer = torch.nn.Linear(256, 512, bias=False)

    def losses() -> list[torch.Tensor]:
        with META:
            return [layer(torch.empty(128, 256)).square().sum()]

    return count_pass([layer], losses, bf16=bf16, accumulating=accumulating)


def test_one_layer_is_counted_as_by_hand() -> None:
    weight, inputs, outputs = 256 * 512, 128 * 256, 128 * 512
    passed = linear(bf16=False)
    assert passed.flops == 2 * 2 * 128 * 256 * 512, "forward, and the weight's gradient; the input needs none"
    assert passed.kept == 4 * (inputs + outputs) + 512, "what the layer and the square keep, and the loss"
    assert passed.copies == 0 and linear(False, accumulating=True).gradients == 4 * weight
    half = linear(bf16=True)
    assert half.flops == passed.flops and half.peak < passed.peak
    assert half.kept == 2 * (inputs + outputs) + 512, "the copies go with autocast: nothing asks the input's gradient"


def test_what_autocast_leaves_alone_is_counted_in_float32() -> None:
    with META:
        layer, inputs = torch.nn.Linear(256, 512), torch.zeros(128, 256)
    with EmulatedGpu(MemoryTracker(layer.parameters()), bf16=True):
        before = layer(inputs).dtype
        with in_float32():
            within = layer(inputs).dtype
        assert (before, within, layer(inputs).dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)


def unet_pass(device: torch.device) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    with device:
        unet = UNet2DConditionModel(**unet_config(SIZE)).train()

    def loss() -> torch.Tensor:
        with device:
            noisy, added = (
                torch.zeros(2, VAE.latents, 16, 16),
                {"text_embeds": torch.zeros(2, 64), "time_ids": torch.zeros(2, 6)},
            )
            timesteps, states = torch.zeros(2, dtype=torch.long), torch.zeros(2, 77, 128)
        guess = unet(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added).sample
        return torch.nn.functional.mse_loss(guess, noisy)

    return unet, loss


@contextmanager
def kept_by(*networks: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps within the block, but for the networks' own."""
    own = {p.untyped_storage().data_ptr() for network in networks for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def test_a_whole_network_is_counted_as_a_real_pass_is() -> None:
    unet, loss = unet_pass(META)
    counted = count_pass([unet], lambda: [loss()], bf16=False, accumulating=False)
    real, real_loss = unet_pass(torch.device("cpu"))
    with FlopCounterMode(display=False) as flops:
        with kept_by(real) as kept:
            value = real_loss()
        value.backward()  # type: ignore[no-untyped-call]
    assert counted.flops == flops.get_total_flops()
    assert counted.kept == pytest.approx(sum(kept.values()), rel=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        PriorSettings(size=SIZE, batch=4, gradient_checkpointing=True),
        PriorSettings(size=SIZE, lora_rank=8),
        PriorSettings(size=SIZE, train_text=True),
        ControlNetSettings(size=SIZE, batch=2, accumulate=2, gradient_checkpointing=True),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_operations_that_are_known_count_as_they_did(
    tiny: Architecture, settings: DiffusionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = (Estimator(tiny, half=True).count(settings) for _ in range(2))
    assert again == first
    monkeypatch.setattr(meta_pass, "_key", lambda *_: None)  # each operation is torch's own
    assert Estimator(tiny, half=True).count(settings) == first


def test_a_view_is_no_new_memory_however_often() -> None:
    def peak() -> int:
        def losses() -> list[torch.Tensor]:
            with META:
                whole = torch.empty(64, 1024)
            views = [torch.ops.aten._unsafe_view.default(whole, [1024, 64]) for _ in range(3)]
            return [sum(views[1:], views[0])]

        return count_pass([], losses, bf16=False, accumulating=False).peak

    assert [peak(), peak()] == [3 * 4 * 64 * 1024] * 2, "the whole, a sum and the next"


def test_parts_of_memory_follow_the_settings(estimator: Estimator) -> None:
    whole = estimator.count(prior())
    assert whole.trained == weights(estimator.architecture.parts().unet) and whole.frozen == 0
    step = whole.memory.parts["step"]
    assert step["trained weights"] == step["gradients"] == step["moving average"] == 4 * whole.trained
    assert step["optimizer's moments"] == 8 * whole.trained and step["CUDA and its libraries"] == RESERVE
    eight = estimator.count(prior(optimizer="adamw8bit")).memory.parts["step"]
    assert 2 < eight["optimizer's moments"] / whole.trained < 2.1
    assert estimator.count(prior(ema_device="cpu")).memory.parts["step"]["moving average"] == 0
    assert estimator.count(prior(ema=0)).memory.parts["step"]["moving average"] == 0


def test_several_gpus_hold_buckets_of_gradients(tiny: Architecture, estimator: Estimator) -> None:
    alone, many = (e.count(prior()).memory for e in (estimator, Estimator(tiny, half=True, processes=4)))
    assert many.parts["step"].pop("buckets of DDP") == alone.parts["step"]["trained weights"]
    assert alone.parts["step"].pop("buckets of DDP") == 0 and many.parts["step"] == alone.parts["step"]


def test_shards_are_counted_as_fsdp_cuts_them() -> None:
    """Rows are cut; what has fewer rows than processes lies whole on some; each block is gathered at once."""

    class ResnetBlock2D(torch.nn.Module):  # by name, as FSDP's policy knows it
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(8, rows, bias=False)

    with META:
        net = torch.nn.Sequential(torch.nn.Linear(4, 6), ResnetBlock2D(7), ResnetBlock2D(16))
    net[0].bias.requires_grad_(False)
    found = shards_of(net, 4)
    assert found.sizes == (2 * 4, 2 * 8, 4 * 8) and found.trained == 56, "ceil(6 / 4), ceil(7 / 4) and 16 / 4 rows"
    assert found.frozen == 4 * 2
    assert (found.root, found.block) == (4 * 30, 4 * 128)
    assert (found.root_gradients, found.block_gradients) == (4 * 24, 4 * 128)
    assert found.gathered == 4 * (30 + 3 * 128)


def test_parts_of_a_sharded_training(tiny: Architecture, estimator: Estimator) -> None:
    shared = Estimator(tiny, half=True, processes=4, sharding="fsdp")
    whole, part = (one.count(prior()) for one in (estimator, shared))
    step, whole_step = part.memory.parts["step"], whole.memory.parts["step"]
    for name in ("trained weights", "optimizer's moments", "moving average", "gradients"):
        assert 0.25 <= step[name] / whole_step[name] < 0.28, "rows that four do not divide lie on the fullest"
    assert part.flops == whole.flops and part.trained == whole.trained
    back = part.memory.parts["backward"]
    assert "buckets of DDP" not in back and back["gathered weights"] > 0
    assert back["copies in bfloat16"] == whole.memory.parts["backward"]["copies in bfloat16"]
    more = shared.count(prior(accumulate=2)).memory.parts["backward"]["gradients"]
    assert more > whole_step["gradients"] > back["gradients"], "nothing is reduced before the last of a step's batches"
    both = [one.count(controlnet(facial={"weight": "off"})).memory for one in (estimator, shared)]
    assert both[0].parts["step"]["frozen weights"] == both[1].parts["step"]["frozen weights"], "the prior is not shared"


def test_checkpointing_spares_activations_and_costs_flops(estimator: Estimator) -> None:
    for make in (prior, controlnet):
        plain, saved = (estimator.count(make(batch=8, accumulate=2, gradient_checkpointing=on)) for on in (False, True))
        assert saved.memory.parts["backward"]["activations"] < plain.memory.parts["backward"]["activations"]
        assert saved.flops > 1.02 * plain.flops


def test_bf16_halves_most_of_the_activations(tiny: Architecture, estimator: Estimator) -> None:
    many = prior(batch=8, accumulate=2)
    half, whole = (e.count(many).memory.parts["backward"] for e in (estimator, Estimator(tiny, half=False)))
    assert 0.5 < half["activations"] / whole["activations"] < 0.95, "norms stay in float32"
    assert whole["copies in bfloat16"] == 0 < half["copies in bfloat16"] <= 2 * weights(tiny.parts().unet) + MANY


def test_an_adapter_trains_its_own_weights_only(tiny: Architecture, estimator: Estimator) -> None:
    rank, unet = 8, tiny.parts().unet
    ends = ("to_q", "to_k", "to_v", "to_out.0")
    layers = [m for n, m in unet.named_modules() if n.endswith(ends)]
    counted = estimator.count(prior(lora_rank=rank))
    assert counted.trained == sum(rank * (layer.in_features + layer.out_features) for layer in layers)
    assert counted.frozen == weights(unet) and counted.memory.parts["step"]["frozen weights"] == 2 * weights(unet)
    assert counted.memory.parts["step"]["optimizer's moments"] == 8 * counted.trained


def test_text_encoders_are_trained_with_the_unet(estimator: Estimator) -> None:
    parts = estimator.architecture.parts(text=True)
    inner = getattr(parts.text_encoder, "text_model", parts.text_encoder)
    unread = weights(inner.encoder.layers[-1]) + weights(inner.final_layer_norm)
    both = weights(parts.text_encoder) + weights(parts.text_encoder_2)
    counted = estimator.count(prior(train_text=True))
    assert counted.trained == estimator.count(prior()).trained + both - unread and counted.frozen == unread


def test_stage_two_counts_prior_discriminators_and_their_balance(estimator: Estimator) -> None:
    noise, facial = (estimator.count(controlnet(facial={"weight": w})) for w in ("off", "time"))
    unet = estimator.architecture.parts().unet
    with META:
        own = weights(sdxl.new_controlnet(unet, VAE.factor))
        discriminators = 2 * weights(ComponentDiscriminator(VAE.latents))
    assert noise.trained == facial.trained == own and noise.frozen == weights(unet)
    assert facial.memory.parts["step"]["discriminators, their moments"] == 12 * discriminators
    assert facial.memory.parts["step"]["gradients"] == 4 * (facial.trained + discriminators)
    assert noise.memory.parts["backward"]["frozen weights"] == 2 * noise.frozen
    assert facial.flops > noise.flops


def test_the_frozen_down_path_keeps_no_graph(estimator: Estimator) -> None:
    """The prior's whole backward would cost more than its half; the ControlNet's own is counted in stage I's shape."""
    whole, led = estimator.count(prior()), estimator.count(controlnet(facial={"weight": "off"}))
    assert led.flops < 2 * whole.flops


def test_what_does_not_fit_is_told_what_makes_it_fit(estimator: Estimator) -> None:
    for settings, shares in ((prior(batch=8), (0.9, 0.6, 0.3)), (controlnet(batch=8), (0.9, 0.75))):
        counted = estimator.count(settings)
        room = counted.memory.peak - RESERVE
        for share in shares:
            gpu = GpuSpec("small", int((RESERVE + room * share) / 2**20), 1, 1)
            (verdict,) = judge(estimator, settings, counted, (gpu,), 0.35)
            assert verdict.over > 0 and verdict.changes
            fits = estimator.count(settings.model_copy(update=verdict.changes))
            assert fits.memory.peak <= gpu.bytes
            assert verdict.changes.get("batch", 8) * verdict.changes.get("accumulate", 1) == 8
        (hopeless,) = judge(estimator, settings, counted, (GpuSpec("none", 10, 1, 1),), 0.35)
        assert hopeless.changes is None and hopeless.over > 0


def test_help_and_table_name_one_utilisation() -> None:
    assert train_cli.UTILISATION == hardware.UTILISATION


def test_hours_are_flops_over_speed(estimator: Estimator) -> None:
    settings = prior(steps=1000, accumulate=3)
    counted = estimator.count(settings)
    (verdict,) = judge(estimator, settings, counted, (GpuSpec("g", 10**6, 100, 10),), 0.5)
    assert verdict.hours == pytest.approx(counted.flops * 3000 / 50e12 / 3600) and verdict.over < 0


def test_a_folder_that_a_recipe_will_make_has_the_architecture_it_begins_from(tmp_path: Path) -> None:
    prior_out, first_out = str(tmp_path / "prior"), str(tmp_path / "autoencoder")
    found = find_architecture(prior_out, 512, {prior_out: "sdxl"})
    assert found.unet == SDXL_UNET and "not there yet" in found.origin
    assert find_architecture(prior_out, SIZE, {prior_out: first_out, first_out: "new"}).unet == unet_config(SIZE)
    other = find_architecture("new", SIZE, {}, VAES["f8c16"])
    assert other.unet["in_channels"] == other.vae["latent_channels"] == 16 and len(other.vae["block_out_channels"]) == 4
    assert find_architecture("tiny", SIZE, {}).vae["latent_channels"] == 8, "the built-in one says itself what it is"
    with pytest.raises(UsageError):
        find_architecture(prior_out, SIZE, {prior_out: prior_out})


def test_a_folder_is_read_by_its_configs(tmp_path: Path, tiny: Architecture) -> None:
    for name, config in (
        ("unet", {**tiny.unet, "block_out_channels": (32, 64, 96)}), ("vae", tiny.vae),
        ("text_encoder", tiny.text[0]), ("text_encoder_2", tiny.text[1]),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        (tmp_path / name).mkdir()
    assert weights(find_architecture(str(tmp_path), SIZE, {}).parts().unet) < weights(tiny.parts().unet)
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(AuthfaceError, match="vae/config.json"):
        find_architecture(str(tmp_path), SIZE, {})


def test_the_cleaner_of_a_family_in_the_hubs_cache_is_counted(
    tmp_path: Path, tiny: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = {"unet": tiny.unet, "vae": tiny.vae, "text_encoder": tiny.text[0], "text_encoder_2": tiny.text[1]}
    for name, config in {**configs, "cleaner": dict(make_cleaner(0, (16, 16)).config)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))

    def cached(repository: str, file: str) -> str | None:
        return str(tmp_path / file) if (tmp_path / file).exists() else None

    monkeypatch.setattr("authface.train.estimate.stages.try_to_load_from_cache", cached)
    assert find_architecture("somebody/family", SIZE, {}).parts(cleaner=True).cleaner is not None
    (tmp_path / "cleaner" / "config.json").unlink()
    assert find_architecture("somebody/family", SIZE, {}).parts(cleaner=True).cleaner is None


@pytest.mark.parametrize("name", ["nobody/nothing", "sdx", "no\nmodel"])
def test_a_wrong_model_is_one_line(name: str) -> None:
    with pytest.raises(AuthfaceError) as caught:
        find_architecture(name, SIZE, {})
    assert str(caught.value).isprintable() and "sdxl" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "told", "said"),
    [
        ("vae", [1], "cannot read .*vae.config.json"),
        ("vae", {"_class_name": "DiffusionPipeline"}, "is a DiffusionPipeline; only AutoencoderKL and"),
        ("vae", {"block_out_channels": []}, "make no networks that fit each other"),
        ("unet", {"attention_head_dim": 0}, "make no networks that fit each other"),
        ("unet", {"in_channels": 8}, "make no networks that fit each other"),
    ],
)
def test_configs_of_strangers_are_one_line(part: str, told: Any, said: str, tmp_path: Path, tiny: Architecture) -> None:
    """Whatever diffusers and torch say of them; none names a class of its own."""
    configs = {"unet": tiny.unet, "vae": tiny.vae, "text_encoder": tiny.text[0], "text_encoder_2": tiny.text[1]}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        spoilt = (config | told if isinstance(told, dict) else told) if name == part else config
        (tmp_path / name / "config.json").write_text(json.dumps(spoilt))
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "some.json").write_text("{}")
    with pytest.raises(AuthfaceError, match=said) as caught:
        Estimator(find_architecture(str(tmp_path), SIZE, {}), half=True).count(prior())
    assert "\n" not in str(caught.value)


def test_a_wrong_gpu_is_one_line_with_the_right_ones() -> None:
    with pytest.raises(UsageError, match="--gpu L40: did you mean L40S"):
        hardware.gpus_named(["L40"])
    assert [gpu.name for gpu in hardware.gpus_named(["h100", "H100"])] == ["H100"]


def test_faces_are_counted_where_they_lie(tmp_path: Path) -> None:
    assert count_faces(tmp_path / "none", 0) is None
    (tmp_path / "data").mkdir()
    for name, rows in (("train-ab-00000", 5), ("train-ab-00001", 2), ("test-ab-00000", 9)):
        pq.write_table(pa.table({"id": list(range(rows))}), tmp_path / "data" / f"{name}.parquet")
    assert count_faces(tmp_path, 0) == 7 and count_faces(tmp_path, 3) == 3


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["estimate", "train", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_tells_people_and_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [word for one in ("size=64", "train_text=false") for word in ("-O", f"train.prior.{one}")]
    words = ["prior", "--recipe", "tiny", *chosen, "--faces", "100", "--gpu", "L4"]
    text = run(*words)
    assert (
        "tiny's architecture; models/autoencoder is not there yet" in text
        and "L4" in text
        and " epochs of 100 faces" in text
    )
    found = json.loads(run(*words, "--processes", "2", "--json"))
    assert found["trained"] == weights(find_architecture("new", SIZE, {}).parts().unet)
    assert found["steps"] * found["images_a_step"] / 100 == found["epochs"]
    assert found["peak"] == max(sum(parts.values()) for parts in found["memory"].values())
    assert found["on"][0]["gpu"] == "L4" and found["on"][0]["fits"] is True
    shared = json.loads(run(*words, "--processes", "2", "--sharding", "fsdp", "--json"))
    assert shared["sharding"] == "fsdp" and shared["peak"] < found["peak"]
    assert "in parts (FSDP2)" in run(*words, "--processes", "2", "--sharding", "fsdp")
    with pytest.raises(UsageError, match="--sharding zero: there are none and fsdp"):
        run(*words, "--sharding", "zero")
    assert list(tmp_path.iterdir()) == [], "an estimate writes nothing"


def test_stage_two_of_the_tiny_recipe_is_the_tiny_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = run("controlnet", "--recipe", "tiny", "-O", "train.controlnet.size=64", "--gpu", "L4")
    assert text.startswith("stage II") and "tiny's architecture" in text and "--faces N" in text


def test_what_pixels_and_degraded_beginnings_add_is_counted_as_a_real_pass_does(tiny: Architecture) -> None:
    """A cleaner, the VAE both ways, the discriminator of fine detail and what is measured of their gradients."""
    settings = controlnet(
        batch=2, facial={"weight": "off"}, from_degraded=1, pixels={"adversarial": 0.2, "energy": 0.1, "start": 0}
    )
    with_cleaner = replace(tiny, cleaner=dict(make_cleaner(0, (16, 16)).config))
    stage = meta_controlnet(settings, with_cleaner, half=False)
    counted = stage.count()
    real = Parts(Path(), scheduler=DDPMScheduler(), cleaner=make_cleaner(0, (16, 16)))
    real.unet, real.vae = UNet2DConditionModel.from_config(tiny.unet), AutoencoderKL.from_config(tiny.vae)
    frozen = [real.unet, real.vae, real.cleaner]
    for part in frozen:
        part.requires_grad_(False)
    real.controlnet = init_controlnet(real.unet, settings, 0, VAE.factor)
    objective = ControlNetObjective(
        cast(Any, SimpleNamespace(size=SIZE)), real, cast(Any, None),
        sdxl.TextEmbedding(torch.zeros(1, 77, 128), torch.zeros(1, 64)), mixture("mild"), settings, 0, None,
        judges := PixelTerms(settings.pixels, torch.device("cpu"), 0),
    )  # fmt: skip
    assert judges.critic is not None
    faces = torch.rand(2, 3, SIZE, SIZE)
    latents = torch.randn(2, VAE.latents, SIZE // VAE.factor, SIZE // VAE.factor)
    batch = ControlBatch((), latents=latents, degraded=faces, clean=faces * 2 - 1)
    with FlopCounterMode(display=False) as flops:
        with kept_by(*frozen, real.controlnet, judges.critic.nets) as kept:
            loss = objective.loss(objective.trained, batch, Noise(0, range(2)), 0)
        loss.total.backward()  # type: ignore[no-untyped-call]
        assert loss.critic is not None
        loss.critic.backward()  # type: ignore[no-untyped-call]
    assert counted.flops == flops.get_total_flops()
    assert counted.kept == pytest.approx(sum(kept.values()), rel=0.01)
    assert size_of(*stage.frozen) == size_of(*frozen) and stage.fetched == 0


def test_what_pixels_and_degraded_beginnings_add_to_memory(estimator: Estimator) -> None:
    """The VAE stays on the GPU; faces are decoded with their gradient, squares of them for less."""
    terms = {"perceptual": 0.1, "adversarial": 0.2}
    plain, begun, whole, squares = (
        estimator.count(ControlNetSettings(size=128, batch=2, facial={"weight": "off"}, **given)).memory.parts
        for given in (
            {},
            {"from_degraded": 0.5},
            {"from_degraded": 0.5, "pixels": terms},
            {"from_degraded": 0.5, "pixels": {**terms, "patch": 64}},
        )
    )
    vae = size_of(estimator.architecture.parts().vae)
    assert begun["backward"]["frozen weights"] - plain["backward"]["frozen weights"] == vae
    assert begun["picture"]["frozen weights"] == plain["picture"]["frozen weights"]
    features = whole["backward"]["frozen weights"] - begun["backward"]["frozen weights"]
    assert features == whole["step"]["frozen weights"] - begun["step"]["frozen weights"] > 4e6
    kept = [parts["backward"]["activations"] for parts in (begun, squares, whole)]
    assert 2 * kept[0] < 1.5 * kept[1] < kept[2], "a square of half the side is a quarter of the face"


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_is_valid(name: str) -> None:
    load(name, [], SECTIONS)


@pytest.mark.parametrize(("name", "card", "images"), [("lora-24gb", "RTX 4090", (16, 16)), ("h200", "H200", (96, 48))])
def test_recipes_fit_the_card_they_are_for(name: str, card: str, images: tuple[int, int]) -> None:
    recipe = load(name, [], SECTIONS)
    (gpu,) = hardware.gpus_named([card])
    stages = recipe.section("train.prior", PriorSettings), recipe.section("train.controlnet", ControlNetSettings)
    counted: list[TrainingCost] = []
    for settings in stages:
        architecture = find_architecture(settings.model, settings.size, {str(stages[0].out): stages[0].model})
        assert architecture.unet == SDXL_UNET
        counted.append(Estimator(architecture, half=True).count(settings))
    assert all(c.memory.peak < 0.95 * gpu.bytes for c in counted), "room for what is not counted"
    assert tuple(s.batch * s.accumulate for s in stages) == images
    assert bool(stages[0].lora_rank) == (name == "lora-24gb") and LORA_RANK == 64
