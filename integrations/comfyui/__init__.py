"""AuthFace in ComfyUI: restore the faces of images, find faces, compare two versions of an image.

Put this folder into ComfyUI/custom_nodes and `pip install authface`. ComfyUI's images are float tensors (n, h, w, 3) of
0..1; its masks are (n, h, w).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch

from authface import Restorer
from authface.errors import AuthfaceError
from authface.faces.geometry import Side
from authface.models.families import check_restorer
from authface.restore.api import Comparer
from authface.restore.photo import FaceFinder, FaceResult
from authface.restore.settings import RestoreSettings, face_rule

CATEGORY = "image/authface"
CROP = 512
"""Side of the faces that are cut out, pixels."""
GREEN, GREY, BLACK = (38, 166, 122), (150, 150, 150), (0, 0, 0)
PRESETS = ["quality", "fast", "fidelity", "official"]
DEVICES = ["auto", "cpu", "cuda", "mps"]

Inputs = dict[str, dict[str, tuple[Any, ...]]]


class _Held:
    """The one model that stays in memory between runs: another takes its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: tuple[str, str] | None = None
        self._settings: dict[str, Any] = {}
        self._restorer: Restorer | None = None

    def restorer(self, model: str, device: str, **settings: Any) -> Restorer:
        """A restorer with these settings, its weights loaded if they are not."""
        with self._lock:
            if self._restorer is None or self._model != (model, device):
                if self._restorer is not None:
                    self._restorer.close()
                self._restorer, self._model, self._settings = Restorer(model, device=device), (model, device), {}
            if self._settings != settings:
                self._restorer, self._settings = self._restorer.with_settings(**settings), settings
            return self._restorer


_held = _Held()
_compare_lock = threading.Lock()
_comparer: list[Comparer] = []


