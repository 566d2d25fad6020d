"""How the frames of a video are turned and mirrored to be shown."""

from __future__ import annotations

import struct
from io import BytesIO
from math import atan2, degrees
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_WITH_MATRIX = frozenset({"mov", "matroska"})
"""FFmpeg's names of the containers whose header tells."""
_MATRIX_AT = 44
"""Where the matrix lies behind the name of MOV's box `tkhd`, bytes (ISO/IEC 14496-12, 8.3.2)."""
_UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def turn(made: VideoStream, source: VideoStream, rotation: int) -> None:
    """Have a new stream turned and mirrored as the source is, whose frames are turned by `rotation` degrees.

    Frames of MJPEG and H.264 may tell of their turn themselves; whether they are mirrored is then not known.
    """
    matrix = _matrix(source)
    if matrix and (degrees(-atan2(matrix[1], matrix[0])) - rotation + 1) % 360 <= 2:
        made.set_display_matrix(matrix)
    elif rotation:
        made.set_display_rotation(rotation)


def _matrix(stream: VideoStream) -> tuple[int, ...]:
    """FFmpeg's nine numbers of the file's header; empty: upright, or not known.

    PyAV tells of a frame the angle alone, and frees twice what its `side_data` shows. A MOV of the same stream has the
    numbers in its own header.
    """
    import av

    if not _WITH_MATRIX.intersection(stream.container.format.name.split(",")):
        return ()
    made = BytesIO()
    try:
        with av.open(made, "w", format="mov", options={"movflags": "empty_moov"}) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
            header = made.getvalue()
    except (av.error.FFmpegError, ValueError):
        return ()  # MOV holds no such stream
    matrix = struct.unpack_from(">9i", header, header.index(b"tkhd") + _MATRIX_AT)
    return () if matrix == _UPRIGHT else matrix
