"""What a run of many photos has done and has left, and how long that still takes.

A photo costs seconds for its pixels, for the looks of the detector, which are more where it finds no face, for the
model, by the pixels of its crops, and for its faces. The headers of some photos that lie ahead tell their pixels;
glances at fewer of them, by the detector at a small copy, how many faces they have and how large these are in them. The
last photos that are done count like some glances more. The parts of the pipeline say how the time divides among the
four. A photo that is done already costs next to nothing, and a resumed run begins with all of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

from authface.faces.detector import MIN_FACE
from authface.faces.geometry import Side
from authface.faces.looks import pixels_looked_at

LEAST = 3
"""Photos by which a time is told."""
LIKE_GLANCES = 16
"""For so many glances all photos that are done count: where glances lie ahead, these tell more of what lies there."""
FACELESS = 0.1
"""Faces a photo up to which a run that met none yet is taken to need none."""
_OF_PIXELS = ("read", "encode")
"""Parts whose time grows with the photo's pixels; that of `detect` with its looks, of `model` with the crops."""
_OF_FACES = ("align", "guard", "mask", "paste")
"""Parts whose time grows with the number of faces."""
_LEAST_PIXELS = 10_000
"""What any photo takes in those parts, however small, is the time of so many pixels."""


@dataclass(frozen=True)
class PhotoSample:
    """A planned photo whose header was read."""

    place: int
    """Among all inputs of the run, in the order in which they come."""
    width: int
    height: int


@dataclass(frozen=True)
class PhotoFaces:
    """What is known of the faces of a photo that was opened or glanced at."""

    width: int
    height: int
    found: bool = False
    """Whether it has a face, restored or not."""
    crops: Sequence[float] = ()
    """Sides of those that the model is given, pixels of the photo."""


@dataclass
class FaceCounts:
    """How many faces some photos have, and how large these are in them."""

    photos: float = 0
    found: float = 0
    """In so many a face was found, restored or not."""
    crops: float = 0
    """Of the model."""
    cropped: float = 0
    """Pixels of their photos that they cover."""
    around: float = 0
    """Pixels of their photos, of each crop anew."""

    def add(self, photo: PhotoFaces) -> None:
        """Count a photo."""
        self.photos += 1
        self.found += photo.found
        self.crops += len(photo.crops)
        self.cropped += sum(side**2 for side in photo.crops)
        self.around += photo.width * photo.height * len(photo.crops)

    def as_of(self, photos: int) -> FaceCounts:
        """The same shares, of so many photos at most."""
        share = min(1.0, photos / max(self.photos, 1))
        return FaceCounts(*(share * value for value in astuple(self)))

    @property
    def share_with_face(self) -> float:
        """Of the photos, 0..1."""
        return self.found / max(self.photos, 1)

    @property
    def crops_a_photo(self) -> float:
        """On average."""
        return self.crops / max(self.photos, 1)

    def side_in(self, width: int, height: int) -> float:
        """Side of a crop in a photo of that size, pixels."""
        return math.sqrt(self.cropped / max(self.around, 1) * width * height)


@dataclass
class Videos:
    """Some videos."""

    files: int = 0
    bytes: int = 0

    def add(self, bytes: int) -> None:
        """Count one."""
        self.files += 1
        self.bytes += bytes


