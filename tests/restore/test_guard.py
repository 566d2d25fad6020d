"""The guard on real faces: it tells a kept face from another one, and a face that drifts stays as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from authface.errors import ImageError, UsageError
from authface.faces.detector import Detection
from authface.faces.geometry import Side
from authface.faces.identity import SeenFace, five_points
from authface.faces.landmarks import Dlib68
from authface.restore.guard import UNCHANGED, IdentityGuard, colour_shift, fit_points, in_crop
from authface.restore.model.crops import ColourFix
from authface.restore.model.restorer import CropRestorer
from authface.restore.photo import (
    FaceFinder,
    FaceResult,
    Finder,
    PhotoResult,
    paste_faces,
    restore_faces,
    retry_fidelities,
)
from authface.restore.settings import RestoreSettings
from tests.portraits import PORTRAITS

SIZE = 256
Crop = NDArray[np.uint8]


def restore_photo(
    rgb: NDArray[np.uint8],
    finder: Finder,
    restorer: CropRestorer,
    chosen: RestoreSettings,
    content: str,
    guard: IdentityGuard,
) -> PhotoResult:
    faces = restore_faces(restorer, finder(rgb, restorer.side, content, 0), chosen, guard)
    return paste_faces(rgb, faces, chosen.upscale)


@pytest.fixture(scope="module")
def faces() -> dict[str, FaceResult]:
    finder = FaceFinder(RestoreSettings())
    return {name: finder(photo, Side(SIZE), "ab", 0)[0] for name, photo in PORTRAITS.items()}


@pytest.fixture(scope="module")
def guard() -> IdentityGuard:
    return IdentityGuard()


@pytest.fixture(scope="module")
def lost_guard() -> IdentityGuard:
    """For which dlib is lost on every face."""
    return IdentityGuard(max_disagreement=1e-6)


def sharpened(crop: Crop) -> Crop:
    return np.asarray(cv2.addWeighted(crop, 1.5, cv2.GaussianBlur(crop, (0, 0), 1.5), -0.5, 0))


def test_an_unchanged_face_is_the_same_exactly(guard: IdentityGuard, faces: dict[str, FaceResult]) -> None:
    for face in faces.values():
        assert guard.measure(face.aligned.rgb, face.aligned.rgb.copy(), face.in_crop) == UNCHANGED


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_sharper_face_is_the_same_and_another_person_is_not(
    guard: IdentityGuard, lost_guard: IdentityGuard, faces: dict[str, FaceResult], lost: bool, known: bool
) -> None:
    measure = (lost_guard if lost else guard).measure
    one, other = faces["astronaut"], faces["hopper"].aligned.rgb
    seen = one.in_crop if known else None
    same = measure(one.aligned.rgb, sharpened(one.aligned.rgb), seen)
    else_ = measure(one.aligned.rgb, other, seen)
    assert same.identity is not None and else_.identity is not None
    assert same.landmark_shift is not None and else_.landmark_shift is not None
    assert same.identity > 0.99 and else_.identity < 0.91
    assert same.landmark_shift < 2 < 4 < else_.landmark_shift
    assert same.colour_shift < 0.3 and else_.colour_shift > 10


def test_a_face_moved_by_a_tenth_of_the_eyes_is_told_so(
    guard: IdentityGuard, lost_guard: IdentityGuard, faces: dict[str, FaceResult]
) -> None:
    face = faces["astronaut"]
    assert face.in_crop is not None
    eyes = float(np.hypot(*(np.array(face.in_crop.points5[2:4]) - face.in_crop.points5[:2])))
    moved = np.roll(face.aligned.rgb, round(eyes / 10), axis=1)
    for either in (guard, lost_guard):
        shift = either.measure(face.aligned.rgb, moved, face.in_crop).landmark_shift
        assert shift == pytest.approx(10, abs=2)


def test_where_no_face_is_seen_nothing_is_claimed(guard: IdentityGuard) -> None:
    flat = np.full((SIZE, SIZE, 3), 90, np.uint8)
    drift = guard.measure(flat, flat + np.uint8(40), None)
    assert drift.identity is None and drift.landmark_shift is None and drift.colour_shift > 10


def test_colours_are_compared_coarsely_in_visible_steps() -> None:
    grey = np.full((128, 128, 3), 119, np.uint8)  # L* of 50.0, where CIEDE2000's weight of lightness is 1
    assert colour_shift(grey, grey) == 0
    assert colour_shift(grey, np.full_like(grey, 122)) == pytest.approx(1.2, abs=0.1)  # L* of 51.2
    noisy = np.clip(grey + np.random.default_rng(0).normal(0, 12, grey.shape), 0, 255).astype(np.uint8)
    assert colour_shift(grey, noisy) < 0.7


def test_a_face_costs_little_more_than_its_two_embeddings(guard: IdentityGuard, faces: dict[str, FaceResult]) -> None:
    """Which are 0.12 s on one core; a ratio holds on a busy machine too."""
    face = faces["astronaut"]
    changed = sharpened(face.aligned.rgb)
    points = Dlib68().landmarks(face.aligned.rgb, face.in_crop) if face.in_crop else None
    assert points is not None
    pair = [SeenFace(face.aligned.rgb, points), SeenFace(changed, points)]

    def cost(work: Callable[[], object]) -> float:
        start = time.thread_time()
        work()
        return time.thread_time() - start

    both = [
        (
            cost(lambda: guard.measure(face.aligned.rgb, changed, face.in_crop)),
            cost(lambda: guard._embedder.embed(pair)),
        )
        for _ in range(4)
    ]
    assert min(whole for whole, _ in both) < 1.5 * min(part for _, part in both)


def test_a_detection_lies_in_the_crop_as_in_the_photo() -> None:
    detection = Detection((40.0, 30.0, 80.0, 90.0), 0.9, (50.0, 50.0, 70.0, 50.0, 60.0, 60.0, 53.0, 75.0, 67.0, 75.0))
    quad = np.array([[10, 10], [10, 110], [110, 110], [110, 10]], float) - 0.5
    seen = in_crop(detection, quad, 200)
    np.testing.assert_allclose(seen.box, (60.5, 40.5, 140.5, 160.5))
    np.testing.assert_allclose(seen.points5[:4], (80.5, 80.5, 120.5, 80.5))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20), st.floats(-3, 3), st.floats(-500, 500))
def test_points_are_placed_by_turn_scale_and_shift(seed: int, scale: float, turn: float, shift: float) -> None:
    points = np.random.default_rng(seed).uniform(0, 100, (68, 2))
    turned = (points @ [1, 1j]) * scale * np.exp(1j * turn) + shift
    there = np.stack([turned.real, turned.imag], axis=1)
    np.testing.assert_allclose(fit_points(points, five_points(there)), there, atol=1e-6 * scale * 100 + 1e-6)


def test_points_on_one_spot_cannot_be_placed() -> None:
    with pytest.raises(ImageError, match="no face"):
        fit_points(np.zeros((68, 2)), np.arange(10.0))


@dataclass
class Drifts:
    """Gives another person's face below a fidelity, the input sharpened from there on; None: always the other."""

    other: Crop
    faithful_from: float | None
    side: Side = Side(SIZE)
    colour: ColourFix = "none"
    asked: list[tuple[int, float | None]] = field(default_factory=list)

    def restore(self, crops: Sequence[Crop], seeds: Sequence[int], fidelity: float | None = None) -> Sequence[Crop]:
        self.asked.append((len(crops), fidelity))
        if self.faithful_from is not None and fidelity is not None and fidelity >= self.faithful_from:
            return [sharpened(crop) for crop in crops]
        return [self.other] * len(crops)


