"""Every format an export is written in, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authface.annotate.export.croissant import CroissantFormat
from authface.annotate.export.fiftyone import FiftyOneFormat
from authface.annotate.export.files import FilesFormat
from authface.annotate.export.formats import (
    DatasetFormat,
    ExportTarget,
    Format,
    ImageFolderFormat,
    KohyaFormat,
    ManifestFormat,
    WebDatasetFormat,
)

FORMATS: Final[dict[str, Callable[[ExportTarget], Format]]] = {
    "dataset": DatasetFormat,
    "imagefolder": ImageFolderFormat,
    "webdataset": WebDatasetFormat,
    "kohya": KohyaFormat,
    "manifest": ManifestFormat,
    "croissant": CroissantFormat,
    "fiftyone": FiftyOneFormat,
    "files": FilesFormat,
}
