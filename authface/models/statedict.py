"""Networks that spandrel makes of a state dict: it knows them by their weights. Tensors only, no pickled code.

spandrel is MIT; the package of its further architectures, such as CodeFormer's, is under the terms of each.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from authface.errors import UsageError, first_line
from authface.extras import lack, need
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
    except UnreadableError as error:
        raise UsageError(f"{what} cannot be read: {error}") from error
    except spandrel.UnsupportedModelError as error:
        lacking = lack("; CodeFormer", extra, "spandrel_extra_arches") if extra == "restorers" and not further else ""
        raise UsageError(f"{what} is no network that spandrel knows by its tensors{lacking}") from error
    except Exception as error:  # what spandrel's architectures raise for tensors that do not fit has no common class
        raise UsageError(f"{what} is no network that spandrel can make: {first_line(error, 120)}") from error


class UnreadableError(Exception):
    """Why a file's tensors cannot be read, in a few words."""


def read_tensors(file: Path) -> dict[str, Any]:
    """What a file holds, its tensors on the CPU. Raises UnreadableError; no code in a pickle is run."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix.lower() == ".safetensors":
            return dict(load_file(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol
            held = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UnreadableError(f"it is no safetensors file, or was cut ({first_line(error, 60)})") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UnreadableError(
            f"it asks for the code {code[1]}, which is not run: a file of tensors alone is read"
            if code
            else "it is no file that torch saved, or was cut: get it again"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnicodeDecodeError, AttributeError) as error:
        raise UnreadableError("it is no file that torch saved, or was cut: get it again") from error
    if not isinstance(held, dict):
        raise UnreadableError(f"it holds a {type(held).__name__}, not a state dict")
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
