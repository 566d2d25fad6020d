"""Image-quality metrics by name, pyiqa's and those of other packages: the cheap ones first, each over what is left.

pyiqa and torch are loaded only where a metric of pyiqa is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from authface import backends
from authface.errors import one_line
from authface.extras import need
from authface.metrics.names import lower_better
from authface.metrics.quality import QualityMetric, loading, pyiqa_version
from authface.models.families import pick_device

_CHEAP = ("musiq", "topiq_nr", "topiq_nr-face", "clipiqa", "clipiqa+")
"""Seconds a megapixel on a CPU by pyiqa's own table: 0.6 to 1.1; ..."""
_DEAR = ("maniqa", "qalign", "qrealign")
"""... 13 and more. Every other metric is taken between them."""
_OPTIONS = {name: {"align_crop_face": False} for name in ("topiq_nr-face", "topiq_nr_swin-face")}
"""They would look for the face again: the region is aligned as they do it, to within a few percent of its side."""
DIGITS = 4
"""Decimals that are kept of a score: in the ones beyond, the other faces of a batch can show."""


class FaceMetric(Protocol):
    """Scores faces; made with the name of a device. Packages register theirs in `authface.metrics`."""

    lower_better: bool

    def __call__(self, regions: Sequence[NDArray[np.uint8]]) -> Sequence[float]:
        """Scores of (h, w, 3) uint8 RGB pictures of one size, each independent of the others."""
        ...


def make_metric(name: str, device: str) -> FaceMetric:
    """The metric called `name`, loaded. Raises UsageError for an unknown one, AuthfaceError without its weights."""
    if name not in backends.names("metrics"):
        return RegionMetric(name, device)
    metric: FaceMetric = backends.load("metrics", name)(device)
    return metric


def versions(names: Collection[str]) -> dict[str, str]:
    """What the scores of metrics depend on: pyiqa's release, and the package of each that is not pyiqa's."""
    registered = backends.names("metrics")
    for name in names:
        if name not in registered:
            _need_pyiqa(name)
    return dict(
        (name, backends.version("metrics", name)) if name in registered else ("pyiqa", pyiqa_version())
        for name in names
    )


def _need_pyiqa(name: str) -> None:
    need(f"curate.filter.metrics {one_line(name)}", "evaluate", "pyiqa")


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics from the cheapest to the dearest."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(name: str) -> float:
    if name in _CHEAP:
        return _CHEAP.index(name) - len(_CHEAP)
    return 1.0 if name.startswith(_DEAR) else 0.0


class RegionMetric:
    """One metric with its weights on a device, for the regions of faces."""

    def __init__(self, name: str, device: str) -> None:
        import torch

        self.name = name
        self.lower_better = lower_better(name)
        place = one_line(torch.hub.get_dir())
        advice = f"run once with a network, or copy its weights into {place}/pyiqa from a machine that has them"
        with loading(f"the metric {name} cannot be loaded", advice):
            self._metric = QualityMetric(name, pick_device(device), **_OPTIONS.get(name, {}))

    def __call__(self, regions: Sequence[NDArray[np.uint8]]) -> list[float]:
        """Scores of (h, w, 3) uint8 pictures of one size."""
        return self._metric(regions)
