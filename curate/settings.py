"""Settings of the curation steps: the recipe's tables `curate.fetch`, `curate.filter`, `curate.align` and so on.

Metrics of single pictures are named here: those that packages register, and pyiqa's, for which pyiqa is not loaded.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from authface.backends import backend_names, load_backend, registered
from authface.errors import UsageError, one_line
from authface.extras import installed, need
from authface.recipe import Settings


class WebSettings(Settings):
    """How photos are requested over HTTP."""

    connections: int = Field(16, ge=1, le=256)
    """Concurrent requests, over all hosts."""
    host_rate: float = Field(20, gt=0)
    """Most requests a second to one host; halved where it answers 429, then slowly raised again."""
    attempts: int = Field(5, ge=1)
    """Attempts at one address before its row is `failed`."""
    backoff_seconds: float = Field(1, ge=0)
    """Longest wait before the second attempt, doubled each time up to a minute; waits are random up to it."""
    longest_wait_seconds: float = Field(600, ge=0)
    """Longest ``Retry-After`` that is waited for, and the longest sum of them for one photo. A host that asks for more
    is left to the next run. The quota of an API is waited for however long it takes."""
    timeout_seconds: float = Field(30, gt=0)
    """Longest silence of a host."""
    deadline_seconds: float = Field(600, gt=0)
    """Longest time of one attempt, from connecting to the last byte: it ends a host that only trickles."""
    max_redirects: int = Field(5, ge=0)
    window_seconds: float = Field(3600, gt=0)
    """Seconds until a host's quota (``X-Ratelimit-Remaining``) is full again, where the host does not say."""
    allow_private_hosts: bool = False
    """Allow addresses of this machine and of private networks. Link-local ones are never allowed."""


class UnsplashSettings(Settings):
    """What to request from the Unsplash API. The key is read from the environment variable UNSPLASH_ACCESS_KEY only."""

    api_base: str = "https://api.unsplash.com"
    queries: tuple[str, ...] = ("portrait",)
    """Search terms; a photo found by several of them is one row."""
    orientation: Literal["", "landscape", "portrait", "squarish"] = ""
    content_filter: Literal["low", "high"] = "low"
    order_by: Literal["relevant", "latest"] = "relevant"
    per_page: int = Field(30, ge=1, le=30)
    pages: int = Field(0, ge=0)
    """Pages to list of each query; 0 lists all."""
    edition: str = ""
    """Listed pages are kept in the set and not requested again; change this word to list anew."""
    file: Literal["raw", "full"] = "raw"
    """``raw`` is the file as it was uploaded, ``full`` a JPEG that Unsplash makes of it at the same size."""
    details: bool = False
    """Request each photo's camera data: one more request of the hourly quota per photo."""


class LiteSettings(Settings):
    """Which photos of the Unsplash Dataset to take, decided before anything is downloaded."""

    keywords: tuple[str, ...] = ("portrait", "face", "man", "woman", "person")
    """A photo needs at least one of them; empty takes all photos."""
    min_confidence: float = Field(0, ge=0, le=100)
    """Least confidence of the services that assigned the keyword; one suggested by a user counts as 100."""
    max_iso: float = Field(0, ge=0)
    """Largest ISO; 0 for no limit. Photos of unknown value pass, here and below."""
    min_aperture: float = Field(0, ge=0)
    """Smallest f-number; smaller ones blur what is off the plane of focus. 0 for no limit."""
    max_aperture: float = Field(0, ge=0)
    """Largest f-number; 0 for no limit."""


