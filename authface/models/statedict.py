"""Networks that spandrel makes of a state dict: it knows them by their weights. Tensors only, no pickled code.

spandrel is MIT; the package of its further architectures, such as CodeFormer's, is under the terms of each.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from authface.errors import UsageError, one_line
from authface.extras import need
from authface.models.networks import STATE_DICTS


def load_network(file: Path, what: str, extra: str) -> Any:
    """spandrel's description of the network in `file`, on the CPU, in eval mode.

    `what` begins an error's line, such as ``restore.upscaler=x.pth``; `extra` is authface's that brings spandrel.
    Raises UsageError for a file that holds no network that spandrel knows, and where spandrel is not installed.
    """
    need(what, extra, "torch", "spandrel")
    import spandrel

    if file.suffix.lower() not in STATE_DICTS:
        raise UsageError(f"{what}: it is a file of {', '.join(STATE_DICTS)}")
    if not file.is_file():
        raise UsageError(f"{what}: no such file")
    further = _further()
    try:
        weights = spandrel.canonicalize_state_dict(read_tensors(file))
        registry = spandrel.MAIN_REGISTRY.copy()
        registry.add(*further)
        return spandrel.ModelLoader(registry=registry).load_from_state_dict(weights).eval()
    except Exception as error:  # torch, safetensors and spandrel have no common class for what they cannot read
        reason = one_line(str(error).partition("\n")[0] or type(error).__name__, 120)
        hint = (
            ""
            if further or extra != "restorers"
            else "; CodeFormer needs spandrel-extra-arches: " + ("pip install 'authface[restorers]'")
        )
        raise UsageError(f"{what} is no network that spandrel knows: {reason}{hint}") from error


def read_tensors(file: Path) -> dict[str, Any]:
    """What a file holds, its tensors on the CPU; torch and safetensors raise what they like for another file."""
    if file.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    import torch

    held = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, not a state dict")
    return held


def _further() -> list[Any]:
    """Architectures of the package spandrel-extra-arches, if it is installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it still uses torch.jit.script
            from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        return []
    return list(EXTRA_REGISTRY)
