"""HTML of the faces of a photo: before, after, and their differences."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from authface.faces.identity import usual_products
from authface.imaging.decode import encode_jpeg
from authface.restore.guard import NAMES, parts_text
from authface.restore.photo import FaceResult

QUALITY = 90
"""Quality of the embedded JPEGs."""
CARD_SIDE = 192
"""Side of a face, pixels."""
REASONS = {
    "too_small": "too small to restore",
    "low_score": "perhaps no face",
    "not_chosen": "not chosen",
    "identity": "every attempt changed the person too much, so the photo was kept",
    "parts": "every attempt broke an eye or the mouth, so the photo was kept",
}
"""Why a face was left, in words for users; `FaceResult.reason` is the key."""


def face_cards(faces: Sequence[FaceResult], recogniser: str) -> Markup:
    """HTML of the processed faces: before, after, and their differences; then why others were left."""
    tried = [face for face in faces if face.before is not None and face.after is not None]
    html = Markup("").join(_card(face, recogniser) for face in tried)
    if any(face.identity is not None for face in tried):
        scale = f"Likeness, as {recogniser} sees it: 1 is the face in the photo, strangers have about "
        html += Markup('<p class="left">{}{:.2f}.</p>').format(scale, usual_products(recogniser)[0])
    untouched = Counter(face.reason for face in faces if face.before is None)
    if untouched:
        reasons = ", ".join(f"{count} {REASONS.get(reason, reason)}" for reason, count in untouched.items())
        html += Markup('<p class="left">Left as in the photo: {}</p>').format(reasons)
    return Markup('<div class="faces">{}</div>').format(html)


def _card(face: FaceResult, recogniser: str) -> Markup:
    assert face.before is not None and face.after is not None
    note = REASONS.get(face.reason, face.reason) if face.reason else ""
    return Markup(
        '<figure><div><img src="{}" alt="face {number} before"><img src="{}" alt="face {number} after"></div>'
        "<figcaption><b>Face {number}</b>{}<dl>{}</dl></figcaption></figure>"
    ).format(
        _inline(face.before),
        _inline(face.after),
        Markup('<p class="kept">{}</p>').format(note) if note else "",
        Markup("").join(
            Markup('<div title="{}"><dt>{}</dt><dd>{}</dd></div>').format(meaning, name, value)
            for name, value, meaning in _figures(face, recogniser)
        ),
        number=face.index + 1,
    )


def _figures(face: FaceResult, recogniser: str) -> list[tuple[str, Markup | str, str]]:
    """Name, value and meaning of the measures of a face."""
    rows: list[tuple[str, Markup | str, str]] = []
    if face.identity is not None:
        strangers = usual_products(recogniser)[0]
        meter = Markup('{:.3f} <meter min="{:.3f}" max="1" value="{:.3f}"></meter>')
        rows.append(("Likeness", meter.format(face.identity, strangers, face.identity), "More is nearer to the photo."))
    elif face.drift is not None:
        rows.append(("Likeness", "not measurable", "The recogniser does not see a face here."))
    if face.parts is not None:
        meaning = "1 is as in the photo. What is far below is to be looked at: it may be wrong."
        value: Markup | str = parts_text(face.parts, face.suspect or NAMES)
        value = Markup("<strong>look at: {}</strong>").format(value) if face.suspect else value
        rows.append(("Eyes and mouth", value, meaning))
    if face.landmark_shift is not None:
        rows.append(("Features moved", f"{face.landmark_shift:.1f} %", "Of the distance of the eyes, on average."))
    if face.colour_shift is not None:
        rows.append(("Colours moved", f"{face.colour_shift:.1f}", "CIEDE2000: 1 is just visible side by side."))
    if face.tries > 1:
        rows.append(("Attempts", str(face.tries), "Tried again closer to the photo, since it was too unlike it."))
    return rows


def _inline(crop: NDArray[np.uint8]) -> str:
    method = cv2.INTER_AREA if len(crop) > CARD_SIDE else cv2.INTER_CUBIC
    small = np.asarray(cv2.resize(crop, (CARD_SIDE, CARD_SIDE), interpolation=method), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, quality=QUALITY)).decode()
