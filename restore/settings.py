"""Settings of restoring: the recipe's table `restore`."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from authface.models.sampling import PresetName, Scheduler
from authface.recipe import Settings
from authface.records import Box

if TYPE_CHECKING:
    from authface.faces.detector import Detection

Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class FaceRule:
    """The `count` largest faces (None: all), and those whose box has its middle in one of the `regions`."""

    count: int | None = None
    regions: tuple[Box, ...] = ()

    def wants(self, box: Box, taken: int) -> bool:
        """Whether a face with that box is restored, given `taken` larger ones."""
        return self.count is None or taken < self.count or any(has_middle(region, box) for region in self.regions)


def has_middle(region: Box, box: Box) -> bool:
    """Whether the middle of a box lies in a region."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return region[0] <= x < region[2] and region[1] <= y < region[3]


def face_rule(text: str) -> FaceRule:
    """The rule of ``all``, ``largest``, a number N (the N largest) or ``X,Y,W,H`` (a region of the upright photo).

    Several are joined by ``+``: ``all+X,Y,W,H``. Raises ValueError that lists the options.
    """
    count: int | None = 0
    regions: list[Box] = []
    for part in text.split("+"):
        if part == "all":
            count = None
        elif part == "largest" or (part.isascii() and part.isdigit() and int(part) > 0):
            count = None if count is None else max(count, 1 if part == "largest" else int(part))
        else:
            regions.append(_region(part))
    return FaceRule(count, tuple(regions))


def region_text(box: Box) -> str:
    """A box, of any kind of numbers, as `face_rule` reads it. Raises TypeError and ValueError for no four numbers."""
    x0, y0, x1, y1 = map(float, box)
    return f"{x0!r},{y0!r},{x1 - x0!r},{y1 - y0!r}"


