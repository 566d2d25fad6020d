"""Metrics that are networks, by pyiqa, one image at a time: no value depends on what it was batched with."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, one_line
from authface.evaluate.catalogue import Metric

if TYPE_CHECKING:
    import torch


def code_version() -> str:
    """The release of pyiqa, which fixes the code of its metrics."""
    return f"pyiqa {version('pyiqa')}"


class Learned:
    """One of pyiqa's metrics on a device. Its weights must be there: see `authface.evaluate.weights`."""

    def __init__(self, metric: Metric, device: torch.device) -> None:
        self._metric = metric
        self._device = device
        with loading(metric.pyiqa):
            import pyiqa

            self._score: Any = pyiqa.create_metric(metric.pyiqa, device=device)

    def __call__(self, output: NDArray[np.uint8], truth: NDArray[np.uint8] | None) -> float:
        """The value of a (h, w, 3) uint8 RGB output, against its truth where the metric needs one."""
        import torch

        images = [as_tensor(output, self._device)]
        if self._metric.needs == "truth":
            assert truth is not None  # the catalogue lets no such metric through without one
            images.append(as_tensor(truth, self._device))
        raw = {"normalize": False} if self._metric.name == "lpips_raw01" else {}
        with torch.inference_mode():
            return float(self._score(*images, **raw).double().reshape(-1)[0])


def as_tensor(rgb: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """(1, 3, h, w) in 0..1 of (h, w, 3) uint8."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].to(device).float() / 255


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Load a metric without what its libraries print, or raise AuthfaceError of one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _no_second_download():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # a broken file raises whatever its reader does
        why = one_line(f"{type(error).__name__}: {error}", 160)
        raise AuthfaceError(f"{name} is not measured: its weights cannot be loaded ({why})") from error
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _no_second_download() -> Iterator[None]:
    """MANIQA asks the hub for a ViT whose every weight its own checkpoint then replaces (loaded strictly)."""
    import timm

    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **(options | {"pretrained": False}))
    try:
        yield
    finally:
        timm.create_model = create
