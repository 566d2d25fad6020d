"""Videos as files, by PyAV (the extra `video`): read and written frame by frame, so only a few are ever in memory.

Sound and subtitles are copied packet by packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from authface.errors import ImageError, one_line
from authface.extras import lack
from authface.imaging.png import Pixels
from authface.restore.inputs import VIDEOS
from authface.restore.video.frame import DecodedFrame
from authface.restore.video.sound import FLAC_CHANNELS, Flac
from authface.restore.video.turn import Matrix, header_matrix, turn, upright

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

AnyPacket: TypeAlias = "Packet[Any]"

NEAR = 0.002
"""Rounding of times in containers, seconds: Matroska's are milliseconds."""
_APART = Fraction(1, 1000)
"""Least time between a frame and one that repeats its time, seconds: less is none in Matroska."""

CONTAINERS = dict(zip(VIDEOS, ("mp4", "mp4", "mov", "matroska", "webm"), strict=True))
"""FFmpeg's name of the container by a video's extension."""
READABLE = frozenset(
    ("mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "asf", "flv", "ogg", "mxf", "gxf", "dv", "wtv", "nut")
    + ("ivf", "rm", "yuv4mpegpipe", "mjpeg", "m4v", "h261", "h263", "h264", "hevc", "obu", "dnxhd")
)
"""FFmpeg's names of the containers that are read; among its others are still pictures, playlists and texts."""
_WRITTEN = frozenset({"mov", "matroska"})
"""Those of `CONTAINERS`: their clock begins with the file."""
_BESIDE = ("title", "language", "handler_name")
"""Metadata of a stream that are kept; its length and the like are those of the result."""

_OWN = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "authface_restored"})
"""Metadata about a file's own container, and about how it was made before."""


def address(path: Path) -> str:
    """The path for FFmpeg, which would read a prefix before a colon as a protocol."""
    return f"file:{path}"


class VideoReader:
    """Reads a video; a context manager. Raises ImageError if it is not one, or if PyAV is missing."""

    def __init__(self, path: Path) -> None:
        if line := lack("a video", "video"):
            raise ImageError("no_pyav", line)
        import av

        self.path = path
        with _read_errors():
            options = {"protocol_whitelist": "file"}  # a playlist in disguise reaches no network
            self.container: InputContainer = av.open(address(path), options=options, metadata_errors="replace")
        name = self.container.format.name
        self.kinds = READABLE.intersection(name.split(","))
        """FFmpeg's name of its container, one of `READABLE`."""
        if not self.kinds:
            self.container.close()
            raise ImageError("no_video", f"no video but what FFmpeg calls {name}: name a file in a video's container")
        cover = av.stream.Disposition.attached_pic
        pictures = [one for one in self.container.streams.video if not one.disposition & cover]
        if not pictures:
            self.container.close()
            raise ImageError("no_video", "the file holds no video stream: name another")
        self.video: VideoStream = pictures[0]
        self.video.thread_type = "AUTO"
        self.matrix: Matrix = header_matrix(self.video)
        """How the file's header has its frames turned and mirrored."""
        every = self.container.streams
        known = (one for one in (*every.audio, *every.subtitles) if one.codec_context is not None)
        self.others: list[Stream] = list(known)
        self.dropped = sorted({one.type for one in every if one is not self.video and one not in self.others})
        """Kinds of streams that results do not keep."""
        start = 0 if self.kinds & _WRITTEN else self.container.start_time or 0
        self.begin = Fraction(max(0, start), 1_000_000)
        """When its clock begins, seconds: a recorder's may have run for hours. It is taken off all times."""
        self.damaged = 0
        """Number of packets so far that could not be decoded."""
        self.hidden = 0
        """Number of frames so far that the file's edit list does not show."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def kind(self) -> str:
        """FFmpeg's name of its container, as in `CONTAINERS`, whatever its extension says."""
        (kind,) = self.kinds
        if kind != "mov":
            return kind
        return "mov" if self.path.suffix.lower() == ".mov" else "mp4"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames as stored, pixels."""
        return self.video.codec_context.width, self.video.codec_context.height

    @property
    def frames(self) -> int | None:
        """The number of frames in its header; None without one, or for an estimate."""
        exact = "mp4" in self.container.format.name
        return self.video.frames or None if exact else None

    @property
    def expected(self) -> int | None:
        """Estimated number of frames; None: unknown."""
        return self.frames or round((self.container.duration or 0) / 1_000_000 * self.rate) or None

    @property
    def over_8_bits(self) -> bool:
        """Whether it has more than 8 bits a channel."""
        format = self.video.codec_context.format
        return format is not None and format.components[0].bits > 8

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self.video.average_rate or self.video.guessed_rate or Fraction(25)

    @property
    def tick(self) -> Fraction:
        """The time base of the frames that `read` gives: the file's, parted where that is coarse, seconds."""
        base = self.video.time_base or 1 / self.rate
        return base / (ceil(10 * base / _APART) if base > _APART else 1)

    @property
    def in_order(self) -> bool:
        """Whether frames that are not evenly spaced are stored in the order in which they are shown."""
        return not self.video.codec_context.has_b_frames and self.video.base_rate != self.video.average_rate

    @property
    def bit_rate(self) -> int:
        """Bit rate of the video stream, bits a second; of the whole file if its header has no other."""
        return self.video.bit_rate or self.container.bit_rate or 0

    def read(self) -> Iterator[DecodedFrame | AnyPacket]:
        """The frames in order of time from `begin`, interleaved with the packets of sound and subtitles.

        A frame without a time gets the next one; one whose time repeats or goes back comes a millisecond after the one
        before, so that later ones keep their time. Damaged packets are skipped and counted. Raises ImageError if the
        file cannot be read.
        """
        import av

        base, tick, last = self.video.time_base or 1 / self.rate, self.tick, -1
        step, apart, begun = max(1, round(1 / (self.rate * tick))), ceil(_APART / tick), False
        with _read_errors():
            for packet in self.container.demux(self.video, *self.others):
                if packet.stream is not self.video:
                    if packet.dts is not None:
                        late = round(self.begin / packet.time_base)
                        packet.dts -= late
                        packet.pts = None if packet.pts is None else packet.pts - late
                        yield packet
                    continue
                self.hidden += packet.is_discard
                try:
                    frames = self.video.decode(packet)
                except av.error.InvalidDataError:
                    self.damaged += 1
                    continue
                for frame in frames:
                    parts = (frame.time_base or base) / tick
                    if frame.pts is None:
                        at = last + step if begun else 0
                    else:
                        at = round(frame.pts * parts - self.begin / tick)
                        at = last + apart if begun and at <= last else at
                    frame.pts, frame.time_base, frame.duration = at, tick, round(frame.duration * parts)
                    last, begun = at, True
                    turned = upright(self.matrix, frame.rotation)
                    yield DecodedFrame(frame, float(at * tick), self.over_8_bits, *turned)

    def at(self, seconds: float) -> DecodedFrame | None:
        """The frame at a time, or the next one; None if there is none. `read` continues after it. Raises as `read`."""
        base = self.video.time_base or 1 / self.rate
        with _read_errors():
            self.container.seek(round((seconds + self.begin) / base), stream=self.video)
        frames = (item for item in self.read() if isinstance(item, DecodedFrame))
        return next((frame for frame in frames if frame.time > seconds - NEAR), None)


