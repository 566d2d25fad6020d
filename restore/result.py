"""Results as files: encoded, marked if faces were generated, with embedded settings and a signature if requested."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import UsageError, one_line
from authface.files import write_file
from authface.imaging import decode as images
from authface.imaging.bitdepth import Pixels, to_8_bits
from authface.imaging.encode import has_room
from authface.imaging.metadata import CREDENTIALS, MANIFEST_MEDIA
from authface.imaging.xmp import is_readable, without_padding
from authface.restore.change import change_map
from authface.restore.inputs import ENDINGS
from authface.restore.mark import Asset, Credentials, Mark
from authface.restore.picture import ENDING_OF, Encoded, Picture
from authface.restore.types import FaceResult, PhotoResult
from authface.store.restore_log import LOG


@dataclass(frozen=True)
class Finish:
    """How every result of a run is finished."""

    mark: Mark
    quality: int = 0
    """Quality of JPEG and WebP; 0 keeps that of a good JPEG."""
    settings: Mapping[str, Any] | None = None
    """Settings to embed in the files, with each photo's faces; None: nothing is embedded."""
    credentials: Credentials | None = None
    """The signer; None: results are not signed."""

    def encoded(self, picture: Picture, result: PhotoResult, format: str, title: str) -> Encoded:
        """The result as a file in `format`.

        If no pixel and no format changed, it is the picture's own file, byte for byte. If no face changed, it is
        neither marked nor signed. `title` is its name in its credentials. Raises ImageError as
        `authface.imaging.encode.encode` does, and if a file cannot be signed.
        """
        if not result.changed:
            return picture.encoded(result.rgb, format, self.quality)
        mark = replace(self.mark, settings=self.settings_text(result))
        xmp, lost = _packet(mark, picture.photo.xmp, format)
        made = picture.encoded(result.rgb, format, self.quality, xmp)
        made = replace(made, losses=(*made.losses, *lost))
        if self.credentials is None:
            return made
        out = io.BytesIO()
        self.credentials.sign(Asset(io.BytesIO(made.data), format), _original(picture), out, title, mark)
        kept = tuple(line for line in made.losses if CREDENTIALS not in line)  # they are the ingredient's
        return Encoded(out.getvalue(), f"{made.encoding}, signed", kept)

    def settings_text(self, result: PhotoResult | None = None) -> str:
        """JSON of the settings with the faces of a photo; empty if they are not embedded."""
        if self.settings is None:
            return ""
        faces = [{name: face.facts()[name] for name in _TOLD} for face in result.faces] if result else []
        return json.dumps({**self.settings, "faces": faces} if result else self.settings, separators=(",", ":"))


def _packet(mark: Mark, before: bytes, format: str) -> tuple[bytes, list[str]]:
    """The marked packet of a result whose photo has the packet `before`, and its losses, a line each.

    If room is short, its padding is dropped first, then the settings, then the photo's own packet, never the mark.
    """
    lost = [] if is_readable(before) else ["the result does not keep its XMP, which is no XML"]
    whole = mark.packet(before)
    bare = replace(mark, settings="")
    no_settings = f"{format} has no room for the settings inside: see {LOG}"
    no_xmp = f"{format} has no room for its XMP beside the mark: png, tiff and webp have"
    choices: list[tuple[bytes, list[str]]] = [(whole, []), (without_padding(whole), [])]
    if mark.settings:
        choices.append((without_padding(bare.packet(before)), [no_settings]))
    if before:
        choices.append((mark.packet(), [no_xmp]))
    choices.append((bare.packet(), [*([no_xmp] if before else []), *([no_settings] if mark.settings else [])]))
    packet, missing = next((one for one in choices if has_room(format, one[0])), choices[-1])
    return packet, lost + missing


_TOLD = ("box", "status", "reason", "identity", "suspect", "fidelity")


def _original(picture: Picture) -> Asset:
    """The input as an asset; for pixels, and for a file that cannot hold credentials, a PNG of its pixels."""
    if picture.data and picture.photo.format in MANIFEST_MEDIA:
        return Asset(io.BytesIO(picture.data), picture.photo.format)
    return Asset(io.BytesIO(images.encode_png(picture.photo.rgb)), "PNG")


@dataclass(frozen=True)
class Restored:
    """The result of `Restorer.restore`."""

    source: Picture
    """The input photo; `source.photo` has its profile, EXIF and alpha."""
    result: PhotoResult
    finish: Finish
    """How it is written as a file."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, upright, `upscale` times as large, in the colour space of its file (`source.photo.icc`)."""
        return to_8_bits(self.result.rgb)

    @property
    def pixels(self) -> Pixels:
        """The same, of 16 bits if the photo had them."""
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
        """The file extension of the photo's own format, ``.png`` if that cannot be written."""
        return ENDING_OF.get(self.source.photo.format, ".png")

    def change_map(self) -> NDArray[np.uint8]:
        """(h, w, 3) where and how strongly the photo was altered, at most 2,048 px a side, over a scale."""
        return change_map(self.result.background, self.result.rgb)

    def encoded(self, ending: str = "") -> bytes:
        """The result as a file of that ending, or of the photo's own, with all its metadata; see `Finish.encoded`.

        Losses are warnings of the logger `authface`. Raises UsageError for an ending that is not
        written, ImageError for too large a picture.
        """
        format = ENDINGS.get((ending or self.ending).lower())
        if format is None:
            raise UsageError(f"{one_line(ending)} is not written: there are {', '.join(ENDINGS)}")
        made = self.as_file(format)
        for loss in made.losses:
            logging.getLogger("authface").warning("%s", loss)
        return made.data

    def as_file(self, format: str) -> Encoded:
        """The result as a file in a format of Pillow's name. Raises ImageError."""
        title = self.source.path.name if self.source.path else "photo"
        return self.finish.encoded(self.source, self.result, format, title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result in the format of the path's extension; see `encoded`. Raises AuthfaceError.

        The photo's own file is never overwritten (UsageError).
        """
        target = Path(path)
        source = self.source.path
        if source is not None and os.path.realpath(target) == os.path.realpath(source):
            raise UsageError(f"{one_line(target)} is the input itself: originals are not overwritten")
        data = self.encoded(target.suffix or "(no ending)")
        write_file(target, data)
        return target
