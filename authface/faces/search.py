"""Find faces that the detector misses at first: those that do not stand upright, and those that a person marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from authface.faces.detector import LEANING, Detection, RetinaFace, roll, turned_back, turned_detection
from authface.faces.identity import five_points
from authface.faces.landmarks import Dlib68
from authface.faces.looks import LOOK_SIDE, scale_to
from authface.records import Box

LOOK_SCORE = 0.5
"""What the look needs to see before a turned copy is searched as the photo was."""
MARKED_SCORE = 0.1
"""Least score of an upright face in a place that a person marked; of a turned one `LOOK_SCORE`."""
MARKED_ROOM = 0.5
"""What is around a marked box, in its sides, is seen with it."""
MARKED_SIDE = 200
"""Pixels of a marked box's longer side as the detector sees it: where it is steadiest."""
MARKED_SHARE = 0.3
"""Least side of a face in a marked box, in sides of it: smaller ones are not what was marked."""


def survey_turned(
    detector: RetinaFace, rgb: NDArray[np.uint8], sure: list[Detection], unsure: list[Detection]
) -> tuple[list[Detection], list[Detection]]:
    """The detector's `survey` of an upright (h, w, 3) photo, `sure` and `unsure`, with faces at any quarter turn.

    Copies turned by 90, 180 and 270 degrees are looked at; of a face that is seen at several turns the one of the
    highest score stays. For photos in which the faces are not `upright`.
    """
    height, width = rgb.shape[:2]
    for turns in (1, 2, 3):
        copy = np.ascontiguousarray(np.rot90(rgb, turns))
        if not len(detector.look(copy, scale_to(LOOK_SIDE, width, height), LOOK_SCORE).scores):
            continue
        found = [face for face in detector.survey(copy, detector.min_score)[0] if abs(roll(face.points5)) <= LEANING]
        sides = (height, width) if turns % 2 else (width, height)
        sure = _better(sure, [turned_detection(face, -turns, *sides) for face in found], turns)
    sure = sorted(sure, key=lambda face: -_area(face.box))
    return sure, [face for face in unsure if not any(_same_place(face, other) for other in sure)]


def _better(faces: list[Detection], more: Sequence[Detection], turns: int) -> list[Detection]:
    """The faces with those of another turn, of each place the one that is seen best."""
    kept = list(faces)
    for new in more:
        rivals = [old for old in kept if _same_place(old, new)]
        if all(old.score < new.score or _leans_half(old, new) for old in rivals):
            kept = [old for old in kept if old not in rivals] + [new]
    return kept


def _leans_half(old: Detection, new: Detection) -> bool:
    """Whether both say the same turn, which the first one saw lying: the second saw it upright."""
    apart = abs(roll(old.points5) - roll(new.points5)) % 360
    return abs(roll(old.points5)) > LEANING and min(apart, 360 - apart) < LEANING


def _same_place(one: Detection, other: Detection) -> bool:
    """Whether the middle of a face lies in the other."""
    return any(
        b.box[0] <= (a.box[0] + a.box[2]) / 2 <= b.box[2] and b.box[1] <= (a.box[1] + a.box[3]) / 2 <= b.box[3]
        for a, b in ((one, other), (other, one))
    )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def marked_face(
    detector: RetinaFace, landmarker: Dlib68, rgb: NDArray[np.uint8], region: Box
) -> tuple[Detection, NDArray[np.float64]]:
    """The face in a box x0, y0, x1, y1 that a person drew around it, and its (68, 2) points, in photo coordinates.

    The detector is asked again about this place alone, enlarged, at all quarter turns and with a low bar; where it sees
    nothing, dlib's predictor takes the box for an upright face's, and the score is 0.
    """
    height, width = rgb.shape[:2]
    room = MARKED_ROOM * max(region[2] - region[0], region[3] - region[1])
    x0, y0 = (int(np.clip(np.floor(v - room), 0, n - 1)) for v, n in zip(region[:2], (width, height), strict=True))
    x1, y1 = (int(np.clip(np.ceil(v + room) + 1, 1, n)) for v, n in zip(region[2:], (width, height), strict=True))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    place = rgb[y0:y1, x0:x1]
    seen = [
        face
        for face in _seen_at_any_turn(detector, place, max(region[2] - region[0], region[3] - region[1]))
        if _is_marked(face, (region[0] - x0, region[1] - y0, region[2] - x0, region[3] - y0))
    ]
    if seen:
        face = _moved(max(seen, key=lambda face: face.score), x0, y0)
        return face, landmarker.landmarks(rgb, face)
    centre = np.array([region[0] + region[2], region[1] + region[3]]) / 2
    half = float(np.sqrt((region[2] - region[0]) * (region[3] - region[1]))) / 2
    points = landmarker.in_box(rgb, np.concatenate([centre - half, centre + half]))
    return Detection(region, 0.0, tuple(five_points(points).ravel().tolist())), points


def _seen_at_any_turn(detector: RetinaFace, place: NDArray[np.uint8], marked: float) -> list[Detection]:
    """Candidates in a part of the photo whose marked box has a longer side of `marked` pixels, in its coordinates."""
    height, width = place.shape[:2]
    found = []
    for turns in range(4):
        copy = np.ascontiguousarray(np.rot90(place, turns))
        least = LOOK_SCORE if turns else MARKED_SCORE
        seen = detector.look(copy, MARKED_SIDE / max(marked, 1.0), least)
        for box, score, points in zip(seen.boxes - 0.5, seen.scores, seen.points - 0.5, strict=True):
            if abs(roll(points.tolist())) <= LEANING:
                corners = turned_back(box, turns, width, height)
                low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
                five = turned_back(points, turns, width, height).ravel().tolist()
                found.append(Detection((*low, *high), float(score), tuple(five)))
    return found


def _is_marked(face: Detection, region: Box) -> bool:
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    inside = region[0] <= x <= region[2] and region[1] <= y <= region[3]
    return inside and _area(face.box) >= MARKED_SHARE**2 * _area(region)


def _moved(face: Detection, x: float, y: float) -> Detection:
    box = face.box
    points = (np.reshape(face.points5, (5, 2)) + [x, y]).ravel().tolist()
    return replace(face, box=(box[0] + x, box[1] + y, box[2] + x, box[3] + y), points5=tuple(points))