@dataclass
class Workload:
    """Photos, videos, and those that need nothing but a look: results of before that are still right."""

    photos: int = 0
    """That are or were to be made."""
    failed: int = 0
    """Photos that were tried and cannot be made."""
    samples: list[PhotoSample] = field(default_factory=list)
    """Of planned photos, evenly spaced among them, in their order."""
    glances: list[tuple[int, PhotoFaces]] = field(default_factory=list)
    """At planned photos, each with its place; at any time about evenly spaced."""
    known: int = 0
    videos: Videos = field(default_factory=Videos)
    failed_videos: Videos = field(default_factory=Videos)
    """They tell nothing of what the others take: a broken one is over at once."""
    least_face: float = MIN_FACE
    """Pixels of the smallest faces that are looked for."""
    side: Side | None = None
    """How large crops are; None: it is not known yet."""
    pixels: float = 0
    """Of photos that were opened, as the next one."""
    looked_at: float = 0
    """Pixels that the detector saw."""
    faces: FaceCounts = field(default_factory=FaceCounts)
    modelled: float = 0
    """What the crops took of the model, in pixels."""

    @property
    def tried(self) -> int:
        """Photos that are over."""
        return self.photos + self.failed

    def add_opened(self, photo: PhotoFaces) -> None:
        """Count a photo in which faces were looked for: some are opened before the ones that came first are done."""
        self.pixels += photo.width * photo.height
        self.looked_at += pixels_looked_at(photo.width, photo.height, self.least_face, found=photo.found)

    def add_done(self, photo: PhotoFaces) -> None:
        """Count a photo that was opened and is done."""
        self.photos += 1
        self.faces.add(photo)
        self.modelled += sum(self._crop(side) for side in photo.crops)

    def copy(self) -> Workload:
        """As it is now."""
        return replace(self, faces=replace(self.faces), videos=replace(self.videos))

    def after(self, first: Workload) -> Workload:
        """The photos that came after the first ones."""
        faces = FaceCounts(*(all - some for all, some in zip(astuple(self.faces), astuple(first.faces), strict=True)))
        return Workload(
            photos=self.photos - first.photos,
            failed=self.failed - first.failed,
            pixels=self.pixels - first.pixels,
            looked_at=self.looked_at - first.looked_at,
            modelled=self.modelled - first.modelled,
            faces=faces,
        )

    def looks(self, photo: PhotoSample, faces: FaceCounts) -> float:
        """Pixels that the detector sees of a photo, if such photos have such faces."""
        found, size = faces.share_with_face, (photo.width, photo.height, self.least_face)
        return found * pixels_looked_at(*size, found=True) + (1 - found) * pixels_looked_at(*size, found=False)

    def crops(self, photo: PhotoSample, faces: FaceCounts) -> float:
        """What its crops take of the model, likewise."""
        return faces.crops_a_photo * self._crop(faces.side_in(photo.width, photo.height))

    def _crop(self, side: float) -> float:
        """What a crop takes, in pixels: its own and, as measured, as many again as the smallest has."""
        return float(self.side.of(side) ** 2 + self.side.least**2) if self.side else 1.0


@dataclass
class Clock:
    """Where the seconds of a run went: to photos that were made, to looks at those that were there, to videos."""

    made: float = 0
    """After `first`, without those that went into loading: models are loaded for the first photo, the guard for the
    first face."""
    known: float = 0
    videos: float = 0
    first: Workload = field(default_factory=Workload)
    """What came first, whose seconds are not counted."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of the pipeline's parts after it."""
    _first_parts: Mapping[str, float] = field(default_factory=dict)
    _seen: tuple[int, int, int] = (0, 0, 0)
    _loaded: float = 0
    _waiting: float = 0
    _before: float = 0

    def tick(self, seconds: float, done: Workload, parts: Mapping[str, float], *, in_videos: bool = False) -> bool:
        """Count `seconds` after which so much is `done`, and whether it is more than before; else they wait for more.

        `parts` are all seconds of the pipeline's parts; those of `load` are what this process spent.
        """
        now = done.tried, done.known, done.videos.files + done.failed_videos.files
        made, known, videos = (one - before for one, before in zip(now, self._seen, strict=True))
        seconds += self._waiting
        loading = min(seconds, max(parts.get("load", 0.0) - self._loaded, 0.0))
        self._seen, self._loaded, self._waiting = now, parts.get("load", 0.0), 0
        self._before += loading
        self._count(seconds - loading, made, known, in_videos=in_videos)
        if made and not self.first.tried:
            self.first, self._first_parts = done.copy(), dict(parts)
        self.parts = {name: spent - self._first_parts.get(name, 0.0) for name, spent in parts.items()}
        return bool(made or known or videos)

    def _count(self, seconds: float, made: int, known: int, *, in_videos: bool) -> None:
        if in_videos and not made and not known:
            self.videos += seconds
        elif made and not self.first.tried:
            self._before += seconds
        elif made:
            self.made += seconds
        elif known:
            self.known += seconds
        else:
            self._waiting = seconds

    @property
    def all(self) -> float:
        """Of all kinds."""
        return self.made + self.known + self.videos + self._waiting + self._before