CHOSEN = RestoreSettings(min_identity=0.95, fidelity=0.5, colour="none")


def test_fidelity_rises_to_its_end() -> None:
    assert retry_fidelities(0.5) == [0.75, 1.0] and retry_fidelities(0) == [0.5, 1.0] and retry_fidelities(1) == []


def test_a_face_that_drifts_is_tried_again_closer_to_its_input(
    guard: IdentityGuard, faces: dict[str, FaceResult]
) -> None:
    for faithful_from, tries, calls in ((0.7, 2, [(1, None), (1, 0.75)]), (1, 3, [(1, None), (1, 0.75), (1, 1.0)])):
        restorer = Drifts(faces["hopper"].aligned.rgb, faithful_from)
        (face,) = restore_faces(restorer, [faces["astronaut"]], CHOSEN, guard)
        assert (face.tries, face.fidelity, face.reason) == (tries, calls[-1][1], "")
        assert face.drift is not None and face.drift.identity is not None and face.drift.identity > 0.99
        np.testing.assert_array_equal(face.after, sharpened(faces["astronaut"].aligned.rgb))
        assert restorer.asked[: len(calls)] == calls


def test_only_the_faces_that_drift_are_tried_again(guard: IdentityGuard, faces: dict[str, FaceResult]) -> None:
    restorer = Drifts(faces["hopper"].aligned.rgb, 0.7)  # which restores the second face at once
    tried = restore_faces(restorer, [faces["astronaut"], faces["hopper"]], CHOSEN, guard)
    assert [face.tries for face in tried] == [2, 1]
    assert restorer.asked[:2] == [(2, None), (1, 0.75)]


