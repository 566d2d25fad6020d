"""Weights that facexlib names: they lie in its folder, downloaded where they are first asked for."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from authface.errors import AuthfaceError, one_line


def folder() -> Path:
    """Where facexlib keeps its weights."""
    import facexlib

    return Path(facexlib.__file__).parent / "weights"


def fetched(url: str, what: str, instead: str) -> Path:
    """The file of that name in the folder, downloaded if need be.

    Raises AuthfaceError where it cannot be had: `what` has no weights, and `instead` does without.
    """
    file = folder() / Path(url).name
    try:
        if not file.is_file():
            from facexlib.utils import load_file_from_url

            load_file_from_url(url, model_dir=str(folder()), progress=False)
    except OSError as error:
        raise AuthfaceError(
            f"{what} has no weights here and cannot download them ({one_line(error, 100)}): "
            f"put {url} into {one_line(folder())}, or take {instead}"
        ) from error
    return file


@cache
def sha256_of(file: Path) -> str:
    """Hex sha256 of a file, for fingerprints."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
