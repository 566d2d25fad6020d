"""The extras of `pip install 'authface[NAME]'`: what each brings beyond the core, and the line that asks for it.

A command works without any of them until it comes to one, and then says in one line what to type: `need` is the one
place that does. `--help`, `--dry-run`, `doctor` and recipes never ask. A test holds this table to pyproject.toml.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from authface.errors import UsageError


@dataclass(frozen=True)
class Extra:
    """One name in ``pip install 'authface[NAME]'``."""

    brings: str
    """What can be done with it, in a few words."""
    modules: tuple[str, ...]
    """The top-level modules that it installs for us, the one that is named first where all lack first."""


_MODELS = ("torch", "torchvision", "transformers", "accelerate")
_DIFFUSION = (*_MODELS, "diffusers", "facexlib")
EXTRAS = {
    "restore": Extra("models in torch: every family and GPU, parsed masks, RetinaFace with ResNet-50", _DIFFUSION),
    "train": Extra("train, estimate train", (*_DIFFUSION, "datasets", "clip", "tensorboard", "timm")),
    "annotate": Extra("annotate tags --with llava, free words in exports", (*_MODELS, "clip")),
    "evaluate": Extra("evaluate, metrics in curate filter", (*_DIFFUSION, "pyiqa", "scipy")),
    "learn": Extra("curate learn: what a reviewer keeps", ("sklearn",)),
    "samples": Extra("photos for curate fetch --from samples", ("skimage", "matplotlib")),
    "app": Extra("authface app, the web page", ("gradio",)),
    "video": Extra("restore of videos", ("av",)),
    "heic": Extra("HEIC and HEIF photos", ("pillow_heif",)),
    "c2pa": Extra(
        "restore.sign: Content Credentials in results; what those of photos say of training", ("c2pa", "cryptography")
    ),
    "onnx": Extra("models export: a family's graphs, which restore without torch", ("onnx", "onnxscript")),
    "restorers": Extra("other restorers from .pth files: GFPGAN, CodeFormer", ("spandrel", "spandrel_extra_arches")),
    "upscale": Extra("restore.upscaler: backgrounds enlarged by a network", ("spandrel",)),
    "lora": Extra("train prior with low-rank adapters", ("peft",)),
    "4bit": Extra("LLaVA in 4 bits", ("bitsandbytes",)),
    "8bit": Extra("optimizer adamw8bit", ("bitsandbytes",)),
    "hps": Extra("human preference (HPSv2) in evaluate prior", ("open_clip",)),
    "qalign": Extra("Q-Align in evaluate challenge", ("icecream",)),
    "deepspeed": Extra("train over several GPUs with ZeRO-2", ("deepspeed",)),
    "ray": Extra("--engine ray: a cluster", ("ray",)),
    "s3": Extra("photo sets at s3:// addresses", ("s3fs",)),
    "trackio": Extra("tracker = trackio", ("trackio",)),
    "wandb": Extra("tracker = wandb", ("wandb",)),
    "docs": Extra("this documentation as a site", ("material",)),
}
"""Every extra but `all` and `dev`, which are sums of these; of two that bring a module the first is proposed."""
_CALLED = {
    "av": "PyAV",
    "c2pa": "c2pa-python",
    "clip": "openai-clip",
    "gradio": "Gradio",
    "material": "mkdocs-material",
    "pillow_heif": "pillow-heif",
    "ray": "Ray",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "spandrel_extra_arches": "spandrel-extra-arches",
}
"""Modules whose project has another name."""


def installed(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def lack(what: str, extra: str, *modules: str) -> str:
    """The line that says which package of `extra` lacks and what to type; empty where nothing lacks.

    `what` needs it, such as ``authface train prior``; `modules` are all of the extra's unless named.
    """
    gone = next((name for name in modules or EXTRAS[extra].modules if not installed(name)), "")
    return f"{what} needs {_CALLED.get(gone, gone)}: pip install 'authface[{extra}]'" if gone else ""


def need(what: str, extra: str, *modules: str) -> None:
    """Raise UsageError with the line of `lack` where something lacks. Called before anything is begun."""
    if line := lack(what, extra, *modules):
        raise UsageError(line)


def of_import(error: ModuleNotFoundError) -> UsageError | None:
    """The same line for an import that failed where nobody asked first; None where no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, extra in EXTRAS.items() if module in extra.modules), "")
    line = lack("this", extra, module) if extra else ""
    return UsageError(line) if line else None
