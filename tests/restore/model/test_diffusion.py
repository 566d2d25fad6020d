"""The sampling loop on a real, untrained family: the stock pipeline's results, face by face."""

from __future__ import annotations

import json
import shutil
import typing
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage import data

from authface.errors import AuthfaceError, UsageError
from authface.models import sampling
from authface.models.graphs import FaceNoise
from authface.models.layout import BASE
from authface.restore.model import diffusion as sampler
from authface.restore.model import restorer
from authface.restore.model.crops import wavelet_fix
from authface.restore.settings import RestoreSettings

SEEDS = [11, 2**62 + 5, 7]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    photo = data.astronaut()
    return np.stack([photo[y : y + 64, 190:254] for y in (40, 90, 300)])


@pytest.fixture
def make(family: Path) -> Callable[..., restorer.CropRestorer]:
    def make(folder: Path = family, **settings: object) -> restorer.CropRestorer:
        chosen = RestoreSettings(**({"model": str(folder), "steps": 3} | settings))  # type: ignore[arg-type]
        return restorer.load_restorer(restorer.find_weights(chosen.model), chosen, "cpu")

    return make


def levels_apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def sampled(model: sampler.DiffusionRestorer, crops: np.ndarray, chosen: sampling.Sampling) -> np.ndarray:
    return np.stack(model._batches(model._restored, crops, SEEDS, chosen))


def begun_with(channels: int, side: int) -> torch.Tensor:
    """The noise of each seed, which a stock pipeline is handed: it draws its own otherwise."""
    return torch.from_numpy(np.stack([FaceNoise(seed).normal((channels, side, side)) for seed in SEEDS]))


