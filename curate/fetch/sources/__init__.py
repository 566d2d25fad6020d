"""Where photos come from. A source lists items; the fetch step reads, checks and stores them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from authface.curate.fetch.sources.base import PhotoItem, PhotoSource
from authface.curate.fetch.sources.folder import Folder, Samples
from authface.curate.fetch.sources.lite import Lite
from authface.curate.fetch.sources.unsplash import Unsplash
from authface.curate.fetch.sources.urls import Urls
from authface.curate.fetch.web import Web
from authface.curate.settings import FetchSettings
from authface.errors import UsageError
from authface.store.photoset import PhotoSet

__all__ = ["Folder", "PhotoItem", "PhotoSource", "Samples", "make_source"]

_EXAMPLES = {
    "folder": "the folder, as in authface curate fetch SET --from folder PATH",
    "urls": "the list, as in authface curate fetch SET --from urls list.csv",
    "unsplash-lite": "the data set, as in authface curate fetch SET --from unsplash-lite unsplash-lite.zip",
}


def make_source(
    settings: FetchSettings, photoset: PhotoSet, *, wait: bool = True, say: Callable[[str], None] = lambda text: None
) -> PhotoSource:
    """The source that the settings name; `wait` for quotas, and `say` so. Raises UsageError without its path."""
    if settings.source in _EXAMPLES and not settings.path:
        raise UsageError(f"--from {settings.source}: give {_EXAMPLES[settings.source]}")
    if settings.source == "folder":
        return Folder(Path(settings.path), settings.photographer, settings.licence)
    if settings.source == "samples":
        return Samples()

    web = Web(settings.web, wait=wait, say=say)
    if settings.source == "urls":
        return Urls(Path(settings.path), settings, web)
    if settings.source == "unsplash-lite":
        return Lite(Path(settings.path), settings, web)

    return Unsplash(settings, web, photoset, say)
