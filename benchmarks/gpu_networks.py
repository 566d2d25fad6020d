"""Random networks of SDXL's shapes, inputs for them, and what they compute: for benchmarks/gpu.py."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from authface.models.families import Parts
    from authface.models.sdxl import TextEmbedding


def find_authface() -> None:
    """Make a checkout that is not installed importable: its folders are parts of the package."""
    root = str(Path(__file__).resolve().parents[1])
    if importlib.util.find_spec("authface") is None:
        sys.path.insert(0, root)
    import authface

    if importlib.util.find_spec("authface.restore") is None:
        authface.__path__.append(root)


def make_parts(device: torch.device, dtype: torch.dtype, small: bool) -> Parts:
    """U-Net, ControlNet, VAE and scheduler, their weights random; the ControlNet's every layer is heard."""
    import torch

    from authface.models.layout import quiet

    quiet()  # before the models are imported
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    from authface.models.families import Parts
    from authface.models.sdxl import new_controlnet
    from authface.models.tiny import unet_config, vae_config
    from authface.train.estimate.stages import SDXL_UNET, SDXL_VAE

    shape = vae_config(512) if small else SDXL_VAE
    torch.manual_seed(1)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with device, torch.no_grad():
            unet = UNet2DConditionModel(**(unet_config(512) if small else SDXL_UNET))
            control = new_controlnet(unet, 2 ** (len(shape["block_out_channels"]) - 1))
            ends = [control.controlnet_mid_block, *control.controlnet_down_blocks]
            for end in [*ends, control.controlnet_cond_embedding.conv_out]:
                end.reset_parameters()  # zeros as they come
        torch.set_default_dtype(torch.float32)
        with device:
            vae = AutoencoderKL(**shape)
    finally:
        torch.set_default_dtype(before)
    # SDXL's noise schedule: scheduler_config.json of stable-diffusion-xl-base-1.0.
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.register_to_config(timestep_spacing="leading", prediction_type="epsilon")
    parts = Parts(Path(), unet=unet, controlnet=control, vae=vae, scheduler=scheduler)
    for network in (unet, control, vae):
        network.eval()
    return parts


def make_text(parts: Parts, device: torch.device) -> TextEmbedding:
    """What would be said of a prompt and a negative one."""
    import torch

    from authface.models.sdxl import TextEmbedding

    config = parts.unet.config
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    states = torch.randn(2, 77, config.cross_attention_dim, device=device)
    return TextEmbedding(states, torch.randn(2, width, device=device))


def pictures(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size, 3): smooth pictures, each another."""
    import numpy as np

    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(np.stack([9 * x + y + n, 7 * y + n, 5 * (x - y)], -1)) for n in range(count)]
    return np.rint(127.5 + 127.5 * np.stack(waves)).astype(np.uint8)


def count_tflop(call: Callable[[], object]) -> float:
    """What a call computes; not a number where that cannot be counted, which is no reason to measure nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with FlopCounterMode(display=False) as counter:
            call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the seconds can be measured
        print(f"cannot count: {type(error).__name__}: {error}".splitlines()[0][:300], flush=True)
        return math.nan
    return float(counter.get_total_flops() / 1e12)