class FetchSettings(Settings):
    """Where photos come from, and which of them are stored."""

    source: Annotated[str, registered("sources")] = "unsplash"
    """Name of the source, `--from` on the command line: unsplash, unsplash-lite, folder, urls, samples (the photos that
    ship with the dependencies), or one of another package."""
    path: str = ""
    """The folder or file a source reads."""
    min_long_side: int = Field(0, ge=0)
    """Smallest longer side of a photo in pixels; the paper takes 8K photos (7680)."""
    max_megapixels: float = Field(178, gt=0, le=178)
    """A larger photo is rejected before it is decoded; Pillow stops at 178."""
    max_megabytes: float = Field(500, gt=0)
    """A larger file is rejected before it is read."""
    part_rows: int = Field(1000, ge=1)
    """Photos in a part of the tables: what a kill can lose, and what a cluster worker takes at a time."""
    photographer: str = ""
    """Who made the photos of a `folder` or of `urls`."""
    licence: str = "unknown"
    """The licence of the photos of a `folder` or of `urls`: you are responsible for it."""
    url_column: str = ""
    """Column of a table of `urls` that holds the addresses; empty looks for `url`, `image_url` and the like."""
    prescreen_face: float = Field(0, ge=0)
    """Least longer side of the largest face in pixels of the original, measured on a preview where the source has
    one, so that only promising originals are downloaded; 0 downloads all originals."""
    opt_outs: Literal["strict", "stated", "recorded"] = "strict"
    """Which of the opt-outs that hosts, pages and files tell machines refuse a photo. `strict`: every reservation, also
    one that is unclear or could not be read. `stated`: what is said clearly. `recorded`: none; the row keeps what was
    said. Another level judges the photos that the set has anew, by what their rows keep."""
    retry: Literal["transient", "failed", "none"] = "transient"
    """Which failed photos are asked for again, `--retry` on the command line. `transient`: what may pass, such as a
    timeout, an error of the server, a page instead of the photo, half a file; at most 5 times, the first in the next
    run, then with growing time between. `failed`: all of them at once. A photo's new row takes the place of the old."""
    web: WebSettings = WebSettings.model_validate({})
    unsplash: UnsplashSettings = UnsplashSettings.model_validate({})
    lite: LiteSettings = LiteSettings.model_validate({})


class FilterSettings(Settings):
    """Which faces are kept. Every face is measured once; the limits are then checked in order, cheap ones first."""

    detector: Annotated[str, registered("detectors")] = "retinaface"
    """`retinaface`: MobileNet-0.25, built in; `retinaface-resnet50`, through facexlib, whose weights are downloaded
    once; or a detector of another package."""
    faces: Literal["all", "largest", "one"] = "all"
    """Judge every face, only the largest, or reject photos that show several."""
    min_score: float = Field(0.98, ge=0, le=1)
    """Least confidence of the detector; detections under 0.6 are dropped before this limit."""
    min_size: float = Field(128, ge=0)
    """Least longer side of the face's box in pixels of the original photo. Faces of less than 48 px are not looked for
    in photos of more than 4,096 px a side."""
    max_yaw: float = Field(50, ge=0, le=180)
    """Largest turn of the head to either side, degrees."""
    max_pitch: float = Field(35, ge=0, le=180)
    """Largest turn of the head up or down, degrees."""
    max_roll: float = Field(40, ge=0, le=180)
    """Largest tilt of the head to either side, degrees; alignment turns it upright."""
    min_exposure: float = Field(45, ge=0, le=255)
    """Least mean luma of the face, 0..255: dark skin in good light lies well above."""
    max_exposure: float = Field(240, ge=0, le=255)
    """Largest mean luma of the face, 0..255."""
    max_clipped: float = Field(0.2, ge=0, le=1)
    """Largest share of the face that is black or white beyond recovery."""
    min_sharpness: float = Field(0.15, ge=0)
    """Least sharpness of the eyes; see `authface.curate.filter.measures.quality.sharpness`."""
    max_noise: float = Field(6, ge=0)
    """Largest standard deviation of the noise on the face, 0..255."""
    max_pepper: float = Field(0.002, ge=0, le=1)
    """Largest share of single pixels that stand out from their neighbours."""
    max_blockiness: float = Field(1.75, ge=0)
    """Largest ratio of the steps at JPEG's block borders to those within."""
    max_pixelation: float = Field(0.5, ge=0)
    """How sure it may be that the pixels were enlarged, into squares or by a smooth kernel, 0..1; 1 keeps all, see
    `authface.curate.filter.measures.processing.pixelation`."""
    min_resolution: float = Field(0.4, ge=0, le=1)
    """Least true detail over nominal: about 0.5 for a sharp photo that was enlarged twice, or for a soft one. A higher
    limit rejects soft scans and lenses too."""
    max_sharpening: float = Field(0.5, ge=0)
    """How sure it may be that edges were sharpened beyond what a lens draws, 0..1; 1 keeps all, see
    `authface.curate.filter.measures.processing.sharpening`."""
    max_smoothing: float = Field(0.65, ge=0, le=1)
    """Largest lack of fine texture on the skin, as beauty filters leave it."""
    max_hatching: float = Field(1, ge=0)
    """Largest strength of fine texture that covers the whole face, in levels of 255, as in engravings, woodcuts and
    coarse halftones. A higher limit lets softer ones pass, a lower one rejects sharp photos of rough skin or grain."""
    max_piqe: float = Field(65, ge=0, le=100)
    """Largest PIQE of the face region, 0..100; lower is better."""
    reviewer: str = ""
    """Whose model of `authface curate learn` judges what the limits leave: a reviewer of the set, or the model's file,
    such as another set's ``review/anna.model.safetensors``; empty asks none. It never judges a face that a person
    has."""
    min_keep_probability: float | None = Field(None, ge=0, le=1)
    """Least probability that this reviewer keeps the face; None takes the limit that was learned with it."""
    duplicate_radius: int = Field(17, ge=-1, le=144)
    """Of faces whose 144-bit hashes differ in at most this many bits, only the best is kept; -1 keeps all."""
    metrics: dict[str, float] = {}
    """Metrics of pyiqa or of another package with their limits, such as ``{"topiq_nr-face" = 0.5, "musiq" = 60}``: the
    least value, or the largest where lower is better. Each scores only what the one before it left, cheap ones
    first."""

    @field_validator("metrics")
    @classmethod
    def _there_are_such(cls, metrics: dict[str, float]) -> dict[str, float]:
        try:
            check_names(metrics)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return metrics


