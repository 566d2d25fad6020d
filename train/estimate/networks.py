"""The networks of a family on torch's meta device: from its configs alone, without a weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from authface.errors import AuthfaceError, first_line, one_line
from authface.models.families import Parts, has_builtin, resolve
from authface.models.tiny import TEXT_WIDTHS, VAE, VaeShape, text_config, unet_config, vae_config

SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Facts of stable-diffusion-xl-base-1.0: 2,567,463,684 weights; a ControlNet begun from it has 1,251,014,160."""
SDXL_VAE: dict[str, Any] = {
    "sample_size": 1024,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
"""83,653,863 weights."""
SDXL_TEXT: tuple[dict[str, Any], dict[str, Any]] = (
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "hidden_act": "quick_gelu", "projection_dim": 768},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
     "hidden_act": "gelu", "projection_dim": 1280},
)  # fmt: skip
"""CLIP ViT-L/14 and OpenCLIP ViT-bigG/14, their text halves: 123,060,480 and 694,659,840 weights."""
BUILT_IN = ("sdxl", "authface")
"""Families whose architecture is the tables above."""
_CONFIGS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, eq=False)
class Architecture:
    """Configs of a family as diffusers and transformers write them; `origin` is where they are from, for people."""

    origin: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], dict[str, Any]]

    def parts(self, *, text: bool = False) -> Parts:
        """U-Net, VAE and scheduler, with `text` the encoders too; all weights on the meta device, in float32."""
        import diffusers
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        vae = getattr(diffusers, str(self.vae.get("_class_name", "AutoencoderKL")))
        parts = Parts(Path(), scheduler=diffusers.DDPMScheduler())
        with torch.device("meta"):
            parts.unet = diffusers.UNet2DConditionModel.from_config(self.unet)
            parts.vae = vae.from_config(self.vae)
            if text:
                first, second = (CLIPTextConfig.from_dict(config) for config in self.text)
                parts.text_encoder, parts.text_encoder_2 = CLIPTextModel(first), CLIPTextModelWithProjection(second)
        return parts


def find_architecture(model: str, size: int, begins_from: Mapping[str, str], vae: VaeShape = VAE) -> Architecture:
    """The architecture of `model`: a folder's configs where there is one, else what is known of its name.

    `size` is the side of the images, pixels, and `vae` the shape of the VAE, for a family that is `new`. `begins_from`
    maps folders that a recipe will make to the model each begins from: until such a folder is there, it has that
    model's architecture. Raises AuthfaceError for a family whose configs are not on this machine, UsageError for a
    name that is none.
    """
    path = [model]
    name = model
    while not (Path(name).expanduser() / "unet").is_dir() and begins_from.get(name, name) not in path:
        name = begins_from[name]
        path.append(name)
    via = f"; {one_line(model)} is not there yet, it begins from it" if len(path) > 1 else ""
    if name == "new" or (name == "tiny" and not has_builtin()):
        text = text_config(TEXT_WIDTHS[0]), text_config(TEXT_WIDTHS[1])
        return Architecture(f"tiny's architecture{via}", unet_config(size, vae=vae), vae_config(size, vae), text)
    if name in BUILT_IN:
        return Architecture(f"SDXL's architecture, built in{via}", SDXL_UNET, SDXL_VAE, SDXL_TEXT)
    source = resolve(name)
    read = _local(Path(source.location)) if source.local else _cached(source.location)
    unet, own, first, second = (read(part) for part in _CONFIGS)
    return Architecture(f"the configs of {one_line(name)}{via}", unet, own, (first, second))


def _local(folder: Path) -> Callable[[str], dict[str, Any]]:
    return lambda part: _read(folder / part / "config.json")


def _cached(repository: str) -> Callable[[str], dict[str, Any]]:
    def read(part: str) -> dict[str, Any]:
        try:
            found = try_to_load_from_cache(repository, f"{part}/config.json")
        except HFValidationError as error:
            raise AuthfaceError(f"{one_line(repository)} is no name of the hub: {first_line(error, 100)}") from error
        if not isinstance(found, str):
            raise AuthfaceError(
                f"{part}/config.json of {one_line(repository)} is not in the hub's cache, and an estimate downloads"
                f" nothing: give its folder, or estimate with one of {', '.join(BUILT_IN)}, tiny"
            )
        return _read(Path(found))

    return read


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise AuthfaceError(f"cannot read {one_line(path)} ({first_line(error, 80)}): get the files again") from error
    return config
