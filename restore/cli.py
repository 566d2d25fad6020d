"""`authface restore`."""

from authface.options import Run, later


def restore(run: Run) -> None:
    """Restore the faces in photos."""
    later("restore")
