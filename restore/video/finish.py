"""A whole video is marked where a model drew in it, gets its settings inside, and is signed where that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from authface.files import replacing
from authface.restore.credentials import MIME, Asset
from authface.restore.mark import append_xmp
from authface.restore.result import Finish
from authface.restore.video.files import CONTAINERS, address

BOXES = frozenset({"mp4", "mov"})
"""Containers that hold XMP and credentials; the others hold tags."""


def finish_video(finish: Finish, original: Path, result: Path, kind: str) -> list[str]:
    """Do what `finish` says to the video at `result`, whose container is `kind`; what cannot be done, a line each.

    `kind` is FFmpeg's name, as in `CONTAINERS`. Raises OSError where the disk refuses, ImageError for a broken file.
    """
    mark = replace(finish.mark, settings=finish.told())
    if kind in BOXES:
        if packet := mark.packet():
            append_xmp(result, packet)
    elif tags := mark.tags():
        _add_tags(result, kind, tags)
    if finish.credentials is None:
        return []
    before = CONTAINERS.get(original.suffix.lower(), "")
    if kind not in BOXES or before not in MIME:
        return [f"{kind if kind not in BOXES else before} holds no Content Credentials: not signed"]
    with replacing(result) as signed, original.open("rb") as was, result.open("rb") as made, signed.open("w+b") as out:
        finish.credentials.sign(Asset(made, kind), Asset(was, before), out, original.name, mark)
    return []


def _add_tags(path: Path, kind: str, tags: dict[str, str]) -> None:
    """Write the file once more with further tags: packets as they are, streams as they were."""
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
        for packet in source.demux():
            if packet.size:  # the last of each stream is empty
                packet.stream = made[packet.stream.index]
                out.mux(packet)
