"""A real family, untrained: every part in diffusers' layout, with a ControlNet that is not zero."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny family at 64 px. Fresh ControlNets end in zeros, so that the input would not matter."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    from authface.models import make_tiny

    folder = tmp_path_factory.mktemp("family")
    make_tiny(folder, seed=1, image_size=64)
    controlnet = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(folder / "unet"))
    generator = torch.Generator().manual_seed(2)
    torch.nn.init.normal_(controlnet.controlnet_cond_embedding.conv_out.weight, std=5, generator=generator)
    for end in [controlnet.controlnet_mid_block, *controlnet.controlnet_down_blocks]:
        torch.nn.init.normal_(end.weight, std=0.2, generator=generator)
    controlnet.save_pretrained(folder / "controlnet")
    _stretch(folder / "vae")
    return folder


def _stretch(folder: Path) -> None:
    """Let the untrained decoder fill the range of colours: as it comes, every picture is near black."""
    import torch
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(folder)
    last = vae.decoder.layers[-1]
    with torch.no_grad():
        pixels = vae.decode(torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))).sample / 2 + 0.5
        gain = 0.2 / pixels.std((0, 2, 3))
        last.weight.mul_(gain[:, None, None, None])
        last.bias.copy_(0.5 + (last.bias - pixels.mean((0, 2, 3))) * gain)
    vae.save_pretrained(folder)
