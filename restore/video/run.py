"""Restore one video: its frames stream through detection, tracking, restoring and pasting; its line in the log.

Decoding runs ahead of the model and encoding behind it; `Hands` detect and restore, here or in several workers. The
result gets its final name when it is complete.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.errors import ImageError, one_line
from authface.faces.looks import no_face_text
from authface.files import replacing, sha256_of, why_absent
from authface.imaging.png import Pixels, to_8_bits
from authface.restore.guard import DRIFTED
from authface.restore.inputs import RestoreJob
from authface.restore.mark import finish_video
from authface.restore.photo import FaceFinder, FaceResult, PhotoResult
from authface.restore.picture import check_size
from authface.restore.pipeline import part, prefetch, write_behind
from authface.restore.session import Session
from authface.restore.video.files import AnyPacket, VideoReader, VideoWriter
from authface.restore.video.frame import DecodedFrame
from authface.restore.video.hands import Answer, Hands, in_order, stopped_by_ctrl_c
from authface.restore.video.tracks import FaceFollower, Follower, Found, WholeFollower
from authface.store.restore_line import Line

VERSION = 3
"""Increased when the same settings and weights give another video."""
MAX_WAITING = 24
"""Most decoded frames that wait for later ones: 0.3 GB in 8 bits and 4K."""
MAX_MOMENTS = 8
"""Frames of a video that its log line lists for the page."""
GROUP_PIXELS = 12_000_000
"""Pixels up to which frames are gathered for a full batch of faces."""


@dataclass
class FrameWithFaces:
    """A frame with its faces cropped, and the packets before it."""

    decoded: DecodedFrame
    faces: list[FaceResult]
    rgb: Pixels | None
    """Its upright pixels; None if it has no face to restore."""
    packets: list[AnyPacket]


@dataclass
class Spread:
    """An evenly spaced sample of a stream of unknown length."""

    kept: list[tuple[float, ...]] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, one: tuple[float, ...]) -> None:
        """Keep the item if it is due; if too many are kept, drop every other one."""
        if self._seen % self._every == 0:
            self.kept.append(one)
        self._seen += 1
        if len(self.kept) > MAX_MOMENTS:
            del self.kept[1::2]
            self._every *= 2


@dataclass
class VideoTotals:
    """Counts of the frames so far."""

    frames: int = 0
    faces: int = 0
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright frames."""
    changed: bool = False
    """Whether any pixel changed."""
    suspects: int = 0
    """Faces put back with an eye or a mouth that is too little like the frame's."""
    drifted: int = 0
    """Faces that stay as they were, since every try broke a limit."""
    identities: list[float] = field(default_factory=list)
    moments: Spread = field(default_factory=Spread)
    """Frames with restored faces, as `Line.moments`."""


def sha256(path: Path) -> str:
    """Hex sha256 of a video. Raises ImageError (`unreadable`, `not_a_file`)."""
    try:
        if not path.is_file():
            there = path.exists()
            raise ImageError(*(("not_a_file", "not a regular file") if there else ("unreadable", why_absent(path))))
        return sha256_of(path)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or type(error).__name__) from error


def fingerprint(session: Session) -> str:
    """Digest of everything but the video on which its result depends."""
    settings = session.settings
    return hashlib.sha256(f"{VERSION} {session.fingerprint} {settings.smooth} {settings.crf}".encode()).hexdigest()


