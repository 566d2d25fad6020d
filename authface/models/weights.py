"""Files of weights: what safetensors hold by their headers alone, and `weights.json`, the sha256 of every file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from authface.errors import AuthfaceError, one_line
from authface.files import sha256_of
from authface.models.layout import MANIFEST

NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Precisions that a family is shipped in, and the bytes of one number."""
_WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
"""Bytes of one number of the types that stay as they are in every precision."""


@dataclass(frozen=True)
class FileFacts:
    """What `weights.json` says of a file."""

    sha256: str
    bytes: int


@dataclass
class Manifest:
    """What a packed family holds: `weights.json`."""

    dtype: str
    """Of its floating-point tensors."""
    parameters: int = 0
    """Numbers in its floating-point tensors, all parts together."""
    bytes: int = 0
    """Of all files but this one."""
    files: dict[str, FileFacts] = field(default_factory=dict)
    """By name, such as ``unet/config.json``."""

    def add(self, name: str, path: Path) -> None:
        """Note a file that is written."""
        facts = FileFacts(sha256_of(path), path.stat().st_size)
        self.files[name] = facts
        self.bytes += facts.bytes

    def text(self) -> str:
        """As it is written: sorted, so that the same family gives the same bytes."""
        return json.dumps({"format": 1} | asdict(self), indent=2, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """What a folder's weights.json says; None where there is none. Raises AuthfaceError for a broken one."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
        files = {str(name): FileFacts(str(one["sha256"]), int(one["bytes"])) for name, one in told["files"].items()}
        return Manifest(str(told["dtype"]), int(told["parameters"]), int(told["bytes"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({one_line(error, 80)}): get the files again") from error


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of a tensor."""

    dtype: str
    """Its name there, such as F16."""
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many it holds."""
        total = 1
        for side in self.shape:
            total *= side
        return total

    def bytes_in(self, dtype: str) -> int:
        """What it takes where the floating-point numbers are of `dtype`."""
        return self.numbers * (NUMBER_BYTES[dtype] if self.floating else _WIDTHS.get(self.dtype, 8))

    @property
    def floating(self) -> bool:
        """Whether they are floating-point numbers."""
        return self.dtype.startswith(("F", "BF"))


def headers(path: Path) -> dict[str, Header]:
    """The tensors of a safetensors file, whose length is checked with them. Raises AuthfaceError where it is broken."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            slices = {str(name): file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return {name: Header(str(one.get_dtype()), tuple(one.get_shape())) for name, one in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({one_line(error, 100)}): get the file again") from error


def in_bytes(size: float) -> str:
    """A size for people, in decimal units as the hub's pages tell it."""
    for unit, least in (("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"
