"""Settings of evaluating: the recipe's tables below `evaluate`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from authface.recipe import Settings


class SynthSettings(Settings):
    """A test set with truth: clean faces and degraded copies of them."""

    degradation: str = "medium"
    """Name in faces.degrade: mild, medium, heavy, scan, noise_jpeg, nearly_clean, gfpgan, codeformer_large, ..."""
    split: str = "test"
    """Which part of a dataset folder; a folder of images has none."""
    size: int | None = Field(default=None, ge=32, le=4096)
    """Side of the clean faces, pixels: they are resized to it first. None takes them as they are."""


class RestorationSettings(Settings):
    """What is measured of restored faces, and how sure the figures are."""

    metrics: tuple[str, ...] = ()
    """Names of metrics; none stands for all that apply: without the truth those that need none."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples behind each 95 % interval."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Least confidence of the detector in the face of a truth, which is known to show one."""
    ffhq_stats: Path | None = None
    """BasicSR's statistics of FFHQ at 512 px; None looks for inception_FFHQ_512.pth beside pyiqa's weights."""
    cache: Path | None = None
    """Folder that keeps what was measured, for several reports to share; None takes the report's own."""
    worst: int = Field(default=20, ge=0, le=200)
    """Faces in the sheet of the worst, for each method."""
    worst_by: str = ""
    """The metric that orders them; none takes the first that was measured of identity, psnr, lpips, musiq, ..."""


class ChallengeSettings(Settings):
    """How faces are scored by the rules of NTIRE's challenge of 2026; the defaults are its own."""

    metrics: tuple[str, ...] = ("niqe", "clipiqa", "musiq", "maniqa", "qalign", "fid_ffhq_basicsr")
    """Terms to measure; without one of them the score is partial."""
    identity: Literal["adaface", "arcface", "dlib"] = "adaface"
    """Who judges the identity. The limits are AdaFace's; for another name `least` has to say its own."""
    identity_weights: str = ""
    """An ONNX file of it, (n, 3, 112, 112) float32 in -1..1, BGR for AdaFace and RGB for ArcFace; dlib needs none."""
    identity_sha256: str = ""
    """What the file has to hash to; empty: not checked. The report names the hash either way."""
    least: dict[str, float] = {}
    """Least likeness by set, in place of the rules'."""
    points: Path | None = None
    """The challenge's list of faces, test_2026_face.csv: its sets, and where each face is. None finds each on its
    output."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Least confidence of the detector in the face of an output."""
    ffhq_stats: Path | None = None
    """BasicSR's statistics of FFHQ at 512 px; None looks for inception_FFHQ_512.pth beside pyiqa's weights."""
    cache: Path | None = None
    """Folder that keeps what was measured, for several reports to share; None takes the report's own."""


class PriorEvaluationSettings(Settings):
    """What a face prior draws by the prompts of a dataset, and how it is judged; the defaults suit the tiny family."""

    model: str = "tiny"
    """The family: a known name, a folder in diffusers' layout, or owner/repository on the hub."""
    dataset: Path = Path("photoset/dataset")
    """A dataset of authface annotate export: its prompts are drawn, all faces of `split` are what FID compares with."""
    split: str = "test"
    """Which part of it."""
    prompts: Literal["none", "semantic", "all"] = "all"
    """What is asked for: nothing, the column prompt_semantic, or the column prompt (semantic and photographic tags)."""
    per_prompt: int = Field(default=1, ge=1, le=1000)
    """Samples of each prompt, each with noise of its own."""
    scheduler: Literal["ddim", "dpm++"] = "ddim"
    """The sampler: DDIM without added noise, or DPM-Solver++; both begin at the last timestep."""
    steps: int = Field(default=20, ge=1, le=1000)
    guidance: float = Field(default=3.0, ge=1, le=30)
    """Classifier-free guidance towards the prompt, away from the empty one; 1 is without."""
    size: int | None = Field(default=None, ge=64, le=2048)
    """Side of the samples, pixels; None takes the side that the family was trained at."""
    batch: int = Field(default=8, ge=1, le=1024)
    """Samples drawn at a time; it changes none but by rounding."""
    reference: Path | None = None
    """Real faces for FID in place of the dataset's: a folder of images, or a dataset's, of the same `split`."""
    ffhq_stats: Path | None = None
    """BasicSR's statistics of FFHQ at 512 px; None looks for inception_FFHQ_512.pth beside pyiqa's weights."""
    hps: Literal["v2.0", "v2.1"] = "v2.0"
    """Which weights of HPSv2 judge; the paper names neither."""
    opposites: tuple[tuple[str, str], ...] = (
        ("smiling, mouth open", "mouth closed"),
        ("light from the left", "light from the right"),
        ("low key", "high key"),
        ("black and white", "vivid colours"),
        ("warm tones", "cool tones"),
    )
    """Prompts that exclude each other: the first tag of each is looked for in the samples of both. () leaves it out."""
    steer_samples: int = Field(default=24, ge=2, le=10_000)
    """Samples of each of these prompts; both of a pair begin with the same noise."""
    steer_prompt: str = "close-up portrait, facing the camera, looking at the camera"
    """What stands before each of them."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples behind each 95 % interval."""


class RuntimeSettings(Settings):
    """How the speed of a model is measured; the defaults are the setting of the paper's table 6."""

    preset: str = "official"
    """The preset of `restore`; `official` has the paper's 50 steps and guidance of 8."""
    size: int = Field(default=512, ge=64, le=2048)
    """Side of the faces, pixels."""
    count: int = Field(default=5, ge=1, le=10_000)
    """Runs by the clock; their median counts."""
    warmup: int = Field(default=1, ge=0, le=1000)
    """Runs before them, beside the first, which loads the weights."""
    faces: int = Field(default=1, ge=1, le=256)
    """Faces restored at a time."""


class AbSettings(Settings):
    """A blind A/B study as a local page."""

    question: str = Field(default="Which is the better portrait of this person?", min_length=1, max_length=200)
    """What people are asked; it stands above every pair."""
    host: str = "127.0.0.1"
    """Address the page is served on; any but 127.0.0.1 lets other machines in that know the page's secret address."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the page; 0 takes a free one."""
    people: int = Field(default=0, ge=0)
    """The study ends when so many people have answered every pair; 0: with Ctrl-C."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples behind each 95 % interval."""
