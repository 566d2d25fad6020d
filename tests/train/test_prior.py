"""Stage I: prompts that are dropped or chosen, adapters, and text encoders that are trained too."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from authface.errors import UsageError
from authface.models.families import load, resolve
from authface.train.cache import TensorStore, cache_latents, cache_texts
from authface.train.data import Draw, FaceDataset
from authface.train.objective import Noise
from authface.train.prior import PriorObjective, train_prior
from authface.train.settings import (
    PriorSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, metrics, quick, weights


def test_dropped_prompts_do_not_matter(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """With a dropout of 1 the loss is the empty prompt's; with 0 it is the prompt's own."""
    source, faces = resolve(str(tiny)), FaceDataset(dataset, SIZE)
    parts = load(source, ["vae", "unet", "scheduler"], CPU, torch.float32)
    store = TensorStore(tmp_path / "cache")
    texts = cache_texts(faces.prompts(), source, CPU, store, Quiet())
    latents = cache_latents(faces, source, parts.vae, store, 2, Quiet())
    draws = [Draw(0, 0, False), Draw(1, 0, False)]
    loss: dict[tuple[float, str], float] = {}
    for dropout in (0.0, 1.0):
        values = quick(tiny, dataset, tmp_path / "out", prompt_dropout=dropout)
        objective = PriorObjective(faces, parts, source, latents, texts, faces.prompts(), PriorSettings(**values))
        batch = objective.batch(draws)
        null = texts.read(["", ""])
        empty = type(batch)(batch.ids, batch.latents, null.states, null.pooled, batch.null_states, batch.null_pooled)
        for name, one in (("prompt", batch), ("empty", empty)):
            with torch.no_grad():
                value = objective.loss(objective.trained, one, Noise(0, range(2)), 0)
            loss[dropout, name] = float(value.total)
    assert loss[1.0, "prompt"] == loss[1.0, "empty"] == loss[0.0, "empty"] != loss[0.0, "prompt"]


def test_an_adapter_is_trained_kept_and_merged(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """LoRA moves nothing but itself; stock pipelines give the same picture with it and with the merged U-Net."""
    from diffusers import StableDiffusionXLPipeline

    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out", lora_rank=2, lora_alpha=4, lr=0.02, ema=0))
    assert train_prior(settings, Quiet(), "cpu").finished
    before, after = weights(tiny, "unet"), weights(settings.out, "unet")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all(re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight", name) for name in changed)

    def picture(folder: Path, adapter: Path | None) -> torch.Tensor:
        pipeline = StableDiffusionXLPipeline.from_pretrained(str(folder), add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        if adapter:
            pipeline.load_lora_weights(str(adapter))
        made: torch.Tensor = pipeline(
            "cap", num_inference_steps=2, height=SIZE, width=SIZE, guidance_scale=1, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
        return made

    merged, loaded, base = picture(settings.out, None), picture(tiny, settings.out / "lora"), picture(tiny, None)
    assert torch.allclose(merged, loaded, atol=1e-4) and not torch.allclose(merged, base, atol=1e-2)


def test_adapters_are_not_merged_into_their_own_base(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """The same command again would merge them once more, and more steps train them over what they did."""
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    settings = PriorSettings(**quick(base, dataset, tmp_path / "." / "base", lora_rank=2))
    with pytest.raises(UsageError, match="lora_rank=2 into .*base, its own model: .*; set another train.prior.out"):
        train_prior(settings, Quiet(), "cpu")
    assert not (base / "training").exists()


def test_text_encoders_are_trained_with_the_prior(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Both encoders change, are written, and are what the pictures are drawn with; a stopped run goes on."""
    settings = {
        name: PriorSettings(**quick(tiny, dataset, tmp_path / name, train_text=True, save_every=2, validate_every=2))
        for name in ("whole", "broken")
    }
    assert train_prior(settings["whole"], Quiet(), "cpu").finished
    assert not train_prior(settings["broken"], Quiet(at=2), "cpu").finished
    assert train_prior(settings["broken"], Quiet(), "cpu").finished
    assert metrics(settings["whole"].out) == metrics(settings["broken"].out)
    for part in ("text_encoder", "text_encoder_2"):
        old, new = (load(resolve(str(f)), [part], CPU, torch.float32) for f in (tiny, settings["whole"].out))
        moved = [
            not torch.equal(a, b)
            for a, b in zip(getattr(old, part).parameters(), getattr(new, part).parameters(), strict=True)
        ]
        assert sum(moved) >= len(moved) / 2  # of the first, all but the last layer
    assert not (settings["whole"].out / "training" / "cache" / "text").exists()


def test_the_ablation_of_prompts(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """`semantic` trains on the other column; a dataset without it is told of in one line."""
    values = quick(tiny, dataset, tmp_path / "out", steps=1)
    losses = []
    for kind in ("all", "semantic"):
        settings = PriorSettings(**values | {"out": tmp_path / kind, "prompts": kind, "prompt_dropout": 0})
        assert train_prior(settings, Quiet(), "cpu").finished
        losses.append(metrics(settings.out)[0]["loss"])
    assert losses[0] != losses[1]
