"""Weights that facexlib names: they lie in its folder, downloaded where they are first asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from authface.errors import AuthfaceError, one_line


def folder() -> Path | None:
    """Where facexlib keeps its weights; None where it is not installed. It is not imported."""
    found = find_spec("facexlib")
    return Path(found.origin).parent / "weights" if found is not None and found.origin else None


def fetched(url: str, what: str, instead: str) -> Path:
    """The file of that name in the folder, downloaded if need be.

    Raises AuthfaceError where it cannot be had: `what` has no weights, and `instead` does without.
    """
    home = folder()
    if home is None:
        raise AuthfaceError(f"{what} needs facexlib: pip install facexlib, or take {instead}")
    file = home / Path(url).name
    try:
        if not file.is_file():
            from facexlib.utils import load_file_from_url

            load_file_from_url(url, model_dir=str(home), progress=False)
    except OSError as error:
        raise AuthfaceError(
            f"{what} has no weights here and cannot download them ({one_line(error, 100)}): "
            f"put {url} into {one_line(home)}, or take {instead}"
        ) from error
    return file