class AuthFaceRestore:
    """Restores the faces of images; all that is no face stays as it is, bit by bit."""

    CATEGORY, FUNCTION, DESCRIPTION = CATEGORY, "restore", __doc__
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("images", "changed", "report")
    OUTPUT_TOOLTIPS = ("The images, upscaled if asked for.", "Where pixels changed.", "A line for each face, as JSON.")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "images": ("IMAGE",),
                "model": ("STRING", {"default": "tiny", "tooltip": "A name of `authface models list`, or a folder."}),
                "preset": (PRESETS, {"default": "quality"}),
                "fidelity": (
                    "FLOAT",
                    {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": "0: the model, 1: the image."},
                ),
                "faces": ("STRING", {"default": "all", "tooltip": "all, largest, a number, or X,Y,W,H in pixels."}),
                "min_identity": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "A face that ends up less like its input stays as it was; strangers have 0.87.",
                    },
                ),
                "grain": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.1}),
                "upscale": ([1, 2, 4], {"default": 1}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1}),
                "device": (DEVICES, {"default": "auto"}),
            },
            "optional": {"mask": ("MASK", {"tooltip": "Of the faces whose middle it covers `faces` chooses."})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: str = "tiny", faces: str = "all") -> bool | str:
        """True, or what is wrong with the two inputs that are typed."""
        try:
            check_restorer(model)
            face_rule(faces)
        except (AuthfaceError, ValueError) as error:
            return str(error)
        return True

    def restore(
        self,
        images: torch.Tensor,
        model: str,
        preset: str,
        fidelity: float,
        faces: str,
        min_identity: float,
        grain: float,
        upscale: int,
        seed: int,
        device: str,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        """The images restored, where they changed, and a line for each face."""
        restorer = _held.restorer(
            model,
            device,
            seed=seed,
            preset=preset,
            fidelity=fidelity,
            faces=faces,
            min_identity=min_identity,
            grain=grain,
            upscale=upscale,
        )
        bar = _Bar(len(images))
        made, masks, report = [], [], []
        for number, image in enumerate(images[..., :3].cpu()):
            step = bar.of(number)
            photo = _photo(image)
            if mask is None:
                result = restorer.restore(photo, progress=step)
            else:
                only = _covered(restorer, photo, _mask_of(mask, number, image), faces)
                result = restorer.restore(photo, only=only, marked=face_rule(faces).regions, progress=step)
            changed = (result.pixels != result.result.background).any(axis=2)
            restored = _tensor(result.pixels)
            if upscale == 1:
                restored = torch.where(torch.from_numpy(changed)[..., None], restored, image.float())
            made.append(restored)
            masks.append(torch.from_numpy(changed.astype(np.float32)))
            report += [json.dumps({"image": number, **face.facts()}) for face in result.faces]
        return torch.stack(made), torch.stack(masks), "\n".join(report)


class AuthFaceFind:
    """Finds the faces of images: their places as a mask, each cut out and upright, and the images with boxes."""

    CATEGORY, FUNCTION, DESCRIPTION = CATEGORY, "find", __doc__
    RETURN_TYPES = ("IMAGE", "MASK", "IMAGE", "INT", "STRING")
    RETURN_NAMES = ("crops", "mask", "boxes", "count", "report")
    OUTPUT_TOOLTIPS = (
        f"Faces of {CROP} px as FFHQ cuts them, of all images in turn; one black picture where there is none.",
        "1 in the boxes of the chosen faces.",
        "The images with numbered boxes; grey are those that were not chosen, or cannot be restored.",
        "How many crops there are.",
        "A line for each face, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "images": ("IMAGE",),
                "faces": ("STRING", {"default": "all", "tooltip": "all, largest, a number, or X,Y,W,H in pixels."}),
                "min_score": ("FLOAT", {"default": 0.9, "min": 0.0, "max": 1.0, "step": 0.01}),
                "min_face": ("INT", {"default": 16, "min": 0, "max": 4096, "tooltip": "Least side of a face, pixels."}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, faces: str = "all") -> bool | str:
        """True, or what is wrong with the rule."""
        return AuthFaceRestore.VALIDATE_INPUTS(faces=faces)

    def find(
        self, images: torch.Tensor, faces: str, min_score: float, min_face: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, str]:
        """The faces cut out, their mask, the images with boxes, how many there are, and a line for each."""
        finder = FaceFinder(
            RestoreSettings.model_validate(
                {"faces": faces, "min_score": min_score, "min_face": min_face, "guard": False}
            )
        )
        crops, masks, drawn, report = [], [], [], []
        for number, image in enumerate(images[..., :3].cpu()):
            rgb = _eight_bits(image)
            found = finder(rgb, Side(CROP), "", 0)
            crops += [_tensor(face.aligned.rgb) for face in found if face.aligned is not None]
            masks.append(_boxes_mask(found, rgb.shape[:2]))
            drawn.append(_tensor(_with_boxes(rgb, found)))
            report += [json.dumps({"image": number, **_found_facts(face)}) for face in found]
        count = len(crops)
        cut = torch.stack(crops or [torch.zeros(CROP, CROP, 3)])
        return cut, torch.stack(masks), torch.stack(drawn), count, "\n".join(report)


class AuthFaceCompare:
    """Compares two versions of images face by face, whatever restored the second."""

    CATEGORY, FUNCTION, DESCRIPTION = CATEGORY, "compare", __doc__
    RETURN_TYPES = ("IMAGE", "FLOAT", "STRING")
    RETURN_NAMES = ("change_map", "identity", "report")
    OUTPUT_TOOLTIPS = (
        "Where, and how strongly, pixels differ (CIEDE2000).",
        "The lowest likeness of a face: 1 is the same, strangers have 0.87; 0 where no face could be measured.",
        "Likeness of face, eyes and mouth, moved landmarks and colours of each face, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"before": ("IMAGE",), "after": ("IMAGE",)}}

    def compare(self, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, float, str]:
        """A map of changes for each pair, the lowest likeness, and a line for each face."""
        if len(before) != len(after):
            raise ValueError(f"{len(before)} images before and {len(after)} after: give as many of both")
        maps, report, lowest = [], [], []
        with _compare_lock:
            if not _comparer:
                _comparer.append(Comparer())
            for number, pair in enumerate(zip(before, after, strict=True)):
                old, new = (_eight_bits(image[..., :3].cpu()) for image in pair)
                told = _comparer[0].compare(old, new)
                maps.append(_tensor(told.change_map))
                lowest += [] if told.identity is None else [told.identity]
                for face in told.faces:
                    facts = {"image": number, "face": face.index, "box": face.box, "identity": face.drift.identity}
                    moved = {"landmark_shift": face.drift.landmark_shift, "colour_shift": face.drift.colour_shift}
                    parts = {} if face.drift.parts is None else asdict(face.drift.parts)
                    report.append(json.dumps(facts | parts | moved))
        return torch.stack(maps), min(lowest, default=0.0), "\n".join(report)


def _photo(image: torch.Tensor) -> np.ndarray:
    """An image as uint8 where its values are those of 8 bits, else as uint16, of which nothing is lost."""
    eight = (image.float() * 255).round()
    if torch.allclose(eight / 255, image.float(), atol=1e-6, rtol=0) or not torch.isfinite(image).all():
        return _eight_bits(image)
    sixteen: np.ndarray = (image.float().clamp(0, 1).numpy() * 65535).round().astype(np.uint16)
    return sixteen


def _eight_bits(image: torch.Tensor) -> np.ndarray:
    values: np.ndarray = (image.float().nan_to_num().clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    return values


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)


def _mask_of(mask: torch.Tensor, number: int, image: torch.Tensor) -> np.ndarray:
    """(h, w) the mask of one image, at its size; a single one is of all images."""
    one = mask if mask.ndim == 2 else mask[min(number, len(mask) - 1)]
    height, width = image.shape[:2]
    fitted: np.ndarray = cv2.resize(one.float().cpu().numpy(), (width, height), interpolation=cv2.INTER_NEAREST)
    return fitted


def _covered(restorer: Restorer, photo: np.ndarray, mask: np.ndarray, faces: str) -> list[int]:
    """Which of the faces whose middle the mask covers the rule `faces` chooses."""
    rule, (height, width) = face_rule(faces), mask.shape
    chosen: list[int] = []
    for face in restorer.find(photo, marked=rule.regions):
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        covered = 0 <= x < width and 0 <= y < height and mask[int(y), int(x)] > 0.5
        if face.crop is not None and covered and rule.wants(face.box, len(chosen)):
            chosen.append(face.index)
    return chosen


def _found_facts(face: FaceResult) -> dict[str, Any]:
    """What is known of a face before anything is done to it."""
    facts = face.facts()
    known = {name: facts[name] for name in ("face", "box", "score", "quad", "reason", "detail")}
    return {**known, "chosen": face.aligned is not None}


def _boxes_mask(faces: list[FaceResult], size: tuple[int, int]) -> torch.Tensor:
    mask = torch.zeros(size)
    for face in faces:
        if face.aligned is not None:
            x0, y0, x1, y1 = (max(0, round(value)) for value in face.box)
            mask[y0 : y1 + 1, x0 : x1 + 1] = 1
    return mask


def _with_boxes(rgb: np.ndarray, faces: list[FaceResult]) -> np.ndarray:
    """The picture with a numbered box around each face."""
    picture = np.ascontiguousarray(rgb.copy())
    thick = max(2, round(max(rgb.shape[:2]) / 350))
    for face in reversed(faces):
        colour = GREY if face.aligned is None else GREEN
        x0, y0, x1, y1 = map(round, face.box)
        for ink, width in ((BLACK, thick + 2), (colour, thick)):
            cv2.rectangle(picture, (x0, y0), (x1, y1), ink, width, cv2.LINE_AA)
            at = (max(x0, 0), max(y0 - 2 * thick, 12 * thick))
            cv2.putText(picture, str(face.index), at, cv2.FONT_HERSHEY_SIMPLEX, 0.35 * thick, ink, width, cv2.LINE_AA)
    return picture


class _Bar:
    """ComfyUI's progress bar, and its user's wish to stop; nothing outside ComfyUI."""

    def __init__(self, images: int) -> None:
        self._bar: Any = None
        try:
            from comfy.model_management import throw_exception_if_processing_interrupted
            from comfy.utils import ProgressBar
        except ImportError:
            return
        self._bar, self._check = ProgressBar(images * 100), throw_exception_if_processing_interrupted

    def of(self, number: int) -> Callable[[int, int], None]:
        """What is called with the steps done, and of how many, of that image. Raises where the work is to end."""

        def step(done: int, total: int) -> None:
            if self._bar is not None:
                self._check()
                self._bar.update_absolute(100 * number + 100 * done // max(total, 1))

        step(0, 1)
        return step


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "AuthFaceRestore": AuthFaceRestore,
    "AuthFaceFind": AuthFaceFind,
    "AuthFaceCompare": AuthFaceCompare,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "AuthFaceRestore": "Restore faces (AuthFace)",
    "AuthFaceFind": "Find faces (AuthFace)",
    "AuthFaceCompare": "Compare faces (AuthFace)",
}
