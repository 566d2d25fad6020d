"""Image-quality metrics by name, ours and pyiqa's; torch and pyiqa are loaded only where a metric is made."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from authface import backends
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import installed, need

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


_TABLE = "pyiqa.default_model_configs"


def lower_better(name: str) -> bool:
    """Whether less is better of the metric `name`.

    Raises UsageError for a metric that is none, or compares with a reference, AuthfaceError for a package whose
    registered metric cannot be loaded.
    """
    if name in backends.names("metrics"):
        return bool(backends.load("metrics", name).lower_better)
    return bool(_pyiqa(name).get("lower_better", False))


def check_names(names: Iterable[str]) -> None:
    """Raise UsageError for the first of `names` that is no metric of single pictures. Nothing heavy is loaded.

    Where pyiqa is not installed nobody knows its names: the command that measures asks for it.
    """
    for name in names:
        if name not in backends.names("metrics") and installed("pyiqa"):
            _pyiqa(name)


def _pyiqa(name: str) -> Mapping[str, Any]:
    """What pyiqa says of one of its metrics. Raises UsageError."""
    said = _pyiqa_table()
    config = said.get(name)
    if config is None or config.get("metric_mode") != "NR":
        alone = [*backends.names("metrics"), *(known for known in said if said[known].get("metric_mode") == "NR")]
        near = difflib.get_close_matches(name, alone, n=3) or ["musiq", "topiq_nr-face", "clipiqa+"]
        why = "compares with a reference" if config else "is neither in pyiqa nor registered by a package here"
        raise UsageError(f"metric {one_line(name)} {why}; there are {', '.join(near)}, ...")
    return config


def _pyiqa_table() -> Mapping[str, Mapping[str, Any]]:
    """pyiqa's own table of its metrics: the loaded one, else read from its file; to import pyiqa takes seconds."""
    loaded = sys.modules.get(_TABLE)
    configs: Mapping[str, Mapping[str, Any]] = loaded.DEFAULT_CONFIGS if loaded else _table_of_file()
    return configs


@cache
def _table_of_file() -> Mapping[str, Mapping[str, Any]]:
    need("a metric of pyiqa", "evaluate", "pyiqa")
    package = find_spec("pyiqa")
    assert package is not None and package.origin is not None  # `need` found it
    spec = spec_from_file_location("_pyiqa_metrics", Path(package.origin).with_name("default_model_configs.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    configs: Mapping[str, Mapping[str, Any]] = module.DEFAULT_CONFIGS
    return configs
