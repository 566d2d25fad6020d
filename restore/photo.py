"""Restore the faces of one photo, retry those that drifted, and paste them back. Pixels in, pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.faces.geometry import Aligned, resize_square
from authface.faces.paste import paste_all, replaced_shares
from authface.imaging.bitdepth import Pixels
from authface.imaging.grain import add_grain
from authface.restore.background import Upscaler, enlarge, lanczos
from authface.restore.guard import DriftLimits, IdentityGuard, told
from authface.restore.model.colour import FIXES, to_grey
from authface.restore.model.restorer import CropRestorer
from authface.restore.parts import suspect_below
from authface.restore.pipeline import part
from authface.restore.settings import RestoreSettings
from authface.restore.types import FaceResult, PhotoResult


def restore_faces(
    restorer: CropRestorer, faces: Sequence[FaceResult], settings: RestoreSettings, guard: IdentityGuard | None = None
) -> list[FaceResult]:
    """The faces, which may be of several photos, with their results; those that have a `reason` stay as they are.

    With a `guard` each is measured; where one breaks a limit (`min_identity`, `min_parts`) at each fidelity of
    `retry_fidelities`, the reason becomes that limit's name and `after` the best of the tries.
    """
    limits = DriftLimits(settings.min_identity, settings.min_parts) if guard is not None else DriftLimits()
    results = list(faces)
    pending = [i for i, face in enumerate(faces) if not face.reason]
    tries: dict[int, list[FaceResult]] = {i: [] for i in pending}
    for fidelity in (None, *retry_fidelities(settings.fidelity)):
        for i, tried in zip(
            pending, _restored(restorer, [faces[i] for i in pending], settings, guard, fidelity), strict=True
        ):
            tries[i].append(tried)
            results[i] = replace(max(tries[i], key=lambda face: limits.room(face.drift)), tries=len(tries[i]))
        pending = [i for i in pending if limits.broken(results[i].drift)]
        if not pending:
            break
    below = suspect_below(settings.min_parts)
    results = [
        face if face.parts is None else replace(face, suspect=tuple(face.parts.below(below))) for face in results
    ]
    for i in pending:
        broken = limits.broken(results[i].drift)
        fidelities = [settings.fidelity if face.fidelity is None else face.fidelity for face in tries[i]]
        said = [
            f"{told(face.drift, broken)} at fidelity {fidelity:g}"
            for face, fidelity in zip(tries[i], fidelities, strict=True)
        ]
        detail = f"{', '.join(said)}; the limit is {limits.of(broken):g}: the input face stays"
        results[i] = replace(results[i], reason=broken, detail=detail)
    return results


def retry_fidelities(fidelity: float) -> list[float]:
    """Fidelities to try after `fidelity` drifted: halfway to 1, then 1."""
    return [(1 + fidelity) / 2, 1.0] if fidelity < 1 else []


def _restored(
    restorer: CropRestorer,
    faces: Sequence[FaceResult],
    settings: RestoreSettings,
    guard: IdentityGuard | None,
    fidelity: float | None,
) -> list[FaceResult]:
    crops = [face.aligned.rgb for face in faces if face.aligned is not None]
    if not crops:
        return []
    fix = FIXES[restorer.colour if settings.colour == "auto" else settings.colour]
    with part("model"):
        given = {} if fidelity is None else {"fidelity": fidelity}
        restored = restorer.restore(crops, [face.seed for face in faces], **given)
    results = []
    for face, before, after in zip(faces, crops, restored, strict=True):
        with part("paste"):
            fixed = fix(after, before)
            fixed = to_grey(fixed) if face.grey else fixed
        with part("guard"):
            drift = None if guard is None else guard.measure(before, fixed, face.in_crop)
        results.append(replace(face, after=fixed, drift=drift, fidelity=fidelity))
    return results


def paste_faces(
    photo: Pixels,
    faces: Sequence[FaceResult],
    scale: int = 1,
    upscaler: Upscaler = lanczos,
    grain: float = 0,
    alpha: Pixels | None = None,
) -> PhotoResult:
    """Paste the restored faces into the (h, w, 3) photo of 8 or 16 bits, except those that have a `reason`.

    With a `scale` the photo is enlarged by `upscaler`, and the faces are put into the larger one from the model's own
    pixels; colours that its (h, w) `alpha` hides stay out of those that are seen. `grain` (0..1) of the photo's own
    noise is put onto the faces, but not onto a photo that is its crop.
    """
    out = background = enlarge(photo, scale, upscaler, alpha) if scale > 1 else photo
    faces = sorted(faces, key=lambda face: face.index)
    pasted: list[tuple[Aligned, NDArray[np.uint8]]] = []
    masks: list[NDArray[np.float32] | None] = []
    seeds: list[int] = []
    for face in reversed(faces):
        if face.reason or face.aligned is None or face.after is None:
            continue
        if face.placed_by == "whole":
            out = _replace_photo(out, face.aligned, face.after)
        else:
            pasted.append((face.aligned, face.after))
            masks.append(face.mask)
            seeds.append(face.seed)
    if pasted:
        out = paste_all(out, pasted, upscale=scale, masks=masks)
        if grain > 0:
            places = list(replaced_shares(background, pasted, upscale=scale, masks=masks))
            add_grain(out, background, places, seeds, grain)
    return PhotoResult(out, tuple(faces), background)


def square_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The smallest square around an (h, w, 3) photo, centred and padded by reflection."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    border = cv2.BORDER_REFLECT if min(height, width) == 1 else cv2.BORDER_REFLECT_101
    square = cv2.copyMakeBorder(rgb, top, side - height - top, left, side - width - left, border)
    return np.asarray(square, np.uint8)


def _replace_photo(rgb: Pixels, aligned: Aligned, restored: NDArray[np.uint8]) -> Pixels:
    """The restored crop at the photo's own size, shape and depth; an unchanged crop leaves the photo as it is."""
    if np.array_equal(restored, aligned.rgb):
        return rgb
    height, width = rgb.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = restored if rgb.dtype == np.uint8 else restored.astype(np.uint16) * np.uint16(257)
    return resize_square(square, side)[top : top + height, left : left + width]
