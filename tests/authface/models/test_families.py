"""Model families: names, folders, what is refused, and that stock diffusers pipelines read what is written."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from authface.errors import AuthfaceError, UsageError
from authface.models import families as models
from authface.models import sdxl
from authface.models.layout import BASE, OWN_PRESETS, digest, part_files, write_family
from authface.models.tiny import VAE, VAES, clip_tokenizer

PROMPTS = [
    "",
    "a portrait, soft side light, 85mm lens, f/1.8",
    "hyper-realistic close-up; skin pores, freckles & catch-lights!! it's the photographer's 32k RAW",
    "Ünïcode façade, 東京, emoji 🙂, tab\tand\nnewline   spaces",
    "supercalifragilisticexpialidocious " * 40,
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny family with random weights."""
    folder = tmp_path_factory.mktemp("family") / "tiny"
    models.make_tiny(folder, seed=0, image_size=64)
    return folder


@pytest.fixture(scope="module")
def parts(tiny: Path) -> models.Parts:
    """All of its parts, loaded."""
    return models.load(models.resolve(str(tiny)), BASE, "cpu", torch.float32)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture(scope="module")
def openai() -> Any:
    """openai-clip's own tokenizer, read from its file alone."""
    found = importlib.util.find_spec("clip")
    assert found is not None and found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "simple_tokenizer.py"
    spec = importlib.util.spec_from_file_location("simple_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


@pytest.fixture(scope="module")
def ours() -> Any:
    """The tokenizer built from the vocabulary file."""
    return clip_tokenizer()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_openai_clips(ours: Any, openai: Any, prompt: str) -> None:
    """Prompts as people write them become the same tokens."""
    assert ours(prompt, add_special_tokens=False).input_ids == openai.encode(prompt)


# HTML entities and ftfy's repairs are a cleaning that openai-clip does before its tokenizer proper.
@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(codec="ascii", exclude_characters="&<", exclude_categories=["Cc"]), max_size=60))
def test_any_ascii_becomes_the_same_tokens(ours: Any, openai: Any, text: str) -> None:
    """Every mixture of letters, digits, apostrophes and signs."""
    assert ours(text, add_special_tokens=False).input_ids == openai.encode(text)


def test_a_prompt_has_77_tokens() -> None:
    """49,408 entries; short prompts are padded with the end token, long ones cut and ended."""
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49_408
    short = tokenizer("hi", padding="max_length", truncation=True).input_ids
    assert short == [49406, 1883] + [49407] * 75
    long = tokenizer(PROMPTS[-1], truncation=True).input_ids
    assert len(long) == 77 and long[-1] == 49407 and 49407 not in long[:-1]


def test_a_stock_pipeline_loads_and_runs_the_tiny_family(tiny: Path) -> None:
    """StableDiffusionXLPipeline.from_pretrained, without a word of ours."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(tiny))
    made = pipeline("a face", num_inference_steps=1, height=64, width=64, output_type="np").images
    assert made.shape == (1, 64, 64, 3) and np.isfinite(made).all()
    assert pipeline.scheduler.config.beta_end == 0.012 and pipeline.scheduler.config.steps_offset == 1


def test_no_pickle_and_the_size_it_is_meant_to_have(tiny: Path, parts: models.Parts) -> None:
    """Only safetensors; a U-Net of about 4 M parameters."""
    names = {path.suffix for path in tiny.rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors"}
    assert 3.5e6 < sum(p.numel() for p in parts.unet.parameters()) < 5e6
    assert parts.vae.dtype == torch.float32


def test_the_same_seed_makes_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    """And another seed others; the caller's random state is left alone."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models.make_tiny(tmp_path / "again", seed=0, image_size=64)
    assert torch.equal(before, torch.get_rng_state())
    models.make_tiny(tmp_path / "other", seed=1, image_size=64)
    weighted = ("unet", "vae", "text_encoder")
    assert digest(tmp_path / "again", weighted) == digest(tiny, weighted) != digest(tmp_path / "other", weighted)


