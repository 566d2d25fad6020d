"""Settings of the annotation steps: the recipe's tables `annotate.tags` and `annotate.export`."""

from typing import Annotated, Literal

from pydantic import Field

from authface.backends import registered
from authface.recipe import Settings


class MeasuredSettings(Settings):
    """Where a measure becomes a tag. `benchmarks/measured_tags.py` says what a change costs in precision and recall."""

    close_up: float = 0.4
    """Least height from brows to chin, of the crop."""
    facing: float = 10
    """Largest turn of a head that faces the camera, degrees."""
    turned: float = 11.5
    """Least turn of a turned head, degrees."""
    tilted: float = 12
    """Least tilt of a tilted head, degrees in the photo."""
    smile: float = 0.645
    """Least breadth of the inner lips over the eyes' outer distance plus how far the lower one hangs."""
    mouth_open: float = 0.034
    """Least gap of the lips over the distance of the eyes' outer corners."""
    mouth_closed: float = 0.03
    """Largest gap of the lips of a closed mouth."""
    eyes_open: float = 0.2
    """Least gap of the lids over their width where the gaze is judged."""
    iris: float = 0.16
    """Least contrast of the clearer iris with what flanks it, over the skin, where the gaze is judged."""
    gaze_camera: float = 0.22
    """Largest distance, mean of both irises, from where they would look at the camera, of half the eye's width."""
    gaze_aside: float = 0.295
    """Least such distance of a look aside."""
    sharp_face: float = 0.35
    """Faces less sharp than this (middle over coarse detail) say nothing of skin or depth of field."""
    skin_texture: float = 0.15
    """Least fine detail of the cheeks over that of eyes, brows and mouth."""
    skin_smooth: float = 0.06
    """Largest such detail of smooth skin."""
    side_light: float = 0.8
    """Least difference of light across the face, stops."""
    low_key: float = 22
    """Largest median L* of a low key picture."""
    high_key: float = 78
    """Least median L* of a high key picture."""
    high_contrast: float = 86
    """Least distance of the 5th and 95th percentile of L*."""
    low_contrast: float = 50
    """Largest such distance of low contrast."""
    monochrome: float = 1.2
    """Largest chroma that is left in a monochrome picture when every tone is given one colour."""
    grey: float = 3
    """Largest mean chroma of a black and white picture; a toned one has more."""
    warm: float = 0.75
    """Least log2 of red over blue against daylight portraits."""
    cool: float = -0.75
    """Largest such ratio of a cool picture."""
    vivid: float = 30
    """Least mean chroma of vivid colours."""
    muted: float = 9
    """Largest mean chroma of muted colours."""
    padding: float = 0.1
    """Where more of the crop than this was made up beyond the photo's border, the background is not described."""
    background_share: float = 0.04
    """A background of a smaller share of the crop is not described."""
    plain_spread: float = 8
    """Largest distance of a plain background's pixels from its median colour, L* a* b*."""
    plain_detail: float = 1.0
    """Largest coarse detail of a plain background, L*."""
    background_edges: float = 1.5
    """Least coarse detail of a background whose sharpness is judged, L*."""
    shallow: float = 0.65
    """Largest sharpness of a background out of focus, against the face's."""
    in_focus: float = 0.95
    """Least sharpness of a background in focus, against the face's."""


class LlavaSettings(Settings):
    """A captioner run here, by transformers."""

    model: str = "llava-hf/llava-v1.6-mistral-7b-hf"
    """An image-text model: its name on the hub, or a folder with its files."""
    revision: str = "main"
    """Branch, tag or commit on the hub; the tags remember the commit."""
    batch: int = Field(0, ge=0, le=1024)
    """Photos at a time; 0 takes 16 on CUDA and 1 elsewhere. Halved where CUDA's memory runs out."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto`: bfloat16 on CUDA, else float32."""
    four_bit: bool = False
    """Weights in 4 bits (NF4), for 8 GB of GPU memory; needs the extra `authface[4bit]`."""
    max_new_tokens: int = Field(200, ge=1, le=4096)
    """Where an answer is cut; 12 groups of tags take about 100."""
    self_test: int = Field(4, ge=0, le=64)
    """So many photos are captioned in a batch and alone at first, and have to read the same; 0 leaves it out."""


