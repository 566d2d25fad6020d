"""Image-quality metrics that are networks, by pyiqa; torch and pyiqa are loaded only where a metric is made."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface.errors import AuthfaceError, one_line

if TYPE_CHECKING:
    import torch

    Images = Sequence[NDArray[np.uint8]]

_ONE_BY_ONE = ("compare2score", "qalign")
"""Metrics that take a single picture at a time."""


def pyiqa_version() -> str:
    """The release of pyiqa, which fixes the code and the weights of its metrics."""
    return version("pyiqa")


class QualityMetric:
    """One of pyiqa's metrics on a device; `options` are its own. Make it within `loading`."""

    def __init__(self, name: str, device: torch.device, **options: Any) -> None:
        import pyiqa

        self._name, self._device = name, device
        with _without_backbone_download() if name.startswith("maniqa") else contextlib.nullcontext():
            self._network: Any = pyiqa.create_metric(name, device=device, **options)

    def __call__(self, images: Images, truths: Images | None = None, **options: Any) -> list[float]:
        """Values of (h, w, 3) uint8 RGB images of one size, against their truths where the metric needs them."""
        import torch

        size = 1 if self._name.startswith(_ONE_BY_ONE) else len(images)
        scores: list[float] = []
        with torch.inference_mode():
            for at in range(0, len(images), size):
                batches = [to_batch(each[at : at + size], self._device) for each in (images, truths) if each]
                values = self._network(*batches, **options)
                scores += values.reshape(len(batches[0]), -1)[:, 0].double().cpu().tolist()
        return scores


def to_batch(images: Images, device: torch.device) -> torch.Tensor:
    """(n, 3, h, w) float32 in 0..1 of n (h, w, 3) uint8 images of one size."""
    import torch

    planes = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return torch.from_numpy(planes).to(device).float() / 255


@contextlib.contextmanager
def loading(failure: str, advice: str = "") -> Iterator[None]:
    """Load a metric without what its libraries print; raises AuthfaceError ``failure (why): advice``, one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever a metric's loader raises: network, disk, package, a broken file
        why = one_line(f"{type(error).__name__}: {error}", 160)
        raise AuthfaceError(f"{failure} ({why})" + (f": {advice}" if advice else "")) from error
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_backbone_download() -> Iterator[None]:
    """MANIQA asks the hub for a ViT whose every weight its own checkpoint then replaces (loaded strictly)."""
    import timm

    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **(options | {"pretrained": False}))
    try:
        yield
    finally:
        timm.create_model = create
