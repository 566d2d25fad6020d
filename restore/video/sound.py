"""Sound of a video that the result's container does not hold as it is: decoded, and written as FLAC, of which nothing
more is lost."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import Packet
    from av.audio.stream import AudioStream
    from av.container import OutputContainer


FLAC_CHANNELS = range(1, 9)
"""How many FLAC has; a damaged header may say 0."""


class Flac:
    """One stream of sound as FLAC: of 24 bits where its samples are whole numbers of more than 16, else of 16."""

    def __init__(self, out: OutputContainer, source: AudioStream) -> None:
        from av import AudioFormat

        decoder = source.codec_context
        self.stream = out.add_stream("flac", rate=decoder.sample_rate, layout=decoder.layout.name)
        self.stream.codec_context.format = AudioFormat("s32" if decoder.format.name.startswith("s32") else "s16")
        self._source = source
        self._end = Fraction(0)
        """Of the sound so far, seconds: when a frame begins that has no time."""

    def encoded(self, packet: Packet[Any] | None) -> Sequence[Packet[Any]]:
        """What a packet of the source becomes; None: the rest, at the end. A damaged packet becomes nothing."""
        import av

        try:
            frames = self._source.decode(packet)
        except av.error.InvalidDataError:
            frames = []
        made: list[Packet[Any]] = []
        for frame in frames:
            tick = Fraction(1, frame.sample_rate)
            begin = self._end if frame.pts is None else frame.pts * (frame.time_base or tick)
            frame.pts, frame.time_base, self._end = round(begin / tick), tick, begin + frame.samples * tick
            made += self.stream.encode(frame)
        made += self.stream.encode() if packet is None else ()
        return [one for one in made if one.size]  # FLAC's last is empty, and has no time