class LearnSettings(Settings):
    """How `curate learn` learns what a reviewer keeps, and `curate review --next uncertain` asks."""

    recall: float = Field(0.95, gt=0, lt=1)
    """Share of what the reviewer keeps that the learned limit lets pass."""
    least: int = Field(30, ge=10)
    """Decisions to keep, and as many to reject, without which nothing is learned."""
    enough: float = Field(0.01, gt=0, lt=1)
    """Share of the faces on which models learned from resampled decisions differ, under which asking stops."""
    network: str = ""
    """A network of timm's over eyes, skin and hair besides the statistics, such as `vit_small_patch14_dinov2.lvd142m`
    or `vit_base_patch32_clip_224.openai`, whose weights are downloaded once; or `local-dir:FOLDER`."""


class AlignSettings(Settings):
    """How faces become square crops in FFHQ's geometry."""

    size: int = Field(512, ge=64, le=4096, multiple_of=8)
    """Side of the crops, pixels: 256, 512, 1024."""
    scale: float = Field(1, ge=0.5, le=3)
    """Side of the crop relative to FFHQ's: above 1 it takes in more hair and shoulders."""
    max_disagreement: float = Field(0.15, gt=0)
    """Largest mean distance between dlib's and RetinaFace's eyes, nose and mouth corners, over the eyes' distance."""
    max_pad: float = Field(0.35, ge=0, le=1)
    """Largest share of a crop that may lie outside the photo and be filled by reflection."""


class BalanceSettings(Settings):
    """Which subset of faces has the shares that were asked for."""

    target: str = ""
    """Margins and the shares wanted of their words: `pose=uniform, skin: light .3 tan .3`. The words not named share
    what is left in their present proportions; empty only reports."""
    keep: int | None = Field(None, ge=1)
    """Faces to choose; None takes as many as possible with every share within `tolerance` of its goal."""
    tolerance: float = Field(0.02, ge=0.001, le=1)
    """Largest distance of a share from its goal, 0..1, where `keep` is None."""
    least: int = Field(10, ge=1)
    """Words of fewer faces keep their share under `uniform`: evening them out would leave only a handful of faces."""
    wanted: dict[str, dict[str, Annotated[float, Field(ge=0, le=1)]]] = Field({})
    """Shares that collecting more should lead to: a table of values for each of skin, age, pose, light, glasses and
    beard, as in `{glasses = {glasses = 0.2}}`. Values not named share what is left in their present proportions;
    attributes not named want all values equally often. Less of a value is not reached by adding faces: see `target`."""
    collect_from: Literal["", "unsplash", "unsplash-lite"] = ""
    """The source that queries are proposed for; empty takes the one that the set's photos were found by, else the
    Unsplash Dataset."""
    queries: dict[str, tuple[str, ...]] = Field({})
    """Queries of your own and the values they stand for, as in `{"reading glasses" = ["glasses=glasses"]}`, besides
    those of `curate/balance/words.toml`; one of the same words replaces it, and `[]` takes it out."""


