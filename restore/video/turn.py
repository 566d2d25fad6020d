"""How the frames of a video are turned and mirrored to be shown."""

from __future__ import annotations

import struct
from io import BytesIO
from math import atan2, degrees
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from av.video.stream import VideoStream

Matrix: TypeAlias = tuple[int, ...]
"""Of the display, as FFmpeg has it: (x, y) is shown at (m0 x + m3 y, m1 x + m4 y). Empty: upright, or not known."""
_WITH_MATRIX = frozenset({"mov", "matroska"})
"""FFmpeg's names of the containers whose header tells."""
_MATRIX_AT = 44
"""Where the matrix lies behind the name of MOV's box `tkhd`, bytes (ISO/IEC 14496-12, 8.3.2)."""
_UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def turn(made: VideoStream, matrix: Matrix, rotation: int) -> None:
    """Have a new stream turned and mirrored as `matrix` says, or turned as frames do that say `rotation` degrees.

    Frames of MJPEG and H.264 may tell of their turn themselves; whether they are mirrored is then not known.
    """
    if _is_of(matrix, rotation):
        made.set_display_matrix(matrix)
    elif rotation:
        made.set_display_rotation(rotation)


def upright(matrix: Matrix, rotation: int) -> tuple[int, bool]:
    """How a frame that says `rotation` degrees is made upright: quarter turns anticlockwise, then mirrored or not."""
    mirrored = _is_of(matrix, rotation) and matrix[0] * matrix[4] < matrix[1] * matrix[3]
    return round((180 - rotation if mirrored else rotation) / 90) % 4, mirrored


def _is_of(matrix: Matrix, rotation: int) -> bool:
    return bool(matrix) and (degrees(-atan2(matrix[1], matrix[0])) - rotation + 1) % 360 <= 2


def header_matrix(stream: VideoStream) -> Matrix:
    """FFmpeg's nine numbers of the file's header: how its frames are turned and mirrored.

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
