"""Sources by name. A source lists photos; the fetch step reads, checks and stores them."""

from __future__ import annotations

from collections.abc import Callable

from authface import backends
from authface.curate.fetch.sources.base import PhotoItem, PhotoSource, SourceRequest
from authface.curate.settings import FetchSettings
from authface.store.photoset import PhotoSet

__all__ = ["PhotoItem", "PhotoSource", "SourceRequest", "make_source"]


def make_source(
    settings: FetchSettings, photoset: PhotoSet, *, wait: bool = True, say: Callable[[str], None] = lambda text: None
) -> PhotoSource:
    """The source that the settings name; `wait` for quotas, and `say` so. Raises UsageError, AuthfaceError."""
    kind: type[PhotoSource] = backends.load("sources", settings.source)
    return kind.make(SourceRequest(settings, photoset, wait, say))
