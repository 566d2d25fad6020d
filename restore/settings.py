"""Settings of restoring: the recipe's table `restore`."""

from typing import Literal

from pydantic import Field

from authface.recipe import Settings


class RestoreSettings(Settings):
    """Which faces of a photo are restored, with which model, and how the result is written."""

    model: str = "tiny"
    """A model's name, a folder in diffusers layout, or `identity`: faces stay as they are, a check of the rest."""
    fidelity: float = Field(0.5, ge=0, le=1)
    """0 trusts the face prior, 1 the input; 0.5 is the ControlNet as trained. Its scale is 0.5 + fidelity."""
    steps: int = Field(12, ge=1, le=1000)
    """Denoising steps. The paper takes 50 with `ddpm`; the multistep solvers need far fewer."""
    scheduler: Literal["dpm++", "ddim", "euler", "ddpm"] = "dpm++"
    """Sampler. `ddpm` takes the model's own schedule, as the released inference does."""
    prompt: str = ""
    """What the model is told; it is trained with the empty prompt."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    guidance: float = Field(1, ge=0, le=30)
    """Classifier-free guidance; 1 and less is without, at half the cost. The released inference takes 8."""
    size: int | None = Field(None, ge=64, le=2048, multiple_of=8)
    """Side of the crops the model sees, pixels; without it the model's own, at most the 512 of the paper."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the U-Net and the ControlNet; auto is float16 on CUDA, float32 elsewhere. The VAE runs in float32."""
    batch: int = Field(4, ge=1, le=256)
    """Faces the model sees at a time; results do not depend on it."""
    colour: Literal["wavelet", "adain", "none"] = "wavelet"
    """How a restored face takes the colours of its input."""
    min_score: float = Field(0.9, ge=0, le=1)
    """Least confidence of the face detector."""
    min_face: float = Field(16, ge=0)
    """Least longer side of a face's box, pixels; smaller faces stay as they are."""
    max_faces: int = Field(0, ge=0)
    """Restore at most so many faces of a photo, the largest first; 0 restores all."""
    max_disagreement: float = Field(0.2, gt=0)
    """Where dlib's and the detector's points differ by more, over the eyes' distance, the detector's five points
    place the crop: dlib loses its way on small, turned and covered faces."""
    format: Literal["same", "jpeg", "png", "webp", "tiff"] = "same"
    """Of the output. `same` keeps the input's; what is only read (BMP, GIF, HEIC, AVIF) becomes PNG."""
    report: bool = True
    """Write a before/after page beside the outputs."""
