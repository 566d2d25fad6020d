"""One frame of a video, between what is stored and what is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from authface.imaging.png import Pixels

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True)
class DecodedFrame:
    """One decoded frame."""

    frame: VideoFrame
    time: float
    """Seconds."""
    over_8_bits: bool
    """Whether it has more than 8 bits a channel."""
    turns: int
    """Quarter turns anticlockwise after which the frame stands upright."""
    mirrored: bool
    """Whether it is then mirrored, left for right."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright frame, pixels."""
        stored = (self.frame.width, self.frame.height)
        return stored[::-1] if self.turns % 2 else stored

    def pixels(self) -> Pixels:
        """(h, w, 3) RGB, upright, of 16 bits where the video has more than 8."""
        rgb = self.frame.to_ndarray(format="rgb48le" if self.over_8_bits else "rgb24", interpolation=_exact())
        turned = np.rot90(rgb, self.turns)
        return cast("Pixels", np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned))

    def with_pixels(self, pixels: Pixels | None, format: str) -> VideoFrame:
        """The frame to encode in a pixel format, at its time: unchanged, or with upright (h, w, 3) RGB."""
        from av import VideoFrame

        frame = self.frame
        if pixels is not None:
            turned = pixels[:, ::-1] if self.mirrored else pixels
            laid = cast("Pixels", np.ascontiguousarray(np.rot90(turned, -self.turns)))
            frame = VideoFrame.from_ndarray(laid, format="rgb24" if laid.dtype == np.uint8 else "rgb48le")
        colours = {"dst_colorspace": self.frame.colorspace, "dst_color_range": self.frame.color_range}
        made = frame.reformat(format=format, interpolation=_exact(), **(colours if pixels is not None else {}))
        made.pts, made.time_base, made.duration = self.frame.pts, self.frame.time_base, self.frame.duration
        made.pict_type = 0  # the encoder's to choose
        return made


def _exact() -> int:
    """swscale's flags with which conversion to RGB and back is exact but for rounding: bicubic, full chroma."""
    from av.video.reformatter import Interpolation

    wanted = (Interpolation.BICUBIC, Interpolation.FULL_CHR_H_INT, Interpolation.FULL_CHR_H_INP)
    return int(sum(wanted, Interpolation.ACCURATE_RND))
