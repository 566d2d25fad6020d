"""Latents and text embeddings on disk, named by the content they were made from, so none is ever stale.

They lie in packs of some hundred: safetensors files that are whole or absent, whose rows all processes map.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from authface.console import Console
from authface.errors import AuthfaceError, one_line
from authface.files import replacing
from authface.models import sdxl
from authface.models.families import ModelSource, fetch, load
from authface.models.layout import digest
from authface.train.data import FaceDataset
from authface.train.distributed import barrier, shard

PACK_ROWS, PACK_BYTES = 1024, 64_000_000
"""Most rows of a pack, and the bytes of tensors behind which it is closed: what a kill can lose."""
KEYS = "keys"
"""Name of a pack's tensor of keys."""
PATIENCE = 30
"""Seconds that a network file system has to show what other machines wrote before all processes met."""


@dataclass(frozen=True)
class Entries:
    """Where the tensors of n keys lie."""

    packs: tuple[Path, ...]
    places: NDArray[np.int64]
    """(n, 2): pack and row; -1 where there are none."""

    @property
    def missing(self) -> NDArray[np.int64]:
        """The keys, by number, whose tensors are not there."""
        return np.flatnonzero(self.places[:, 0] < 0)

    def read(self, index: int) -> dict[str, torch.Tensor]:
        """The tensors of key number `index` in float32. Raises AuthfaceError for a broken pack."""
        pack, row = (int(value) for value in self.places[index])
        path = self.packs[pack]
        try:
            opened = _open(path)
            names = opened.keys()
            return {name: opened.get_slice(name)[row].float() for name in names if name != KEYS}
        except (OSError, SafetensorError) as error:
            raise _broken(path) from error


@functools.lru_cache(maxsize=16_384)
def _open(path: Path) -> Any:
    """A pack, mapped: no file stays open, and Linux lets a process map 65,530."""
    return safe_open(str(path), "pt")


def _broken(path: Path) -> AuthfaceError:
    return AuthfaceError(f"{one_line(path)} is broken: delete it and run again")


@dataclass(frozen=True)
class TensorStore:
    """Tensors by key, in packs: written by any number of processes at once, each pack whole or not at all."""

    folder: Path

    def find(self, keys: Sequence[bytes]) -> Entries:
        """Where the tensors of `keys` (32 bytes each) lie. Raises AuthfaceError for a broken pack."""
        packs = tuple(sorted(self.folder.glob("*.safetensors")))
        held = [_keys_of(path) for path in packs]
        places = np.full((len(keys), 2), -1, np.int64)
        if not packs or not keys:
            return Entries(packs, places)
        there = np.concatenate(held)
        sizes = [len(found) for found in held]
        where = np.stack([np.repeat(np.arange(len(packs)), sizes), np.concatenate([np.arange(n) for n in sizes])], 1)
        order = np.argsort(there, kind="stable")
        wanted = np.frombuffer(b"".join(keys), "S32")
        at = np.searchsorted(there, wanted, sorter=order).clip(max=len(there) - 1)
        known = there[order[at]] == wanted
        places[known] = where[order[at[known]]]
        return Entries(packs, places)

    def fill(
        self, keys: Sequence[bytes], make: Callable[[Sequence[int]], Iterator[tuple[int, dict[str, torch.Tensor]]]],
        device: torch.device,
    ) -> Entries:  # fmt: skip
        """Have `make` make what is missing, each process of the launch its share; all call it, with the same keys.

        `make` gets numbers of keys and yields each with its tensors, which are kept in half precision: noise of
        training is far above its rounding. Raises AuthfaceError where this process does not see what others wrote.
        """
        once = {key: number for number, key in reversed(list(enumerate(keys)))}
        missing = [number for number in self.find(keys).missing.tolist() if once[keys[number]] == number]
        barrier(device)  # all have looked before the first writes: their shares are of the same list
        self._write(keys, make(shard(missing)))
        barrier(device)
        for _ in range(PATIENCE):
            if not len((found := self.find(keys)).missing):
                return found
            time.sleep(1)
        raise AuthfaceError(
            f"{one_line(self.folder)} lacks {len(found.missing)} of {len(keys)} entries that other processes made: name"
            " a cache that all machines share"
        )

    def _write(self, keys: Sequence[bytes], made: Iterator[tuple[int, dict[str, torch.Tensor]]]) -> None:
        """Pack by pack; where making ends early, by an error or Ctrl-C, what was made is kept."""
        rows: dict[bytes, dict[str, torch.Tensor]] = {}
        try:
            for number, tensors in made:
                rows[keys[number]] = {name: tensor.half().cpu() for name, tensor in tensors.items()}
                size = sum(tensor.nbytes for tensor in rows[keys[number]].values())
                if len(rows) == PACK_ROWS or len(rows) * size >= PACK_BYTES:
                    full, rows = rows, {}
                    self._pack([*full], [*full.values()])
        finally:
            if rows:
                self._pack([*rows], [*rows.values()])

    def _pack(self, keys: list[bytes], rows: list[dict[str, torch.Tensor]]) -> None:
        tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        tensors[KEYS] = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)
        with replacing(self.folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()}.safetensors") as temporary:
            save_file(tensors, str(temporary))


