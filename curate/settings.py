"""Settings of the curation steps: the recipe's tables `curate.fetch`, `curate.filter`, `curate.align`."""

from typing import Literal

from pydantic import Field

from authface.recipe import Settings


class FetchSettings(Settings):
    """Where photos come from, and what is stored of them."""

    source: Literal["unsplash", "unsplash-lite", "folder", "urls", "samples"] = "unsplash"
    """Name of the source; `--from` on the command line. `samples` are the photos that ship with the dependencies."""
    path: str = ""
    """The folder or file a source reads."""
    min_long_side: int = Field(0, ge=0)
    """Smallest longer side of a photo in pixels; the paper takes 8K photos (7680)."""
    max_megapixels: float = Field(178, gt=0, le=178)
    """A photo of more is refused before it is decoded; Pillow stops at 178."""
    max_megabytes: float = Field(500, gt=0)
    """A file of more is refused before it is read."""
    part_rows: int = Field(1000, ge=1)
    """Photos a part of the tables: what a kill can lose, and what a cluster's worker takes at a time."""
    photographer: str = ""
    """Who made the photos of a `folder` or of `urls`."""
    licence: str = "unknown"
    """The licence of the photos of a `folder` or of `urls`: you answer for it."""


class FilterSettings(Settings):
    """Which faces are kept: cheap measures first, dear ones on the survivors only."""

    detector: Literal["retinaface"] = "retinaface"
    """RetinaFace MobileNet-0.25, built in."""
    faces: Literal["all", "largest", "one"] = "all"
    """Judge every face, the largest only, or refuse photos that hold several."""
    min_score: float = Field(0.98, ge=0, le=1)
    """Least confidence of the detector; faces under 0.6 are not looked at."""
    min_size: float = Field(128, ge=0)
    """Least longer side of the face's box in pixels of the original photo."""
    min_sharpness: float = Field(0.15, ge=0)
    """Least sharpness of the eyes; see `authface.curate.quality.sharpness`."""
    max_noise: float = Field(6, ge=0)
    """Largest standard deviation of the noise on the face, 0..255."""
    max_piqe: float = Field(65, ge=0, le=100)
    """Largest PIQE of the face region, 0..100, lower is better."""


class AlignSettings(Settings):
    """How faces become square crops: FFHQ's geometry."""

    size: int = Field(512, ge=64, le=4096, multiple_of=8)
    """Side of the crops, pixels: 256, 512, 1024."""
    max_disagreement: float = Field(0.15, gt=0)
    """Largest mean distance between dlib's and RetinaFace's eyes, nose and mouth corners, over the eyes' distance."""
    max_pad: float = Field(0.35, ge=0, le=1)
    """Largest share of a crop that may lie outside the photo and be filled by reflection."""
