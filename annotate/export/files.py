"""Copies of the photos with the captions of their faces in their own metadata, where photo libraries look for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from authface.annotate.export.formats import DEFAULT_SPLIT, ExportTarget, Format
from authface.errors import AuthfaceError, ImageError, one_line
from authface.imaging.decode import EXTENSIONS
from authface.imaging.keywords import embedded, sidecar

NAME_LENGTH = 48
"""Characters of a photo's own name that its copy keeps."""
ID_LENGTH = 12
"""Digits of its sha256 that keep names apart."""


@dataclass
class _Photo:
    """A photo, and what is said of its faces that were exported."""

    id: str
    file: str
    copy: str
    """Where it goes, below the export's folder."""
    words: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


class FilesFormat(Format):
    """``<split>/<name>-<id>.jpg``: tags of a photo's faces are its keywords, their prompts its caption.

    The photo's bytes are those of the original but for XMP and, in a JPEG, IPTC. A file of another format than JPEG,
    PNG and WebP, or one whose bytes must not move, is copied as it is, with ``<its name>.xmp`` beside it.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._photo: _Photo | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Note one more face; a photo is written when the next one begins, for its faces come one after the other."""
        if self._photo is None or self._photo.id != row["photo_id"]:
            self.close()
            self._photo = self._begun(row)
        self._photo.words += [tag["name"] for tag in row["tags"] if tag["name"] not in self._photo.words]
        self._photo.prompts.append(row["prompt"])

    def close(self) -> None:
        """Write the last photo."""
        photo, self._photo = self._photo, None
        if photo is None:
            return
        caption = "; ".join(prompt for prompt in photo.prompts if prompt)
        data = self._read(photo)
        path = self._target.folder / photo.copy
        path.parent.mkdir(parents=True, exist_ok=True)
        made = embedded(data, photo.words, caption)
        path.write_bytes(data if made is None else made)
        if made is None:
            path.with_name(f"{path.name}.xmp").write_bytes(sidecar(photo.words, caption))

    def _read(self, photo: _Photo) -> bytes:
        try:
            return self._target.photoset.read(photo.file)
        except ImageError as error:
            again = f"run authface curate fetch {one_line(self._target.photoset.root)} with its source again"
            raise AuthfaceError(f"original {one_line(photo.file)}: {one_line(error)}; {again}") from error

    def _begun(self, row: dict[str, Any]) -> _Photo:
        ending = EXTENSIONS[row["photo"]["format"]]
        name = _safe(PurePosixPath(row["source_id"].replace("\\", "/")).stem)
        copy = f"{row['split'] or DEFAULT_SPLIT}/{name}{'-' if name else ''}{row['photo_id'][:ID_LENGTH]}.{ending}"
        return _Photo(row["photo_id"], self._target.photoset.photo_file(row["photo_id"], ending), copy)


def _safe(name: str) -> str:
    """Letters and digits of any language, ``-`` and ``_`` of a name that came from outside."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name).strip("_")[:NAME_LENGTH]
