"""Photos that break restorers: each is handled, or refused in one line that names value and limit."""

from __future__ import annotations

import errno
import os
import resource
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib.cbook
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from authface.console import Console
from authface.faces.geometry import Aligned, Side, align, pad_fraction
from authface.faces.paste import FEATHER_OUTER, paste_all
from authface.imaging import decode as images
from authface.restore.background import lanczos
from authface.restore.model.crops import ColourFix
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings

Pixels = NDArray[np.uint8]
Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, Any]]]


def hopper() -> Pixels:
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))


def scene(side: int, *places: tuple[int, int]) -> Pixels:
    """A photo without a face but for faces of so many pixels at these places."""
    photo = np.ascontiguousarray(np.tile(data.coffee(), (3, 3, 1))[:1100, :1700])
    faces = [data.astronaut()[:260, 90:350], hopper()[20:320, 110:410]]
    for i, (x, y) in enumerate(places):
        photo[y : y + side, x : x + side] = cv2.resize(faces[i % 2], (side, side), interpolation=cv2.INTER_AREA)
    return photo


def crowd() -> Pixels:
    return scene(110, *[(15 + 120 * column, 20 + 130 * row) for row in range(8) for column in range(14)])


def profile() -> Pixels:
    """A face seen from the side, as narrow as one: the astronaut's squeezed to a third of its width."""
    face = data.astronaut()[:300, 90:350]
    photo = np.ascontiguousarray(data.coffee()[:400, :600])
    photo[50:350, 250:340] = cv2.resize(face, (90, 300), interpolation=cv2.INTER_AREA)
    return photo


@dataclass(frozen=True)
class Darker:
    """Stands for a model: it changes every face, in no time."""

    side: Side = Side(64)
    colour: ColourFix = "none"

    def restore(self, crops: Sequence[Pixels], seeds: Sequence[int], fidelity: float | None = None) -> Sequence[Pixels]:
        return [(crop * 0.6).astype(np.uint8) for crop in crops]


@pytest.fixture
def darken(tmp_path: Path) -> Callable[..., tuple[Pixels, RestoreSummary]]:
    """The pixels of a photo restored by `Darker`, and what the run says."""

    def darken(photo: Pixels, **chosen: Any) -> tuple[Pixels, RestoreSummary]:
        (tmp_path / "photo.png").write_bytes(images.encode_png(photo))
        picked = RestoreSettings(**({"model": "identity", "colour": "none", "report": False, "guard": False} | chosen))
        session = Session(Request(picked), Console())
        session.__dict__["restorer"] = Darker()  # in the place where the model is kept once it is loaded
        jobs = jobs_of([tmp_path / "photo.png"], tmp_path / "out", picked.format)
        summary = restore_jobs(jobs, session)
        return images.read(jobs[0].target).rgb, summary

    return darken