def restore_video(
    job: RestoreJob,
    content: str,
    session: Session,
    hands: Hands,
    record: Callable[[Line], None],
    progress: Callable[[int, int], None] | None = None,
) -> Line:
    """Restore the faces of a video whose bytes hash to `content`, and write it; returns the line for the log.

    `record` is called with that line when the result is complete, before it is moved to its path. `progress`, in place
    of the console, is called with the number of finished frames and their estimated total. If no pixel and no
    container changed, the result is the input, byte for byte. Raises ImageError if it is not a video, AuthfaceError if
    the disk or the model refuses.
    """
    start = time.monotonic()
    totals, scale = VideoTotals(), session.settings.upscale
    with VideoReader(job.source) as reader, replacing(job.target) as temporary:
        check_size(*reader.size, scale)
        follower = _follower(session, hands, content)
        with (
            VideoWriter(temporary, job.target.suffix, reader, scale, session.settings.crf) as writer,
            _ticks(session, job, reader, totals, progress) as tick,
            write_behind() as write,
            closing(prefetch(_groups(reader, follower, hands, session.settings.batch), lambda _: False)) as groups,
            stopped_by_ctrl_c(hands),
        ):
            for group, faces in in_order(_asked(groups, hands), hands.ahead):
                frames = [(frame.rgb, frame.faces) for frame in group if frame.rgb is not None]
                results = session.paste(frames, faces, moving=True)
                write(partial(_write, writer, group, results, scale, session, totals, tick))
        if not totals.frames:
            raise ImageError("no_frames", _without_frames(reader))
        same = not totals.changed and scale == 1 and job.source.suffix.lower() == job.target.suffix.lower()
        if same:
            shutil.copyfile(job.source, temporary)
        losses = [*_losses(reader, writer, totals), *_drifted(totals)]
        if not same:
            losses += finish_video(
                session.finish, job.source, reader.kind, temporary, writer.kind, drawn=totals.changed
            )
        line = replace(
            _line(job, content, session, totals),
            result=sha256_of(temporary),
            result_bytes=temporary.stat().st_size,
            detail="; ".join([*losses, *([follower.skipped] if follower.skipped else [])]),
            encoding="the input, byte for byte" if same else writer.encoding,
            followed=follower.followed,
            seconds=round(time.monotonic() - start, 3),
        )
        record(line)
    for text in losses:
        session.console.log(f"{one_line(job.source)}: {text}")
    if not totals.faces:
        drifted = "each restored face drifted" if totals.drifted else ""
        why = drifted or follower.skipped or no_face_text(*totals.size, session.settings.min_face)
        session.console.log(f"{one_line(job.source)}: no face restored: {why}")
    return line


def _drifted(totals: VideoTotals) -> list[str]:
    if not totals.drifted:
        return []
    every = totals.faces + totals.drifted
    return [f"{totals.drifted:,} of {every:,} faces in its frames stay as they were: every try broke a limit"]


def _line(job: RestoreJob, content: str, session: Session, totals: VideoTotals) -> Line:
    """The log's line about the frames."""
    return session.line(
        job,
        content,
        "restored" if totals.faces else "no_face",
        lines=1,
        fingerprint=fingerprint(session),
        width=totals.size[0],
        height=totals.size[1],
        scale=session.settings.upscale,
        identity=round(sum(totals.identities) / len(totals.identities), 4) if totals.identities else None,
        frames=totals.frames,
        faces=totals.faces,
        suspects=totals.suspects,
        drifted=totals.drifted,
        moments=tuple(totals.moments.kept),
    )


@contextmanager
def _ticks(
    session: Session,
    job: RestoreJob,
    reader: VideoReader,
    totals: VideoTotals,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Callable[[], None]]:
    """The function that is called after each frame."""
    if progress is not None:
        yield lambda: progress(totals.frames, max(totals.frames, reader.expected) if reader.expected else 0)
        return
    with session.console.progress(f"restore {one_line(job.source.name, 40)}", reader.expected, "frames") as tick:
        yield lambda: tick()


def _follower(session: Session, hands: Hands, content: str) -> Follower:
    side, seed, finder = hands.side(), session.request.seed, session.finder
    if isinstance(finder, FaceFinder):
        return FaceFollower(finder, side, session.settings.smooth, content, seed)
    return WholeFollower(side, content, seed)


def _asked(
    groups: Iterator[list[FrameWithFaces]], hands: Hands
) -> Iterator[tuple[list[FrameWithFaces], Answer[Sequence[FaceResult]]]]:
    """Groups of frames, and the faces that were asked for."""
    for group in groups:
        faces = [face for frame in group for face in frame.faces]
        yield group, hands.restore(faces) if faces else lambda: ()


def _groups(reader: VideoReader, follower: Follower, hands: Hands, batch: int) -> Iterator[list[FrameWithFaces]]:
    """Frames whose faces are restored together."""
    group: list[FrameWithFaces] = []
    for frame in _frames(in_order(_decoded(reader, follower, hands), hands.ahead), follower):
        group.append(frame)
        faces = sum(len(frame.faces) for frame in group)
        pixels = sum(frame.decoded.frame.width * frame.decoded.frame.height for frame in group)
        if faces >= batch or pixels >= GROUP_PIXELS:
            yield group
            group = []
    if group:
        yield group


