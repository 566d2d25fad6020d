"""The family `tiny` before training: SDXL's classes at a size a CPU can train, with random weights."""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authface.errors import AuthfaceError
from authface.extras import need
from authface.models.layout import quiet, write_index

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CLEANER_CHANNELS = (24, 48, 96, 160)
"""Widths of the four levels of a new cleaner: 4.2 M weights, 4.0 GMAC at 256 px."""
TEXT_WIDTHS = (64, 64)
"""Hidden sizes of the two text encoders; the U-Net attends to both side by side, as in SDXL (768 + 1280)."""


@dataclass(frozen=True)
class VaeShape:
    """What a VAE is made of: the widths of its levels, each but the first of half the side, and its latents' channels.

    `unet` are the widths of the U-Net's three levels that go with it. `groups` divides every width of the VAE: its
    norms have so many.
    """

    channels: tuple[int, ...]
    latents: int
    unet: tuple[int, int, int]
    groups: int = 4

    @property
    def factor(self) -> int:
        """Pixels a side that one latent stands for."""
        return int(2 ** (len(self.channels) - 1))


VAES = {"f4c4": VaeShape((8, 16, 48), 4, (32, 64, 128)), "f8c16": VaeShape((8, 24, 48, 96), 16, (48, 96, 192))}
"""By name: 4 pixels a side and 4 channels, or 8 and 16. Both keep as many numbers of a face."""
VAE = VAES["f4c4"]
"""What a new family has: docs/builtin.md says why."""
VOCABULARY = 8_192
"""Tokens of the small family's text encoders, CLIP's most frequent: at 64 numbers each, all 49,408 would weigh as much
as the ControlNet."""
TIME_WIDTH = 32
"""Sinusoid features for each of the six numbers of the time ids (SDXL: 256)."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
WORDS = 49_408
"""CLIP's tokens: 48,894 merges, 2 x 256 bytes and the two specials."""


def make_tiny(
    folder: Path, seed: int, image_size: int = 256, prediction: str = "epsilon",
    channels: tuple[int, int, int] | None = None, vae: VaeShape = VAE,
) -> None:  # fmt: skip
    """Write the tiny family with random weights to `folder`: all of `families.BASE` and a model_index.json.

    `image_size` is the side of the images it is meant for, pixels, that all levels of the VAE and of the U-Net can
    halve; `prediction` is what its U-Net is to predict, `epsilon` as SDXL's or `v_prediction`; `channels` are the
    widths of the U-Net's three levels, multiples of 16, if not those that go with `vae`. Stock
    ``StableDiffusionXLPipeline.from_pretrained(folder)`` loads it.
    """
    grid = vae.factor * 2 ** (len(vae.unet) - 1)
    if image_size < 64 or image_size % grid:
        raise AuthfaceError(f"image_size {image_size}: this family needs a multiple of {grid} from 64 on, such as 256")
    quiet()
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**unet_config(image_size, channels, vae)),
            "vae": AutoencoderKL(**vae_config(image_size, vae)),
            "text_encoder": _text_encoder(TEXT_WIDTHS[0], projected=False),
            "text_encoder_2": _text_encoder(TEXT_WIDTHS[1], projected=True),
        }
    # SDXL's noise schedule: scheduler_config.json of stable-diffusion-xl-base-1.0.
    parts["scheduler"] = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    parts["scheduler"].register_to_config(timestep_spacing="leading", prediction_type=prediction)
    parts["tokenizer"], parts["tokenizer_2"] = clip_tokenizer(VOCABULARY), clip_tokenizer(VOCABULARY)
    for name, part in parts.items():
        part.save_pretrained(str(folder / name))
    write_index(folder)


def clip_tokenizer(size: int = WORDS) -> CLIPTokenizer:
    """CLIP's tokenizer of 49,408 entries, or its `size` most frequent, from openai-clip's vocabulary file.

    Both pad with the end token. SDXL's second pads with ``!``, which makes every ``!`` of a prompt another token.
    Raises AuthfaceError where openai-clip is not installed.
    """
    from transformers import CLIPTokenizer

    lines = gzip.decompress(_vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : size - 2 * 256 - 2 + 1]
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(m.split()) for m in merges), _START, _END]
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = [tuple(merge.split()) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)


def _vocabulary_file() -> Path:
    # Found without importing clip, which pulls in torchvision and pkg_resources.
    found = importlib.util.find_spec("clip")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if path.is_file():
            return path
    need("CLIP's vocabulary", "train", "clip")
    raise AuthfaceError("openai-clip holds no vocabulary: pip install --force-reinstall openai-clip")


def _byte_letters() -> list[str]:
    """One printable letter a byte, in the order of CLIP's vocabulary: printable Latin-1 first, the rest from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(rest)]


def _text_encoder(width: int, *, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**text_config(width))
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def text_config(width: int) -> dict[str, Any]:
    """What a text encoder of hidden size `width` is made of."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": width,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": VOCABULARY - 1,
    }


def vae_config(image_size: int, vae: VaeShape = VAE) -> dict[str, Any]:
    """What its AutoencoderKL is made of; `image_size` in pixels."""
    levels = len(vae.channels)
    return {
        "sample_size": image_size,
        "block_out_channels": vae.channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 1,
        "norm_num_groups": vae.groups,
        "latent_channels": vae.latents,
        # Without attention a face of any size costs what its pixels cost, and patches can be trained on.
        "mid_block_add_attention": False,
        "force_upcast": False,
    }


def unet_config(
    image_size: int, channels: tuple[int, int, int] | None = None, vae: VaeShape = VAE
) -> dict[str, Any]:  # fmt: skip
    """What its UNet2DConditionModel is made of: `image_size` in pixels, `channels` the widths of its levels.

    It works on the latents of `vae`, which says the widths if they are not given.
    """
    return {
        "sample_size": image_size // vae.factor,
        "in_channels": vae.latents,
        "out_channels": vae.latents,
        "block_out_channels": channels or vae.unet,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 1,
        "attention_head_dim": (2, 4, 8),  # number of heads, as in SDXL's config
        "norm_num_groups": 16,
        "use_linear_projection": True,
        "cross_attention_dim": sum(TEXT_WIDTHS),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": 6 * TIME_WIDTH + TEXT_WIDTHS[1],
    }
