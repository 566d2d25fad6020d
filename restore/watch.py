"""What a run says of itself while it works: its state beside the log, and the time it still takes.

A thread looks at the summary every second; the run's loop knows nothing of it. The headers of some photos that lie
ahead tell their pixels; glances at fewer of them, by the detector at a small copy, how many faces they have and how
large these are in them. The last photos that are done count like some glances more. The parts of the pipeline say how
the time divides among pixels, looks, crops and faces. A photo that is done already costs next to nothing, and a resumed
run begins with all of those.
"""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from authface.errors import AuthfaceError, ImageError, one_line, was_interrupted
from authface.faces.detector import Detection, RetinaFace
from authface.faces.geometry import ffhq_quad, quad_side, spread_points
from authface.faces.looks import SINGLE_SIDE, merge
from authface.imaging.decode import header_size, preview
from authface.restore.inputs import RestoreJob
from authface.restore.pipeline import FaceCounts, PhotoFaces, PhotoSample, Workload
from authface.restore.session import RestoreSummary, Session
from authface.restore.settings import FaceChoice, RestoreSettings
from authface.restore.video.run import fingerprint as video_fingerprint
from authface.store.restore_line import forget_ended, new_state, write_state
from authface.store.restore_log import LOG

LOOK_SECONDS = 1.0
SAMPLE = 1000
"""Photos of which the header is read."""
WRITE_SECONDS = 3.0
GLANCES = 48
"""Photos that are glanced at as the run begins, but no more than one in `GLANCED_AT_MOST`."""
GLANCED_AT_MOST = 8
GLANCING = 0.01
"""Share of the run's seconds for further glances."""
_EVEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, without their whole part, lie about evenly in 0..1, however many there are (Weyl 1916)."""
LARGEST_WHOLE = 12_000_000
"""Pixels of the largest photo that is decoded whole for a glance: the run beside it needs the memory. A JPEG is decoded
small."""
JPEG_ENDINGS = (".jpg", ".jpeg")
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


@contextmanager
def watched(session: Session, jobs: Sequence[RestoreJob]) -> Iterator[None]:
    """Keep the state of the run in the block, from its first result on."""
    watch = _Watch(session, jobs)
    watch.start()
    ended = "finished"
    try:
        yield
    except BaseException as error:
        ended = "interrupted" if was_interrupted(error) else one_line(error, 500) or type(error).__name__
        raise
    finally:
        watch.end(ended)


class _Watch:
    def __init__(self, session: Session, jobs: Sequence[RestoreJob]) -> None:
        self._session, self._jobs, self._home = session, jobs, jobs[0].home
        self._clock = Clock()
        self._planned: Workload | None = None
        self._state = new_state(
            photos=sum(not job.is_video for job in jobs),
            videos=sum(job.is_video for job in jobs),
            model=session.settings.model,
        )
        self._written = 0.0
        self._last = time.monotonic()
        self._over = threading.Event()
        work = (self._run, self._plan_once)
        self._threads = [threading.Thread(target=one, name="watch", daemon=True) for one in work]
        session.left = lambda: self._state.left

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def end(self, ended: str) -> None:
        """Write the last state."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._look()
        self._state = replace(self._state, ended=ended, left=0 if ended == "finished" else None)
        self._write()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()
            if time.monotonic() - self._written >= WRITE_SECONDS:
                self._write()

    def _plan_once(self) -> None:
        """In a thread of its own: it takes a while, and the run's state is told meanwhile."""
        while "fingerprint" not in self._session.__dict__:  # the run itself makes it, and may fetch weights for that
            if self._over.wait(LOOK_SECONDS):
                return
        with suppress(AuthfaceError):  # the run meets the same log, and says what is wrong
            self._planned = self._plan()
            if self._planned is not None and not self._session.request.aligned:
                self._glance(self._planned)

    def _plan(self) -> Workload | None:
        """What there is to do: which photos are done already, the log says; of some of the others the header."""
        work, places = Workload(), array("L")
        for place, job in enumerate(self._jobs):
            if self._over.is_set():
                return None
            settings = video_fingerprint(self._session) if job.is_video else self._session.fingerprint
            if self._session.log(job.home).has(job.name, settings):
                work.known += 1
            elif job.is_video:
                work.videos.add(job.bytes)
            else:
                places.append(place)
        work.photos = len(places)
        work.samples = list(self._samples(places[:: -(-len(places) // SAMPLE) or 1]))
        return work

    def _samples(self, places: Iterable[int]) -> Iterator[PhotoSample]:
        """Some photos by their headers."""
        for place in places:
            if not self._over.is_set() and (size := header_size(self._jobs[place].source)):
                yield PhotoSample(place, *size)

    def _glance(self, planned: Workload) -> None:
        """Glance at photos that lie ahead: at some as the run begins, at more as it goes on."""
        first = min(GLANCES, planned.photos // GLANCED_AT_MOST)
        if not first:
            return
        glancer, spent = Glancer(self._session.settings), 0.0
        spread = sorted(enumerate(planned.samples), key=lambda one: one[0] * _EVEN % 1)
        for _, sample in spread:
            while len(planned.glances) >= first and spent > GLANCING * self._clock.all:
                if self._over.wait(LOOK_SECONDS):
                    return
            if self._over.is_set():
                return
            done = self._session.summary.work
            if sample.place >= done.tried + done.known:
                start = time.monotonic()
                if faces := glancer(self._jobs[sample.place].source, sample):
                    planned.glances.append((sample.place, faces))
                spent += time.monotonic() - start

    def _look(self) -> None:
        summary, now = self._session.summary, time.monotonic()
        with self._session.lock:
            work, parts, left = summary.work, _parts(summary), None
            if self._session.engine_of_workers:
                parts.pop("load", None)  # theirs, of any time
            photos_done = work.tried + work.known >= self._state.photos
            new = self._clock.tick(now - self._last, work, parts, in_videos=photos_done)
            self._last = now
            if self._planned is not None:
                left = seconds_left(self._planned, work, self._clock)
            self._state = replace(self._state, **_counts(summary), left=left, engine=self._session.engine)
            counted = work.tried - self._clock.first.tried
        rate = counted / self._clock.made if counted > 0 and self._clock.made else 0.0
        last_at = time.time() if new else self._state.last_at
        self._state = replace(self._state, seconds=round(self._clock.all, 1), rate=round(rate, 4), last_at=last_at)

    def _write(self) -> None:
        if not (self._home / LOG).is_file():
            return  # nothing is made yet, and what is refused leaves nothing
        with suppress(AuthfaceError):  # the disk's own words come with the next result
            if not self._written:
                forget_ended(self._home)
            write_state(self._home, self._state)
        self._written = time.monotonic()


def _counts(summary: RestoreSummary) -> dict[str, Any]:
    clips = summary.video_lines.values()
    return {
        "restored": summary.restored + sum(line.status == "restored" for line in clips),
        "no_face": summary.no_face + sum(line.status != "restored" for line in clips),
        "failed": len(summary.failed),
        "done_before": summary.done_before,
        "last": summary.last,
        "parts": {name: round(seconds, 1) for name, seconds in _parts(summary).items()},
    }


def _parts(summary: RestoreSummary) -> dict[str, float]:
    """A copy: other threads add to it."""
    return {str(name): seconds for name, seconds in summary.seconds_by_part.copy().items()}


class Glancer:
    """A photo's faces as one look of the detector at a small copy sees them.

    Create one for many photos. It has one thread, for the run needs the others.
    """

    def __init__(self, settings: RestoreSettings) -> None:
        self._choice = FaceChoice(settings)
        self._detector = RetinaFace(settings.min_score)

    def __call__(self, path: Path, size: PhotoSample) -> PhotoFaces | None:
        """About the faces that would be restored; None where the photo cannot be read, or is too large for a glance.

        Those that stand upright and, in a photo longer than `SINGLE_SIDE`, have a twentieth of its longer side.
        """
        if size.width * size.height > LARGEST_WHOLE and path.suffix.lower() not in JPEG_ENDINGS:
            return None
        try:
            small = preview(path, SINGLE_SIDE)
        except ImageError:
            return None
        scale = max(size.width, size.height) / max(small.shape[:2])
        seen = merge([self._detector.look(small, 1.0)])
        crops: list[float] = []
        for box, score, points in zip(seen.boxes * scale, seen.scores, seen.points * scale, strict=True):
            face = Detection((box[0], box[1], box[2], box[3]), float(score), tuple(points.ravel().tolist()))
            with suppress(ImageError):  # eyes of one place
                side = quad_side(ffhq_quad(spread_points(face.points5)))
                crops += [] if self._choice.reason_to_skip(face, len(crops))[0] else [side]
        return PhotoFaces(size.width, size.height, bool(len(seen.scores)), tuple(crops))


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
