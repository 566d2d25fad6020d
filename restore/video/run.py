"""One video: its frames as a stream through finding, following, restoring and pasting back; its line in the log.

Decoding runs ahead of the model and encoding behind it. The result has its final name when it is whole.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from authface.errors import ImageError, one_line
from authface.files import replacing, sha256_of
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.restore.ahead import ahead, behind
from authface.restore.background import check_size
from authface.restore.finder import FaceFinder
from authface.restore.inputs import Job
from authface.restore.log import Line, now
from authface.restore.photo import PhotoResult, Search
from authface.restore.session import Session
from authface.restore.timing import part
from authface.restore.video.follow import FaceFollower, Follower, WholeFollower
from authface.restore.video.reader import AnyPacket, Clip, Shot
from authface.restore.video.writer import ClipWriter

VERSION = 1
"""Raised when the same settings and weights give another video."""
MOST_WAITING = 24
"""Frames that wait, as decoded, for what comes after them: of 8 bits and 4K they take 0.3 GB."""
MOST_MOMENTS = 8
"""Frames of a video that its line names for the page."""
GROUP_PIXELS = 12_000_000
"""Frames are restored together until their faces fill a batch, or they have so many pixels."""


@dataclass
class Piece:
    """A frame with its faces cut out, and the packets that came before it."""

    shot: Shot
    search: Search
    rgb: Pixels | None
    """Its upright pixels; None where it has no face to restore."""
    packets: list[AnyPacket]


@dataclass
class Spread:
    """Some of many, evenly spaced, however many come."""

    kept: list[tuple[float, ...]] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, one: tuple[float, ...]) -> None:
        """Keep it if it is its turn; where too many are kept, every other one goes."""
        if self._seen % self._every == 0:
            self.kept.append(one)
        self._seen += 1
        if len(self.kept) > MOST_MOMENTS:
            del self.kept[1::2]
            self._every *= 2


@dataclass
class Counts:
    """What became of the frames so far."""

    frames: int = 0
    faces: int = 0
    size: tuple[int, int] = (0, 0)
    """Of the upright frames."""
    changed: bool = False
    """A pixel of any frame."""
    identities: list[float] = field(default_factory=list)
    moments: Spread = field(default_factory=Spread)
    """Of frames with restored faces, as `Line.moments`."""


def sha256(path: Path) -> str:
    """Hex sha256 of a video. Raises ImageError (`unreadable`, `not_a_file`)."""
    try:
        if path.exists() and not path.is_file():
            raise ImageError("not_a_file", "not a regular file")
        return sha256_of(path)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or type(error).__name__) from error


def fingerprint(session: Session) -> str:
    """Digest of all that a video's result depends on, besides the video."""
    settings = session.settings
    return hashlib.sha256(f"{VERSION} {session.fingerprint} {settings.smooth} {settings.crf}".encode()).hexdigest()


def restore_video(job: Job, content: str, session: Session, progress: Callable[[int, int], None] | None = None) -> Line:
    """Restore the faces of a video whose bytes hash to `content`, and write it; the line for the log.

    `progress` is told the frames that are done, and of about how many, in the place of the console.
    Where no pixel of it changed, the result is the input, byte for byte, if its container stays. Raises ImageError
    for what is no video, AuthfaceError where the disk or the model refuses.
    """
    start = time.monotonic()
    counts, scale = Counts(), session.settings.upscale
    with Clip(job.source) as clip, replacing(job.target) as temporary:
        check_size(*clip.size, scale)
        follower = _follower(session, content)
        with (
            ClipWriter(temporary, job.target.suffix, clip, scale, session.settings.crf) as writer,
            _ticks(session, job, clip, counts, progress) as tick,
            behind() as write,
            closing(ahead(_groups(clip, follower, session.settings.batch), lambda _: False)) as groups,
        ):
            for group in groups:
                results = session.restore([(piece.rgb, piece.search) for piece in group if piece.rgb is not None])
                write(partial(_write, writer, group, results, scale, session, counts, tick))
        if not counts.frames:
            raise ImageError("no_frames", _without_frames(clip))
        same = not counts.changed and scale == 1 and job.source.suffix.lower() == job.target.suffix.lower()
        if same:
            shutil.copyfile(job.source, temporary)
    told = _told(clip, writer, counts)
    for text in told:
        session.console.log(f"{one_line(job.source)}: {text}")
    if not counts.faces:
        session.console.log(f"{one_line(job.source)}: no face restored: {follower.left or 'no face found'}")
    return Line(
        target=job.name,
        source=str(job.source.absolute()),
        content=content,
        fingerprint=fingerprint(session),
        made=now(),
        status="restored" if counts.faces else "no_face",
        detail="; ".join([*told, *([follower.left] if follower.left else [])]),
        model=session.settings.model,
        width=counts.size[0],
        height=counts.size[1],
        scale=scale,
        encoding="the input, byte for byte" if same else writer.said,
        identity=round(sum(counts.identities) / len(counts.identities), 4) if counts.identities else None,
        frames=counts.frames,
        faces=counts.faces,
        followed=follower.followed,
        moments=tuple(counts.moments.kept),
        seconds=round(time.monotonic() - start, 3),
    )