class SplitSettings(Settings):
    """How faces are divided into training, validation and test sets."""

    val: float = Field(0.05, ge=0, lt=1)
    """Share of the groups for validation. Training takes the rest, and any group that alone exceeds the share."""
    test: float = Field(0.05, ge=0, lt=1)
    """Share of the groups for the test."""
    val_faces: int = Field(0, ge=0)
    """Faces for validation instead of a share: at most this many, as whole groups allow; 0 uses the share."""
    test_faces: int = Field(0, ge=0)
    """Faces for the test instead of a share, likewise."""
    keep_together: tuple[Literal["identity", "duplicate", "photo", "photographer"], ...] = (
        "identity",
        "duplicate",
        "photo",
    )
    """What faces of different splits never share; `photographer` also keeps photo sessions whole."""
    embedder: Literal["dlib", "arcface"] = "dlib"
    """The network that tells people apart: dlib's, built in, or an ArcFace network that you provide."""
    arcface: str = ""
    """The ONNX file of `arcface`: RGB faces of 112 x 112 in, a vector out. Check its licence."""
    same_person: float = Field(4.5, gt=0)
    """Least likeness of two faces of one person: standard deviations above what either has with people like it."""
    cohort: Literal["set", "usual"] = "set"
    """Who those people are: the faces of the set (500 or more), or fixed values typical of the network. `usual` suits
    a set of many photos of a few people."""
    duplicate_radius: int = Field(17, ge=0, le=144)
    """Bits in which the hashes of near duplicates differ at most."""
    against: tuple[str, ...] = ()
    """Folders of photos that the set must not overlap with, such as benchmarks; `--against` on the command line."""
    leak_likeness: float = Field(7, gt=0)
    """Likeness from which `against` is said to show a person of the set: higher than `same_person`, since each face has
    many strangers in there and some look like it."""
    drop_leaks: Literal["nothing", "duplicates", "people"] = "nothing"
    """What training loses where `against` finds leaks: nothing, repeated pictures, or all faces of the people."""
    keep_embeddings: bool = True
    """Keep the embeddings (biometric data) for the next run; false deletes them once the split is made."""

    @model_validator(mode="after")
    def _some_are_left(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val and test take {self.val + self.test:g} of the groups: leave some for training")
        return self


_PYIQA_TABLE = "pyiqa.default_model_configs"


def lower_better(name: str) -> bool:
    """Whether less is better of the metric `name`.

    Raises UsageError for a metric that is none, or compares with a reference, AuthfaceError for a package whose
    registered metric cannot be loaded.
    """
    if name in backend_names("metrics"):
        return bool(load_backend("metrics", name).lower_better)
    return bool(_pyiqa(name).get("lower_better", False))


def check_names(names: Iterable[str]) -> None:
    """Raise UsageError for the first of `names` that is no metric of single pictures. Nothing heavy is loaded.

    Where pyiqa is not installed nobody knows its names: the command that measures asks for it.
    """
    for name in names:
        if name not in backend_names("metrics") and installed("pyiqa"):
            _pyiqa(name)


def _pyiqa(name: str) -> Mapping[str, Any]:
    """What pyiqa says of one of its metrics. Raises UsageError."""
    said = _pyiqa_table()
    config = said.get(name)
    if config is None or config.get("metric_mode") != "NR":
        alone = [*backend_names("metrics"), *(known for known in said if said[known].get("metric_mode") == "NR")]
        near = difflib.get_close_matches(name, alone, n=3) or ["musiq", "topiq_nr-face", "clipiqa+"]
        why = "compares with a reference" if config else "is neither in pyiqa nor registered by a package here"
        raise UsageError(f"metric {one_line(name)} {why}; there are {', '.join(near)}, ...")
    return config


def _pyiqa_table() -> Mapping[str, Mapping[str, Any]]:
    """pyiqa's own table of its metrics: the loaded one, else read from its file; to import pyiqa takes seconds."""
    loaded = sys.modules.get(_PYIQA_TABLE)
    configs: Mapping[str, Mapping[str, Any]] = loaded.DEFAULT_CONFIGS if loaded else _pyiqa_table_of_file()
    return configs


@cache
def _pyiqa_table_of_file() -> Mapping[str, Mapping[str, Any]]:
    need("a metric of pyiqa", "evaluate", "pyiqa")
    package = find_spec("pyiqa")
    assert package is not None and package.origin is not None  # `need` found it
    spec = spec_from_file_location("_pyiqa_metrics", Path(package.origin).with_name("default_model_configs.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    configs: Mapping[str, Mapping[str, Any]] = module.DEFAULT_CONFIGS
    return configs
