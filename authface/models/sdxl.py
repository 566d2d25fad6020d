"""SDXL's conventions, the same in training and in sampling: latents, prompts, time ids, the target of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDPMScheduler, UNet2DConditionModel

    from authface.models.families import Parts


@dataclass(frozen=True)
class TextEmbedding:
    """What the U-Net sees of n prompts.

    `states` (n, 77, width) are the penultimate hidden states of both encoders side by side (SDXL: 768 + 1280),
    `pooled` (n, width of the second encoder's projection) is the second's pooled output.
    """

    states: torch.Tensor
    pooled: torch.Tensor


def to_unit(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in 0..1: the range of the ControlNet's condition."""
    import torch

    pixels = torch.from_numpy(rgb if rgb.flags.writeable else rgb.copy())  # torch warns of what it could write to
    return pixels.permute(0, 3, 1, 2).float().div(255)


def to_signed(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in -1..1: the range of the VAE."""
    return to_unit(rgb).mul(2).sub(1)


def to_rgb(signed: torch.Tensor) -> NDArray[np.uint8]:
    """(n, 3, h, w) in -1..1 -> (n, h, w, 3) uint8, clipped and rounded."""
    pixels = signed.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round()
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).byte().contiguous().numpy()
    return array


def spatial_factor(vae: AutoencoderKL | AutoencoderTiny) -> int:
    """How many pixels a side one latent stands for: each level of the VAE but the first halves it (SDXL: 8)."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def new_controlnet(unet: UNet2DConditionModel, factor: int) -> ControlNetModel:
    """A copy of `unet`'s down path with zero convolutions, over images of `factor` pixels a side for each latent.

    The layers that see the image begin at random: each but the first halves it. SDXL's are 16, 32, 96 and 256 wide.
    """
    from diffusers import ControlNetModel

    halvings = factor.bit_length() - 1
    widths = (16, 32, 96, 256)[: halvings + 1] + (256,) * (halvings - 3)
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)


def encode(
    vae: AutoencoderKL | AutoencoderTiny, signed: torch.Tensor, device: torch.device | None = None
) -> torch.Tensor:
    """Images (n, 3, h, w) in -1..1 -> latents (n, c, h/f, w/f) in the U-Net's scale, float32; f: `spatial_factor`.

    The posterior's mean: SDXL's posterior is so narrow that a sample of it differs in the noise only. `device` is
    where the VAE runs, if its weights wait elsewhere.
    """
    posterior = vae.encode(signed.to(device or vae.device, vae.dtype))
    latents = posterior.latent_dist.mode() if hasattr(posterior, "latent_dist") else posterior.latents
    mean, factor = _normalisation(vae, latents)
    scaled: torch.Tensor = (latents.float() - mean) * factor
    return scaled


def decode(
    vae: AutoencoderKL | AutoencoderTiny, latents: torch.Tensor, device: torch.device | None = None
) -> torch.Tensor:
    """The inverse of `encode`: latents in the U-Net's scale -> images (n, 3, h, w), about -1..1, float32."""
    latents = latents.to(device or vae.device)
    mean, factor = _normalisation(vae, latents)
    raw = latents.float() / factor + mean
    image: torch.Tensor = vae.decode(raw.to(vae.dtype)).sample
    return image.float()


def _normalisation(vae: AutoencoderKL | AutoencoderTiny, like: torch.Tensor) -> tuple[Any, Any]:
    """Mean to take off and factor to multiply by, as stock pipelines do: shift_factor is no part of SDXL's."""
    import torch

    mean, std = (vae.config.get(name) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return 0.0, vae.config.scaling_factor
    means = torch.tensor(mean, device=like.device).view(1, -1, 1, 1)
    return means, vae.config.scaling_factor / torch.tensor(std, device=like.device).view(1, -1, 1, 1)


def tokenize(parts: Parts, prompts: Sequence[str]) -> torch.Tensor:
    """(2, n, 77) tokens of `prompts` for both text encoders; longer ones are cut."""
    import torch

    return torch.stack([
        tokenizer(list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        for tokenizer in (parts.tokenizer, parts.tokenizer_2)
    ])  # fmt: skip


def encode_tokens(tokens: torch.Tensor, text_encoder: Any, text_encoder_2: Any) -> TextEmbedding:
    """Both text encoders over (2, n, 77) tokens."""
    import torch

    first, second = (
        encoder(rows.to(encoder.device), output_hidden_states=True)
        for rows, encoder in zip(tokens, (text_encoder, text_encoder_2), strict=True)
    )
    return TextEmbedding(torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second[0])


def encode_prompts(parts: Parts, prompts: Sequence[str]) -> TextEmbedding:
    """Both text encoders over `prompts`; longer ones are cut at 77 tokens, an empty one is encoded, not zeroed."""
    import torch

    with torch.no_grad():
        return encode_tokens(tokenize(parts, prompts), parts.text_encoder, parts.text_encoder_2)


def time_ids(size: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """(count, 6): original height and width, crop top and left, target height and width of square images, pixels."""
    import torch

    ids = torch.tensor([size, size, 0, 0, size, size], device=like.device, dtype=like.dtype)
    return ids.expand(count, 6)


def loss_target(
    scheduler: DDPMScheduler, clean: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What the U-Net is to predict at `noisy` so that `clean_estimate` gives `clean`, float32.

    (z_t - sqrt(abar) z_0) / sqrt(1 - abar): the noise (epsilon, SDXL); or the velocity (sqrt(abar) z_t - z_0) /
    sqrt(1 - abar) where the scheduler's config says so. `noisy` need not be made from `clean`.
    """
    kept = scheduler.alphas_cumprod.to(noisy.device)[timesteps].float().view(-1, 1, 1, 1)
    aim: torch.Tensor = noisy.float() - kept.sqrt() * clean.float()
    if scheduler.config.prediction_type == "v_prediction":
        aim = kept.sqrt() * noisy.float() - clean.float()
    aim = aim / (1 - kept).sqrt()
    return aim


def square_error(guess: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(n,) mean square of guess less target of each image, float32."""
    errors: torch.Tensor = (guess.float() - target.float()).square().flatten(1).mean(1)
    return errors


def clean_estimate(
    scheduler: DDPMScheduler, noisy: torch.Tensor, guess: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The clean latents that a prediction amounts to, in one step, float32 (Song et al. 2021, DDIM, equation 12).

    (z_t - sqrt(1 - abar) epsilon) / sqrt(abar), or sqrt(abar) z_t - sqrt(1 - abar) v for a predicted velocity.
    """
    kept = scheduler.alphas_cumprod.to(noisy.device)[timesteps].float().view(-1, 1, 1, 1)
    clean: torch.Tensor = kept.sqrt() * noisy.float() - (1 - kept).sqrt() * guess.float()
    if scheduler.config.prediction_type != "v_prediction":
        clean = (noisy.float() - (1 - kept).sqrt() * guess.float()) / kept.sqrt()
    return clean


def snr_weight(scheduler: DDPMScheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """(n,) weights of the error at each timestep: min(SNR, gamma) / SNR for epsilon, over SNR + 1 for a velocity.

    Hang et al. 2023 (Min-SNR). `gamma` of 0 weights all alike.
    """
    import torch

    if not gamma:
        return torch.ones(len(timesteps), device=timesteps.device)
    kept = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr: torch.Tensor = kept / (1 - kept)
    return snr.clamp(max=gamma) / (snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr)