@contextmanager
def _ticks(
    session: Session, job: Job, clip: Clip, counts: Counts, progress: Callable[[int, int], None] | None
) -> Iterator[Callable[[], None]]:
    """What is called after each frame."""
    if progress is not None:
        yield lambda: progress(counts.frames, max(counts.frames, clip.expected) if clip.expected else 0)
        return
    with session.console.progress(f"restore {one_line(job.source.name, 40)}", clip.expected, "frames") as tick:
        yield lambda: tick()


def _follower(session: Session, content: str) -> Follower:
    side, seed, finder = session.restorer.side, session.request.seed, session.finder
    if isinstance(finder, FaceFinder):
        return FaceFollower(finder, side, session.settings.smooth, content, seed)
    return WholeFollower(side, content, seed)


def _groups(clip: Clip, follower: Follower, batch: int) -> Iterator[list[Piece]]:
    """Frames whose faces are restored together."""
    group: list[Piece] = []
    for piece in _pieces(clip, follower):
        group.append(piece)
        faces = sum(len(piece.search.found) for piece in group)
        pixels = sum(piece.shot.frame.width * piece.shot.frame.height for piece in group)
        if faces >= batch or pixels >= GROUP_PIXELS:
            yield group
            group = []
    if group:
        yield group


def _pieces(clip: Clip, follower: Follower) -> Iterator[Piece]:
    """Each frame with its faces, once the frames were seen that its window reaches to."""
    waiting: deque[tuple[Shot, list[AnyPacket]]] = deque()
    packets: list[AnyPacket] = []
    for item in clip.read():
        if not isinstance(item, Shot):
            packets.append(item)
            continue
        if (item.frame.width, item.frame.height) != clip.size:
            later = f"{item.frame.width} x {item.frame.height}"
            raise ImageError(
                "frame_size", f"frames of {clip.size[0]} x {clip.size[1]} px become {later} at {item.time:.1f} s"
            )
        with part("read"):
            rgb = to_8_bits(item.pixels())
        follower.see(rgb, item.time)
        waiting.append((item, packets))
        packets = []
        while waiting and (waiting[0][0].time + follower.reach <= item.time or len(waiting) > MOST_WAITING):
            yield _piece(*waiting.popleft(), follower)
    while waiting:
        shot, own = waiting.popleft()
        yield _piece(shot, own if waiting else own + packets, follower)


def _piece(shot: Shot, packets: list[AnyPacket], follower: Follower) -> Piece:
    with part("read"):
        rgb = shot.pixels()
    search = follower.faces(to_8_bits(rgb), shot.time)
    return Piece(shot, search, rgb if search.found else None, packets)


def _write(
    writer: ClipWriter,
    group: Sequence[Piece],
    results: Iterator[PhotoResult],
    scale: int,
    session: Session,
    counts: Counts,
    tick: Callable[[], None],
) -> None:
    """Put the faces of some frames back, and write each frame with what came before it."""
    for piece in group:
        for packet in piece.packets:
            writer.copy(packet)
        pixels = None
        if piece.rgb is not None:
            result = next(results)
            counts.faces += result.restored
            if result.restored:
                counts.moments.add(_moment(piece.shot.time, result))
            counts.identities += [
                face.identity for face in result.faces if face.status == "restored" and face.identity is not None
            ]
            if result.rgb.shape != piece.rgb.shape or (result.rgb != piece.rgb).any():
                pixels, counts.changed = result.rgb, True
        elif scale > 1:
            pixels = session.upscaler(piece.shot.pixels(), scale)
        with part("encode"):
            writer.write(piece.shot, pixels)
        counts.frames, counts.size = counts.frames + 1, piece.shot.size
        tick()


def _moment(seconds: float, result: PhotoResult) -> tuple[float, ...]:
    largest = next(face for face in result.faces if face.status == "restored")
    quad = () if largest.quad is None or largest.placed_by == "whole" else largest.quad.ravel().tolist()
    return (round(seconds, 4), *(round(float(value), 1) for value in quad))


def _without_frames(clip: Clip) -> str:
    return "no frame could be decoded: " + (
        f"{clip.damaged} packets are damaged" if clip.damaged else "it ends before the first"
    )


def _told(clip: Clip, writer: ClipWriter, counts: Counts) -> list[str]:
    """What the result lacks of its input, a line each."""
    told = list(writer.lost)
    if clip.damaged:
        told.append(f"{clip.damaged} damaged packets are passed over")
    if clip.frames is not None and counts.frames < clip.frames:
        told.append(f"{counts.frames} frames could be decoded of the {clip.frames} that the file names")
    if clip.dropped:
        told.append(f"streams of {' and '.join(clip.dropped)} are not kept")
    if clip.deep and not writer.deep:
        told.append("has more than 8 bits a channel, the result has 8")
    return told
