"""What `train push` sends of a trained family: its parts as stock code reads them, the index and the card."""

from __future__ import annotations

from pathlib import Path

from authface.errors import UsageError, one_line
from authface.models.layout import WEIGHTED, expected_parts, part_files
from authface.train.card import CARD, CURVE

INDEX = "model_index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
"""Files that can run code when they are read."""


def family_files(folder: Path) -> list[Path]:
    """The files that are sent of a family, sorted; all else in the folder stays.

    Raises UsageError for what is no whole family, or one with pickled weights.
    """
    where = one_line(folder)
    parts = expected_parts(folder)
    missing = [part for part in parts if not part_files(folder, part)]
    missing += [part for part in parts if part in WEIGHTED and part not in missing and not _weights(folder, part)]
    if missing:
        raise UsageError(f"{where} is no whole family: {', '.join(missing)} missing; authface train makes one")
    if not (folder / INDEX).is_file():
        raise UsageError(f"{where} has no {INDEX}: the training did not end; run the same authface train again")
    inside = [path for part in parts for path in (folder / part).iterdir()]
    pickles = sorted(path for path in [*inside, *folder.iterdir()] if path.suffix.lower() in PICKLES)
    if pickles:
        name = one_line(pickles[0].relative_to(folder))
        raise UsageError(f"{where}/{name} is a pickle, which can run code: convert it to safetensors, or delete it")
    top = [path for name in (INDEX, CARD, CURVE) if (path := folder / name).is_file()]
    found = sorted([*top, *(path for part in parts for path in part_files(folder, part))])
    links = [path for path in found if path.is_symlink()]
    if links:
        raise UsageError(f"{one_line(links[0])} is a link: only files that lie in the folder are sent; copy it there")
    return found


def names_of(folder: Path, files: list[Path]) -> dict[str, int]:
    """Names in the repository and sizes, bytes."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _weights(folder: Path, part: str) -> bool:
    return any(path.suffix == ".safetensors" for path in part_files(folder, part))
