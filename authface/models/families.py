"""Names -> weights: a model family is a folder in diffusers' layout, here or on the hub.

``unet/ vae/ text_encoder/ text_encoder_2/ tokenizer/ tokenizer_2/ scheduler/`` and, once trained, ``controlnet/`` and
``cleaner/``.
Only stock classes, only safetensors: a pickle can run code when it is read, so it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from authface.backends import backend_names
from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.models.hub_cache import hub_errors
from authface.models.layout import BASE as BASE
from authface.models.layout import BUILTIN as BUILTIN
from authface.models.layout import FILES, FURTHER, INDEX, PARTS, VARIANTS, WEIGHTED, Commercial, class_name, quiet
from authface.models.networks import ENDINGS, NETWORKS, is_network
from authface.models.sdxl import spatial_factor
from authface.models.tiny import make_tiny as make_tiny

if TYPE_CHECKING:
    import torch
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        ControlNetModel,
        DDPMScheduler,
        UNet2DConditionModel,
        UNet2DModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_CLASSES = {
    "unet": "diffusers:UNet2DConditionModel",
    "controlnet": "diffusers:ControlNetModel",
    "cleaner": "diffusers:UNet2DModel",
    "text_encoder": "transformers:CLIPTextModel",
    "text_encoder_2": "transformers:CLIPTextModelWithProjection",
    "tokenizer": "transformers:CLIPTokenizer",
    "tokenizer_2": "transformers:CLIPTokenizer",
    # Training needs the noising of DDPM whatever sampler the folder names; samplers are made from its config.
    "scheduler": "diffusers:DDPMScheduler",
}
_VAE_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
_PREDICTIONS = ("epsilon", "v_prediction")
REFUSALS = (
    OSError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError,
    SafetensorError,
)  # fmt: skip
"""What diffusers and transformers raise of files and configs that are not what they take them for."""


@dataclass(frozen=True)
class Family:
    """A family known by name; `bytes` is the size of its files in the precision they are published in, rounded."""

    name: str
    location: str
    licence: str
    commercial: Commercial
    parameters: str
    bytes: int


FAMILIES = {
    family.name: family
    for family in (
        # Trained on photos that may be used for research only: its code is Apache-2.0, its weights are not.
        # U-Net 9.5 M, ControlNet 4.8 M, cleaner 4.2 M, VAE 1.0 M, texts 1.3 M, 2 bytes each; two tokenizers 1.1 MB.
        Family("tiny", str(BUILTIN), "research, non-commercial", "no", "20.6 M", 42_500_000),
        # Sizes: U-Net 2,567 M, VAE 84 M, text encoders 123 M and 695 M, ControlNet 1,251 M parameters, 4 bytes each.
        Family(
            "sdxl",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "CreativeML Open RAIL++-M",
            "yes",
            "3.5 B",
            13_900_000_000,
        ),  # fmt: skip
        Family("authface", "Ethanliang99/AuthFace", "non-commercial; SDXL's RAIL++-M", "no", "4.7 B", 18_900_000_000),
    )
}


NEW_LICENCE = "Apache-2.0"
"""Of the tiny family with random weights, which this code makes: no photo is in them."""


@dataclass(frozen=True)
class ModelSource:
    """Where a family's files are: `location` is a folder (`local`) or a repository of the hub."""

    name: str
    location: str
    local: bool
    licence: str = ""


@dataclass
class Parts:
    """The modules of a family that were asked for; the others are None. Modules are in eval mode."""

    folder: Path
    """Where they came from."""
    unet: UNet2DConditionModel = None
    vae: AutoencoderKL | AutoencoderTiny = None
    text_encoder: CLIPTextModel = None
    text_encoder_2: CLIPTextModelWithProjection = None
    tokenizer: CLIPTokenizer = None
    tokenizer_2: CLIPTokenizer = None
    scheduler: DDPMScheduler = None
    controlnet: ControlNetModel = None
    cleaner: UNet2DModel = None


def has_builtin() -> bool:
    """Whether the built-in model is in this installation; `models verify tiny` says whether it is whole."""
    return (BUILTIN / INDEX).is_file()