def test_a_face_that_never_comes_near_stays_as_it_was(guard: IdentityGuard, faces: dict[str, FaceResult]) -> None:
    restorer = Drifts(faces["hopper"].aligned.rgb, None)
    photo = PORTRAITS["astronaut"]
    result = restore_photo(photo, FaceFinder(CHOSEN), restorer, CHOSEN, "ab", guard=guard)
    np.testing.assert_array_equal(result.rgb, photo)
    (face,) = result.faces
    assert (face.status, face.reason, face.tries) == ("skipped", "identity", 3)
    assert "at fidelity 0.5, " in face.detail and "at fidelity 1; the limit is 0.95" in face.detail
    assert face.drift is not None and face.drift.identity is not None and face.drift.identity < 0.91
    without = CHOSEN.model_copy(update={"min_identity": 0.0})
    assert restore_photo(photo, FaceFinder(without), restorer, without, "ab", guard=guard).restored == 1


def test_where_dlib_is_lost_faces_are_guarded_too(lost_guard: IdentityGuard, faces: dict[str, FaceResult]) -> None:
    strict = CHOSEN.model_copy(update={"max_disagreement": 1e-6})
    photo = PORTRAITS["astronaut"]
    result = restore_photo(
        photo, FaceFinder(strict), Drifts(faces["hopper"].aligned.rgb, 0.9), strict, "ab", guard=lost_guard
    )
    (face,) = result.faces
    assert (face.placed_by, face.tries, face.fidelity, face.status) == ("retinaface5", 3, 1.0, "restored")
    assert face.drift is not None and face.drift.identity is not None and face.drift.identity > 0.97


Command = Callable[..., tuple[int, str, str]]


def test_line_page_and_console_say_what_was_measured(
    authface: Command,
    lines: Callable[[Path], list[dict[str, object]]],
    family: Path,
    faces: dict[str, FaceResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.fromarray(PORTRAITS["astronaut"][:300, 60:400]).save(tmp_path / "a.png")
    model = ["--model", family, "-O", "restore.steps=1", "--device", "cpu"]
    with monkeypatch.context() as patched:
        other = Drifts(faces["hopper"].aligned.rgb, None)
        patched.setattr("authface.restore.session.load_restorer", lambda *_: other)
        code, out, err = authface(tmp_path / "a.png", *model, "-o", tmp_path / "out", "--min-identity", "0.99")
    assert code == 1 and "1 face drifted from its input at every fidelity: lower --min-identity" in err
    assert "a.png, face 0: identity 0." in err and "the limit is 0.99: the input face stays" in err
    (line,) = lines(tmp_path / "out")
    assert (line["status"], line["reason"], line["tries"]) == ("skipped", "identity", 3)
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    code, out, err = authface(tmp_path / "a.png", *model, "-o", tmp_path / "out")
    assert code == 0, err
    *_, line = lines(tmp_path / "out")
    assert 0 < float(str(line["identity"])) < 0.99 and line["landmark_shift"] and line["colour_shift"] is not None
    assert "identity: mean 0." in out and "strangers have 0.866" in out
    page = (tmp_path / "out/restore.html").read_text()
    assert f"{line['identity']:.3f}" in page and "landmarks moved" in page and "CIEDE2000" in page
    assert authface(tmp_path / "a.png", *model, "-o", tmp_path / "out", "-O", "restore.guard=false")[0] == 0
    assert lines(tmp_path / "out")[-1]["identity"] is None


def test_wrong_wishes_are_one_line(authface: Command, tmp_path: Path) -> None:
    Image.fromarray(PORTRAITS["astronaut"]).save(tmp_path / "a.png")
    for wrong, said in (
        (["--min-identity", "0.9", "-O", "restore.guard=false"], "needs the measure"),
        (["--min-identity", "1.2"], "--min-identity 1.2: "),
        (["-O", "restore.identity=arcface"], "arcface has no file named"),
    ):
        code, _, err = authface(tmp_path / "a.png", "--model", "identity", *wrong)
        assert code == 2 and said in err.splitlines()[-1]
    with pytest.raises(UsageError, match="no file"):
        IdentityGuard("arcface", str(tmp_path / "absent.onnx"))
