"""Metrics of single pictures by name: those that packages register, and pyiqa's, for which pyiqa is not loaded."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from authface import backends
from authface.errors import UsageError, one_line
from authface.extras import installed, need

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
