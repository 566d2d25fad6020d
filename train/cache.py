"""Latents and text embeddings on disk, named by the content they were made from, so none is ever stale."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from authface.console import Console
from authface.errors import AuthfaceError, one_line
from authface.files import replacing
from authface.models import sdxl
from authface.models.families import ModelSource, fetch, load
from authface.models.layout import digest
from authface.train.data import FaceDataset
from authface.train.distributed import barrier, shard


@dataclass(frozen=True)
class TensorStore:
    """Tensors by key, one safetensors file each, written whole or not at all."""

    folder: Path

    def path(self, key: str) -> Path:
        """Where `key` lies."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a file, each once, in order."""
        return [key for key in dict.fromkeys(keys) if not self.path(key).is_file()]

    def write(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Keep `tensors` in half precision: noise of training is far above its rounding."""
        with replacing(self.path(key)) as temporary:
            save_file({name: tensor.half().cpu().contiguous() for name, tensor in tensors.items()}, str(temporary))

    def read(self, key: str) -> dict[str, torch.Tensor]:
        """The tensors of `key` in float32. Raises AuthfaceError for a broken file."""
        try:
            tensors: dict[str, torch.Tensor] = load_file(str(self.path(key)))
        except (OSError, SafetensorError) as error:
            raise AuthfaceError(f"{one_line(self.path(key))} is broken: delete it and run again") from error
        return {name: tensor.float() for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Latents:
    """The latents of every face of a dataset, both ways round."""

    store: TensorStore
    keys: tuple[str, ...]

    def read(self, index: int, flip: bool) -> torch.Tensor:
        """(c, size/f, size/f) in the U-Net's scale."""
        return self.store.read(self.keys[index])["latents"][int(flip)]


@dataclass(frozen=True)
class Texts:
    """The embeddings of the prompts of a training, and of the empty one."""

    store: TensorStore
    keys: dict[str, str]

    def read(self, prompts: Sequence[str]) -> sdxl.TextEmbedding:
        """(n, 77, width) states and (n, width) pooled."""
        rows = [self.store.read(self.keys[prompt]) for prompt in prompts]
        return sdxl.TextEmbedding(*(torch.stack([row[name] for row in rows]) for name in ("states", "pooled")))


def cache_latents(
    faces: FaceDataset, source: ModelSource, vae: Any, store: TensorStore, batch: int, console: Console
) -> Latents:
    """Encode every face with `vae`, as it is and mirrored; what is in `store` already is not encoded again."""
    weights = digest(fetch(source, ["vae"]), ("vae",))
    keys = tuple(_key("latents", weights, faces.key(index)) for index in range(len(faces)))
    rows = {key: index for index, key in enumerate(keys)}
    missing = store.missing(shard(list(rows)))
    with console.progress("encoding images", len(missing), "images") as tick, torch.no_grad():
        for start in range(0, len(missing), batch):
            chunk = missing[start : start + batch]
            rgb = np.stack([faces.rgb(rows[key]) for key in chunk])
            signed = sdxl.to_signed(rgb)
            both = torch.stack([sdxl.encode(vae, signed), sdxl.encode(vae, signed.flip(-1))], dim=1)
            for key, latents in zip(chunk, both, strict=True):
                if not torch.isfinite(latents).all():
                    name = one_line(faces.id(rows[key]))
                    raise AuthfaceError(f"the VAE of {one_line(source.name)} makes no finite latents of {name}")
                store.write(key, {"latents": latents})
            tick(len(chunk))
    barrier(vae.device)
    return Latents(store, keys)


def cache_texts(
    prompts: Iterable[str], source: ModelSource, device: torch.device, store: TensorStore, console: Console
) -> Texts:
    """Encode each different prompt, and the empty one; the encoders are loaded only if one is missing."""
    names = ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"]
    weights = digest(fetch(source, names), tuple(names))
    keys = {prompt: _key("text", weights, prompt) for prompt in ("", *prompts)}
    wanted = {key: prompt for prompt, key in keys.items()}
    if missing := store.missing(shard(list(wanted))):
        parts = load(source, names, device, torch.float32)
        with console.progress("encoding prompts", len(missing), "prompts") as tick:
            for key in missing:
                text = sdxl.encode_prompts(parts, [wanted[key]])
                store.write(key, {"states": text.states[0], "pooled": text.pooled[0]})
                tick()
    barrier(device)
    return Texts(store, keys)


@functools.cache
def _prefix(kind: str, weights: str) -> bytes:
    return f"{kind} 1 {weights}\n".encode()


def _key(kind: str, weights: str, content: str) -> str:
    return hashlib.sha256(_prefix(kind, weights) + content.encode("utf-8", "surrogatepass")).hexdigest()