class OpenaiSettings(Settings):
    """A captioner behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, ``transformers serve``.

    Its key, if it wants one, is read from OPENAI_API_KEY in the environment and written nowhere.
    """

    base_url: str = Field("http://127.0.0.1:8000/v1", pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$")
    """Up to and with ``/v1``; without user, password or query."""
    model: str = ""
    """The model's name there; empty takes the first the server lists."""
    concurrency: int = Field(8, ge=1, le=256)
    """Requests under way at once."""
    attempts: int = Field(5, ge=1)
    """Tries for one photo, after waits that double, or as long as the server asks."""
    backoff_seconds: float = Field(0.5, ge=0)
    """Longest first wait."""
    timeout_seconds: float = Field(120, gt=0)
    """For one answer."""
    give_up_after: int = Field(8, ge=1)
    """The run stops when so many photos in a row got no answer."""
    image: Literal["jpeg", "png"] = "jpeg"
    """Format the photo is sent in; JPEG at quality 92."""
    max_side: int = Field(672, ge=64)
    """Longest side it is sent at, pixels: LLaVA-1.6 sees 672."""
    max_tokens: int = Field(200, ge=1)
    """Where an answer is cut."""
    seed: int = 0


class TagsSettings(Settings):
    """Who annotates, and how."""

    annotator: Annotated[str, registered("captioners", "measured")] = "llava"
    """`llava`: LLaVA-1.6, as in the paper; `openai`: any compatible server; `measured`: no model, from pixels;
    `qwen`: the captions that came with an imported AuthFace-HQ; or a captioner of another package."""
    prompt: str = "photographic"
    """What captioners are asked: `photographic` (what is seen and how it was photographed), `semantic` (the paper's
    ablation b: what is seen only), or a text file."""
    vocabulary: Literal["closed", "open"] = "closed"
    """`closed`: only tags of the vocabulary, the others are counted in the report; `open`: others too that obey the
    rules, in the group `other`."""
    max_tags: int = Field(40, ge=1)
    """Tags of a crop at most, the vocabulary's first."""
    measured: MeasuredSettings = MeasuredSettings()
    """Thresholds of the measured tags."""
    llava: LlavaSettings = LlavaSettings.model_validate({})
    """The model that `--with llava` runs."""
    openai: OpenaiSettings = OpenaiSettings.model_validate({})
    """The server that `--with openai` asks."""


class ExportSettings(Settings):
    """How the dataset is written."""

    format: Literal["dataset", "imagefolder", "webdataset", "kohya", "manifest", "croissant", "fiftyone", "files"] = (
        "dataset"
    )
    """`dataset`: Parquet with the images, what `authface train` reads; for other trainers `imagefolder` (PNG files and
    metadata.jsonl), `webdataset` (.tar shards) and `kohya` (PNG and .txt files, a dataset.toml); `manifest`: all but
    the pixels, from which `annotate rebuild` makes the set again; `croissant`: the dataset with MLCommons' metadata;
    `fiftyone`: FiftyOne's layout; `files`: copies of the photos with tags and prompts as their keywords and caption."""
    to: str = ""
    """A folder of this machine to write to; empty takes ``SET/dataset``, or ``SET/exports/<format>``."""
    annotators: tuple[str, ...] = ()
    """Whose tags make the prompt, the first one first; empty takes all that left tags."""
    resolve: Literal["first", "measured", "union", "agreed"] = "first"
    """Where annotators overlap: `first`: of a group that several speak of, the first annotator's tags; `measured`: what
    can be measured is the measures' to say, the rest the others'; `union`: what anybody says; `agreed`: what nobody
    who knows the tag leaves out."""
    least_confidence: float = Field(0.5, ge=0, le=1)
    """Tags less sure than this are left out."""
    max_tokens: int = Field(75, ge=0)
    """Tokens of a prompt at most, its last tags are dropped: CLIP reads 75; 0 drops none."""
    shard_megabytes: int = Field(500, ge=1)
    """Largest Parquet or .tar file; the hub's viewer likes 500."""
