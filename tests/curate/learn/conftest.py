"""A set of measured faces and features by numbers alone, and a reviewer with a hidden rule: no photo, no detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from authface.curate.learn.features import NAMES
from authface.curate.learn.table import TakeFeatures
from authface.records import Crop, Face, FaceFeatures, Photo
from authface.review.reviews import Decision, decision_log
from authface.store.photoset import PhotoSet, Provenance

MADE = Provenance("test", 1, {}, {})
SIGN = NAMES.index("skin_noise")


@dataclass(frozen=True)
class Taught:
    """A set, and what its reviewer would say of each face."""

    photoset: PhotoSet
    ids: list[str]
    reasons: list[str]
    """Empty where the face is kept."""

    def decide(self, reviewer: str, rows: range) -> None:
        """Write decisions on some faces, by the rule."""
        said = [(self.ids[row], self.reasons[row]) for row in rows]
        lines = [
            Decision(id=face, verdict="reject" if why else "keep", reason=why, at=f"2026-01-01T00:00:{at:06d}")
            for at, (face, why) in enumerate(said)
        ]
        decision_log(self.photoset, reviewer).rewrite(lines)


def make_taught(root: Path, faces: int = 300, part: int = 200, seed: int = 5) -> Taught:
    """The rule: skin noise above 0.6 is an artefact, else sharpness below 0.32 a blur; all of it passes every limit."""
    photoset, rng = PhotoSet(root), np.random.default_rng(seed)
    rows, features, reasons = [], [], []
    for number in range(faces):
        photo = f"{number:064x}"[::-1]
        sharpness, values = float(rng.uniform(0.2, 0.6)), rng.normal(0, 1, len(NAMES))
        reasons.append("noise or artefacts" if values[SIGN] > 0.6 else "blurred" if sharpness < 0.32 else "")
        rows.append(_face(photo, sharpness, rng))
        features.append(FaceFeatures(id=f"{photo}-0", photo_id=photo, values=tuple(values.tolist())))
    for number, begin in enumerate(range(0, faces, part)):
        mine = slice(begin, begin + part)
        _write_part(photoset, number, rows[mine], features[mine])
    return Taught(photoset, [face.id for face in rows], reasons)


def _write_part(photoset: PhotoSet, number: int, rows: list[Face], features: list[FaceFeatures]) -> None:
    photos = [Photo(id=r.photo_id, source="folder", source_id=f"{r.photo_id[:9]}.jpg", file=r.photo_file) for r in rows]
    photoset.photos.write(number, photos, MADE, "")
    above = photoset.photos.meta(number)
    assert above is not None
    from authface.curate.filter.measure import Measure
    from authface.curate.settings import FilterSettings

    photoset.measured.write(number, rows, Measure(photoset.root, FilterSettings()).provenance, above.digest)
    above = photoset.measured.meta(number)
    assert above is not None
    photoset.features.write(number, features, TakeFeatures(photoset.root).provenance, above.digest)
    photoset.faces.write(number, rows, MADE, above.digest)
    crops = [Crop(id=r.id, photo_id=r.photo_id, file=photoset.crop_file(r.id), size=64) for r in rows]
    photoset.crops.write(number, crops, MADE, "")


def _face(photo: str, sharpness: float, rng: np.random.Generator) -> Face:
    code = "".join(rng.choice(list("0123456789abcdef"), 36))
    return Face(
        id=f"{photo}-0", photo_id=photo, photo_file=f"photos/{photo[:2]}/{photo}.jpg", index=0,
        box=(10.0, 10.0, 210.0, 210.0), score=0.999, points5=(80, 90, 140, 90, 110, 120, 85, 150, 135, 150), size=200.0,
        yaw=float(rng.normal(0, 5)), pitch=0.0, roll=0.0, sharpness=sharpness, noise=2.0, pepper=0.0, smoothing=0.3,
        hatching=0.2, blockiness=1.1, pixelation=0.02,
        sharpening=0.4, exposure=float(rng.uniform(90, 160)), clipped=0.01, resolution=0.9, piqe=40.0,
        hash=code,
    )  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """300 faces, of which anna judged the first 220 and ben 40, the first of them otherwise."""
    found = make_taught(tmp_path_factory.mktemp("taught"))
    found.decide("anna", range(220))
    found.decide("ben", range(40))
    log = decision_log(found.photoset, "ben")
    first = log.read()[0][0]
    log.append(Decision(id=first.id, verdict="reject" if first.verdict == "keep" else "keep", at="2027"))
    return found
