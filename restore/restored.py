"""A restored photo in memory, with what became of each face, and ways to write it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError, one_line
from authface.files import write_file
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.restore.change import change_map
from authface.restore.inputs import ENDINGS
from authface.restore.outcome import losses, result_bytes
from authface.restore.photo import FaceResult, PhotoResult
from authface.restore.picture import Picture

_ENDING_OF = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}


@dataclass(frozen=True)
class Restored:
    """What `Restorer.restore` gives."""

    source: Picture
    """The photo as it came; `source.photo` has its profile, EXIF and alpha."""
    result: PhotoResult
    quality: int = 0
    """Of JPEG and WebP; 0 keeps a good JPEG's own."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, upright, `upscale` times as large, in the colour space of its file (`source.photo.icc`)."""
        return to_8_bits(self.result.rgb)

    @property
    def pixels(self) -> Pixels:
        """The same with the 16 bits of a photo that had them."""
        return self.result.rgb

    @property
    def faces(self) -> tuple[FaceResult, ...]:
        """All faces that were found, the largest first, restored or not and why."""
        return self.result.faces

    @property
    def restored(self) -> int:
        """How many faces were restored."""
        return self.result.restored

    @property
    def ending(self) -> str:
        """The file ending of the photo's own format, ``.png`` where that is not written."""
        return _ENDING_OF.get(self.source.photo.format, ".png")

    def change_map(self) -> NDArray[np.uint8]:
        """(h, w, 3) where and how strongly the photo was altered, at most 2,048 px a side, over a scale."""
        return change_map(self.result.background, self.result.rgb)

    def encoded(self, ending: str = "") -> bytes:
        """The result as a file of that ending, or of the photo's own, with all that the photo carried.

        Where nothing changed it is the photo's file, byte for byte. What the format cannot hold is a warning of the
        logger `authface`. Raises UsageError for an ending that is not written, ImageError for too large a picture.
        """
        format = ENDINGS.get((ending or self.ending).lower())
        if format is None:
            raise UsageError(f"{one_line(ending)} is not written: there are {', '.join(ENDINGS)}")
        photo, data = self.source.photo, self.source.data
        made, _ = result_bytes(photo, data, self.result.rgb, format, self.quality)
        if made is not data:
            for loss in losses(photo, data, format):
                logging.getLogger("authface").warning("%s", loss)
        return made

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format of the path's ending; see `encoded`. Raises AuthfaceError where the disk does.

        The photo's own file is never overwritten (UsageError).
        """
        target = Path(path)
        source = self.source.path
        if source is not None and os.path.realpath(target) == os.path.realpath(source):
            raise UsageError(f"{one_line(target)} is the input itself: originals are not overwritten")
        data = self.encoded(target.suffix or "(no ending)")
        write_file(target, data)
        return target
