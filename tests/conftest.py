"""What all tests share: no deadlines (two busy cores), no network, quiet libraries."""

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from authface import backends
from authface.imaging import decode as images
from authface.records import Crop, Face, Person, Photo, Score, Tag, Tags
from authface.store.photoset import PhotoSet, Provenance
from tests.hub import TOKEN, Handler, Hub

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line, and the next: see authface.cli.main
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("authface", deadline=None)
settings.load_profile("authface")


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], PhotoSet]:
    """Copies a small set into a folder: seven photos in three parts with faces, crops, tags, people and logs.

    Rows are written by hand, for tests of what reads them; photos are real JPEG files, crops real PNG files.
    Photo 5 is the same file as photo 4, photo 6 could not be read; face 2 nearly repeats face 1.
    """
    root = tmp_path_factory.mktemp("furnished") / "set"
    _furnish(root)

    def copy(target: Path) -> PhotoSet:
        return PhotoSet(Path(shutil.copytree(root, target)))

    return copy


LICENCES = ("Unsplash License", "CC0", "Unsplash License", "unknown", "", "", "CC0")


def _furnish(root: Path) -> None:
    photoset = PhotoSet(root)
    photos = [_photo(photoset, number) for number in range(7)]
    faces = [_face(photo, number, photos) for number, photo in enumerate(photos)]
    kept = [photo.status == "kept" for photo in photos]
    step = partial(Provenance, version=1, weights={})
    for part in range(3):
        at = range(part * 3, min(part * 3 + 3, 7))
        photoset.photos.write(part, [photos[n] for n in at], step("fetch", settings={}), "")
        above = photoset.photos.meta(part)
        assert above is not None
        judged = [faces[n] for n in at if kept[n]]
        photoset.faces.write(part, judged, step("filter", settings={"min_sharpness": 0.3, "max_yaw": 40}), above.digest)
        crops = [_crop(photoset, face) for face in judged if face.status == "kept"]
        above = photoset.faces.meta(part)
        assert above is not None
        photoset.crops.write(part, crops, step("align", settings={"max_pad": 0.35}), above.digest)
        above = photoset.crops.meta(part)
        assert above is not None
        tags = [Tags(id=crop.id, annotator="measured", tags=(_tag(crop),)) for crop in crops]
        photoset.tags("measured").write(part, tags, step("measured tags", settings={}), above.digest)
        people = [Person(id=crop.id, photo_id=crop.photo_id, identity=faces[0].id, split="train") for crop in crops]
        photoset.people.write(part, people, step("split", settings={}), above.digest)
    first = faces[0].id
    photoset.save("review/anna.jsonl", _lines([{"id": faces[n].id, "verdict": "keep", "at": "2026"} for n in (0, 1)]))
    photoset.save(f"crops/{first[:2]}/{first}.retouched-0a1b2c3d.png", b"retouched")
    photoset.save(f"review/thumbnails/{first[:2]}/{first}.jpg", b"thumbnail")
    entries = [{"id": p.source_id, "urls": {"full": p.file_url}, "user": {"name": p.photographer}} for p in photos]
    photoset.save("sources/unsplash/0123.json", json.dumps({"page": 1, "photos": entries}).encode())
    photoset.save("sources/fetched.jsonl", _lines([{"photo": {"id": p.id, "file": p.file}} for p in photos]))
    photoset.remember("curate.fetch", {"photographer": photos[0].photographer, "source": "folder"})


