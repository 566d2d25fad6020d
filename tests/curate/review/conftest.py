"""A small set without detectors: real files and tables, faces of noise; a browser; the page's server in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from authface.curate.learn.order import Asking
from authface.curate.review import server
from authface.curate.review.gallery import FacePictures, ReviewerDecisions, load_gallery
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.review.reviews import ReviewSettings, decision_log, reviewed
from authface.store.photoset import PhotoSet, Provenance
from authface.web import local
from tests.pages import served, windows

HOSTILE = """<img src=x onerror="document.title='owned'">'"&amp;\u202e.jpg"""
SIZE = 64
TOKEN = "secret-of-this-test"
PROVENANCE = Provenance("test", 1, {}, {})
EYES = (200, 120)
"""Middle of the eyes in every photo, pixels."""


def face_id(number: int) -> str:
    return f"{number:064x}"[::-1] + "-0"


def make_set(root: Path, crops: int = 6, rejected: int = 2, part: int = 1000, own_files: bool = True) -> PhotoSet:
    """`crops` kept crops and `rejected` faces the filter rejected, `part` rows a part."""
    photoset, rng = PhotoSet(root), np.random.default_rng(3)
    photoset.save("photos/00/shared.png", images.encode_png(rng.integers(0, 256, (300, 400, 3), np.uint8)))
    total = crops + rejected
    for number, begin in enumerate(range(0, total, part)):
        rows = range(begin, min(begin + part, total))
        faces = [_face(index, index < crops) for index in rows]
        kept = [_crop(photoset, index, rng, own_files) for index in rows if index < crops]
        photos = [_photo(face, index) for face, index in zip(faces, rows, strict=True)]
        photoset.photos.write(number, photos, PROVENANCE, "")
        photoset.faces.write(number, faces, PROVENANCE, "")
        photoset.crops.write(number, kept, PROVENANCE, "")
    return photoset


def _photo(face: Face, index: int) -> Photo:
    name = HOSTILE if index == 0 else f"{index}.jpg"
    return Photo(
        id=face.photo_id, source="folder", source_id=name, file=face.photo_file, photographer=HOSTILE,
        licence="CC0-1.0", width=400, height=300,
    )  # fmt: skip


def _face(index: int, kept: bool) -> Face:
    blurred: dict[str, Any] = {"status": "rejected", "reason": "blurred", "value": 0.05, "limit": 0.15}
    return Face(
        id=face_id(index), photo_id=face_id(index)[:64], photo_file="photos/00/shared.png", index=0,
        box=(150.0, 70.0, 250.0, 200.0), score=0.99, points5=(180, 120, 220, 120, 200, 140, 185, 165, 215, 165),
        size=130.0, sharpness=(index * 7 % 10) / 10, noise=float(index), **({} if kept else blurred),
    )  # fmt: skip


def _crop(photoset: PhotoSet, index: int, rng: np.random.Generator, own_file: bool) -> Crop:
    crop_id = face_id(index)
    file = photoset.crop_file(crop_id if own_file else face_id(0))
    if own_file or index == 0:
        photoset.save(file, images.encode_png(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)))
    points = np.full((68, 2), 150.0)
    points[36:48] = EYES
    return Crop(
        id=crop_id, photo_id=crop_id[:64], file=file, size=SIZE, quad=(150, 70, 150, 200, 280, 200, 280, 70),
        landmarks=tuple(points.ravel().tolist()), disagreement=0.05, pad_fraction=0.0,
    )  # fmt: skip


@pytest.fixture
def ids() -> Callable[[int], str]:
    """The id of the crop of a number."""
    return face_id


@pytest.fixture
def new_set(tmp_path: Path) -> Callable[..., PhotoSet]:
    """Makes a set; see `make_set`."""
    return lambda **options: make_set(tmp_path / "set", **options)


@pytest.fixture
def photoset(new_set: Callable[..., PhotoSet]) -> PhotoSet:
    return new_set()


def page_of(photoset: PhotoSet, reviewer: str, asking: Asking | None = None) -> server.Review:
    """What the command makes of a set."""
    settings = ReviewSettings()
    people = reviewed(photoset, settings)
    pictures = FacePictures(photoset, people)
    desk = ReviewerDecisions(decision_log(photoset, reviewer))
    others = {who: said for who, said in people.decisions.items() if who != reviewer}
    return server.Review(load_gallery(photoset), pictures, desk, reviewer, "set", settings.reasons, others, asking)


@pytest.fixture
def caller() -> Callable[..., TestClient]:
    """Makes a caller of the routes of a set and a reviewer, that knows the token."""

    def make(photoset: PhotoSet, reviewer: str = "anna", asking: Asking | None = None) -> TestClient:
        app = server.make_app(page_of(photoset, reviewer, asking), TOKEN, "127.0.0.1")
        return TestClient(app, base_url=f"http://127.0.0.1:8000/{TOKEN}/")

    return make


@pytest.fixture
def client(photoset: PhotoSet) -> TestClient:
    """A caller of the routes that knows the token."""
    app = server.make_app(page_of(photoset, "anna"), TOKEN, "127.0.0.1")
    return TestClient(app, base_url=f"http://127.0.0.1:8000/{TOKEN}/")


@pytest.fixture
def serve() -> Callable[..., AbstractContextManager[str]]:
    """Serves the page of a set and a reviewer; the context is its address."""
    return serving


@contextmanager
def serving(photoset: PhotoSet, reviewer: str = "anna", asking: Asking | None = None) -> Iterator[str]:
    app = server.make_app(page_of(photoset, reviewer, asking), TOKEN, "127.0.0.1")
    with local.listen("127.0.0.1", 0, server.INSTEAD) as waiting, served(app, waiting, TOKEN) as url:
        yield url


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens an address in a window of its own and waits for the first picture; an error on the page fails the test."""
    with windows(browser, 1000, 700) as (opened, _):

        def visit(url: str, **options: Any) -> Any:
            page = opened(**options)
            page.goto(url)
            page.wait_for_selector(".cell.seen")
            return page

        yield visit
