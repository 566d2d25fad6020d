"""Faces to measure: crops of one photo that ships with a dependency, and the command as typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

from authface import cli, images

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def authface(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``authface evaluate ...`` as typed: exit code, standard output, standard error."""

    def authface(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["authface", "evaluate", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return authface


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """(128, 128, 3): the astronaut's face."""
    face = data.astronaut()[20:276, 90:346]
    return np.ascontiguousarray(cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA))


@pytest.fixture
def faces(tmp_path: Path, portrait: NDArray[np.uint8]) -> Path:
    """A folder of six square faces, each a little moved and brightened."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(6):
        moved = np.roll(portrait, 2 * number, axis=1).astype(int) + 4 * number
        save(folder / f"face{number}.png", np.clip(moved, 0, 255).astype(np.uint8))
    return folder


def save(path: Path, rgb: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(rgb))
    return path


@pytest.fixture
def ab_folders(tmp_path: Path, portrait: NDArray[np.uint8]) -> tuple[Path, Path, Path]:
    """Ours, theirs, inputs of six faces: ours are green, theirs red, the inputs grey; files say whose they are."""
    folders = tuple(tmp_path / name for name in ("ours", "theirs", "inputs"))
    for number in range(6):
        for folder, tint in zip(folders, ((0.6, 1, 0.6), (1, 0.6, 0.6), (0.5, 0.5, 0.5)), strict=True):
            rgb = (np.roll(portrait, 3 * number, axis=1) * np.array(tint)).astype(np.uint8)
            note = PngInfo()
            note.add_text("Software", f"secret method {folder.name}")
            folder.mkdir(exist_ok=True)
            Image.fromarray(rgb).save(folder / f"face{number}.png", pnginfo=note)
    return folders  # type: ignore[return-value]  # three of them