def resolve(name: str, *, others: Collection[str] = ()) -> ModelSource:
    """What `name` stands for: a known family, a folder in diffusers' layout, or ``owner/repository`` on the hub.

    Raises AuthfaceError where the built-in weights are absent, UsageError for a name that is none of these
    or a folder with missing parts; `others` are names that the caller takes beside families, for that message.
    """
    if name == "tiny" and not has_builtin():
        raise AuthfaceError(
            f"the built-in model is not in this installation (no {one_line(BUILTIN / INDEX)}): install authface again, "
            "train one (authface train autoencoder, prior, controlnet) or give a folder: --model FOLDER, in training "
            "-O train.prior.model=FOLDER"
        )
    if name in FAMILIES:
        family = FAMILIES[name]
        local = name == "tiny"
        return ModelSource(name, str(BUILTIN) if local else family.location, local, family.licence)
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [part for part in BASE if not (folder / part).is_dir()]
        if missing:
            raise UsageError(f"{one_line(name)} is no model folder: it lacks {', '.join(missing)}")
        return ModelSource(name, str(folder), True)
    owner, slash, repository = name.partition("/")
    if slash and owner and repository and "/" not in repository and owner not in {".", "..", "~"}:
        return ModelSource(name, name, False)
    known = one_line(", ".join((*FAMILIES, *others)))
    raise UsageError(f"no model {one_line(name)!r}: give a folder, owner/repository, or one of {known}")


def check_restorer(name: str) -> None:
    """Refuse a name that is no restorer and stands for no family; nothing is downloaded. Raises as `resolve` does."""
    if name not in backend_names("restorers") and not is_network(name):
        resolve(name, others=other_restorers())


def other_restorers() -> tuple[str, ...]:
    """What restores faces beside families, for messages: registered ones, networks by name, files."""
    return (*backend_names("restorers"), *NETWORKS, f"a file {', '.join(ENDINGS)}")


def fetch(source: ModelSource, parts: Collection[str]) -> Path:
    """The folder with the files of `parts`, downloaded if they are not in the hub's cache. Raises AuthfaceError."""
    if source.local:
        return Path(source.location)
    return snapshot(source.location, [f"{part}/{pattern}" for part in parts for pattern in FILES])


def snapshot(repository: str, patterns: Collection[str], revision: str | None = None) -> Path:
    """The folder with the hub's files of these patterns; its name is their commit. Raises AuthfaceError."""
    from huggingface_hub import snapshot_download

    with hub_errors(repository, revision):
        found = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(VARIANTS)
        )
    return Path(found)


def load(source: ModelSource, parts: Collection[str], device: torch.device | str, dtype: torch.dtype) -> Parts:
    """Load `parts` of a family in `dtype` onto `device`; the VAE stays in float32, where SDXL's does not overflow.

    Raises AuthfaceError where files are missing, broken, pickled, of another class, or do not fit each other.
    """
    quiet()
    folder = fetch(source, parts)
    loaded = Parts(folder)
    for part in parts:
        setattr(loaded, part, _load_part(folder, part, device, dtype))
    check(loaded)
    return loaded


def check(parts: Parts) -> None:
    """Refuse parts that do not fit each other, or whose conventions are not those of `sdxl`. Raises AuthfaceError."""
    where = one_line(parts.folder)
    if parts.scheduler is not None:
        _check_schedule(parts.scheduler, where)
    if parts.vae is not None:
        scale = parts.vae.config.scaling_factor
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise AuthfaceError(f"{where}/vae: scaling_factor {one_line(scale, 40)}, a number above 0 is needed")
    latents = {
        name: int(count)
        for name, part, key in (
            ("vae", parts.vae, "latent_channels"),
            ("unet", parts.unet, "in_channels"),
            ("controlnet", parts.controlnet, "in_channels"),
        )
        if part is not None
        for count in [part.config[key]]
    }
    if len(set(latents.values())) > 1:
        raise AuthfaceError(f"{where}: latent channels differ ({latents}): the parts are of different families")
    if parts.controlnet is not None:
        shape = tuple(parts.controlnet.controlnet_cond_embedding.conv_in.weight.shape)
        if shape[1] != 3:
            raise AuthfaceError(f"{where}/controlnet: its condition has {shape[1]} channels, 3 (RGB) are needed")
        if parts.vae is not None:
            layers = len(parts.controlnet.config.conditioning_embedding_out_channels)
            if (made := 2 ** (layers - 1)) != (factor := spatial_factor(parts.vae)):
                raise AuthfaceError(f"{where}: pixels a latent, of controlnet {made}, of vae {factor}: not a pair")
        if parts.unet is not None:
            widths = parts.controlnet.config.cross_attention_dim, parts.unet.config.cross_attention_dim
            if widths[0] != widths[1]:
                raise AuthfaceError(f"{where}: text width of controlnet {widths[0]}, of unet {widths[1]}: not a pair")
            blocks = [list(part.config.block_out_channels) for part in (parts.controlnet, parts.unet)]
            if blocks[0] != blocks[1]:
                raise AuthfaceError(f"{where}: blocks of controlnet {blocks[0]}, of unet {blocks[1]}: not a pair")
    if parts.unet is not None and parts.text_encoder is not None and parts.text_encoder_2 is not None:
        width = parts.text_encoder.config.hidden_size + parts.text_encoder_2.config.hidden_size
        if width != parts.unet.config.cross_attention_dim:
            raise AuthfaceError(
                f"{where}: the text encoders are {width} wide, unet takes {parts.unet.config.cross_attention_dim}: "
                "the parts are of different families"
            )