@pytest.mark.parametrize("name", VAES)
def test_stock_pipelines_draw_with_every_vae(name: str, tmp_path: Path) -> None:
    """At the size that the family is meant for, which they read from it; latents are as many pixels a side."""
    from diffusers import StableDiffusionXLPipeline

    shape = VAES[name]
    models.make_tiny(tmp_path, seed=0, image_size=64, channels=(16, 32, 48), vae=shape)
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(tmp_path))
    drawn = pipeline("", num_inference_steps=1, guidance_scale=1, output_type="np").images
    assert drawn.shape == (1, 64, 64, 3)
    assert pipeline.vae_scale_factor == shape.factor == sdxl.spatial_factor(pipeline.vae)
    latents = sdxl.encode(pipeline.vae, torch.zeros(1, 3, 64, 96))
    assert latents.shape == (1, shape.latents, 64 // shape.factor, 96 // shape.factor)
    with pytest.raises(AuthfaceError, match=f"multiple of {4 * shape.factor} "):
        models.make_tiny(tmp_path, seed=0, image_size=64 + 2 * shape.factor, vae=shape)


def test_a_condition_is_halved_as_often_as_images_are(parts: models.Parts) -> None:
    """A ControlNet has SDXL's widths at a factor of 8, fewer or more of them at others."""
    from diffusers import ControlNetModel

    def widths(factor: int) -> list[int]:
        return list(sdxl.new_controlnet(parts.unet, factor).config.conditioning_embedding_out_channels)

    assert widths(8) == list(ControlNetModel.from_unet(parts.unet).config.conditioning_embedding_out_channels)
    assert widths(4) == [16, 32, 96] and widths(16) == [16, 32, 96, 256, 256]


def test_prompts_and_time_ids_are_the_stock_pipelines(tiny: Path, parts: models.Parts) -> None:
    """Penultimate states of both encoders, pooled output of the second, and the six numbers."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(tiny))
    for prompt in PROMPTS[:3]:
        states, _, pooled, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        text = sdxl.encode_prompts(parts, [prompt])
        assert torch.allclose(text.states, states, atol=1e-6) and torch.allclose(text.pooled, pooled, atol=1e-6)
    ids = pipeline._get_add_time_ids((512, 512), (0, 0), (512, 512), torch.float32, text.pooled.shape[-1])
    assert torch.equal(sdxl.time_ids(512, 1, text.pooled), ids)


def test_latents_are_scaled_as_stock_pipelines_do(parts: models.Parts) -> None:
    """A scale alone, and latents_mean with latents_std: decode undoes encode but for the VAE's own loss."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_config(parts.vae.config).eval()
    image = sdxl.to_signed(skimage.data.astronaut()[None, :64, 128:192])
    with torch.no_grad():
        raw = vae.encode(image).latent_dist.mode()
        vae.register_to_config(scaling_factor=0.13025)
        assert torch.allclose(sdxl.encode(vae, image), raw * 0.13025)
        vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[1.0, 2.0, 1.0, 2.0])
        scaled = sdxl.encode(vae, image)
        assert torch.allclose(scaled[:, 1], (raw[:, 1] - 2) * 0.13025 / 2)
        assert torch.allclose(sdxl.decode(vae, scaled), vae.decode(raw).sample, atol=1e-4)


def test_images_survive_the_ranges() -> None:
    """uint8 -> -1..1 -> uint8 is exact, and what lies outside is clipped."""
    rgb = skimage.data.astronaut()[None, :32, :32]
    signed = sdxl.to_signed(rgb)
    assert float(signed.min()) >= -1 and float(signed.max()) <= 1
    assert np.array_equal(sdxl.to_rgb(signed), rgb) and sdxl.to_rgb(signed).flags.c_contiguous
    assert sdxl.to_rgb(signed * 100).min() == 0 and sdxl.to_rgb(signed * 100).max() == 255


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    """Known families, folders, repositories; the rest is refused with what there is."""
    assert models.resolve("sdxl").location == "stabilityai/stable-diffusion-xl-base-1.0"
    assert models.resolve("authface").location == "Ethanliang99/AuthFace"
    assert models.resolve("someone/some-xl") == models.ModelSource("someone/some-xl", "someone/some-xl", False)
    assert models.resolve(str(tiny)).local
    monkeypatch.setattr(models, "BUILTIN", tmp_path / "absent")
    with pytest.raises(AuthfaceError, match="--model FOLDER"):
        models.resolve("tiny")
    for name in ["", "nothing", "a/b/c", "/no/such/folder", "./x", "models/"]:
        with pytest.raises(UsageError, match="folder"):
            models.resolve(name)


def test_a_folder_says_what_it_lacks(copy: Path) -> None:
    """In one line, by the parts' names."""
    shutil.rmtree(copy / "unet")
    shutil.rmtree(copy / "tokenizer_2")
    with pytest.raises(UsageError, match="lacks unet, tokenizer_2$"):
        models.resolve(str(copy))


