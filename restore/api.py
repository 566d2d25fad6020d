"""Restoring from Python: `from authface import Restorer`.

The same steps, and for the same file the same pixels, as ``authface restore``; nothing is written unless asked for.
`Comparer` measures two versions of a photo, whatever restorer made them.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.console import Console
from authface.devices import device_of, pick_device
from authface.errors import UsageError, one_line
from authface.faces.geometry import Side, align
from authface.models.sampling import PAPER_SIZE
from authface.recipe import Recipe
from authface.records import Box
from authface.restore import inputs
from authface.restore.guard import FaceDrift, IdentityGuard
from authface.restore.model.crops import CleanedRestorer
from authface.restore.model.restorer import (
    CropRestorer,
    Loaded,
    RestorerFiles,
    load_weights,
    runs_graphs,
    weights_key,
)
from authface.restore.photo import FaceFinder, FaceResult, Finder, whole_photo
from authface.restore.picture import Image, Picture, Restored, change_map, check_size, open_picture
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings, face_rule, region_text
from authface.restore.video import run as video
from authface.restore.video.hands import Own
from authface.store.restore_line import Line

Progress = Callable[[int, int], None]
"""Called with the number of finished steps or frames, and their total; an exception ends the work.

A step is one of denoising, a pass of a cleaner over a face or a tile of it, or a face of another network.
"""


@dataclass(frozen=True)
class FoundFace:
    """A face of a photo, before restoring."""

    index: int
    """0 is the photo's largest; `Restorer.restore` takes it in `only`."""
    box: Box
    """x0, y0, x1, y1 in pixels of the upright photo."""
    score: float
    """The detector's confidence, 0..1."""
    crop: NDArray[np.uint8] | None = None
    """(size, size, 3) as the model will see it; None where the face cannot be restored."""
    reason: str = ""
    """Why it cannot be restored, as one word; `detail` has value, limit and setting."""
    detail: str = ""


class _Shared:
    """State shared by restorers of one model: its weights, and a lock, since it restores one photo at a time."""

    def __init__(self) -> None:
        self.loaded: dict[Hashable, Loaded] = {}
        self.lock = threading.RLock()

    def restorer(self, weights: RestorerFiles, settings: RestoreSettings, device: str) -> CropRestorer:
        """The model for these settings; its weights are loaded if they are not yet."""
        key = weights_key(weights, settings, device)
        if key not in self.loaded:
            self.loaded[key] = load_weights(weights, settings, device)
        return self.loaded[key].restorer(settings)


class _Notices(Console):
    """A console that sends messages to the logger `authface` as warnings."""

    def log(self, text: str) -> None:
        """One line."""
        logging.getLogger("authface").warning("%s", one_line(text, 2000))