def _check_schedule(scheduler: DDPMScheduler, where: str) -> None:
    predicts, kept = scheduler.config.prediction_type, scheduler.alphas_cumprod
    if predicts not in _PREDICTIONS:
        raise AuthfaceError(
            f"{where}/scheduler: prediction_type {one_line(predicts, 40)}, only {' and '.join(_PREDICTIONS)} are run"
        )
    if not 0 < len(kept) == scheduler.config.num_train_timesteps or not ((kept >= 0) & (kept <= 1)).all():
        raise AuthfaceError(
            f"{where}/scheduler: the betas do not make {one_line(scheduler.config.num_train_timesteps, 40)} timesteps"
            " that keep from all to nothing of an image: get its files again"
        )


def vae_class(name: str, where: str) -> Any:
    """diffusers' class of a VAE. Raises AuthfaceError for one that is not run."""
    if name not in _VAE_CLASSES:
        raise AuthfaceError(f"{one_line(where)} is a {one_line(name, 60)}; only {' and '.join(_VAE_CLASSES)} are run")
    return getattr(import_module("diffusers"), name)


def skeleton(folder: Path) -> Parts:
    """All parts of the family in `folder` as its configurations describe them, without the weights' numbers.

    Modules are on torch's device `meta`: nothing of the weights is read. Raises AuthfaceError as `load` does.
    """
    import torch

    quiet()
    parts = Parts(folder)
    for part in PARTS:
        where = folder / part
        if part not in WEIGHTED:
            setattr(parts, part, _load_part(folder, part, "cpu", torch.float32))
        elif part in BASE or where.is_dir():
            kind = _class(where, part)
            with _loading(where), torch.device("meta"):
                if part.startswith("text"):
                    made = kind(kind.config_class.from_pretrained(str(where), local_files_only=True))
                else:
                    made = kind.from_config(kind.load_config(str(where), local_files_only=True))
            setattr(parts, part, made.eval())
    check(parts)
    return parts


@contextmanager
def _loading(where: Path) -> Iterator[None]:
    """Raise what the libraries say about a part's files as an AuthfaceError of one line."""
    try:
        yield
    except REFUSALS as error:
        raise AuthfaceError(f"cannot load {one_line(where)}: {first_line(error, 200)}; get its files again") from error


def _load_part(folder: Path, part: str, device: torch.device | str, dtype: torch.dtype) -> Any:
    import torch

    where = folder / part
    if not where.is_dir():
        hint = f"; train it with authface train {part}" if part in FURTHER else ""
        raise AuthfaceError(f"{one_line(folder)} has no {part}{hint}")
    if part in WEIGHTED and not any(where.glob("*.safetensors")):
        pickled = next((f.name for pattern in ("*.bin", "*.pt", "*.ckpt") for f in where.glob(pattern)), "")
        found = f"only the pickle {one_line(pickled)}, which can run code" if pickled else "no weights"
        raise AuthfaceError(f"{one_line(where)} holds {found}: convert them to safetensors")
    arguments: dict[str, Any] = {"local_files_only": True}
    if part in WEIGHTED:
        named = "dtype" if part.startswith("text") else "torch_dtype"
        arguments |= {"use_safetensors": True, named: torch.float32 if part == "vae" else dtype}
    with _loading(where):
        loaded = _class(where, part).from_pretrained(str(where), **arguments)
    return loaded.to(device).eval() if part in WEIGHTED else loaded


def _class(where: Path, part: str) -> Any:
    if part == "vae":
        return vae_class(class_name(where.parent, part), str(where))
    module, _, name = _CLASSES[part].partition(":")
    return getattr(import_module(module), name)
