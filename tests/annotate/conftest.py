"""The astronaut and Grace Hopper, aligned once, and what the benchmark changes of them; small sets that are whole.

The sets have photos, faces, crops cut by the real geometry, splits, and two annotators' tags.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from authface.annotate.vocabulary.vocabulary import make_tag
from authface.faces.geometry import align, crop_to_photo
from authface.imaging import decode as images
from authface.records import Crop, Face, Person, Photo, Tags
from authface.store.photoset import PhotoSet, Provenance, Table, digest

Aligned = tuple[np.ndarray, np.ndarray]
SIDE, SIZE = 96, 64
QUAD = (20.25, 18.5, 16.75, 70.0, 68.25, 73.5, 71.75, 22.0)


@pytest.fixture(scope="session")
def benchmark_module() -> ModuleType:
    """benchmarks/measured_tags.py."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("measured_tags")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def aligned() -> dict[str, Aligned]:
    """Crops of 512 px and their landmarks, by name."""
    import matplotlib
    from skimage import data

    from authface.faces.detector import RetinaFace
    from authface.faces.geometry import crop_points, ffhq_quad
    from authface.faces.landmarks import Dlib68

    detector, landmarker = RetinaFace(0.9), Dlib68()
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = {}
    for name, photo in (("astronaut", data.astronaut()), ("hopper", images.read(hopper).rgb)):
        points = landmarker.landmarks(photo, detector.detect(photo)[0])
        quad = ffhq_quad(points)
        found[name] = (align(photo, quad, 512).rgb, crop_points(points, quad, 512))
    return found


@dataclass(frozen=True)
class Given:
    """What one photo of a made set is."""

    split: str = "train"
    source: str = "folder"
    licence: str = "CC0-1.0"
    file_url: str = ""
    page_url: str = ""
    measured: tuple[str, ...] = ("smiling", "light from the left", "low key")
    llava: tuple[str, ...] = ("smiling", "long hair", "light from the right", "window light")
    more: dict[str, Any] = field(default_factory=dict)
    """Of `Photo`."""


@pytest.fixture
def make_set() -> Callable[..., PhotoSet]:
    """Makes a set at `root` with one face for each of `given`, the fields of a `Given`, in parts of `part_rows` photos;
    with splits unless `split` is false."""
    return furnish


def photo_bytes(number: int) -> bytes:
    """A JPEG photo of its own."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (12, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return images.encode_jpeg(np.ascontiguousarray(coarse))


def points() -> tuple[float, ...]:
    """68 points, in the photo, roughly where a face has them."""
    around = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    return tuple(float(v) for turn in around for v in (44 + 20 * np.cos(turn), 46 + 22 * np.sin(turn)))


def furnish(root: Path, given: list[dict[str, Any]], *, part_rows: int = 1000, split: bool = True) -> PhotoSet:
    photoset = PhotoSet(root)
    numbered = [(number, Given(**one)) for number, one in enumerate(given)]
    for part, at in enumerate(range(0, len(given), part_rows)):
        _part(photoset, part, numbered[at : at + part_rows], split)
    return photoset


def _part(photoset: PhotoSet, part: int, given: list[tuple[int, Given]], split: bool) -> None:
    photos, faces, crops, people = [], [], [], []
    tags: dict[str, list[Tags]] = {"measured": [], "llava": []}
    for number, one in given:
        data = photo_bytes(number)
        photo_id = hashlib.sha256(data).hexdigest()
        face_id = f"{photo_id}-0"
        photo, crop = photoset.photo_file(photo_id, "jpg"), photoset.crop_file(face_id)
        photoset.save(photo, data)
        cut = align(images.decode(data).rgb, QUAD, SIZE)
        photoset.save(crop, images.encode_png(cut.rgb))
        photos.append(
            Photo(
                id=photo_id, source=one.source, source_id=f"photo-{number}", file=photo, width=SIDE, height=SIDE,
                bytes=len(data), format="JPEG", licence=one.licence, file_url=one.file_url, page_url=one.page_url,
                photographer="Maker | <b>One</b>", as_of="2026-01-01", **one.more,
            )
        )  # fmt: skip
        faces.append(
            Face(
                id=face_id, photo_id=photo_id, photo_file=photo, index=0, box=(20.0, 20.0, 70.0, 70.0), score=0.99,
                points5=tuple(float(v) for v in range(10)), size=50.0, yaw=1.5, sharpness=0.2, piqe=30.0,
            )
        )  # fmt: skip
        turn = crop_to_photo(QUAD, SIZE)
        crops.append(
            Crop(
                id=face_id, photo_id=photo_id, file=crop, size=SIZE, quad=QUAD, landmarks=points(), disagreement=0.05,
                to_photo=tuple(turn.ravel().tolist()), pad_fraction=cut.pad_fraction, upscaled=cut.upscaled,
            )
        )  # fmt: skip
        people.append(Person(id=face_id, photo_id=photo_id, identity=face_id, group=face_id, split=one.split))
        for who, names in (("measured", one.measured), ("llava", one.llava)):
            said = tuple(make_tag(name, 0.9 if who == "measured" else 1.0) for name in names)
            tags[who].append(Tags(id=face_id, annotator=who, tags=said))
    made: list[tuple[Table[Any], list[Any]]] = [
        (photoset.photos, photos), (photoset.measured, faces), (photoset.faces, faces), (photoset.crops, crops),
    ]  # fmt: skip
    made_from = ""
    for table, rows in made:
        table.write(part, rows, Provenance("test", 1, {"limit": 0.5}, {}), made_from)
        made_from = digest(rows)
    after: list[tuple[Table[Any], list[Any]]] = [(photoset.tags(who), rows) for who, rows in tags.items()]
    for table, rows in [*after, *([(photoset.people, people)] if split else [])]:
        table.write(part, rows, Provenance("test", 1, {}, {}), made_from)
