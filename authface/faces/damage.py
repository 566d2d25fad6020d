"""What the damages of `faces.degrade` and `faces.scan` share: ranges, the side they are for, and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""Least and most; numbers between are drawn uniformly."""
REFERENCE = 512
"""Side of the images that ranges in pixels are for."""


def jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """`image` (height, width, 3), RGB in 0..1, encoded by OpenCV at `quality` (0..100) and decoded."""
    pixels = cv2.cvtColor(np.rint(image * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done  # an 8-bit BGR array is always encoded
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # just encoded
    back: NDArray[np.float32] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return back
