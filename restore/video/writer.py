"""Videos written frame by frame, by PyAV; sound and subtitles go over packet by packet, as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from authface.errors import ImageError, one_line
from authface.imaging.bitdepth import Pixels
from authface.restore.inputs import VIDEOS
from authface.restore.video.reader import AnyPacket, Clip, Shot, address

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream


CONTAINERS = dict(zip(VIDEOS, ("mp4", "mp4", "mov", "matroska", "webm"), strict=True))
"""FFmpeg's name of the container by the ending of a video."""
_BESIDE = ("title", "language", "handler_name")
"""What is kept of a stream's own words; its length and the like are the result's own."""

_OWN = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
"""What a file says of its own container."""


@contextmanager
def _write_errors() -> Iterator[None]:
    """Raise what the encoder or the container refuses as an ImageError; what the disk refuses stays as it is."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ImageError("encoding", f"the result cannot be written: {one_line(error.strerror, 100)}") from error


class ClipWriter:
    """The result, written while frames come; a context. `scale` is how many times larger its frames are.

    `crf` is the encoder's constant rate factor, -1 takes the input's bit rate. H.264 with 4:2:0, of more than 8 bits
    H.265; VP9 in WebM. Raises ImageError for sound that its container does not take.
    """

    def __init__(self, path: Path, ending: str, clip: Clip, scale: int = 1, crf: int = 18) -> None:
        import av

        self.clip, self.kind = clip, CONTAINERS[ending.lower()]
        width, height = (scale * side for side in clip.size)
        self.deep = clip.deep and self.kind != "webm"
        chroma = "yuv420p" if width % 2 == height % 2 == 0 or self.kind == "webm" else "yuv444p"  # 4:2:0 halves sides
        self.format = f"{chroma}10le" if self.deep else chroma
        options = {"movflags": "+faststart"} if self.kind in ("mp4", "mov") else {}
        self.container: OutputContainer = av.open(address(path), "w", format=self.kind, options=options)
        self.lost: list[str] = []
        """What the container does not take, a line each."""
        self._waiting: list[AnyPacket] = []
        self._video = self._add_video(width, height, crf)
        self._others = self._add_others()
        self._started = False
        words = clip.container.metadata
        self.container.metadata.update({name: words[name] for name in words if name.lower() not in _OWN})
        self.container.set_chapters(clip.container.chapters())

    def _add_video(self, width: int, height: int, crf: int) -> VideoStream:
        codec = "libvpx-vp9" if self.kind == "webm" else "libx265" if self.deep else "libx264"
        options = {} if crf < 0 else {"crf": str(crf)}
        if codec == "libvpx-vp9":
            options |= {"row-mt": "1", "cpu-used": "3"} | ({} if crf < 0 else {"b": "0"})
        if codec == "libx265":
            options |= {"x265-params": "log-level=error"}
        try:
            made = cast("VideoStream", self.container.add_stream(codec, rate=self.clip.rate, options=options))
        except ValueError as error:
            raise ImageError("encoding", f"this PyAV has no encoder {codec}: pip install av, from PyPI") from error
        made.width, made.height, made.pix_fmt = width, height, self.format
        if crf < 0 and self.clip.bit_rate:
            made.bit_rate = self.clip.bit_rate
        base = self.clip.video.time_base or 1 / self.clip.rate
        made.time_base = made.codec_context.time_base = base
        if (shape := self.clip.video.codec_context.sample_aspect_ratio) is not None:
            made.codec_context.sample_aspect_ratio = shape
        if codec == "libx265" and self.kind in ("mp4", "mov"):
            made.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
        return made

    def _add_others(self) -> dict[int, Stream]:
        """The streams that are taken over, by their index in the input."""
        taken: dict[int, Stream] = {}
        for one in self.clip.others:
            codec = one.codec_context.name
            if codec not in self.container.supported_codecs:
                if one.type == "audio":
                    raise ImageError("audio", f"{self.kind} holds no {codec} sound: take -o NAME.mkv")
                self.lost.append(f"{self.kind} holds no {codec} subtitles: they are not kept")
                continue
            made = taken[one.index] = self.container.add_stream_from_template(one)
            made.metadata.update({name: one.metadata[name] for name in _BESIDE if name in one.metadata})
            made.disposition = one.disposition
        return taken

    @property
    def said(self) -> str:
        """How the frames are compressed."""
        return f"{self._video.codec_context.codec.name}, {self.format}"

    def write(self, shot: Shot, pixels: Pixels | None) -> None:
        """Add a frame: as it is, or with upright (h, w, 3) RGB in the place of its picture."""
        with _write_errors():
            if not self._started:
                self._start(shot.frame)
            self.container.mux(self._video.encode(shot.with_pixels(pixels, self.format)))

    def _start(self, first: VideoFrame) -> None:
        """Take over the first frame's colours and turn, which later ones share, and what came before it."""
        context = self._video.codec_context
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(first, name))
        if (matrix := cast("Any", first.side_data).get("DISPLAYMATRIX")) is not None:
            self._video.set_display_matrix(np.frombuffer(bytes(matrix), np.int32).tolist())
        self._started = True
        for packet in self._waiting:
            self.copy(packet)
        self._waiting.clear()

    def copy(self, packet: AnyPacket) -> None:
        """Add a packet of sound or subtitles."""
        if not self._started:
            self._waiting.append(packet)
        elif (stream := self._others.get(packet.stream.index)) is not None:
            packet.stream = stream
            with _write_errors():
                self.container.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _write_errors():
                if kind is None and self._started:
                    self.container.mux(self._video.encode())
                self.container.close()
        except (ImageError, OSError):
            if kind is None:
                raise