def _photo(photoset: PhotoSet, number: int) -> Photo:
    import cv2
    import numpy as np
    from skimage import data

    noise = np.random.default_rng(min(number, 4)).integers(0, 20, (64, 64, 3))
    pixels = np.clip(cv2.resize(data.astronaut()[:256, 100:356], (64, 64)).astype(int) + noise, 0, 255)
    jpeg = images.encode_jpeg(pixels.astype(np.uint8))
    photo_id = hashlib.sha256(jpeg).hexdigest()
    source = "unsplash" if number % 2 == 0 else "folder"
    photo = Photo(
        id=photo_id, source=source, source_id=f"photo-{number}", file=photoset.photo_file(photo_id, "jpg"),
        photographer=f"Maker {number if number else 'Zero <b>'}", photographer_url=f"https://example.org/@maker{number}",
        page_url="javascript:alert(1)" if number == 3 else f"https://example.org/photos/{number}?a=1",
        file_url=f"https://example.org/files/{number}.jpg", licence=LICENCES[number], terms="2024",
        as_of=f"2026-0{number}", width=64, height=64, bytes=len(jpeg), format="JPEG",
    )  # fmt: skip
    if number == 5:
        return replace(photo, status="rejected", reason="duplicate", detail="the same bytes are in the set")
    if number == 6:
        return replace(photo, id="", file="", width=0, height=0, status="failed", reason="truncated", detail="cut")
    photoset.save(photo.file, jpeg)
    return photo


def _face(photo: Photo, number: int, photos: list[Photo]) -> Face:
    face = Face(
        id=f"{photo.id}-0", photo_id=photo.id, photo_file=photo.file, index=0, box=(8.0, 8.0, 56.0, 56.0), score=0.99,
        size=48.0 + number, yaw=-20.0 + 10 * number, sharpness=0.2 + 0.1 * number, noise=2.0,
        scores=(Score(metric="musiq", value=50.0 + number),),
    )  # fmt: skip
    if number == 2:
        near = f"{photos[1].id}-0"
        return replace(face, status="rejected", reason="duplicate", duplicate_of=near, value=2.0, limit=4.0)
    if face.sharpness is not None and face.sharpness < 0.3 and number:
        return replace(face, status="rejected", reason="blurred", value=face.sharpness, limit=0.3)
    return face


def _crop(photoset: PhotoSet, face: Face) -> Crop:
    from skimage import data

    file = photoset.crop_file(face.id)
    photoset.save(file, images.encode_png(data.astronaut()[:64, 100:164]))
    points = tuple(float(x) for x in range(136))
    return Crop(
        id=face.id, photo_id=face.photo_id, file=file, size=64, quad=(8.0, 8.0, 8.0, 56.0, 56.0, 56.0, 56.0, 8.0),
        landmarks=points, disagreement=0.05, pad_fraction=0.0,
    )  # fmt: skip


def _tag(crop: Crop) -> Tag:
    left = int(crop.id[:2], 16) % 2
    return Tag(name=f"light from the {'left' if left else 'right'}", group="lighting", confidence=0.9)


def _lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    handler = type("Bound", (Handler,), {"hub": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium of the system."""
    binary = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium on this machine: the page's tests need it (apt-get install chromium)")
        pytest.skip("no Chromium on this machine: apt-get install chromium to test the page")
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield started
        started.close()


PATIENCE = 600
"""Seconds after which what a test waits for is taken never to come; no test expects how fast a busy machine is."""


def heed_ctrl_c() -> None:
    """For `preexec_fn`: a shell starts background jobs with Ctrl-C ignored, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def heed_hangups() -> None:
    """For `preexec_fn`: under nohup they are ignored, and what it starts inherits that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass
class Done:
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


def authface(*words: object, cwd: Path | None = None) -> Done:
    """Runs `authface` as typed, in `cwd`, in this process: a new one takes seconds to import what it needs."""
    from authface.cli import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), chdir(cwd or "."), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["authface", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package: its name, its entry points, and the text of its one module."""
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(str(packages))

    def add(name: str, points: str, module: str = "") -> None:
        info = packages / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        (packages / f"{name}.py").write_text(module)
        monkeypatch.delitem(sys.modules, name, raising=False)
        backends._registered.cache_clear()

    yield add
    backends._registered.cache_clear()


@pytest.fixture
def on_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `authface` here, with the hub's address and a token; constants of its client by their names."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from authface.cli import main

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def run(*words: object, token: str = TOKEN, endpoint: str = "", offline: bool = False) -> Done:
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint or hub.url)
        template = f"{endpoint or hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(sys, "argv", ["authface", *map(str, words)])
        close_session()
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        done = Done(code, *capsys.readouterr())
        assert TOKEN not in done.stdout + done.stderr
        return done

    return run
