"""A family made ready to ship (`models pack`), and what `models push` sends of it, under which licence.

Packed: one precision, no paths of this machine, the sha256 of every file. A family goes with its card, whole and under
a licence that is known, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml  # type: ignore[import-untyped]
from huggingface_hub import metadata_load
from safetensors import SafetensorError, safe_open

from authface.console import Tick
from authface.errors import AuthfaceError, UsageError, first_line, one_line, shell_word
from authface.files import refusal, replacing_folder, sweep, write_errors
from authface.models.families import resolve
from authface.models.graphs import read_export
from authface.models.layout import (
    BESIDE,
    INDEX,
    MANIFEST,
    ONNX,
    PARTS,
    PICKLES,
    WEIGHTED,
    WeightsManifest,
    expected_parts,
    family_parts,
    headers,
    holds_part,
    in_bytes,
    onnx_files,
    part_files,
    read_manifest,
    strange_files,
    weight_files,
)
from authface.models.networks import NETWORKS
from authface.models.verify import verify
from authface.store.statements import recognise

if TYPE_CHECKING:
    import torch

_CONFIGS = {"config.json", "scheduler_config.json", "tokenizer_config.json", INDEX}
_TRACES = ("_name_or_path", "name_or_path")
"""Keys in which the libraries note the folder a part was read from, which must not ship."""


def family_files(folder: Path) -> list[Path]:
    """The files of a family that ship, sorted by name; all else in the folder stays.

    Raises UsageError for no whole family, pickles, folders that are no part, and weights of which it is unclear
    which are read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{one_line(folder)} is no folder: give a family, such as the out of authface train controlnet"
        )
    for name, fault in strange_files(folder):
        raise UsageError(f"{one_line(folder)}/{one_line(name)} {fault}")
    if not (folder / INDEX).is_file():
        raise UsageError(
            f"{one_line(folder)} has no {INDEX}: the training did not end; run the same authface train again"
        )
    parts = family_parts(folder)
    for part in parts:
        if part in WEIGHTED:
            weight_files(folder, part)
    files = [path for part in parts for path in part_files(folder, part)]
    return sorted([*files, *(folder / name for name in BESIDE if (folder / name).is_file())])


def planned_bytes(files: list[Path], dtype: str) -> int:
    """About what the files will take in `dtype`, from the headers of the safetensors alone. Raises AuthfaceError."""
    total = 0
    for path in files:
        if holds_part(path):
            total += sum(tensor.bytes_in(dtype) for tensor in headers(path).values())
        else:
            total += path.stat().st_size
    return total


def pack(folder: Path, out: Path, dtype: str, tick: Tick) -> WeightsManifest:
    """Write the family in `folder` to `out` in `dtype`, whole or not at all; an earlier pack there is replaced.

    The same files always give the same bytes. Raises UsageError for what `family_files` refuses and for an `out` that
    holds anything else, AuthfaceError for numbers that `dtype` cannot hold and where the disk refuses.
    """
    files = family_files(folder)
    _check_out(out, folder)
    _check_room(out, planned_bytes(files, dtype))
    return _written(files, folder, out, WeightsManifest(dtype), tick, lambda path, target: _write(path, target, dtype))


def copy_family(files: list[Path], folder: Path, out: Path, tick: Tick) -> WeightsManifest:
    """Copy `files` of the family in `folder` to `out` byte for byte, as `pack` writes: for a machine without the hub.

    Raises UsageError and AuthfaceError as `pack` does.
    """
    _check_out(out, folder)
    _check_room(out, sum(path.stat().st_size for path in files))
    types = {tensor.dtype for path in files if holds_part(path) for tensor in headers(path).values()}
    names = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
    dtype = "+".join(sorted(names[one] for one in types if one in names))
    return _written(files, folder, out, WeightsManifest(dtype), tick, _copy)


def _copy(path: Path, target: Path) -> int:
    shutil.copyfile(path, target)
    return sum(t.numbers for t in headers(path).values() if t.floating) if holds_part(path) else 0


def _check_room(out: Path, needed: int) -> None:
    with write_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    sweep(out.absolute().parent)
    free = shutil.disk_usage(out.absolute().parent).free
    if needed > free:
        raise AuthfaceError(f"{one_line(out)} needs {in_bytes(needed)}, {in_bytes(free)} are free: free space")