def test_pickles_and_broken_files_are_refused(copy: Path) -> None:
    """A .bin in place of safetensors, a cut file, no file, and a class that is not run here."""
    source = models.resolve(str(copy))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AuthfaceError, match="get its files again"):
        models.load(source, ["unet"], "cpu", torch.float32)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(AuthfaceError, match=r"pickle diffusion_pytorch_model\.bin"):
        models.load(source, ["unet"], "cpu", torch.float32)
    config = copy / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderKL", "AutoencoderDC"))
    with pytest.raises(AuthfaceError, match="AutoencoderDC"):
        models.load(source, ["vae"], "cpu", torch.float32)
    with pytest.raises(AuthfaceError, match="authface train controlnet"):
        models.load(source, ["controlnet"], "cpu", torch.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conditioning_channels": 4}, "3 .RGB."),
        ({"in_channels": 8}, "latent channels"),
        ({"conditioning_embedding_out_channels": (16, 32, 96, 256)}, "pixels a latent, of controlnet 8, of vae 4"),
    ],
)
def test_a_controlnet_that_does_not_fit_is_refused(
    parts: models.Parts, copy: Path, change: dict[str, Any], said: str
) -> None:
    """A condition of 4 channels (made of latents, not pixels), or latents of another width or another size."""
    from diffusers import ControlNetModel

    config = dict(sdxl.new_controlnet(parts.unet, VAE.factor).config)
    ControlNetModel.from_config(config | change).save_pretrained(str(copy / "controlnet"))
    with pytest.raises(AuthfaceError, match=said):
        models.load(models.resolve(str(copy)), ["vae", "unet", "controlnet"], "cpu", torch.float32)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("vae/config.json", {"norm_num_groups": 0}, "cannot load .*vae: "),
        ("vae/config.json", {"block_out_channels": []}, "cannot load .*vae: "),
        ("vae/config.json", {"scaling_factor": None}, "vae: scaling_factor None, a number above 0"),
        ("vae/config.json", {"scaling_factor": 0}, "vae: scaling_factor 0, a number above 0"),
        ("unet/config.json", {"attention_head_dim": 0}, "cannot load .*unet: "),
        ("unet/config.json", {"cross_attention_dim": "x"}, "cannot load .*unet: "),
        ("text_encoder/config.json", {"num_attention_heads": 0}, "cannot load .*text_encoder: "),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type sample, only epsilon and"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "do not make 0 timesteps"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "do not make 1000 timesteps"),
        ("scheduler/scheduler_config.json", {"trained_betas": [3.0] * 1000}, "do not make 1000 timesteps"),
    ],
)
def test_configs_of_strangers_are_one_line(copy: Path, file: str, change: dict[str, Any], said: str) -> None:
    """A family of the hub may say anything: what no network is made of, and conventions that are not SDXL's."""
    config = copy / file
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(AuthfaceError, match=said) as caught:
        models.load(models.resolve(str(copy)), [file.partition("/")[0]], "cpu", torch.float32)
    assert "\n" not in str(caught.value)


def test_without_the_hub_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline and not in the cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AuthfaceError, match="--model FOLDER") as caught:
        models.load(models.resolve("sdxl"), ["scheduler"], "cpu", torch.float32)
    assert "\n" not in str(caught.value) and "HF_HUB_OFFLINE is set: unset it" in str(caught.value)


def test_a_written_family_is_whole_and_copies_what_did_not_change(
    tiny: Path, parts: models.Parts, tmp_path: Path
) -> None:
    """Byte for byte, model_index names the ControlNet, and stock diffusers loads all of it."""
    from diffusers import DiffusionPipeline, StableDiffusionXLPipeline

    out = tmp_path / "out"
    write_family(out, tiny, {"controlnet": sdxl.new_controlnet(parts.unet, VAE.factor)})
    for part in BASE:
        assert [p.read_bytes() for p in part_files(out, part)] == [p.read_bytes() for p in part_files(tiny, part)]
    assert not list(out.glob(".tmp-*"))
    pipeline = DiffusionPipeline.from_pretrained(str(out))
    assert type(pipeline).__name__ == "StableDiffusionXLControlNetPipeline" and pipeline.controlnet is not None
    assert StableDiffusionXLPipeline.from_pretrained(str(out)).unet is not None
    loaded = models.load(models.resolve(str(out)), ["controlnet", "unet", "vae"], "cpu", torch.float32)
    assert loaded.text_encoder is None and not loaded.controlnet.training


def test_presets_go_along_where_the_controlnet_does(
    tiny: Path, parts: models.Parts, copy: Path, tmp_path: Path
) -> None:
    """They were measured for it: another ControlNet begins without, and what somebody wrote beside it stays."""

    control = {"controlnet": sdxl.new_controlnet(parts.unet, VAE.factor)}
    (copy / OWN_PRESETS).write_text("[quality]\nsteps = 3\n")
    write_family(tmp_path / "new", copy, control)
    write_family(tmp_path / "further", tiny, control, presets=copy)
    assert not (tmp_path / "new" / OWN_PRESETS).exists()
    assert "steps = 3" in (tmp_path / "further" / OWN_PRESETS).read_text()
    (tmp_path / "further" / OWN_PRESETS).write_text("[quality]\nsteps = 4\n")
    write_family(tmp_path / "further", tiny, control, presets=copy)
    assert "steps = 4" in (tmp_path / "further" / OWN_PRESETS).read_text()


def test_casting_is_quiet(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A U-Net of half precision is none of diffusers' warnings, whose list of what it warns of is empty."""
    models.make_tiny(tmp_path, seed=0, image_size=64)
    unet = models.load(models.resolve(str(tmp_path)), ["unet"], "cpu", torch.float32).unet
    unet.to(torch.bfloat16)
    assert "float32" not in capfd.readouterr().err


def test_what_the_hub_says_is_one_line_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of its lines, not an escaped break and the beginning of the next."""
    from huggingface_hub import constants

    from authface.models.hub_cache import hub_errors

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    said = r"cannot get a/b \(Got: refused\): check the connection, set HF_END"
    with pytest.raises(AuthfaceError, match=said), hub_errors("a/b"):
        raise OSError("Got: refused\nAn error happened while trying to locate the file")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = "a/b is not whole on this machine and HF_HUB_OFFLINE is set: unset it"
    with pytest.raises(AuthfaceError, match=said), hub_errors("a/b"):
        raise OSError("Cannot find an appropriate cached snapshot folder")
