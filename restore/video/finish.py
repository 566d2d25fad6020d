"""Finish a video: mark it if faces were generated, embed its settings, and sign it if requested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from authface.extras import installed
from authface.files import replacing
from authface.imaging.metadata import CREDENTIALS, MANIFEST_MEDIA
from authface.imaging.xmp import properties_of, truthful
from authface.restore.mark import TAGS, Asset, Boxes, append_xmp, read_boxes
from authface.restore.picture import Finish
from authface.restore.video.files import CONTAINERS, address

if TYPE_CHECKING:
    from av.video.stream import VideoStream

BOXES = frozenset({"mp4", "mov"})
"""Containers that can hold XMP and credentials; the others hold tags."""


def finish_video(finish: Finish, original: Path, result: Path, kind: str, *, drawn: bool) -> list[str]:
    """Apply `finish` to the video at `result`, whose container is `kind`; returns what is impossible, a line each.

    If no face was `drawn` it is neither marked nor signed. The original's XMP is copied. `kind` is FFmpeg's
    name, as in `CONTAINERS`. Raises OSError where the disk refuses, ImageError for a broken file.
    """
    mark = replace(finish.mark, settings=finish.settings_text())
    before = CONTAINERS.get(original.suffix.lower(), "")
    said = read_boxes(original) if before in BOXES else Boxes()
    if kind in BOXES:
        xmp = truthful(said.xmp)
        if packet := mark.packet(xmp) if drawn else xmp:
            append_xmp(result, packet)
    elif drawn and (tags := mark.tags()):
        _add_tags(result, kind, tags)
    lost = [f"{kind} has no place for its XMP"] if said.xmp and kind not in BOXES else []
    gone = [f"the result does not keep {CREDENTIALS}"] if said.credentials else []
    if finish.credentials is None or not drawn:
        return lost + gone
    if kind not in BOXES or before not in MANIFEST_MEDIA:
        return [*lost, *gone, f"{kind if kind not in BOXES else before} holds no Content Credentials: not signed"]
    with replacing(result) as signed, original.open("rb") as was, result.open("rb") as made, signed.open("w+b") as out:
        finish.credentials.sign(Asset(made, kind), Asset(was, before), out, original.name, mark)
    return lost


def video_properties(path: Path) -> dict[str, str]:
    """The properties in a video's XMP or tags, by namespace and name; no tags without PyAV. Raises OSError."""
    if CONTAINERS.get(path.suffix.lower()) in BOXES:
        return properties_of(read_boxes(path).xmp)
    if not installed("av"):
        return {}
    import av

    try:
        with av.open(address(path), metadata_errors="replace") as video:
            tags = {name.upper(): value for name, value in video.metadata.items()}
    except (av.FFmpegError, ValueError):
        return {}
    return {name: tags[tag] for tag, name in TAGS.items() if tag in tags}


def _add_tags(path: Path, kind: str, tags: dict[str, str]) -> None:
    """Rewrite the file with further tags; packets and streams are copied."""
    import av

    with replacing(path) as new, av.open(address(path)) as source, av.open(address(new), "w", format=kind) as out:
        out.metadata.update({**source.metadata, **tags})
        out.set_chapters(source.chapters())
        made = {}
        for one in source.streams:
            made[one.index] = stream = out.add_stream_from_template(one)
            stream.metadata.update(one.metadata)
            stream.disposition = one.disposition
            stream.time_base = one.time_base
            if (rate := getattr(one, "average_rate", None)) is not None:
                cast("VideoStream", stream).codec_context.framerate = rate  # the template has none: 1,000 were written
        for packet in source.demux():
            if packet.size:  # the last of each stream is empty
                packet.stream = made[packet.stream.index]
                out.mux(packet)