def seconds_left(planned: Workload, done: Workload, clock: Clock) -> float | None:
    """The seconds that the rest of `planned` takes; None where too little is `done` to tell."""
    left_known = max(planned.known - done.known, 0)
    left = max(planned.photos - done.tried, 0)
    total = 0.0
    if left:
        paced, faces = done.after(clock.first), _faces_ahead(planned, done)
        if paced.tried < LEAST or (not paced.faces.crops and faces.crops_a_photo > FACELESS):
            return None
        total += clock.made * _times_more(planned, done, paced, faces, shares(clock.parts, clock.made))
    if left_known:
        if not done.known:
            return None
        total += clock.known / done.known * left_known
    if more_bytes := max(planned.videos.bytes - done.videos.bytes - done.failed_videos.bytes, 0):
        if not done.videos.bytes:
            return None
        total += clock.videos / done.videos.bytes * more_bytes
    return total


def _faces_ahead(planned: Workload, done: Workload) -> FaceCounts:
    """What the rest has of faces, by glances at it and by what is done."""
    glances = [faces for place, faces in planned.glances if place >= done.tried + done.known]
    ahead = done.faces.as_of(LIKE_GLANCES) if glances else replace(done.faces)
    for one in glances:
        ahead.add(one)
    return ahead


def _times_more(planned: Workload, done: Workload, paced: Workload, faces: FaceCounts, shares: Shares) -> float:
    """What is left, in times the part of `done` that was `paced`."""
    made, left = paced.tried, max(planned.photos - done.tried, 0)
    ahead = [one for one in planned.samples if one.place >= done.tried + done.known] or planned.samples

    def more(of: Callable[[PhotoSample], float], so_far: float, floor: float = 0) -> float:
        if not (ahead and so_far):
            return left / made
        return left * (sum(map(of, ahead)) / len(ahead) + floor) / (so_far + made * floor)

    return (
        shares.pixels * more(lambda photo: photo.width * photo.height, paced.pixels, _LEAST_PIXELS)
        + shares.looks * more(lambda photo: done.looks(photo, faces), paced.looked_at, _LEAST_PIXELS)
        + shares.crops * more(lambda photo: done.crops(photo, faces), paced.modelled)
        + shares.faces * more(lambda _: faces.crops_a_photo, paced.faces.crops)
        + shares.photos * left / made
    )


@dataclass(frozen=True)
class Shares:
    """How the time of a run divides among what it grows with, 0..1; together 1."""

    pixels: float = 0
    looks: float = 0
    crops: float = 0
    faces: float = 0

    @property
    def photos(self) -> float:
        """What goes by the number of photos: what no part of the pipeline has."""
        return 1 - self.pixels - self.looks - self.crops - self.faces


def shares(parts: Mapping[str, float], seconds: float) -> Shares:
    """The shares by the seconds of each part; threads and workers work at a time, so that these may be more in all."""
    tracked = sum(spent for name, spent in parts.items() if name != "load")
    if not (whole := max(tracked, seconds)):
        return Shares()
    kinds: tuple[tuple[str, ...], ...] = (_OF_PIXELS, ("detect",), ("model",), _OF_FACES)
    return Shares(*(sum(parts.get(name, 0.0) for name in names) / whole for names in kinds))
