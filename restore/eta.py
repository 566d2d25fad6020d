"""How long a run over many photos still takes, by what it has done: photos differ, and so does what is left of them.

A photo costs seconds for its faces, which nobody knows before it is opened, and seconds for its pixels, which its bytes
tell, by the headers of some photos of its kind from what is left of the folder. The parts of the pipeline say how the
time divides between the two. A photo that is done already costs next to nothing, and a resumed run begins with all of
those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEAST = 3
"""Photos by which a time is told."""
_OF_PIXELS = frozenset({"read", "detect", "encode"})
"""Parts whose time grows with the photo's pixels; that of the others with its faces."""
_LEAST_PIXELS = 10_000
"""What any photo takes in those parts, however small, is the time of so many pixels."""


@dataclass(frozen=True)
class PhotoSample:
    """A planned photo whose header was read."""

    place: int
    """Among all inputs of the run, in the order in which they come."""
    bytes: int
    pixels: int


@dataclass
class Amount:
    """Some photos of one file ending, or videos."""

    files: int = 0
    bytes: int = 0
    pixels: int = 0
    """Of photos that were opened."""
    samples: list[PhotoSample] = field(default_factory=list)
    """Of planned photos, in their order."""

    def add(self, bytes: int, pixels: int = 0) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += bytes
        self.pixels += pixels


@dataclass
class Workload:
    """Files by their ending, and those that need nothing but a look: results of before that are still right."""

    photos: dict[str, Amount] = field(default_factory=dict)
    known: int = 0
    videos: Amount = field(default_factory=Amount)

    @property
    def files(self) -> int:
        """Photos that are or were to be made."""
        return sum(one.files for one in self.photos.values())


@dataclass
class Clock:
    """Where the seconds of a run went: to photos that were made, to looks at those that were there, to videos."""

    made: float = 0
    """From the first ones on: before them models are loaded."""
    known: float = 0
    videos: float = 0
    first: int = 0
    """How many photos came first, whose seconds are not counted."""
    _waiting: float = 0
    _before: float = 0

    def tick(self, seconds: float, made: int, known: int, videos: int, *, in_videos: bool) -> None:
        """Count `seconds` in which so many files came to their end; in which none did, with the next."""
        seconds += self._waiting
        self._waiting = 0
        if in_videos and not made and not known:
            self.videos += seconds
        elif made and not self.first:
            self.first, self._before = made, seconds
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


def seconds_left(
    planned: Workload, done: Workload, clock: Clock, parts: Mapping[str, float], failed: int = 0
) -> float | None:
    """The seconds that the rest of `planned` takes; None where too little is done to tell.

    `done` is what was made, with its pixels, and looked at; `failed` photos are made too. `parts` are the pipeline's.
    """
    left_known = max(planned.known - done.known, 0)
    left = max(planned.files - done.files - failed, 0)
    total = 0.0
    if left:
        every = done.files + failed
        if (made := every - clock.first) < LEAST:
            return None
        total += clock.made * _times_more(planned, done, pixel_share(parts, clock.made), failed) * every / made
    if left_known:
        if not done.known:
            return None
        total += clock.known / done.known * left_known
    if more_bytes := max(planned.videos.bytes - done.videos.bytes, 0):
        if not done.videos.bytes:
            return None
        total += clock.videos / done.videos.bytes * more_bytes
    return total


def _times_more(planned: Workload, done: Workload, by_pixels: float, failed: int) -> float:
    """What is left, in times what was made."""
    made, left = done.files + failed, max(planned.files - done.files - failed, 0)
    pixels = sum(one.pixels for one in done.photos.values()) + made * _LEAST_PIXELS
    more = _pixels_left(planned, done, made + done.known) + left * _LEAST_PIXELS
    return by_pixels * more / pixels + (1 - by_pixels) * left / made


def _pixels_left(planned: Workload, done: Workload, place: int) -> float:
    """Of the photos from that place on: from their bytes, by those of them that were looked at."""
    made = done.photos.values()
    usual = PhotoSample(0, max(sum(one.bytes for one in made), 1), sum(one.pixels for one in made))
    total = 0.0
    for ending, every in planned.photos.items():
        left = max(every.bytes - done.photos.get(ending, Amount()).bytes, 0)
        some = [one for one in every.samples if one.place >= place] or every.samples or [usual]
        total += left * sum(one.pixels for one in some) / sum(one.bytes for one in some)
    return total


def pixel_share(parts: Mapping[str, float], seconds: float) -> float:
    """The share of the time that grows with pixels, 0..1; what no part of the pipeline has goes by photos."""
    tracked = sum(spent for name, spent in parts.items() if name != "load")
    of_pixels = sum(spent for name, spent in parts.items() if name in _OF_PIXELS)
    whole = max(tracked, seconds)  # threads and workers work at a time, so that their parts may take longer together
    return of_pixels / whole if whole else 0.0