def test_a_crowd_is_restored_face_by_face(
    darken: Callable[..., tuple[Pixels, RestoreSummary]], lines: Lines, tmp_path: Path
) -> None:
    photo = crowd()
    out, summary = darken(photo, change_map=True)
    found = lines(tmp_path / "out")
    restored = [line for line in found if line["status"] == "restored"]
    assert summary.faces == len(restored) >= 105, "of 112 faces of 110 px"
    assert [line["face"] for line in found] == list(range(len(found)))
    assert len({line["seed"] for line in restored}) == len(restored)
    changed = (out != photo).any(axis=2)
    inside = np.zeros(photo.shape[:2], np.uint8)
    for line in restored:
        cv2.fillConvexPoly(inside, np.rint(np.reshape(line["quad"], (4, 2))).astype(np.int32), 1)
        x0, y0, x1, y1 = (round(value) for value in line["box"])
        middle = (slice(y0 + (y1 - y0) // 3, y1 - (y1 - y0) // 3), slice(x0 + (x1 - x0) // 3, x1 - (x1 - x0) // 3))
        assert out[middle].mean() < 0.8 * photo[middle].mean(), "each face is the darker one"
    assert not (changed & (inside == 0)).any()
    few, summary = darken(photo, faces="5")
    assert summary.faces == 5


def test_a_profile_that_dlib_cannot_follow_is_restored_and_guarded(
    darken: Callable[..., tuple[Pixels, RestoreSummary]], lines: Lines, tmp_path: Path
) -> None:
    photo = profile()
    out, summary = darken(photo, min_score=0.5, guard=True)
    (line,) = lines(tmp_path / "out")
    assert (line["status"], line["placed_by"], summary.faces) == ("restored", "retinaface5", 1)
    assert line["identity"] is not None and 0.85 < line["identity"] <= 1 and line["colour_shift"] > 1
    assert (out != photo).any() and np.array_equal(out[:, :150], photo[:, :150])
    same, summary = darken(photo, guard=True)  # its score is 0.84
    *_, line = lines(tmp_path / "out")
    assert (line["reason"], summary.faces) == ("low_score", 0) and "the limit is 0.9" in line["detail"]
    np.testing.assert_array_equal(same, photo)


@pytest.mark.parametrize("left", [150, 190, 215])
def test_a_face_cut_by_the_border_changes_inside_of_the_photo_and_fades_out(
    darken: Callable[..., tuple[Pixels, RestoreSummary]], lines: Lines, tmp_path: Path, left: int
) -> None:
    photo = np.ascontiguousarray(data.astronaut()[:300, left:])
    out, summary = darken(photo, guard=True)
    (line,) = lines(tmp_path / "out")
    assert summary.faces == 1 and out.shape == photo.shape and line["colour_shift"] > 1
    assert pad_fraction(np.reshape(line["quad"], (4, 2)), photo.shape[1], photo.shape[0]) > 0
    assert (out != photo).any()
    assert np.abs(out[:, 0].astype(int) - photo[:, 0]).max() <= 2, "no step where the photo ends"


def test_a_face_of_ten_pixels_stays_and_is_named(
    darken: Callable[..., tuple[Pixels, RestoreSummary]], lines: Lines, tmp_path: Path
) -> None:
    photo = scene(20, (300, 300), (700, 500))[:600, :1000]  # the head fills half of such a square
    out, summary = darken(np.ascontiguousarray(photo))
    assert summary.faces == 0 and not summary.failed
    np.testing.assert_array_equal(out, photo)
    (line,) = lines(tmp_path / "out")
    assert line["reason"] == "too_small" and line["detail"] == "14.6 px, the limit is 16 (restore.min_face)"


def flat_png(side: int) -> bytes:
    """A PNG of side x side white pixels in a few hundred kilobytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (3 * side)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_four_hundred_megapixels_are_refused_unread(authface: Command, tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(flat_png(20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, _, err = authface(tmp_path / "huge.png", "--model", "identity", "-o", tmp_path / "out")
    assert code == 1
    (said,) = [line for line in err.splitlines() if "huge.png" in line]
    assert "failed (too_large): 400 megapixels, the limit is 178: make it smaller" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_file_is_one_line(authface: Command, tmp_path: Path, format: str) -> None:
    file = tmp_path / f"cut.{images.EXTENSIONS[format]}"
    Image.fromarray(data.astronaut()).save(file, format)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    code, _, err = authface(file, "--model", "identity", "-o", tmp_path / "out")
    assert code == 1
    assert len([line for line in err.splitlines() if "failed (truncated)" in line or "failed (not_an" in line]) == 1
    assert err.splitlines()[-1] == "authface: nothing was restored: no input could be used"


def test_a_folder_that_takes_no_files_is_one_line(
    authface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.geteuid() == 0:  # whom no mode stops: then the disk itself refuses
        make = Path.open

        def refuse(self: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if locked in self.parents and mode != "r":
                raise OSError(errno.EROFS, "Read-only file system", str(self))
            return make(self, mode, *arguments, **named)

        monkeypatch.setattr(Path, "open", refuse)
    code, _, err = authface(tmp_path / "a.png", "--model", "identity", "-o", locked)
    assert code == 1
    assert "Traceback" not in err and "cannot write" in err and "choose another folder" in err.splitlines()[-1]
    assert list(locked.iterdir()) == []


# Paste-back where the model changes nothing: no pixel moves outside of the mask, and inside none by more than a level.


ASTRONAUT: Pixels = np.asarray(data.astronaut())


def quad_at(x: float, y: float, side: float, degrees: float) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    across = np.array([np.cos(a), np.sin(a)]) * side / 2
    down = np.array([-across[1], across[0]])
    centre = np.array([x, y])
    return np.stack([centre - across - down, centre - across + down, centre + across + down, centre + across - down])


PLACES = {
    "x": st.floats(0, 511),
    "y": st.floats(0, 511),
    "side": st.floats(12, 700),
    "degrees": st.floats(-180, 180),
    "size": st.sampled_from([64, 256]),
    "scale": st.sampled_from([1, 2, 4]),
}


@settings(deadline=None, max_examples=25)
@given(deep=st.booleans(), **PLACES)
def test_the_identity_changes_no_pixel_at_any_turn_scale_and_depth(
    x: float, y: float, side: float, degrees: float, size: int, scale: int, deep: bool
) -> None:
    photo: Any = ASTRONAUT.astype(np.uint16) * 251 + 17 if deep else ASTRONAUT
    face = align(ASTRONAUT, quad_at(x, y, side, degrees), size)
    large = lanczos(photo, scale)
    np.testing.assert_array_equal(paste_all(large, [(face, face.rgb.copy())], upscale=scale), large)


@settings(deadline=None, max_examples=25)
@given(**PLACES)
def test_a_model_changes_no_pixel_outside_of_the_mask(
    x: float, y: float, side: float, degrees: float, size: int, scale: int
) -> None:
    face = align(ASTRONAUT, quad_at(x, y, side, degrees), size)
    large = lanczos(ASTRONAUT, scale)
    out = paste_all(large, [(face, 255 - face.rgb)], upscale=scale)
    masked = (face.quad - face.quad.mean(axis=0)) * FEATHER_OUTER + face.quad.mean(axis=0)
    corners = (masked + 0.5) * scale - 0.5
    rows, columns = np.mgrid[: large.shape[0], : large.shape[1]]
    inside = np.ones(large.shape[:2], bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = b - a
        distance = (edge[0] * (rows - a[1]) - edge[1] * (columns - a[0])) / np.hypot(*edge)
        inside &= distance <= 0.01
    assert not (out != large).any(axis=2)[~inside].any()


@settings(deadline=None, max_examples=15)
@given(level=st.integers(0, 255), **PLACES)
def test_a_flat_face_on_a_flat_photo_is_seen_nowhere(
    x: float, y: float, side: float, degrees: float, size: int, scale: int, level: int
) -> None:
    """The crop went through the model and came back re-rounded: one level up. Nowhere does it become more than that."""
    photo = np.full((512, 512, 3), level, np.uint8)
    face = align(photo, quad_at(x, y, side, degrees), size)
    nudged = Aligned(face.rgb, face.quad, face.pad_fraction, face.upscaled)
    out = paste_all(lanczos(photo, scale), [(nudged, np.minimum(face.rgb, 254) + np.uint8(1))], upscale=scale)
    assert np.abs(out.astype(int) - level).max() <= 1
