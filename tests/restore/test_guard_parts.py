"""Eyes and mouth by themselves: what an honest restoration keeps of a bad photo, and what a broken one does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from authface.errors import UsageError
from authface.faces.degrade import degrade, preset
from authface.faces.geometry import Side
from authface.faces.identity import five_points
from authface.faces.landmarks import Dlib68
from authface.restore.api import Restorer
from authface.restore.app.cards import face_cards
from authface.restore.guard import (
    SUSPECT,
    UNCHANGED,
    DriftLimits,
    FaceDrift,
    FaceParts,
    IdentityGuard,
    compare_parts,
    parts_text,
    told,
)
from authface.restore.model.crops import ColourFix
from authface.restore.photo import FaceFinder, FaceResult, restore_faces
from authface.restore.settings import RestoreSettings
from tests.portraits import PORTRAITS

SIZE = 256
Crop = NDArray[np.uint8]
Points = NDArray[np.float64]
EYES = {"right_eye": slice(36, 42), "left_eye": slice(42, 48)}
PARTS = EYES | {"mouth": slice(48, 68)}


@dataclass(frozen=True)
class Face:
    rgb: Crop
    points: Points
    found: FaceResult

    @property
    def five(self) -> Points:
        return five_points(self.points)

    @property
    def eyes(self) -> float:
        return float(np.hypot(*(self.five[1] - self.five[0])))


@pytest.fixture(scope="module")
def faces() -> dict[str, Face]:
    finder, landmarker, seen = FaceFinder(RestoreSettings()), Dlib68(), {}
    for name, photo in PORTRAITS.items():
        found = finder(photo, Side(SIZE), "ab", 0)[0]
        assert found.aligned is not None and found.in_crop is not None
        seen[name] = Face(found.aligned.rgb, landmarker.landmarks(found.aligned.rgb, found.in_crop), found)
    return seen


@pytest.fixture(scope="module")
def guard() -> IdentityGuard:
    return IdentityGuard()


def over(face: Face, other: Crop, part: str) -> Crop:
    """The face with what another picture has at the part."""
    mask = np.zeros(face.rgb.shape[:2], np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(face.points[PARTS[part]].astype(np.int32)), 1.0)
    mask = cv2.GaussianBlur(cv2.dilate(mask, np.ones((9, 9))), (0, 0), 2)[..., None]
    return np.rint(face.rgb * (1 - mask) + other * mask).astype(np.uint8)


def shifted(face: Face, part: str) -> Crop:
    return over(face, np.roll(face.rgb, round(0.15 * face.eyes), axis=1), part)


def pressed(face: Face, part: str) -> Crop:
    middle = face.points[PARTS[part]].mean(axis=0)[1]
    squeezed = cv2.warpAffine(face.rgb, np.array([[1, 0, 0], [0, 0.4, 0.6 * middle]]), (SIZE, SIZE))
    return over(face, np.asarray(squeezed), part)


def erased(face: Face, part: str) -> Crop:
    return over(face, np.asarray(cv2.GaussianBlur(face.rgb, (0, 0), 0.3 * face.eyes)), part)


@pytest.mark.parametrize("name", ["astronaut", "hopper"])
@pytest.mark.parametrize("level", ["mild", "medium", "heavy"])
def test_the_truth_is_like_its_bad_photo_and_a_broken_part_is_not(
    faces: dict[str, Face], name: str, level: str
) -> None:
    face = faces[name]
    photo = degrade(face.rgb, 3, preset(level))
    honest = compare_parts(photo, face.rgb, face.five)
    assert honest is not None and honest.least > SUSPECT
    for part in PARTS:
        for broken in (shifted(face, part), pressed(face, part), erased(face, part)):
            parts = compare_parts(photo, broken, face.five)
            assert parts is not None and next(iter(parts.below(SUSPECT)), "") == part, (part, parts)


def test_what_light_contrast_and_sharpness_do_is_no_other_mouth(faces: dict[str, Face]) -> None:
    face = faces["astronaut"]
    light = np.linspace(0.8, 1.1, SIZE)[None, :, None]
    for changed in (
        np.clip(face.rgb * light, 0, 255),
        np.clip(128 + 1.3 * (face.rgb - 128.0), 0, 255),
        cv2.addWeighted(face.rgb, 1.5, cv2.GaussianBlur(face.rgb, (0, 0), 1.5), -0.5, 0),
    ):
        parts = compare_parts(face.rgb, changed.astype(np.uint8), face.five)
        assert parts is not None and parts.least > SUSPECT


def test_a_face_is_judged_the_same_at_any_size(faces: dict[str, Face]) -> None:
    face = faces["astronaut"]
    broken, photo = pressed(face, "mouth"), degrade(face.rgb, 3, preset("medium"))
    small = compare_parts(photo, broken, face.five)
    large = [
        np.asarray(cv2.resize(one, (4 * SIZE, 4 * SIZE), interpolation=cv2.INTER_CUBIC)) for one in (photo, broken)
    ]
    same = compare_parts(large[0], large[1], (face.five + 0.5) * 4 - 0.5)
    assert small is not None and same is not None
    assert same.mouth == pytest.approx(small.mouth, abs=0.05) and same.mouth < SUSPECT


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.eye(5, 2) * 0.1 + 90])
def test_points_that_show_no_face_show_no_parts(points: Points) -> None:
    assert compare_parts(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64, 3), np.uint8), points) is None


def test_a_photo_without_a_pattern_speaks_against_nothing() -> None:
    five = np.array([[24.0, 28], [40, 28], [32, 38], [26, 46], [38, 46]])
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert compare_parts(flat, flat + np.uint8(9), five) == UNCHANGED.parts


def test_parts_are_said_the_worst_first() -> None:
    parts = FaceParts(0.93, 0.5, 0.2)
    assert parts.below(0.9) == {"mouth": 0.2, "left_eye": 0.5} and list(parts.below(0.9))[0] == "mouth"
    assert parts_text(parts, parts.below(0.9)) == "mouth 0.20, left eye 0.50"


def test_limits_say_what_a_face_breaks_and_how_near_it_is() -> None:
    good, bad = FaceDrift(0.99, 1, 1, FaceParts(0.95, 0.95, 0.95)), FaceDrift(0.99, 1, 1, FaceParts(0.95, 0.95, 0.4))
    lost = FaceDrift(None, None, 1, None)
    assert [DriftLimits().broken(one) for one in (good, bad, lost, None)] == ["", "", "", ""]
    assert [DriftLimits(0.95).broken(one) for one in (good, bad, lost)] == ["", "", "identity"]
    assert [DriftLimits(0, 0.9).broken(one) for one in (good, bad, lost)] == ["", "parts", "parts"]
    assert [DriftLimits(0.995, 0.9).broken(one) for one in (good, bad)] == ["identity", "identity"]
    rooms = [DriftLimits(0.95, 0.9).room(one) for one in (good, bad, lost)]
    assert rooms[0] > 0 > rooms[1] > rooms[2]
    assert (told(bad, "parts"), told(lost, "parts")) == ("mouth 0.400", "parts not measurable")


@dataclass
class Breaks:
    """Gives a face with its mouth broken below a fidelity, the input sharpened from there on; None: always broken."""

    broken: Crop
    whole: Crop
    faithful_from: float | None
    side: Side = Side(SIZE)
    colour: ColourFix = "none"

    def restore(self, crops: Sequence[Crop], seeds: Sequence[int], fidelity: float | None = None) -> Sequence[Crop]:
        kept = self.faithful_from is not None and fidelity is not None and fidelity >= self.faithful_from
        return [self.whole if kept else self.broken] * len(crops)


def breaks(face: Face, faithful_from: float | None) -> Breaks:
    whole = np.asarray(cv2.addWeighted(face.rgb, 1.3, cv2.GaussianBlur(face.rgb, (0, 0), 1.5), -0.3, 0))
    return Breaks(pressed(Face(whole, face.points, face.found), "mouth"), whole, faithful_from)


def test_a_broken_mouth_is_named_though_the_person_is_the_same(faces: dict[str, Face], guard: IdentityGuard) -> None:
    face, chosen = faces["astronaut"], RestoreSettings(min_identity=0.97, colour="none")
    (made,) = restore_faces(breaks(face, None), [face.found], chosen, guard)
    assert made.identity is not None and made.identity > 0.97 and (made.status, made.tries) == ("restored", 1)
    assert made.suspect == ("mouth",) and made.parts is not None and made.parts.mouth < SUSPECT
    facts = made.facts()
    assert facts["suspect"] == ("mouth",) and facts["mouth"] == round(made.parts.mouth, 3) and facts["left_eye"] > 0.9
    assert "look at: mouth 0." in face_cards([made], "dlib")
    (lenient,) = restore_faces(
        breaks(face, None), [face.found], chosen.model_copy(update={"min_parts": facts["mouth"] - 0.01}), guard
    )
    assert (lenient.suspect, lenient.status, lenient.tries) == (("mouth",), "restored", 1), "a limit hides nothing"


def test_a_broken_mouth_is_tried_again_closer_to_its_photo(faces: dict[str, Face], guard: IdentityGuard) -> None:
    face, chosen = faces["astronaut"], RestoreSettings(min_parts=0.9, fidelity=0.5, colour="none")
    (made,) = restore_faces(breaks(face, 1.0), [face.found], chosen, guard)
    assert (made.status, made.tries, made.fidelity, made.suspect) == ("restored", 3, 1.0, ())
    (kept,) = restore_faces(breaks(face, None), [face.found], chosen, guard)
    assert (kept.status, kept.reason, kept.tries, kept.suspect) == ("skipped", "parts", 3, ("mouth",))
    assert kept.detail.startswith("mouth 0.") and kept.detail.endswith(
        "at fidelity 1; the limit is 0.9: the input face stays"
    )
    assert "every attempt broke an eye or the mouth" in face_cards([kept], "dlib")


def test_what_is_below_a_limit_reads_so() -> None:
    assert parts_text(FaceParts(0.8996, 0.29, 1.0)) == "right eye 0.89, left eye 0.29, mouth 1.00"


def test_where_dlib_is_lost_parts_are_compared_too(faces: dict[str, Face]) -> None:
    face = faces["astronaut"]
    drift = IdentityGuard(max_disagreement=1e-6).measure(face.rgb, breaks(face, None).broken, face.found.in_crop)
    assert drift.parts is not None and list(drift.parts.below(SUSPECT)) == ["mouth"]


Command = Callable[..., tuple[int, str, str]]


def test_line_page_and_console_name_what_is_to_be_looked_at(
    authface: Command,
    lines: Callable[[Path], list[dict[str, object]]],
    faces: dict[str, Face],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.fromarray(PORTRAITS["astronaut"][:300, 60:400]).save(tmp_path / "a.png")
    face = faces["astronaut"]
    monkeypatch.setattr("authface.restore.session.load_restorer", lambda *_: breaks(face, None))
    run = [tmp_path / "a.png", "--device", "cpu", "-O", "restore.colour=none", "-o", tmp_path / "out"]
    code, out, err = authface(*run)
    assert code == 0 and "a.png, face 0: mouth 0." in err and "like the photo's, below 0.9: look at it" in err
    assert "1 face has an eye or a mouth unlike the input's: look before you keep it; --min-parts 0.9" in out
    (line,) = lines(tmp_path / "out")
    assert line["suspect"] == ["mouth"] and float(str(line["mouth"])) < SUSPECT < float(str(line["right_eye"]))
    page = (tmp_path / "out/restore.html").read_text()
    assert "look at face 0" in page and "look at: mouth 0." in page
    code, out, _ = authface(*run, "--json")  # done before: what the log says of it is said again
    assert code == 0 and '"suspect": [{' in out and '"parts": {"mouth": 0.' in out
    code, out, err = authface(*run, "--min-parts", "0.01")
    assert "face 0: mouth 0." in err and "below 0.9: look at it" in err, "a lower limit hides nothing"
    assert "look before you keep it; --min-parts 0.9 tries" in out
    assert lines(tmp_path / "out")[-1]["suspect"] == ["mouth"]
    code, _, err = authface(*run, "--min-parts", "0.9")
    assert code == 1 and "1 face drifted from its input at every fidelity: lower --min-parts" in err
    assert (lines(tmp_path / "out")[-1]["reason"], lines(tmp_path / "out")[-1]["tries"]) == ("parts", 3)
    code, _, err = authface(*run, "--min-parts", "0.9", "-O", "restore.guard=false")
    assert code == 2 and "min_parts=0.9 needs the measure" in err


def test_from_python_the_limit_is_a_setting(faces: dict[str, Face]) -> None:
    with pytest.raises(UsageError, match="min_parts"):
        Restorer("identity", min_parts=1.5)
    with Restorer("identity", min_parts=1.0) as restorer:
        (face,) = restorer.restore(PORTRAITS["astronaut"], only=[0]).faces[:1]
    assert face.suspect == () and face.parts == UNCHANGED.parts
    assert replace(face, drift=None).parts is None
