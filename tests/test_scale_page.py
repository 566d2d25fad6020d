"""The program in docs/scale.md that joins two sets does what the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from authface.records import Face, Photo
from authface.store.photoset import PhotoSet, Provenance

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"


def small_set(root: Path, first: int) -> PhotoSet:
    """Three parts of two photos, faces for the first part."""
    photoset = PhotoSet(root)
    for part in range(3):
        ids = [f"{first + 2 * part + n:064x}" for n in range(2)]
        photos = [Photo(id=i, source="folder", source_id=i, file=photoset.photo_file(i, "jpg")) for i in ids]
        photoset.photos.write(part, photos, Provenance("fetch", 1, {}, {}), "")
    faces = [Face(id=f"{photo.id}-0", photo_id=photo.id, photo_file=photo.file, index=0) for photo in photos]
    photoset.faces.write(0, faces, Provenance("filter", 1, {}, {}), "digest")
    return photoset


def join(tmp_path: Path, *sets: Path) -> subprocess.CompletedProcess[str]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "join.py").write_text(code)
    command = [sys.executable, "join.py", *map(str, sets)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)


def test_the_parts_of_one_set_follow_those_of_another(tmp_path: Path) -> None:
    ours, theirs = small_set(tmp_path / "ours", 0), small_set(tmp_path / "theirs", 100)
    photos, metas = [*ours.photos, *theirs.photos], theirs.photos.metas()
    done = join(tmp_path, ours.root, theirs.root)
    assert done.returncode == 0, done.stderr
    assert list(ours.photos) == photos
    assert [ours.photos.meta(part + 3) for part in metas] == list(metas.values())
    assert ours.faces.parts() == [0, 3] and ours.faces.rows(3) == theirs.faces.rows(0)
    assert list(theirs.photos) == photos[6:]


def test_sets_that_share_a_photo_are_not_joined(tmp_path: Path) -> None:
    ours, theirs = small_set(tmp_path / "ours", 0), small_set(tmp_path / "theirs", 5)
    before = shutil.copytree(ours.root, tmp_path / "before")
    done = join(tmp_path, ours.root, theirs.root)
    assert done.returncode == 1 and "1 photos are in both" in done.stderr
    assert list(ours.photos) == list(PhotoSet(before).photos)
