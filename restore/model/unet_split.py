"""The stock U-Net in two halves, so that its encoder's features can be reused for several steps.

The encoder's features hardly change from a step to the next, the decoder's do: Faster Diffusion (Li et al. 2023)
computes the encoder, and a ControlNet that adds to it, in some steps only. diffusers' forward always runs both halves,
so they are separated here, module by module as in `UNet2DConditionModel.forward`, for a U-Net of SDXL's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class StepInputs(NamedTuple):
    """Inputs of the networks in a step: n noisy latents, and as many rows of conditions."""

    noisy: torch.Tensor
    """(n, c, h, w)"""
    t: torch.Tensor
    """The timestep, a tensor without dimensions where the latents are."""
    image: torch.Tensor
    """The ControlNet's embedding of the images."""
    states: torch.Tensor
    """Text embeddings, token by token."""
    pooled: torch.Tensor
    """Text embeddings of the whole prompt."""
    time_ids: torch.Tensor

    @property
    def added(self) -> dict[str, torch.Tensor]:
        """SDXL's conditions besides the text's states, by diffusers' names."""
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}


class Features(NamedTuple):
    """Outputs of the encoder, and inputs of the decoder once the ControlNet's residuals are added."""

    skips: tuple[torch.Tensor, ...]
    """Features of each layer of the down blocks, from the finest on."""
    middle: torch.Tensor

    def with_residuals(self, down: Sequence[torch.Tensor], mid: torch.Tensor) -> Features:
        """The features plus the ControlNet's residuals: `down`, one for each of the skips, and `mid`."""
        skips = tuple(skip + residual for skip, residual in zip(self.skips, down, strict=True))
        return Features(skips, self.middle + mid)


def encode(unet: Any, step: StepInputs) -> Features:
    """The features of the down blocks and the mid block, without a ControlNet's residuals."""
    embedded, states = _embedded(unet, step)
    sample = unet.conv_in(step.noisy)
    skips = [sample]
    for block in unet.down_blocks:
        sample, more = block(hidden_states=sample, temb=embedded, **_text_inputs(block, states))
        skips += more
    sample = unet.mid_block(sample, embedded, **_text_inputs(unet.mid_block, states))
    return Features(tuple(skips), sample)


def decode(unet: Any, features: Features, step: StepInputs) -> torch.Tensor:
    """The U-Net's prediction (n, c, h, w) from `features`, of this or an earlier step, and this step's time and text.

    The latents' sides are multiples of what the U-Net halves, as `DiffusionRestorer` sees to.
    """
    embedded, states = _embedded(unet, step)
    sample, skips = features.middle, features.skips
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, taken = skips[:-count], skips[-count:]
        text = _text_inputs(block, states)
        sample = block(hidden_states=sample, temb=embedded, res_hidden_states_tuple=taken, **text)
    if unet.conv_norm_out:
        sample = unet.conv_act(unet.conv_norm_out(sample))
    predicted: torch.Tensor = unet.conv_out(sample)
    return predicted


def _embedded(unet: Any, step: StepInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The embedding of the timestep and SDXL's conditions, and the text's states as cross-attention takes them."""
    embedded = unet.time_embedding(unet.get_time_embed(sample=step.noisy, timestep=step.t))
    given = {"encoder_hidden_states": step.states, "added_cond_kwargs": step.added}
    embedded = embedded + unet.get_aug_embed(emb=embedded, **given)
    return embedded, unet.process_encoder_hidden_states(**given)


def _text_inputs(block: Any, states: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}
