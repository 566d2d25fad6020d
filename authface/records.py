"""Every row that crosses a stage. Open this file first.

Coordinates are pixels of the upright photo (after its EXIF turn): x to the right, y down, the centre of
the first pixel at (0, 0). Colours are 8-bit sRGB. A row never vanishes: what is not `kept` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Status = Literal["kept", "rejected", "failed"]
"""`kept`: goes on. `rejected`: measured and refused (`reason`, `value`, `limit`). `failed`: could not be measured."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""
Points5 = tuple[float, ...]
"""x, y of: the eye on the picture's left, the eye on its right, nose tip, left and right mouth corner; 10 numbers."""
Points68 = tuple[float, ...]
"""x, y of the 68 iBUG points in dlib's order; 136 numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """How a photo was taken, as far as is known."""

    make: str = ""
    model: str = ""
    iso: float | None = None
    aperture: float | None = None
    """F-number."""
    focal_length: float | None = None
    """Millimetres, of the lens itself."""
    exposure: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one image-quality metric says of a face."""

    metric: str
    """Its name in pyiqa, such as ``topiq_nr-face``."""
    value: float


Verdict = Literal["allowed", "refused", "unclear", "unread"]
"""`unclear`: said in a form that means neither; `unread`: it may say something, and could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What one statement for machines says of training on a photo, kept as evidence."""

    kind: str
    """`robots.txt`, `x-robots-tag`, `tdm-reservation` ...: keys of `REASONS` in `curate/fetch/optouts/judge.py`."""
    where: str
    """The address it stands at; ``the file`` for what the photo's own file says."""
    said: str
    """Its words, at most 200 characters."""
    verdict: Verdict
    at: str
    """ISO 8601 time it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one list or folder said of a photo's licence."""

    licence: str
    """As it was written; empty or `unknown` where it named the photo and no licence."""
    by: str = ""
    """The list or folder, absolute; empty for an API, and where it was not written down."""
    at: str = field(default="", compare=False)
    """ISO 8601 time it was first read there; empty where that was not written down."""
    until: str = ""
    """ISO 8601 time it was no longer read there; empty while it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photo of a source, in the table `photos`."""

    id: str
    """sha256 of the file's bytes in hex; empty where no byte could be read."""
    source: str
    """Name of the source: `folder`, `urls`, `unsplash`, `unsplash-lite`, `samples`."""
    source_id: str
    """The photo's name within its source: a relative path, a URL, an API id. Data only, never a path to write to."""
    file: str
    """Where the original lies inside the set, such as ``photos/ab/abcd….jpg``; empty if nothing was stored."""
    photographer: str = ""
    photographer_url: str = ""
    """The photographer's own page."""
    page_url: str = ""
    file_url: str = ""
    """Where the bytes came from, before any redirect."""
    download_location: str = ""
    """The address that Unsplash asks to be told of each download at, its ``ixid`` kept."""
    licence: str = ""
    """What holds: the strictest that is said of a photo with these bytes (`authface.store.statements.strictest`)."""
    statements: tuple[Statement, ...] = ()
    """All that was said under this name, oldest first; none in sets of earlier versions that nobody corrected."""
    terms: str = ""
    """Version or date of the terms the photo was taken under."""
    as_of: str = ""
    """ISO 8601 time the source vouches for: the API's answer, or a file's last change."""
    width: int = 0
    height: int = 0
    """Of the upright photo, pixels."""
    bytes: int = 0
    """Size of the file; of one that failed, where a folder lists it."""
    format: str = ""
    """The decoder that read it, such as ``JPEG``: sniffed from the bytes, not taken from the name."""
    camera: Camera | None = None
    queries: tuple[str, ...] = ()
    """What it was found by: of `unsplash` the first search that listed it, of `unsplash-lite` all keywords asked for
    that it carries; empty where a source has none, and in sets of an earlier version."""
    extra: str = ""
    """What else the source says of it, as a JSON object; empty if nothing."""
    signals: tuple[Signal, ...] = ()
    """What machines are told of training on it; empty where nothing is said, or `asked_at` is empty."""
    asked_at: str = ""
    """ISO 8601 time that `signals` were looked for; empty where nobody looked, as in sets of an earlier version."""
    tries: int = 0
    """Runs that asked for it, where the last of them failed."""
    tried_at: str = ""
    """ISO 8601 time of the last of them."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face of a photo, in the table `faces`; a photo without one has a single row with index -1."""

    id: str
    """``<photo id>-<index>``; the first face is the largest."""
    photo_id: str
    photo_file: str
    """Where the original lies inside the set."""
    index: int
    """0 is the largest face of the photo; -1 where there is none."""
    box: Box | None = None
    score: float | None = None
    """The detector's confidence, 0..1."""
    points5: Points5 | None = None
    size: float | None = None
    """Longer side of the box, pixels."""
    yaw: float | None = None
    """Degrees, from the five points: positive where the face turns to the picture's right."""
    pitch: float | None = None
    """Degrees, positive where the face looks up."""
    roll: float | None = None
    """Degrees, positive where the head leans clockwise."""
    sharpness: float | None = None
    """Fine detail at the eyes over coarser detail and brightness; about 0.08 (blurred) to 0.3 (crisp)."""
    noise: float | None = None
    """Estimated standard deviation of the noise on the face, 0..255."""
    pepper: float | None = None
    """Share of single pixels that stand out of all their neighbours, 0..1."""
    smoothing: float | None = None
    """How far the skin lacks its fine texture (beauty filters, denoising), 0..1; higher is smoother."""
    hatching: float | None = None
    """How strong and even fine texture is all over the face, levels of 255: engravings, halftones; about 0.1 to 5."""
    blockiness: float | None = None
    """Steps at the borders of JPEG's 8 px blocks over those within; 1 is none."""
    pixelation: float | None = None
    """How surely the pixels were enlarged, into squares or by a smooth kernel, 0..1."""
    sharpening: float | None = None
    """How surely edges were sharpened beyond what a lens draws, 0..1."""
    exposure: float | None = None
    """Mean luma of the face without its darkest and brightest quarter, 0..255."""
    clipped: float | None = None
    """Share of the face's pixels that are black or white beyond recovery, 0..1."""
    resolution: float | None = None
    """True detail over nominal, 0..1: about 0.5 for a photo that was enlarged twice."""
    piqe: float | None = None
    """PIQE of the face region, 0..100; lower is better."""
    hash: str = ""
    """Perceptual hash of the face region, 36 hex digits; near duplicates differ in few of the 144 bits, or one from
    the other's mirror image."""
    duplicate_of: str = ""
    """Id of the face this one nearly repeats, if it does."""
    scores: tuple[Score, ...] = ()
    """Further metrics by name, in the order they were taken."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """One aligned face, in the table `crops`."""

    id: str
    """The face's id."""
    photo_id: str
    file: str
    """Where the crop lies inside the set, such as ``crops/ab/abcd…-0.png``; empty if nothing was stored."""
    size: int
    """Side of the square crop, pixels."""
    quad: tuple[float, ...] | None = None
    """x, y of the crop's top-left, bottom-left, bottom-right, top-right corner in the photo; 8 numbers."""
    to_photo: tuple[float, ...] | None = None
    """Rows of the 2 x 3 matrix that takes crop coordinates (first pixel's centre at 0, 0) to the photo's."""
    to_crop: tuple[float, ...] | None = None
    """Rows of its inverse."""
    landmarks: Points68 | None = None
    """In photo coordinates."""
    disagreement: float | None = None
    """Mean distance of the eyes, nose and mouth corners by dlib and by RetinaFace, over the distance of the eyes."""
    pad_fraction: float | None = None
    """Share of the crop that lies outside the photo and was filled by reflection, 0..1."""
    upscaled: bool = False
    """The quad's side in the photo is smaller than `size`: the crop holds less detail than its pixels."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One tag of a crop."""

    name: str
    """Lower case, such as ``soft side light``."""
    group: str
    """What the tag speaks of: `lighting`, `tone`, `lens`, `pose`, `expression`, `skin`, ..."""
    confidence: float
    """0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What one annotator says of one crop, in the table `tags/<annotator>`."""

    id: str
    """The face's id."""
    annotator: str
    tags: tuple[Tag, ...] = ()
    answer: str = ""
    """What a captioner said behind its reasoning, at most 2,000 characters: visible ones, lines without blank ones."""
    tokens: int = 0
    """Tokens of the tags' prompt in CLIP's text encoders, which read 75; 0 where they were not counted."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What an identity network says of a crop, in the table `embeddings`: biometric data, never exported."""

    id: str
    """The face's id."""
    photo_id: str
    embedding: tuple[float, ...] | None = None
    """Unit length; 128 numbers of dlib's network, 512 of ArcFace's."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFeatures:
    """What statistics of eyes, skin and hair at 100 % say of a measured face, in the table `features`.

    They tell how a face looks, not whose it is: `curate learn` learns from them what a reviewer keeps.
    """

    id: str
    """The face's id."""
    photo_id: str
    values: tuple[float, ...] | None = None
    """In the order of `authface.curate.learn.features.NAMES`, then those of a network that was named; NaN where a place
    lies outside the photo or has too few pixels."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One face of a folder the set must not overlap with, such as a benchmark's, in a table `against/<folder>`."""

    id: str
    """``<sha256 of the file>-<index>``; a file without a face has a single row with index -1."""
    file: str
    """The file's path below the folder. Data only, never a path to read from."""
    box: Box | None = None
    hash: str = ""
    """As `Face.hash`."""
    embedding: tuple[float, ...] | None = None
    """As `Embedding.embedding`."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who a crop shows, as far as faces tell, in the table `people`; made over all crops of a set at once.

    `rejected`, reason ``leak``: somebody of the same `identity`, or nearly the same picture, is in a benchmark.
    """

    id: str
    """The face's id."""
    photo_id: str
    identity: str = ""
    """Name of the group of faces that show the same person: the id of its first face."""
    group: str = ""
    """Name of the group of faces that have to be in one split: the id of its first face."""
    split: str = ""
    """``train``, ``val`` or ``test``: no two splits share an identity, a near duplicate or a photo."""
    status: Status = "kept"
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whether a crop is among those that balance the set, in the table `balance`."""

    id: str
    """The face's id."""
    photo_id: str
    status: Status = "kept"
    """`rejected`, reason ``over_represented``: the set has more faces of this kind than were asked for."""
    reason: str = ""
    value: float | None = None
    """Share of its kind (the same words in all margins that were asked for) among all faces, 0..1."""
    limit: float | None = None
    """Share of its kind among the chosen, 0..1."""
    detail: str = ""


Row = Photo | Face | FaceFeatures | Crop | Tags | Embedding | Rival | Person | Choice


def now(precision: Literal["seconds", "milliseconds", "microseconds"] = "seconds") -> str:
    """ISO 8601 in UTC, of fixed length, so that later sorts after."""
    return datetime.now(UTC).isoformat(timespec=precision)
