"""The folder of a page's files goes with the page, however that ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from authface import files
from authface.restore.app import folder as module
from authface.restore.app.folder import PREFIX, temporary_folder


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def left_by_a_killed_page(root: Path) -> Path:
    """A folder that nobody holds: the system lets go of what a dead process held."""
    folder = root / f"{PREFIX}dead"
    (folder / "photo-1").mkdir(parents=True)
    (folder / "photo-1" / "aunt.jpg").write_bytes(b"her")
    return folder


def test_what_a_killed_page_left_goes_and_what_a_living_one_has_stays(root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (root / f"{PREFIX}link").symlink_to(kept)
    (root / f"{PREFIX}file").touch()
    with temporary_folder() as first:
        dead = left_by_a_killed_page(root)
        with temporary_folder() as second:
            assert first.is_dir() and second.is_dir() and not dead.exists()
    assert {path.name for path in root.iterdir()} == {f"{PREFIX}link", f"{PREFIX}file"} and kept.is_dir()


def test_another_user_s_folder_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, own = left_by_a_killed_page(root), os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with temporary_folder():
        assert (dead / "photo-1" / "aunt.jpg").exists()


def test_a_folder_that_is_swept_before_it_is_held_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Path] = []

    def late(descriptor: int, *, wait: bool = True) -> bool:
        if not swept:
            swept.extend(root.iterdir())
            shutil.rmtree(swept[0])
        return files.hold(descriptor, wait=wait)

    monkeypatch.setattr(module, "hold", late)
    with temporary_folder() as folder:
        assert folder.is_dir() and [folder] == list(root.iterdir()) and folder not in swept