@pytest.mark.parametrize(("scheduler", "guidance"), [("ddpm", 8.0), ("dpm++", 1.0), ("euler", 1.0), ("ddim", 3.0)])
def test_the_loop_gives_what_the_stock_pipeline_gives(
    make: Callable[..., restorer.CropRestorer], family: Path, crops: np.ndarray, scheduler: str, guidance: float
) -> None:
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    control = ControlNetModel.from_pretrained(family / "controlnet")
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(family, controlnet=control, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = sampling.make_scheduler(scheduler, pipeline.scheduler.config)
    expected = pipeline(
        prompt=["a face"] * 3,
        negative_prompt=["blur"] * 3,
        image=torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255,
        num_inference_steps=3,
        guidance_scale=guidance,
        controlnet_conditioning_scale=0.75,
        latents=begun_with(4, 16),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        height=64,
        width=64,
        output_type="np",
    ).images
    given = make(
        scheduler=scheduler, guidance=guidance, fidelity=0.25, prompt="a face", negative_prompt="blur"
    ).restore(crops, SEEDS)
    assert levels_apart(given, np.rint(expected * 255).astype(int)) <= 1


@pytest.mark.parametrize("scheduler", ["ddpm", "dpm++", "unipc", "ddim", "euler"])
def test_begun_from_the_photo_it_is_the_stock_image_to_image_pipeline(
    make: Callable[..., restorer.CropRestorer], family: Path, crops: np.ndarray, scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from diffusers import ControlNetModel, StableDiffusionXLControlNetImg2ImgPipeline
    from diffusers.pipelines.controlnet import pipeline_controlnet_sd_xl_img2img as stock

    # The stock pipeline draws from the encoder's posterior; here it is its mean, as in training.
    monkeypatch.setattr(stock, "retrieve_latents", lambda encoded, generator=None: encoded.latent_dist.mode())
    monkeypatch.setattr(stock, "randn_tensor", lambda *_, **__: begun_with(4, 16))
    pipeline = StableDiffusionXLControlNetImg2ImgPipeline.from_pretrained(
        family, controlnet=ControlNetModel.from_pretrained(family / "controlnet"), add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = sampling.make_scheduler(scheduler, pipeline.scheduler.config)
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    expected = pipeline(
        prompt=[""] * 3, image=pixels, control_image=pixels, strength=0.5, num_inference_steps=6, guidance_scale=1.0,
        controlnet_conditioning_scale=1.0, generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        height=64, width=64, output_type="np",
    ).images  # fmt: skip
    given = make(scheduler=scheduler, strength=0.5, guidance=1, prompt="").restore(crops, SEEDS)
    assert levels_apart(given, np.rint(expected * 255).astype(int)) <= 1


@pytest.fixture(scope="module")
def released(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family as the authors lay theirs out: a folder a part and no index, their key of the ControlNet's config,
    text encoders as transformers 4 saved them."""
    folder = tmp_path_factory.mktemp("released")
    shutil.copytree(family, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model_index.json"))
    config = folder / "controlnet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_pre_img_encoder": False}))
    for part in ("text_encoder", "text_encoder_2"):
        file = folder / part / "model.safetensors"
        old = {name if name.startswith("text_") else f"text_model.{name}": v for name, v in load_file(file).items()}
        save_file(old, file, {"format": "pt"})
    return folder


def test_the_official_preset_is_one_stream_of_noise(
    make: Callable[..., restorer.CropRestorer], released: Path, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 steps of DDPM at guidance 8 from one generator of seed 123 over all the faces, in batches of 6."""
    from diffusers import StableDiffusionXLControlNetPipeline

    from authface.models.families import load, resolve
    from authface.models.sampling import PRESETS

    official = PRESETS["official"]
    names = [*BASE, "controlnet"]
    parts = load(resolve(str(released)), names, "cpu", torch.float32)
    modules = {name: getattr(parts, name) for name in names}
    pipeline = StableDiffusionXLControlNetPipeline(
        **modules, force_zeros_for_empty_prompt=False, add_watermarker=False
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    faces = np.concatenate([crops, crops[::-1], crops[:1]])
    generator, expected = torch.Generator().manual_seed(123), []
    for some in (faces[:6], faces[6:]):
        expected.append(
            pipeline(
                prompt=[official.prompt] * len(some), negative_prompt=[official.negative_prompt] * len(some),
                image=torch.from_numpy(some).permute(0, 3, 1, 2).float() / 255, num_inference_steps=50,
                guidance_scale=8.0, generator=generator, height=64, width=64, output_type="latent",
            ).images
        )  # fmt: skip
    latents: list[torch.Tensor] = []
    denoise = sampler.DiffusionRestorer._denoise

    def kept(*given: Any) -> torch.Tensor:
        latents.append(denoise(*given))
        return latents[-1]

    monkeypatch.setattr(sampler.DiffusionRestorer, "_denoise", kept)
    given = make(released, preset="official", steps=None).restore(faces, list(range(7)))
    assert [len(some) for some in latents] == [6, 1]
    assert (torch.cat(latents) - torch.cat(expected)).abs().max() <= 1e-4
    with torch.inference_mode():
        pixels = [pipeline.vae.decode(some / pipeline.vae.config.scaling_factor).sample for some in expected]
    stock = pipeline.image_processor.postprocess(torch.cat(pixels), output_type="np")
    assert levels_apart(given, np.rint(stock * 255).astype(int)) <= 1


def test_the_condition_is_embedded_once(make: Callable[..., restorer.CropRestorer], crops: np.ndarray) -> None:
    model = make(guidance=3, steps=4)
    assert isinstance(model, sampler.DiffusionRestorer)
    seen: list[int] = []
    embedding = model.controlnet.controlnet_cond_embedding
    embedding.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    model.restore(crops, SEEDS)
    assert seen == [3] and model.controlnet.controlnet_cond_embedding is embedding


def test_a_family_brings_its_presets(family: Path, tmp_path: Path) -> None:
    from authface.models.sampling import PRESETS, preset_of

    (tmp_path / "presets.toml").write_text('[fast]\nscheduler = "ddim"\nsteps = 2\nstrength = 0.4\n')
    assert preset_of("fast", tmp_path).strength == 0.4
    assert preset_of("quality", tmp_path) == PRESETS["quality"] and preset_of("fast", family) == PRESETS["fast"]
    before = restorer.find_weights(str(family)).digest
    copy = tmp_path / "copy"
    shutil.copytree(family, copy, copy_function=shutil.copy2)
    assert restorer.find_weights(str(copy)).digest == before
    (copy / "presets.toml").write_text("[fast]\nsteps = 0\n")
    assert restorer.find_weights(str(copy)).digest != before
    with pytest.raises(AuthfaceError, match="no table of presets"):
        preset_of("fast", copy)


def test_a_mean_of_samples(make: Callable[..., restorer.CropRestorer], crops: np.ndarray) -> None:
    """Each from noise that goes on where the one before ended, so the first is what one sample gives."""
    model = make(strength=0.8, steps=2)
    assert isinstance(model, sampler.DiffusionRestorer)
    once, twice = (sampled(model, crops, replace(model.sampling, samples=n)).astype(float) for n in (1, 2))
    second = 2 * twice - once
    assert second.min() >= -1 and second.max() <= 256 and np.abs(second - once).mean() > 2


def test_higher_fidelity_is_nearer_to_the_input(make: Callable[..., restorer.CropRestorer], crops: np.ndarray) -> None:
    model = make(strength=0.8, steps=4)
    far = [np.abs(np.asarray(model.restore(crops, SEEDS, fidelity=f), int) - crops).mean() for f in (0.0, 0.5, 1.0)]
    assert far[2] < far[1] <= far[0] * 1.05


def test_fidelity_moves_the_start_and_mixes_in_the_input(
    make: Callable[..., restorer.CropRestorer], crops: np.ndarray
) -> None:
    assert [sampling.strength(fidelity, 1.0) for fidelity in (0.0, 0.5, 0.75, 1.0)] == [1, 1, 0.75, 0.5]
    assert [sampling.strength(fidelity, 0.1) for fidelity in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.2, 0.15, 0.1, 0.1]
    )
    assert [sampling.input_share(fidelity, 0.0) for fidelity in (0.0, 0.5, 0.75, 1.0)] == [0, 0, 0.2, 0.4]
    assert [sampling.input_share(fidelity, 0.5) for fidelity in (0.0, 1.0)] == [0.5, 0.5]
    model = make(strength=0.8, steps=2)
    assert isinstance(model, sampler.DiffusionRestorer)
    whole = replace(model.sampling.at(1.0), levels=3)
    plain = replace(whole, levels=None, share=0.0)
    kept, bare = (sampled(model, crops, sampling) for sampling in (whole, plain))
    fixed = np.stack([wavelet_fix(made, source, 3) for made, source in zip(bare, crops, strict=True)])
    assert np.abs(kept - (0.6 * fixed + 0.4 * crops)).max() <= 0.51


def test_a_result_depends_on_its_own_crop_and_seed_only(
    make: Callable[..., restorer.CropRestorer], crops: np.ndarray
) -> None:
    for scheduler in ("ddpm", "dpm++"):
        together = make(scheduler=scheduler, batch=3).restore(crops, SEEDS)
        single = make(scheduler=scheduler, batch=1)
        alone = np.concatenate([single.restore(crops[i : i + 1], SEEDS[i : i + 1]) for i in (2, 0, 1)])[[1, 2, 0]]
        # Not bit by bit: a matrix product of another shape sums in another order.
        assert levels_apart(together, alone) <= 1
        assert levels_apart(together[0], together[1]) > 8


def test_seed_fidelity_and_input_each_change_the_result(
    make: Callable[..., restorer.CropRestorer], crops: np.ndarray
) -> None:
    model = make()
    base = model.restore(crops[:1], [1])
    np.testing.assert_array_equal(base, model.restore(crops[:1], [1]))
    assert levels_apart(base, model.restore(crops[:1], [2])) > 8
    assert levels_apart(base, model.restore(crops[1:2], [1])) > 8
    assert levels_apart(base, make(fidelity=1).restore(crops[:1], [1])) > 8


def test_velocity_models_are_sampled_as_such(
    make: Callable[..., restorer.CropRestorer], family: Path, crops: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "velocity"
    shutil.copytree(family, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    for scheduler in ("ddpm", "dpm++"):
        velocity = make(folder, scheduler=scheduler).restore(crops[:1], [1])
        assert levels_apart(velocity, make(scheduler=scheduler).restore(crops[:1], [1])) > 8


def test_few_step_samplers_start_at_the_last_timestep() -> None:
    trained = {"num_train_timesteps": 1000, "timestep_spacing": "leading", "steps_offset": 1}
    trained |= {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    first = {}
    for name in ("dpm++", "ddim", "euler", "ddpm"):
        scheduler = sampling.make_scheduler(name, trained)
        scheduler.set_timesteps(50)
        first[name] = int(scheduler.timesteps[0])
    assert first == {"dpm++": 999, "ddim": 999, "euler": 999, "ddpm": 981}


@pytest.mark.parametrize("scheduler", typing.get_args(sampling.Scheduler))
def test_no_sampler_clips_latents(
    make: Callable[..., restorer.CropRestorer], family: Path, crops: np.ndarray, tmp_path: Path, scheduler: str
) -> None:
    """A config that does not speak of it, as a DDPM's may be, is sampled like the one that says no."""
    silent = tmp_path / "silent"
    shutil.copytree(family, silent)
    config = silent / "scheduler" / "scheduler_config.json"
    said = json.loads(config.read_text())
    assert said.pop("clip_sample") is False
    config.write_text(json.dumps(said))
    for trained in (said, said | {"clip_sample": True, "thresholding": True}):
        made = sampling.make_scheduler(scheduler, trained)
        for name in {"clip_sample", "thresholding"} & set(signature(type(made)).parameters):
            assert made.config[name] is False
    images = [make(folder, scheduler=scheduler).restore(crops[:1], [1]) for folder in (family, silent)]
    np.testing.assert_array_equal(*images)


def test_official_is_the_release_word_for_word() -> None:
    """Typed a second time from the authors' test_face_xl.py and test_base.sh."""
    official = sampling.PRESETS["official"]
    assert official.prompt == (
        "hyper-realistic portrait, face close-up, super detailed, Cinematic, High Contrast, highly detailed, "
        "taken using a Canon EOS R camera,"
        "hyper detailed photo - realistic maximum detail, 32k, ultra HD,"
        "extreme meticulous detailing, skin pore detailing,"
        "hyper sharpness, perfect without deformations"
    )
    assert official.negative_prompt == (
        "unreal face, asymmetrical eyes, oil painting, illustration, drawing, art, sketch,"
        "cartoon, CG Style, 3D render, unreal engine, blurring, dirty, messy, "
        "worst quality, low quality, frames, watermark, signature, jpeg artifacts, "
        "deformed, lowres, over-smooth, malformed/disproportionate hands/fingers, ugly, easy negative"
    )
    held = official.model_dump(exclude={"prompt", "negative_prompt"}, exclude_defaults=True)
    assert held == {"scheduler": "ddpm", "steps": 50, "guidance": 8, "shared_seed": 123, "batch": 6}
    quality, fast, fidelity = (sampling.PRESETS[name] for name in ("quality", "fast", "fidelity"))
    assert {quality.prompt, fast.prompt} == {official.prompt} and fidelity.prompt == ""
    assert 4 <= fast.guidance <= quality.guidance <= 5 and fidelity.guidance == 1


def test_half_precision_keeps_latents_and_vae_whole(
    make: Callable[..., restorer.CropRestorer], crops: np.ndarray
) -> None:
    half = make(dtype="bfloat16")
    assert isinstance(half, sampler.DiffusionRestorer)
    assert (half.unet.dtype, half.controlnet.dtype, half.vae.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    near = np.abs(np.asarray(half.restore(crops, SEEDS), int) - make().restore(crops, SEEDS))
    assert near.mean() < 4


def test_values_that_overflow_are_an_error_and_no_picture(
    make: Callable[..., restorer.CropRestorer], crops: np.ndarray
) -> None:
    model = make()
    assert isinstance(model, sampler.DiffusionRestorer)
    with torch.no_grad():
        model.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(AuthfaceError, match="restore.dtype=float32"):
        model.restore(crops, SEEDS)


def test_size_is_the_model_s_or_the_one_asked_for(make: Callable[..., restorer.CropRestorer]) -> None:
    assert make().side == restorer.Side(64)
    assert make(size=96).side == restorer.Side(96)
    with pytest.raises(UsageError, match="multiples of 16"):
        make(size=72)


def test_a_model_is_known_again_by_its_files(family: Path, tmp_path: Path) -> None:
    first = restorer.find_weights(str(family))
    assert first.digest == restorer.find_weights(str(family)).digest
    copy = tmp_path / "copy"
    shutil.copytree(family, copy)
    weights = copy / "controlnet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert restorer.find_weights(str(copy)).digest != first.digest
    with pytest.raises(AuthfaceError, match="no model"):
        restorer.find_weights("nothing-here")


def test_a_family_without_controlnet_says_so(family: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prior"
    shutil.copytree(family, folder, ignore=shutil.ignore_patterns("controlnet"))
    settings = RestoreSettings(model=str(folder))
    with pytest.raises(AuthfaceError, match="has no controlnet"):
        restorer.load_restorer(restorer.find_weights(settings.model), settings, "cpu")


def test_face_seeds_follow_content_and_place() -> None:
    seeds = {restorer.face_seed(content, i, seed) for content in ("ab", "cd") for i in range(3) for seed in (0, 1)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert restorer.face_seed("ab", 0, 0) == restorer.face_seed("ab", 0, 0)