class Restorer:
    """Restores the faces of photos.

    `model` is a name, a folder in diffusers' layout or a network's file. `preset` is `quality`, `fast`, `fidelity` or
    `official`; `fidelity` 0 trusts the face prior, 1 the photo. `faces` says which are restored: `all`, `largest`, a
    number N (the N largest) or ``X,Y,W,H``. A face whose likeness to its input stays below `min_identity` is left as it
    was. `upscale` is 1, 2 or 4. `settings` are other fields of `RestoreSettings`, such as ``steps=8``.

    The model is loaded when first needed. Threads may share a Restorer: it works on one photo at a time.
    Raises UsageError for settings, devices and models that do not exist, AuthfaceError if files are unavailable.
    """

    def __init__(
        self,
        model: str = "tiny",
        preset: str = "quality",
        fidelity: float = 0.5,
        *,
        device: str = "auto",
        faces: str | int = "all",
        min_identity: float = 0.0,
        upscale: int = 1,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        named = {"model": str(model), "preset": preset, "fidelity": fidelity, "faces": faces, "upscale": upscale}
        given = {**named, "min_identity": min_identity, **settings}
        self._begin(Recipe("Restorer()").section("restore", RestoreSettings, given), device, seed, _Shared())

    def _begin(self, settings: RestoreSettings, device: str, seed: int, shared: _Shared) -> None:
        self.settings, self.device, self.seed, self._shared = settings, device, seed, shared
        self._session = self._new_session()
        _ = self._session.weights  # an unknown model is an error now

    def _new_session(self) -> Session:
        request = Request(self.settings, device=self.device, seed=self.seed)
        return Session(request, _Notices(), self._shared.restorer)

    def with_settings(self, *, seed: int | None = None, **changed: Any) -> Restorer:
        """A Restorer with other settings that shares this one's weights, unless the model or how it runs changes.

        That is `model`, `dtype`, `tiling`, `offload`, `compile`, `graphs`.
        """
        other = Restorer.__new__(Restorer)
        chosen = Recipe("with_settings()").section(
            "restore", RestoreSettings, {**self.settings.model_dump(), **changed}
        )
        other._begin(chosen, self.device, self.seed if seed is None else seed, self._shared)
        return other

    @property
    def size(self) -> int:
        """Smallest side of the crops that the model works on, pixels; loads the model."""
        with self._shared.lock:
            return self._session.restorer.side.least

    @property
    def model(self) -> str:
        """The model in use; with ``identity`` faces stay as they are."""
        return self._session.settings.model

    @property
    def device_name(self) -> str:
        """The device it runs on, such as ``cuda``."""
        weights = self._session.weights
        if weights is not None and runs_graphs(weights, self.settings, self.device):
            return device_of(self.device)
        return str(pick_device(self.device))

    def find(self, image: Image, *, marked: Sequence[Box] = ()) -> tuple[FoundFace, ...]:
        """All faces of a photo, the largest first, whatever `faces` says. Raises ImageError as `restore` does.

        `marked` are boxes x0, y0, x1, y1 around missed faces: each adds one after the detected faces.
        """
        with self._shared.lock:
            faces = self._find(self._open(image), self._finder("all", marked))
        crops = [None if face.aligned is None else face.aligned.rgb for face in faces]
        return tuple(
            FoundFace(face.index, face.box, face.score, crop, face.reason, face.detail)
            for face, crop in zip(faces, crops, strict=True)
        )

    def restore(
        self,
        image: Image,
        *,
        only: Collection[int] | None = None,
        marked: Sequence[Box] = (),
        progress: Progress | None = None,
    ) -> Restored:
        """A photo with its faces restored: a path, the bytes of a file, a PIL image or an (h, w, 3) uint8 array.

        `only` names faces by their `index` in `find` with the same `marked`, in place of the setting `faces`; without
        it the faces of the setting are restored, and those in the boxes `marked`, as `find` takes them. Depth,
        profile, EXIF and alpha of a file or its bytes are kept; an array is taken for sRGB.
        Raises ImageError if it is not a photo or too large, UsageError for a face that does not exist and for what is
        no box.
        """
        with self._shared.lock:
            picture = self._open(image)
            chosen = "all" if only is not None else self.settings.faces
            asked = only is not None or bool(marked)
            faces = self._find(picture, self._finder(chosen, marked) if asked else self._session.finder)
            if only is not None:
                faces = choose(faces, only)
            return self._restore([(picture, faces)], progress)[0]

    def restore_aligned(self, crops: Sequence[Image], *, progress: Progress | None = None) -> list[Restored]:
        """Restore aligned faces, each an image of any size, or one (n, h, w, 3) uint8 array, without face detection.

        A result is as large as its input; `faces[0].after` is the model's output. Results do not depend on
        each other. Raises as `restore` does.
        """
        with self._shared.lock:
            pictures = [self._open(crop) for crop in crops]
            return self._restore([(picture, self._find(picture, whole_photo)) for picture in pictures], progress)

    def restore_video(
        self, source: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Line:
        """Write a video with its faces restored (extra `video`); returns the line that the command would log.

        `progress` is called with the number of finished frames and their estimated total (0: unknown). Raises
        ImageError if it is not a video, UsageError for a target without a video's extension or that is the input.
        """
        job = inputs.RestoreJob.of(Path(source), Path(target), Path(target).parent)
        if not job.is_video:
            raise UsageError(f"{one_line(target)}: videos are written as {', '.join(inputs.VIDEOS)}")
        if os.path.realpath(job.source) == os.path.realpath(job.target):
            raise UsageError(f"{one_line(target)} is the input itself: originals are not overwritten")
        with self._shared.lock:
            content = video.sha256(job.source)
            return video.restore_video(
                job, content, self._session, Own(self._session), lambda _: None, progress or (lambda *_: None)
            )

    def load(self) -> None:
        """Load the model, the face detector and the recogniser now; otherwise the first photo waits for them."""
        with self._shared.lock:
            _ = self._session.restorer, self._session.finder, self._session.guard

    def close(self) -> None:
        """Free the model's memory, for all restorers that share it; the next photo loads it again."""
        with self._shared.lock:
            self._shared.loaded.clear()
            self._session = self._new_session()
            gc.collect()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _finder(self, chosen: str, marked: Sequence[Box]) -> Finder:
        try:
            rule = "+".join([chosen, *map(region_text, marked)])
            face_rule(rule)
        except (TypeError, ValueError) as error:
            raise UsageError("marked: a box is x0, y0, x1, y1 in pixels, x0 < x1 and y0 < y1") from error
        return FaceFinder(self.settings.model_copy(update={"faces": rule}))

    def _open(self, image: Image) -> Picture:
        picture = open_picture(image)
        height, width = picture.photo.rgb.shape[:2]
        check_size(width, height, self.settings.upscale)
        return picture

    def _find(self, picture: Picture, finder: Finder) -> list[FaceResult]:
        return finder(picture.photo.rgb, self._session.restorer.side, picture.content, self.seed)

    def _restore(self, photos: Sequence[tuple[Picture, list[FaceResult]]], progress: Progress | None) -> list[Restored]:
        crops = [face.aligned.rgb for _, faces in photos for face in faces if face.aligned and not face.reason]
        with _reported(self._session.restorer, [len(crop) for crop in crops], progress):
            results = list(
                self._session.restore(
                    [(picture.pixels, faces) for picture, faces in photos], [picture.alpha for picture, _ in photos]
                )
            )
        finish = self._session.finish
        return [Restored(picture, result, finish) for (picture, _), result in zip(photos, results, strict=True)]


def choose(faces: Sequence[FaceResult], only: Collection[int]) -> list[FaceResult]:
    """The faces, of which only these indices are to be restored. Raises UsageError for one that cannot be restored."""
    by_index = {face.index: face for face in faces}
    for index in sorted(only):
        if index not in by_index:
            raise UsageError(f"no face {index}: {len(faces)} were found, counted from 0; see Restorer.find")
        if (face := by_index[index]).reason:
            raise UsageError(f"face {index} cannot be restored: {face.reason} ({face.detail})")
    return [
        face if face.reason or face.index in only else replace(face, reason="not_chosen", detail="not asked for")
        for face in faces
    ]


@contextmanager
def _reported(model: CropRestorer, sides: Sequence[int], progress: Progress | None) -> Iterator[None]:
    """Call `progress` after each step for faces of these sides; those that are tried again add to them."""
    stepping: Any = model.diffusion if isinstance(model, CleanedRestorer) else model
    if progress is None or not sides or not hasattr(stepping, "on_step"):
        yield
        return
    total, done = _steps(model, sides), 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, max(done, total))

    stepping.on_step = count
    try:
        yield
    finally:
        stepping.on_step = None


def _steps(model: Any, sides: Sequence[int]) -> int:
    """The steps for faces of these sides: passes of a cleaner, and of a prior, or a face each of a network."""
    if isinstance(model, CleanedRestorer):
        adds = model.preset.detail * (1 - model.fidelity)
        return model.passes(sides) + (_steps(model.diffusion, sides) if adds else 0)
    sampling = getattr(model, "sampling", None)
    return len(sides) if sampling is None else sampling.steps * math.ceil(len(sides) / sampling.batch)


@dataclass(frozen=True)
class ComparedFace:
    """A face of the first version, and its distance from that of the second."""

    index: int
    """0 is the photo's largest."""
    box: Box
    drift: FaceDrift


@dataclass(frozen=True)
class PhotoComparison:
    """The comparison of two versions of a photo."""

    faces: tuple[ComparedFace, ...]
    """Faces found in the first version, the largest first."""
    change_map: NDArray[np.uint8]
    """(h, w, 3) as `authface.restore.picture.change_map` draws it."""

    @property
    def identity(self) -> float | None:
        """The lowest likeness of a face, -1..1; None if none could be measured."""
        return min((face.drift.identity for face in self.faces if face.drift.identity is not None), default=None)


class Comparer:
    """Finds the faces of one version and measures those at the same places of another; create one for many photos.

    `identity` and `weights` are those of `IdentityGuard`, and raise as it does.
    """

    def __init__(self, identity: str = "dlib", weights: str = "") -> None:
        self._finder = FaceFinder(RestoreSettings.model_validate({"guard": False}))
        self._guard = IdentityGuard(identity, weights)

    def compare(self, before: Image, after: Image) -> PhotoComparison:
        """Compare two images of `authface.restore.picture.Image`; the second may be larger by a whole number.

        Raises ImageError for what is no photo, UsageError for sides that do not fit.
        """
        one, other = open_picture(before), open_picture(after)
        old, new = one.photo.rgb, _as_large(other.photo.rgb, one.photo.rgb.shape)
        faces = []
        for face in self._finder(old, Side(PAPER_SIZE), one.content, 0):
            if face.aligned is not None:
                crop = align(new, face.aligned.quad, len(face.aligned.rgb)).rgb
                drift = self._guard.measure(face.aligned.rgb, crop, face.in_crop)
                faces.append(ComparedFace(face.index, face.box, drift))
        return PhotoComparison(tuple(faces), change_map(old, new))


def _as_large(rgb: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The picture at another's size, which it has already or exceeds by a whole factor."""
    (height, width), (high, wide) = shape[:2], rgb.shape[:2]
    times = wide // width
    if (high, wide) != (height * times, width * times) or not times:
        raise UsageError(f"{width} x {height} and {wide} x {high} px are not versions of one photo: give equal sizes")
    return rgb if times == 1 else np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
