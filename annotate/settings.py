"""Settings of the annotation steps: the recipe's tables `annotate.tags` and `annotate.export`."""

from typing import Literal

from pydantic import Field

from authface.recipe import Settings


class MeasuredSettings(Settings):
    """Where a measure becomes a tag. `benchmarks/measured_tags.py` says what a change costs in precision and recall."""

    close_up: float = 0.4
    """Least height from brows to chin, of the crop."""
    facing: float = 8
    """Largest turn of a head that faces the camera, degrees."""
    turned: float = 15
    """Least turn of a turned head, degrees."""
    tilted: float = 12
    """Least tilt of a tilted head, degrees in the photo."""
    smile: float = 0.98
    """Least width of the mouth over the eyes' outer distance plus twice the lift of its corners."""
    mouth_open: float = 0.15
    """Least gap of the lips over their width."""
    mouth_closed: float = 0.05
    """Largest gap of the lips of a closed mouth."""
    eyes_shut: float = 0.155
    """Largest gap of the lids of closed eyes over their width."""
    lashes_hang: float = 0.015
    """Least contrast by which a hanging line of lashes outdoes an arched lid, over the skin's L*."""
    no_iris: float = 0.24
    """Largest contrast of a dark spot in closed eyes, over the skin's L*; the gaze needs more in one eye."""
    eyes_open: float = 0.2
    """Least gap of the lids over their width where the gaze is judged."""
    iris: float = 0.2
    """Least contrast of what is dark between the lids with the rest, over the skin's L*, where the gaze is judged."""
    gaze_camera: float = 0.12
    """Largest distance of both irises from where they would look at the camera, of half the eye's width."""
    gaze_aside: float = 0.36
    """Least such distance, both to one side, of a look aside."""
    lipstick: float = 20
    """Least difference of a* between lips and cheeks."""
    sharp_face: float = 0.35
    """Faces less sharp than this (middle over coarse detail) say nothing of skin, hardness or depth of field."""
    skin_texture: float = 0.15
    """Least fine detail of the cheeks over that of eyes, brows and mouth."""
    skin_smooth: float = 0.06
    """Largest such detail of smooth skin."""
    side_light: float = 0.8
    """Least difference of light across the face, stops."""
    hard_light: float = 5
    """Least share of narrow shadow edges on the lower face in hard light, percent of its skin."""
    soft_light: float = 0.065
    """Largest steepness of the skin's shading in soft light, stops a pixel of 256."""
    low_key: float = 22
    """Largest median L* of a low key picture."""
    high_key: float = 78
    """Least median L* of a high key picture."""
    high_contrast: float = 90
    """Least distance of the 5th and 95th percentile of L*."""
    low_contrast: float = 50
    """Largest such distance of low contrast."""
    monochrome: float = 1.2
    """Largest chroma that is left in a monochrome picture when every tone is given one colour."""
    grey: float = 3
    """Largest mean chroma of a black and white picture; a toned one has more."""
    warm: float = 0.9
    """Least log2 of red over blue against daylight portraits."""
    cool: float = -0.9
    """Largest such ratio of a cool picture."""
    vivid: float = 32
    """Least mean chroma of vivid colours."""
    muted: float = 9
    """Largest mean chroma of muted colours."""
    background_share: float = 0.04
    """A background of a smaller share of the crop is not described."""
    plain_spread: float = 8
    """Largest distance of a plain background's pixels from its median colour, L* a* b*."""
    plain_detail: float = 1.5
    """Largest coarse detail of a plain background, L*."""
    background_edges: float = 1.5
    """Least coarse detail of a background whose sharpness is judged, L*."""
    shallow: float = 0.65
    """Largest sharpness of a background out of focus, against the face's."""
    in_focus: float = 0.95
    """Least sharpness of a background in focus, against the face's."""


class TagsSettings(Settings):
    """Who annotates, and how."""

    annotator: Literal["llava", "openai", "measured"] = "llava"
    """`llava`: LLaVA-1.6, as in the paper; `openai`: any compatible server; `measured`: no model, from pixels."""
    measured: MeasuredSettings = MeasuredSettings()
    """Thresholds of the measured tags."""


class ExportSettings(Settings):
    """How the Hugging Face dataset is written."""

    annotators: tuple[str, ...] = ()
    """Whose tags make the prompt, the first wins where groups overlap; empty takes all that left tags."""
    least_confidence: float = Field(0.5, ge=0, le=1)
    """Tags less sure than this are left out."""
    shard_megabytes: int = Field(500, ge=1)
    """Largest Parquet file; the hub's viewer likes 500."""