def _region(text: str) -> Box:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = math.nan
    if not (math.isfinite(x + y) and 0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(
            "faces are all, largest, a number from 1, or a region X,Y,WIDTH,HEIGHT in pixels; several joined by +"
        )
    return x, y, x + width, y + height


class FaceChoice:
    """Which of a photo's faces are restored."""

    def __init__(self, settings: "RestoreSettings") -> None:
        self.settings = settings
        self.rule = face_rule(settings.faces)

    def reason_to_skip(self, detection: "Detection", taken: int) -> tuple[str, str]:
        """Why a face is left alone, given `taken` larger ones that are not, as a word and in numbers; else empty."""
        side, eyes = detection.long_side, detection.eye_distance
        if side < self.settings.min_face:
            return "too_small", f"{side:.1f} px, the limit is {self.settings.min_face:g} (restore.min_face)"
        if eyes < self.settings.min_eyes:
            return "too_small", f"eyes {eyes:.1f} px apart, the limit is {self.settings.min_eyes:g} (restore.min_eyes)"
        if not self.rule.wants(detection.box, taken):
            return "not_chosen", f"--faces {self.settings.faces}"
        return "", ""


class RestoreSettings(Settings):
    """Which faces of a photo are restored, with which model, and how the result is written."""

    model: str = "tiny"
    """A model's name (`authface models list`), a folder in diffusers layout, a network's file (.onnx; by spandrel .pth
    or .safetensors), or `identity`: faces stay as they are, a check of the rest."""
    preset: PresetName = "quality"
    """How faces are denoised: `quality`, `fast`, `fidelity` (nearest to the truth, less sharp) or `official`, the
    released inference's settings."""
    fidelity: float = Field(0.5, ge=0, le=1)
    """0 trusts the face prior, 1 the input. In a family with a cleaner 1 - fidelity is what the cleaner's perception
    and the prior's detail grow with: at 1 a face is nearest to the truth on average, at 0 most detailed. In others
    0.5 is the preset as it is; above it up to 0.4 of the input are mixed in, and denoising that began from more than
    half of the noise begins with less; below it with more, and the ControlNet counts less. It is CodeFormer's own
    weight; other networks of one pass give their own result up to 0.5, and above it more and more of the input."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Denoising steps; None takes the preset's, here and in the following."""
    scheduler: Scheduler | None = None
    strength: float | None = Field(None, gt=0, le=1)
    """Where denoising begins: 1 is pure noise, less the photo's own latents with less noise."""
    guidance: float | None = Field(None, ge=0, le=30)
    """Classifier-free guidance; 1 and less is without, at half the cost."""
    reuse: int | None = Field(None, ge=1, le=10)
    """Compute the U-Net's encoder and the ControlNet in every so-many-th step only and reuse their features in between:
    faster, and with many steps the result hardly differs. 1 computes all in every step."""
    prompt: str | None = None
    """The text prompt; the model is trained with the empty one."""
    negative_prompt: str | None = None
    """The text prompt from which guidance leads away."""
    size: int | None = Field(None, ge=64, le=2048)
    """Side of the crops the model sees, pixels; by default the model's own, at most the 512 of the paper, or with a
    cleaner that of the face in the photo, from the model's own to 4,096."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of U-Net and ControlNet; auto is float16 on CUDA, float32 elsewhere. The VAE runs in float32."""
    batch: int = Field(4, ge=1, le=256)
    """Faces the model sees at a time; results do not depend on it."""
    tiling: int | None = Field(None, ge=128, le=2048, multiple_of=64)
    """Side of the tiles, pixels, in which the VAE encodes and decodes larger crops; None takes them whole."""
    offload: Offload = "none"
    """Which weights are kept on the CPU while a CUDA GPU does not need them: `model` swaps the VAE and the two other
    networks, `sequential` each layer."""
    engine: Literal["auto", "onnxruntime", "torch"] = "auto"
    """The networks' engine. auto: ONNX Runtime if the family has `onnx/`, made by `authface models export`, for these
    settings, and no GPU is asked for or found; else torch. Results are the same within one level of 255."""
    compile: bool = False
    """Compile U-Net and ControlNet with torch.compile: a minute or more at the start, faster steps after."""
    graphs: bool = True
    """On CUDA record a step once and replay it: the same kernels, without the time the host takes to launch them. Not
    with `offload` and `compile`."""
    colour: Literal["auto", "wavelet", "adain", "none"] = "auto"
    """How a restored face takes the colours of its input. auto: wavelet, but none for a family with a cleaner, which
    has learned them."""
    min_score: float = Field(0.9, ge=0, le=1)
    """Minimum confidence of the face detector."""
    min_face: float = Field(16, ge=0)
    """Minimum longer side of a face's box, pixels; smaller faces stay as they are."""
    min_eyes: float = Field(6, ge=0)
    """Minimum distance between the eyes, pixels; profiles have a small one, too. Smaller faces stay as they are."""
    faces: str = "all"
    """`all`, `largest`, a number N (the N largest) or X,Y,W,H: those with their middle in that region, pixels; several
    joined by `+`. In a photo a region without a detected face counts as one marked by hand."""
    max_disagreement: float = Field(0.2, gt=0)
    """If dlib's and the detector's points differ by more, relative to the eyes' distance, the detector's five points
    place the crop: dlib fails on small, turned and covered faces."""
    format: Literal["same", "jpeg", "png", "webp", "tiff"] = "same"
    """Format of the output. `same` keeps the input's; read-only formats (BMP, GIF, HEIC, AVIF) become PNG."""
    upscale: Literal[1, 2, 4] = 1
    """Enlargement of the photo; faces are pasted from the model's own pixels."""
    upscaler: str = ""
    """A super-resolution network for the photo around the faces (.safetensors, .pth); by default Lanczos."""
    quality: int = Field(0, ge=0, le=100)
    """Quality of JPEG and WebP. 0 keeps a JPEG's own tables and subsampling from quality 90 on, else 95."""
    mask: Literal["square", "parsing"] = "square"
    """Part of a restored crop that is pasted back: the feathered square, or the face as segmented by a network (its
    weights, 85 MB, are downloaded once; for non-commercial research)."""
    mask_hair: bool = True
    """With `mask=parsing`: hair belongs to the face."""
    grain: float = Field(0, ge=0, le=1)
    """How much of the photo's own grain and noise, as measured beside each face, is put onto the restored face; 0 is
    none, 1 as much as around it. Not with `--aligned`, and not in videos."""
    smooth: float = Field(0.1, ge=0, le=1)
    """Videos: standard deviation, in seconds, of the smoothing of a face's position over time; 0: none."""
    crf: int = Field(18, ge=-1, le=51)
    """Videos: the encoder's constant rate factor, less is better and larger; -1 takes the input's bit rate."""
    guard: bool = True
    """Measure each restored face against its input: identity, eyes and mouth, landmarks, colours; 0.13 s a face."""
    min_identity: float = Field(0, ge=0, le=1)
    """A restored face less like its input is retried at higher fidelity; if that fails too, the input face is kept.

    The scale is the recogniser's. With `dlib` strangers have 0.87, and a clean face has with its own degraded copy
    0.997 (preset mild), 0.97 (medium), 0.91 (heavy): from a badly degraded input not even the truth is at 0.95.
    """
    min_parts: float = Field(0, ge=0, le=1)
    """A restored face of which an eye or the mouth is less like its input's is tried again at higher fidelity; if none
    will do, the input face stays.

    1: nothing in the photo speaks against the part. 0.9 names at most 1 in 50 honest restorations and is what a warning
    is given below in any case; with 0 it is a warning alone.
    """
    identity: Literal["dlib", "arcface"] = "dlib"
    """Recogniser that measures likeness: `dlib` is built in, `arcface` takes an ONNX file (strangers: about 0.1)."""
    identity_weights: str = ""
    """ArcFace's network of 112 x 112 px faces, an ONNX file, whose licence is yours to know."""
    mark: bool = True
    """Declare in a result with restored faces that they were generated, and by which model: XMP `DigitalSourceType`,
    `AISystemUsed` and `AISystemVersionUsed` of IPTC's standard of 2025; in Matroska and WebM tags."""
    embed_settings: bool = False
    """Embed model, preset, fidelity, seed, and each face's box and identity in the result's XMP; `authface why RESULT`
    shows them."""
    sign: str = ""
    """Sign results with restored faces with Content Credentials (C2PA; extra `c2pa`): a PEM file with the certificates
    and the key, or `test`, a certificate that nobody trusts. Not in Matroska and WebM."""
    change_map: bool = False
    """Write NAME.change.png beside each result, which shows where and how strongly faces were altered."""
    report: bool = True
    """Write a before/after page beside the outputs."""

    @field_validator("faces", mode="before")
    @classmethod
    def _rule(cls, value: object) -> str:
        """A rule as typed; a recipe may hold a plain number."""
        face_rule(str(value))
        return str(value)