@contextmanager
def _read_errors() -> Iterator[None]:
    """Raise FFmpeg's errors about a file as ImageError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise ImageError("unreadable", f"not a readable video: {one_line(error.strerror, 100)}") from error


@contextmanager
def _write_errors() -> Iterator[None]:
    """Raise errors of the encoder or the container as ImageError; errors of the disk are unchanged."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ImageError("encoding", f"the result cannot be written: {one_line(error.strerror, 100)}") from error


class VideoWriter:
    """Writes the result frame by frame; a context manager. `scale` is the enlargement of its frames.

    `crf` is the encoder's constant rate factor, -1 takes the input's bit rate. H.264 with 4:2:0, of more than 8 bits
    H.265; VP9 in WebM. Raises ImageError for sound that its container cannot hold.
    """

    def __init__(self, path: Path, ending: str, source: VideoReader, scale: int = 1, crf: int = 18) -> None:
        import av

        self.source, self.kind = source, CONTAINERS[ending.lower()]
        width, height = (scale * side for side in source.size)
        self.over_8_bits = source.over_8_bits and self.kind != "webm"
        chroma = "yuv420p" if width % 2 == height % 2 == 0 or self.kind == "webm" else "yuv444p"  # 4:2:0 halves sides
        self.format = f"{chroma}10le" if self.over_8_bits else chroma
        options = {"movflags": "+faststart"} if self.kind in ("mp4", "mov") else {}
        self.container: OutputContainer = av.open(address(path), "w", format=self.kind, options=options)
        self.lost: list[str] = []
        """Content that the container cannot hold, a line each."""
        self._waiting: list[AnyPacket] = []
        self._durations: dict[int, int] = {}
        """Durations of the frames in the encoder, by their time, ticks."""
        self._video = self._add_video(width, height, crf)
        self._sounds: dict[int, Flac] = {}
        self._others = self._add_others()
        self._started = False
        words = source.container.metadata
        self.container.metadata.update({name: words[name] for name in words if name.lower() not in _OWN})
        self.container.set_chapters(source.container.chapters())

    def _add_video(self, width: int, height: int, crf: int) -> VideoStream:
        codec = "libvpx-vp9" if self.kind == "webm" else "libx265" if self.over_8_bits else "libx264"
        options = {} if crf < 0 else {"crf": str(crf)}
        if codec == "libvpx-vp9":
            options |= {"row-mt": "1", "cpu-used": "3"} | ({} if crf < 0 else {"b": "0"})
        # A track whose frames wait for later ones counts as shorter by that wait, which between slides is long.
        reorders = {} if self.kind not in ("mp4", "mov") or not self.source.in_order else {"bf": "0"}
        if codec == "libx264":
            # Its lookahead in a thread of its own chose types of frames by how fast they came: other bytes each time.
            options |= reorders | {"x264-params": "sync-lookahead=0"}
        if codec == "libx265":
            options |= {"x265-params": "log-level=error" + (":bframes=0" if reorders else "")}
        try:
            made = cast("VideoStream", self.container.add_stream(codec, rate=self.source.rate, options=options))
        except ValueError as error:
            raise ImageError("encoding", f"this PyAV has no encoder {codec}: pip install av, from PyPI") from error
        made.width, made.height, made.pix_fmt = width, height, self.format
        if crf < 0 and self.source.bit_rate:
            made.bit_rate = self.source.bit_rate
        made.time_base = made.codec_context.time_base = self.source.tick
        if (shape := self.source.video.codec_context.sample_aspect_ratio) is not None:
            made.codec_context.sample_aspect_ratio = shape
        if codec == "libx265" and self.kind in ("mp4", "mov"):
            made.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
        return made

    def _add_others(self) -> dict[int, Stream]:
        """The streams of sound and subtitles, by their index in the input: copied, or in `_sounds`."""
        taken: dict[int, Stream] = {}
        for one in self.source.others:
            codec = one.codec_context.name
            if codec in self.container.supported_codecs:
                made = self.container.add_stream_from_template(one)
            elif one.type != "audio":
                self.lost.append(f"{self.kind} holds no {codec} subtitles: they are not kept")
                continue
            elif self.kind != "matroska":
                raise ImageError("audio", f"{self.kind} holds no {codec} sound: take -o NAME.mkv")
            elif (channels := cast("AudioStream", one).codec_context.channels) not in FLAC_CHANNELS:
                self.lost.append(f"{self.kind} holds no {codec} sound of {channels} channels: it is not kept")
                continue
            else:
                self.lost.append(f"{self.kind} holds no {codec} sound: it becomes FLAC")
                self._sounds[one.index] = Flac(self.container, cast("AudioStream", one))
                made = self._sounds[one.index].stream
            taken[one.index] = made
            made.metadata.update({name: one.metadata[name] for name in _BESIDE if name in one.metadata})
            made.disposition = one.disposition
        return taken

    @property
    def encoding(self) -> str:
        """Compression of the frames."""
        return f"{self._video.codec_context.codec.name}, {self.format}"

    def write(self, frame: DecodedFrame, pixels: Pixels | None) -> None:
        """Add a frame: unchanged, or with upright (h, w, 3) RGB in place of its picture."""
        with _write_errors():
            if not self._started:
                self._start(frame.frame)
            made = frame.with_pixels(pixels, self.format)
            if made.pts is not None and made.duration:
                self._durations[made.pts] = made.duration
            self._mux(self._video.encode(made))

    def _mux(self, packets: Sequence[AnyPacket]) -> None:
        """Add encoded frames with their original durations: a muxer would guess the last one from the one before."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, packet.duration)
        self.container.mux(packets)

    def _start(self, first: VideoFrame) -> None:
        """Copy the first frame's colours and rotation, which later ones share, and the packets before it."""
        context = self._video.codec_context
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(context, name, getattr(first, name))
        turn(self._video, self.source.matrix, first.rotation)
        self._started = True
        for packet in self._waiting:
            self.copy(packet)
        self._waiting.clear()

    def copy(self, packet: AnyPacket) -> None:
        """Add a packet of sound or subtitles."""
        if not self._started:
            self._waiting.append(packet)
        elif (stream := self._others.get(packet.stream.index)) is not None:
            with _write_errors():
                if sound := self._sounds.get(packet.stream.index):
                    return self.container.mux(sound.encoded(packet))
                packet.stream = stream
                self.container.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _write_errors():
                if kind is None and self._started:
                    self._mux(self._video.encode())
                    for sound in self._sounds.values():
                        self.container.mux(sound.encoded(None))
                self.container.close()
        except (ImageError, OSError):
            if kind is None:
                raise
