"""Image-quality metrics of pyiqa by name: the cheap ones first, each over what the one before left.

pyiqa and torch are loaded only where a metric is asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, UsageError, one_line
from authface.models.families import pick_device

_CHEAP = ("musiq", "topiq_nr", "topiq_nr-face", "clipiqa", "clipiqa+")
"""Seconds a megapixel on a CPU by pyiqa's own table: 0.6 to 1.1; ..."""
_DEAR = ("maniqa", "qalign", "qrealign")
"""... 13 and more. Every other metric is taken between them."""
_OPTIONS = {name: {"align_crop_face": False} for name in ("topiq_nr-face", "topiq_nr_swin-face")}
"""They would look for the face again: the region is aligned as they do it, to within a few percent of its side."""
_ONE_BY_ONE = ("compare2score", "qalign")
"""Metrics that take a single picture at a time."""
DIGITS = 4
"""Decimals that are kept of a score: in the ones beyond, the other faces of a batch can show."""


def pyiqa_version() -> str:
    """The release of pyiqa, which fixes the code and the weights of its metrics."""
    return version("pyiqa")


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics from the cheapest to the dearest."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(name: str) -> float:
    if name in _CHEAP:
        return _CHEAP.index(name) - len(_CHEAP)
    return 1.0 if name.startswith(_DEAR) else 0.0


def lower_better(name: str) -> bool:
    """Whether less is better of a metric that judges a picture alone. Raises UsageError for any other name."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    config = DEFAULT_CONFIGS.get(name)
    if config is None or config.get("metric_mode") != "NR":
        alone = [known for known, said in DEFAULT_CONFIGS.items() if said.get("metric_mode") == "NR"]
        near = difflib.get_close_matches(name, alone, n=3) or ["musiq", "topiq_nr-face", "clipiqa+"]
        why = "compares with a reference" if config else "is not in pyiqa"
        raise UsageError(f"curate.filter.metrics: {one_line(name)} {why}; there are {', '.join(near)}, ...")
    return bool(config.get("lower_better", False))


class Metric:
    """One metric with its weights on a device."""

    def __init__(self, name: str, device: str) -> None:
        import torch

        self.name = name
        self.lower_better = lower_better(name)
        self._device = pick_device(device)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # pyiqa prints what it loads; --json owns the output
                import pyiqa

                self._score: Any = pyiqa.create_metric(name, device=self._device, **_OPTIONS.get(name, {}))
        except Exception as error:  # whatever a metric's loader raises: network, disk, package
            place = torch.hub.get_dir()
            raise AuthfaceError(
                f"the metric {name} cannot be loaded ({one_line(f'{type(error).__name__}: {error}', 120)}): run once "
                f"with a network, or copy its weights into {one_line(place)}/pyiqa from a machine that has them"
            ) from error

    def __call__(self, regions: Sequence[NDArray[np.uint8]]) -> list[float]:
        """Scores of (h, w, 3) uint8 pictures of one size, rounded to `DIGITS` decimals."""
        import torch

        size = 1 if self.name.startswith(_ONE_BY_ONE) else len(regions)
        scores: list[float] = []
        with torch.inference_mode():
            for at in range(0, len(regions), size):
                batch = np.stack(regions[at : at + size]).transpose(0, 3, 1, 2)
                seen = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device).float() / 255
                scores += self._score(seen).reshape(len(seen), -1)[:, 0].double().cpu().tolist()
        return [round(score, DIGITS) for score in scores]