def _keys_of(path: Path) -> NDArray[np.bytes_]:
    try:
        keys = _open(path).get_tensor(KEYS).numpy()
    except (OSError, SafetensorError) as error:
        raise _broken(path) from error
    return np.frombuffer(keys.tobytes(), "S32")


@dataclass(frozen=True)
class Latents:
    """The latents of every face of a dataset, both ways round."""

    entries: Entries

    def read(self, index: int, flip: bool) -> torch.Tensor:
        """(c, size/f, size/f) in the U-Net's scale."""
        return self.entries.read(index)["latents"][int(flip)]


@dataclass(frozen=True)
class Texts:
    """The embeddings of the prompts of a training, and of the empty one."""

    entries: Entries
    numbers: dict[str, int]

    def read(self, prompts: Sequence[str]) -> sdxl.TextEmbedding:
        """(n, 77, width) states and (n, width) pooled."""
        rows = [self.entries.read(self.numbers[prompt]) for prompt in prompts]
        return sdxl.TextEmbedding(*(torch.stack([row[name] for row in rows]) for name in ("states", "pooled")))


def cache_latents(
    faces: FaceDataset, source: ModelSource, vae: Any, store: TensorStore, batch: int, console: Console
) -> Latents:
    """Encode every face with `vae`, as it is and mirrored; what is in `store` already is not encoded again."""
    weights = digest(fetch(source, ["vae"]), ("vae",))

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        with console.progress("encoding images", len(missing), "images") as tick, torch.no_grad():
            for start in range(0, len(missing), batch):
                chunk = missing[start : start + batch]
                signed = sdxl.to_signed(np.stack([faces.rgb(index) for index in chunk]))
                both = torch.stack([sdxl.encode(vae, signed), sdxl.encode(vae, signed.flip(-1))], dim=1)
                for index, latents in zip(chunk, both, strict=True):
                    if not torch.isfinite(latents).all():
                        name = one_line(faces.id(index))
                        raise AuthfaceError(f"the VAE of {one_line(source.name)} makes no finite latents of {name}")
                    yield index, {"latents": latents}
                tick(len(chunk))

    keys = [_key("latents", weights, faces.key(index)) for index in range(len(faces))]
    return Latents(store.fill(keys, make, vae.device))


def cache_texts(
    prompts: Iterable[str], source: ModelSource, device: torch.device, store: TensorStore, console: Console
) -> Texts:
    """Encode each different prompt, and the empty one; the encoders are loaded only if one is missing."""
    names = ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"]
    weights = digest(fetch(source, names), tuple(names))
    wanted = list(dict.fromkeys(("", *prompts)))

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        if not missing:
            return
        parts = load(source, names, device, torch.float32)
        with console.progress("encoding prompts", len(missing), "prompts") as tick:
            for number in missing:
                text = sdxl.encode_prompts(parts, [wanted[number]])
                yield number, {"states": text.states[0], "pooled": text.pooled[0]}
                tick()

    entries = store.fill([_key("text", weights, prompt) for prompt in wanted], make, device)
    return Texts(entries, {prompt: number for number, prompt in enumerate(wanted)})


@functools.cache
def _prefix(kind: str, weights: str) -> bytes:
    return f"{kind} 2 {weights}\n".encode()


def _key(kind: str, weights: str, content: str) -> bytes:
    return hashlib.sha256(_prefix(kind, weights) + content.encode("utf-8", "surrogatepass")).digest()
