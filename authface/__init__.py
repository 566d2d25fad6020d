"""authface: build face datasets, train a face prior, restore faces.

One arrow of stages that talk through files only: ``authface.curate`` -> ``authface.annotate`` ->
``authface.train`` -> ``authface.restore``, and ``authface.evaluate`` beside it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authface.annotate.measured.tagger import Tagger
    from authface.restore.api import Restorer
    from authface.restore.picture import Restored

__version__ = "0.1.0"
__all__ = ["Restored", "Restorer", "Tagger", "__version__"]


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is first asked for: `import authface` loads nothing."""
    if name == "Restorer":
        from authface.restore.api import Restorer

        return Restorer
    if name == "Restored":
        from authface.restore.picture import Restored

        return Restored
    if name == "Tagger":
        from authface.annotate.measured.tagger import Tagger

        return Tagger
    raise AttributeError(f"module 'authface' has no attribute {name!r}")
