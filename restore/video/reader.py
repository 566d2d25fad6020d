"""Video files read as streams of frames, by PyAV (the extra `video`): nothing but a few of them is ever in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np

from authface.errors import ImageError, one_line
from authface.imaging.bitdepth import Pixels

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

AnyPacket: TypeAlias = "Packet[Any]"

NEAR = 0.002
"""Containers round times by as much, seconds: Matroska's to milliseconds."""
NEEDS_PYAV = "videos need PyAV: pip install 'authface[video]'"


def address(path: Path) -> str:
    """The path as FFmpeg takes it, which reads what stands before a colon as a protocol."""
    return f"file:{path}"


@dataclass(frozen=True)
class Shot:
    """One decoded frame."""

    frame: VideoFrame
    time: float
    """Seconds."""
    deep: bool
    """More than 8 bits a channel."""

    @property
    def turns(self) -> int:
        """Quarter turns anticlockwise after which the frame stands upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright frame, pixels."""
        stored = (self.frame.width, self.frame.height)
        return stored[::-1] if self.turns % 2 else stored

    def pixels(self) -> Pixels:
        """(h, w, 3) RGB, upright, of 16 bits where the video has more than 8."""
        rgb = self.frame.to_ndarray(format="rgb48le" if self.deep else "rgb24", interpolation=_exact())
        return cast("Pixels", np.ascontiguousarray(np.rot90(rgb, self.turns)))

    def with_pixels(self, pixels: Pixels | None, format: str) -> VideoFrame:
        """The frame to encode in a pixel format, at its time: as it is, or with upright (h, w, 3) RGB."""
        from av import VideoFrame

        frame = self.frame
        if pixels is not None:
            laid = cast("Pixels", np.ascontiguousarray(np.rot90(pixels, -self.turns)))
            frame = VideoFrame.from_ndarray(laid, format="rgb24" if laid.dtype == np.uint8 else "rgb48le")
        colours = {"dst_colorspace": self.frame.colorspace, "dst_color_range": self.frame.color_range}
        made = frame.reformat(format=format, interpolation=_exact(), **(colours if pixels is not None else {}))
        made.pts, made.time_base, made.duration = self.frame.pts, self.frame.time_base, self.frame.duration
        made.pict_type = 0  # the encoder's to choose
        return made


def _exact() -> int:
    """swscale's flags with which RGB and back is within a rounding: bicubic, chroma at every pixel."""
    from av.video.reformatter import Interpolation

    wanted = (Interpolation.BICUBIC, Interpolation.FULL_CHR_H_INT, Interpolation.FULL_CHR_H_INP)
    return int(sum(wanted, Interpolation.ACCURATE_RND))


class Clip:
    """A video that is read; a context. Raises ImageError where it is none, or where this machine lacks PyAV."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise ImageError("no_pyav", NEEDS_PYAV) from error
        self.path = path
        with _read_errors():
            options = {"protocol_whitelist": "file"}  # a playlist in disguise asks nothing of the network
            self.container: InputContainer = av.open(address(path), options=options, metadata_errors="replace")
        cover = av.stream.Disposition.attached_pic
        pictures = [one for one in self.container.streams.video if not one.disposition & cover]
        if not pictures:
            self.container.close()
            raise ImageError("no_video", "the file holds no video stream: name another")
        self.video: VideoStream = pictures[0]
        self.video.thread_type = "AUTO"
        every = self.container.streams
        self.others: list[Stream] = [*every.audio, *every.subtitles]
        self.dropped = sorted({one.type for one in every if one is not self.video and one not in self.others})
        """Kinds of streams that no result takes."""
        self.damaged = 0
        """Packets that could not be decoded so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames as they are stored, pixels."""
        return self.video.codec_context.width, self.video.codec_context.height

    @property
    def frames(self) -> int | None:
        """How many it says it holds; None: it does not say, or by a rule of thumb."""
        exact = "mp4" in self.container.format.name
        return self.video.frames or None if exact else None

    @property
    def expected(self) -> int | None:
        """About how many it holds; None: unknown."""
        return self.frames or round((self.container.duration or 0) / 1_000_000 * self.rate) or None

    @property
    def deep(self) -> bool:
        """More than 8 bits a channel."""
        format = self.video.codec_context.format
        return format is not None and format.components[0].bits > 8

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self.video.average_rate or self.video.guessed_rate or Fraction(25)

    @property
    def bit_rate(self) -> int:
        """Of the pictures, bits a second; of the whole file where it does not tell them apart."""
        return self.video.bit_rate or self.container.bit_rate or 0

    def read(self) -> Iterator[Shot | AnyPacket]:
        """The frames in order of time, and the packets of sound and subtitles between them as they come.

        A frame without a time, or before the one before it, gets the next one. Damaged packets are passed over and
        counted. Raises ImageError where the file cannot be read.
        """
        import av

        base = self.video.time_base or 1 / self.rate
        step, last = max(1, round(1 / (self.rate * base))), None
        with _read_errors():
            for packet in self.container.demux(self.video, *self.others):
                if packet.stream is not self.video:
                    if packet.dts is not None:
                        yield packet
                    continue
                try:
                    frames = self.video.decode(packet)
                except av.error.InvalidDataError:
                    self.damaged += 1
                    continue
                for frame in frames:
                    least = 0 if last is None else last + 1
                    if frame.pts is None or (last is not None and frame.pts < least):
                        frame.pts = least if last is None else last + step
                    frame.time_base = frame.time_base or base
                    last = frame.pts
                    yield Shot(frame, float(last * frame.time_base), self.deep)

    def at(self, seconds: float) -> Shot | None:
        """The frame of a time, or the next one; None: there is none. `read` goes on after it. Raises as `read`."""
        base = self.video.time_base or 1 / self.rate
        with _read_errors():
            self.container.seek(round(seconds / base), stream=self.video)
        shots = (item for item in self.read() if isinstance(item, Shot))
        return next((shot for shot in shots if shot.time > seconds - NEAR), None)


@contextmanager
def _read_errors() -> Iterator[None]:
    """Raise what FFmpeg says of a file as an ImageError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise ImageError("unreadable", f"no video that can be read: {one_line(error.strerror, 100)}") from error