def _decoded(
    reader: VideoReader, follower: Follower, hands: Hands
) -> Iterator[tuple[tuple[DecodedFrame, NDArray[np.uint8]] | AnyPacket, Answer[Found]]]:
    """Each frame in 8 bits with the faces that are looked for in it, and the packets between."""
    for item in reader.read():
        if not isinstance(item, DecodedFrame):
            yield item, _nothing
            continue
        if (item.frame.width, item.frame.height) != reader.size:
            later = f"{item.frame.width} x {item.frame.height}"
            raise ImageError(
                "frame_size", f"frames of {reader.size[0]} x {reader.size[1]} px become {later} at {item.time:.1f} s"
            )
        with part("read"):
            rgb = to_8_bits(item.pixels())
        yield (item, rgb), hands.look(rgb) if follower.detects else _nothing


def _nothing() -> Found:
    return (), ()


def _frames(
    decoded: Iterator[tuple[tuple[DecodedFrame, NDArray[np.uint8]] | AnyPacket, Found]], follower: Follower
) -> Iterator[FrameWithFaces]:
    """Each frame with its faces, once all frames in its smoothing window were seen."""
    waiting: deque[tuple[DecodedFrame, list[AnyPacket]]] = deque()
    packets: list[AnyPacket] = []
    for what, found in decoded:
        if not isinstance(what, tuple):
            packets.append(what)
            continue
        item, rgb = what
        follower.see(rgb, item.time, found)
        waiting.append((item, packets))
        packets = []
        # The last frame waits: what comes after all frames is written behind it.
        while len(waiting) > 1 and (waiting[0][0].time + follower.reach <= item.time or len(waiting) > MAX_WAITING):
            yield _with_faces(*waiting.popleft(), follower)
    while waiting:
        last, own = waiting.popleft()
        yield _with_faces(last, own if waiting else own + packets, follower)


def _with_faces(decoded: DecodedFrame, packets: list[AnyPacket], follower: Follower) -> FrameWithFaces:
    with part("read"):
        rgb = decoded.pixels()
    faces = follower.faces(to_8_bits(rgb), decoded.time)
    return FrameWithFaces(decoded, faces, rgb if faces else None, packets)


def _write(
    writer: VideoWriter,
    group: Sequence[FrameWithFaces],
    results: Iterator[PhotoResult],
    scale: int,
    session: Session,
    totals: VideoTotals,
    tick: Callable[[], None],
) -> None:
    """Paste the faces of some frames back, and write each frame with the packets before it."""
    for frame in group:
        for packet in frame.packets:
            writer.copy(packet)
        pixels = None
        if frame.rgb is not None:
            result = next(results)
            totals.faces += result.restored
            if result.restored:
                totals.moments.add(_moment(frame.decoded.time, result))
            totals.suspects += sum(bool(face.suspect) for face in result.faces if face.status == "restored")
            totals.drifted += sum(face.reason in DRIFTED for face in result.faces)
            totals.identities += [
                face.identity for face in result.faces if face.status == "restored" and face.identity is not None
            ]
            if result.rgb.shape != frame.rgb.shape or (result.rgb != frame.rgb).any():
                pixels = result.rgb
            totals.changed |= result.changed
        elif scale > 1:
            pixels = session.upscaler(frame.decoded.pixels(), scale)
        with part("encode"):
            writer.write(frame.decoded, pixels)
        totals.frames, totals.size = totals.frames + 1, frame.decoded.size
        tick()


def _moment(seconds: float, result: PhotoResult) -> tuple[float, ...]:
    largest = next(face for face in result.faces if face.status == "restored")
    quad = () if largest.quad is None or largest.placed_by == "whole" else largest.quad.ravel().tolist()
    return (round(seconds, 4), *(round(float(value), 1) for value in quad))


def _without_frames(reader: VideoReader) -> str:
    return "no frame could be decoded: " + (
        f"{reader.damaged} packets are damaged" if reader.damaged else "it ends before the first"
    )


def _losses(reader: VideoReader, writer: VideoWriter, totals: VideoTotals) -> list[str]:
    """Content of the input that the result loses, a line each."""
    losses = list(writer.lost)
    if reader.damaged:
        losses.append(f"{reader.damaged} damaged packets are passed over")
    if reader.hidden:
        losses.append(f"{reader.hidden} frames that it holds and does not show are not kept")
    if reader.frames is not None and totals.frames + reader.hidden < reader.frames:
        losses.append(f"{totals.frames} frames could be decoded of the {reader.frames} that the file names")
    if reader.dropped:
        losses.append(f"streams of {' and '.join(reader.dropped)} are not kept")
    if reader.over_8_bits and not writer.over_8_bits:
        losses.append("has more than 8 bits a channel, the result has 8")
    return losses