def _written(
    files: list[Path], folder: Path, out: Path, manifest: WeightsManifest, tick: Tick,
    write: Callable[[Path, Path], int],
) -> WeightsManifest:  # fmt: skip
    """Write each file with `write`, which counts its parameters, and the manifest; then take the place of `out`."""
    with replacing_folder(out) as temporary:
        for path in files:
            name = path.relative_to(folder).as_posix()
            with write_errors(out / name):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                manifest.parameters += write(path, temporary / name)
                manifest.add(name, temporary / name)
            tick(1, name)
        (temporary / MANIFEST).write_text(manifest.text(), "utf-8")
    return manifest


def _check_out(out: Path, folder: Path) -> None:
    here, there = folder.resolve(), out.resolve()
    if here == there or there.is_relative_to(here) or here.is_relative_to(there):
        raise UsageError(f"-o {one_line(out)} lies in the family that is packed, or around it: choose another folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    known = read_manifest(out) if out.is_dir() else None
    if known is None:
        raise UsageError(f"-o {one_line(out)} is there and is no earlier pack (no {MANIFEST}): choose another folder")
    strange = sorted(
        {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()} - {*known.files, MANIFEST}
    )
    if strange:
        raise UsageError(f"-o {one_line(out)} holds {one_line(strange[0])}, which no pack wrote: move it away first")


def _write(path: Path, target: Path, dtype: str) -> int:
    """Write one file, a part's weights converted; the count of floating-point numbers in those.

    An adapter stays byte for byte: its scale stands in the file's metadata, and it is small.
    """
    if holds_part(path):
        return _convert(path, target, dtype)
    if path.name.endswith(".safetensors.index.json"):
        target.write_bytes(_index(path, dtype))
    elif path.name in _CONFIGS:
        target.write_bytes(_config(path))
    else:
        shutil.copyfile(path, target)
    return 0


def _convert(path: Path, target: Path, dtype: str) -> int:
    import torch
    from safetensors.torch import save_file

    wanted: torch.dtype = getattr(torch, dtype)
    numbers = 0
    tensors = {}
    with _broken(path), safe_open(str(path), framework="pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            if tensor.is_floating_point():
                numbers += tensor.numel()
                tensor = _cast(tensor, wanted, f"{path.parent.name}/{path.name}: {name}")
            tensors[name] = tensor.contiguous()
    try:
        # The one key that readers ask for: the format keeps its others in no fixed order.
        save_file(tensors, str(target), metadata={"format": "pt"})
    except SafetensorError as error:
        raise AuthfaceError(f"cannot write {one_line(target)}: {refusal(error)}") from error
    target.chmod(0o644)  # safetensors makes its files for their owner alone
    return numbers


def _cast(tensor: torch.Tensor, wanted: torch.dtype, name: str) -> torch.Tensor:
    """The tensor in that precision. Raises AuthfaceError where a number is lost."""
    import torch

    if not bool(tensor.isfinite().all()):
        raise AuthfaceError(f"{one_line(name)} holds NaN or infinity: the training diverged; pack an earlier one")
    cast = tensor.to(wanted)
    if not bool(cast.isfinite().all()):
        most, limit = float(tensor.abs().max()), torch.finfo(wanted).max
        raise AuthfaceError(
            f"{one_line(name)} reaches {most:.6g}, {str(wanted).removeprefix('torch.')} ends at {limit:.6g}: "
            "pack with --dtype bfloat16 or float32"
        )
    return cast


@contextlib.contextmanager
def _broken(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({first_line(error, 100)}): get the file again") from error


def _config(path: Path) -> bytes:
    """A configuration without traces of this machine.

    A text encoder's `dtype` stays float32: by it stock pipelines load a float16 file beside their float32 U-Net.
    """
    data = path.read_bytes()
    values = _read_json(path, data)
    kept = {name: value for name, value in values.items() if name not in _TRACES}
    return data if kept == values else (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _index(path: Path, dtype: str) -> bytes:
    """An index of shards with the bytes that their tensors take now."""
    values = _read_json(path, path.read_bytes())
    shards = {name: headers(path.parent / name) for name in sorted(set(values["weight_map"].values()))}
    lost = sorted((name, shard) for name, shard in values["weight_map"].items() if name not in shards[shard])
    if lost:
        name, shard = map(one_line, lost[0])
        raise AuthfaceError(f"{one_line(path)}: {name} is not in {shard}: get the files again")
    size = sum(tensor.bytes_in(dtype) for shard in shards.values() for tensor in shard.values())
    values["metadata"] = (values.get("metadata") or {}) | {"total_size": size}
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read_json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({first_line(error, 80)}): get the file again") from error
    if not isinstance(values, dict):
        raise AuthfaceError(f"{one_line(path)} is broken (no JSON object): get the file again")
    return values


CARD: Final = "README.md"
"""A family's model card."""
_NO_LICENCE = {"", "unknown", "other", "none"}
"""What says nothing of a licence; `other` asks for a `license_name`."""


@dataclass(frozen=True)
class FamilyPush:
    """A family that may be sent."""

    folder: Path
    files: Mapping[str, int]
    """Bytes by name."""
    licence: str
    """As its card says it; empty where the card does not."""
    base: str
    """The model it was trained from, as its card says; empty where it was none of the hub's."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    @property
    def stale(self) -> list[str]:
        """Patterns of what goes from the repository, where this family has no such file: all that is read of one.

        A cleaner, presets or graphs of an earlier push would be taken for this family's.
        """
        return [*(f"{folder}/*" for folder in (*PARTS, ONNX)), *BESIDE, MANIFEST]


def plan(name: str, *, rights: bool, tick: Tick) -> FamilyPush:
    """Look at the family of that name or folder; nothing is written or sent.

    `rights`: the publisher holds the rights to weights whose card names no licence that is recognised. Raises
    UsageError for what is no whole family of this machine with a card, or one of unknown licence; AuthfaceError for
    broken files.
    """
    source = resolve(name, others=NETWORKS)
    if not source.local:
        raise UsageError(f"{one_line(name)} is on the hub already: give tiny, or a folder such as models/authface")
    folder = Path(source.location)
    files = published_files(folder)
    where = one_line(folder)
    if CARD not in files:
        raise UsageError(f"{where} has no {CARD}: write its card, whose first lines say 'license: ...' between '---'")
    told = front_matter(folder / CARD)
    licence = licence_of(told)
    allowed = recognise(licence)
    if not rights and not (allowed and allowed.redistribution and allowed.derivatives):
        named = f"the licence {one_line(licence, 80)!r}, which is none recognised as allowing it"
        fault = named if licence else "no licence"
        raise UsageError(
            f"{where}/{CARD} names {fault}: write one there (license, or license_name beside 'other'), or add "
            "--i-hold-the-rights"
        )
    if faults := verify(name, tick).faults:
        file, problem = next(iter(faults.items()))
        more = f", and {len(faults) - 1} more: authface models verify {shell_word(where)}" if len(faults) > 1 else ""
        raise AuthfaceError(f"{where}/{one_line(file)} {problem}{more}")
    base = told.get("base_model")
    return FamilyPush(folder, files, licence, base if isinstance(base, str) else "")


def published_files(folder: Path) -> dict[str, int]:
    """Name and bytes of what is sent: a family's parts, its ONNX graphs, what lies beside them.

    Raises UsageError for what is no whole family, or one with pickled weights, AuthfaceError for graphs of others.
    """
    where = one_line(folder)
    files = {part: part_files(folder, part) for part in expected_parts(folder)}
    missing = [part for part, paths in files.items() if not paths]
    missing += [
        part
        for part, paths in files.items()
        if part in WEIGHTED and paths and not any(path.suffix == ".safetensors" for path in paths)
    ]
    if missing:
        raise UsageError(f"{where} is no whole family: {', '.join(missing)} missing; authface train makes one")
    if not (folder / INDEX).is_file():
        raise UsageError(f"{where} has no {INDEX}: the training did not end; run the same authface train again")
    inside = [path for part in files for path in (folder / part).iterdir()]
    pickles = sorted(path for path in [*inside, *folder.iterdir()] if path.suffix.lower() in PICKLES)
    if pickles:
        name = one_line(pickles[0].relative_to(folder))
        raise UsageError(f"{where}/{name} is a pickle, which can run code: convert it to safetensors, or delete it")
    beside = [path for name in (*BESIDE, MANIFEST) if (path := folder / name).is_file()]
    graphs = onnx_files(folder) if read_export(folder) else []
    sent = sorted([*beside, *graphs, *sum(files.values(), [])])
    links = [path for path in sent if path.is_symlink()]
    if links:
        raise UsageError(f"{one_line(links[0])} is a link: only files that lie in the folder are sent; copy it there")
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sent}


def front_matter(path: Path) -> Mapping[str, Any]:
    """The hub's metadata on top of a card; empty where there is none that can be read."""
    try:
        return metadata_load(path) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def licence_of(told: Mapping[str, Any]) -> str:
    """The licence that a card's metadata name; empty where they name none."""
    found = (str(told.get(key) or "").strip() for key in ("license_name", "license"))
    return next((one for one in found if one.casefold() not in _NO_LICENCE), "")
