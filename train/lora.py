"""Low-rank adapters (LoRA, Hu et al. 2022) on a U-Net's attention, with peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from authface.models.families import ModelSource, load

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers that adapters are put beside: all of the attention, as in diffusers' own training."""
FOLDER = "lora"
"""Where the adapter alone lies in a written family; stock pipelines read it with ``load_lora_weights``."""


def begin(unet: Any, rank: int, alpha: float, half: bool) -> None:
    """Freeze `unet` and put new adapters beside its attention: float32, over weights in bfloat16 if `half`."""
    from peft import LoraConfig

    unet.requires_grad_(False)
    if half:
        unet.to(torch.bfloat16)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(TARGETS)))
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merged(unet: Any, source: ModelSource, folder: Path) -> Any:
    """Save the adapter of `unet` to `folder`; a float32 U-Net of `source` with the adapter merged into its weights.

    Merged into the weights as they were published, not into the rounded ones that training ran on.
    """
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = unet.peft_config["default"]
    state = {name: tensor.float().cpu().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionXLPipeline.save_lora_weights(
        str(folder), unet_lora_layers=convert_state_dict_to_diffusers(dict(state)),
        unet_lora_adapter_metadata=config.to_dict(), safe_serialization=True,
    )  # fmt: skip
    whole: Any = load(source, ["unet"], "cpu", torch.float32).unet
    whole.add_adapter(config)
    set_peft_model_state_dict(whole, state)
    whole.fuse_lora()
    whole.unload_lora()
    return whole
