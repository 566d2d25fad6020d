"""The astronaut and Grace Hopper, aligned once; what the benchmark changes of them is used by tests too."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from authface.imaging import decode as images

Aligned = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def benchmark_module() -> ModuleType:
    """benchmarks/measured_tags.py."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("measured_tags")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="session")
def aligned() -> dict[str, Aligned]:
    """Crops of 512 px and their landmarks, by name."""
    import matplotlib
    from skimage import data

    from authface.faces.detector import RetinaFace
    from authface.faces.geometry import align, crop_points, ffhq_quad
    from authface.faces.landmarks import Dlib68

    detector, landmarker = RetinaFace(0.9), Dlib68()
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = {}
    for name, photo in (("astronaut", data.astronaut()), ("hopper", images.read(hopper).rgb)):
        points = landmarker.landmarks(photo, detector.detect(photo)[0])
        quad = ffhq_quad(points)
        found[name] = (align(photo, quad, 512).rgb, crop_points(points, quad, 512))
    return found
