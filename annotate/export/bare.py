"""Formats of files without columns, `kohya` and `files`: texts beside or in them, and `CREDITS`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import tomli_w

from authface.annotate.export.formats import DEFAULT_SPLIT, ExportTarget, Format
from authface.errors import AuthfaceError, ImageError, one_line, shell_word
from authface.files import write_file
from authface.imaging.decode import EXTENSIONS
from authface.imaging.keywords import embedded, sidecar


def write_kohya_config(folder: Path, final: Path, size: int) -> None:
    """Write `folder`/dataset.toml for an export that lies at `final`: sd-scripts takes no path relative to the file."""
    subset = {"image_dir": str((final / DEFAULT_SPLIT).resolve()), "num_repeats": 1}
    config = {
        "general": {"caption_extension": ".txt", "shuffle_caption": False, "enable_bucket": False},
        "datasets": [{"resolution": size, "batch_size": 1, "subsets": [subset]}],
    }
    write_file(folder / "dataset.toml", tomli_w.dumps(config).encode())


def renew_kohya_config(folder: Path, size: int) -> None:
    """Correct where `folder`/dataset.toml says that its images are, if they are not there; the rest is its user's."""
    path = folder / "dataset.toml"
    if not path.is_file():
        write_kohya_config(folder, folder, size)
        return
    try:
        config = tomllib.loads(path.read_text("utf-8"))
        subsets = [one for entry in config["datasets"] for one in entry["subsets"]]
        lost = [one for one in subsets if _is_lost(Path(one["image_dir"]))]
    except (ValueError, KeyError, TypeError):
        return  # its user's own
    if len(lost) == 1:
        lost[0]["image_dir"] = str((folder / DEFAULT_SPLIT).resolve())
        write_file(path, tomli_w.dumps(config).encode())


def _is_lost(images: Path) -> bool:
    return images.name == DEFAULT_SPLIT and not images.is_dir()


CREDITS = "credits.jsonl"
"""In an export whose files hold no columns: of each the photo's source, photographer and licence."""
CREDITED = ("source", "source_id", "page_url", "photographer", "photographer_url", "licence", "terms")


class _Credits:
    """Writes `CREDITS`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / CREDITS).open("w", encoding="utf-8", newline="\n")

    def add(self, file: str, row: Mapping[str, Any]) -> None:
        """Write the line of a file, named from the export's folder."""
        told = {"file": file} | {name: row[name] for name in CREDITED if row.get(name)}
        self._file.write(json.dumps(told, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class KohyaFormat(Format):
    """``<split>/<id>.png`` with its prompt beside it in a .txt, `CREDITS`, and the dataset.toml of sd-scripts."""

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._splits: set[str] = set()
        self._credits = _Credits(target.folder)

    def close(self) -> None:
        """Close what is open."""
        self._credits.close()
        write_kohya_config(self._target.folder, self._target.final, self._target.size)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more row."""
        split = row["split"] or DEFAULT_SPLIT
        folder = self._target.folder / split
        if split not in self._splits:
            folder.mkdir(parents=True)
            self._splits.add(split)
        (folder / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
        (folder / f"{row['id']}.txt").write_text(row["prompt"] + "\n", "utf-8")
        self._credits.add(f"{split}/{row['id']}.png", row)


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
    """``<split>/<name>-<id>.jpg`` and `CREDITS`: tags of a photo's faces are its keywords, their prompts its caption.

    The photo's bytes are those of the original but for XMP and, in a JPEG, IPTC. A file of another format than JPEG,
    PNG and WebP, or one whose bytes must not move, is copied as it is, with ``<its name>.xmp`` beside it.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._photo: _Photo | None = None
        self._credits = _Credits(target.folder)

    def add(self, row: dict[str, Any]) -> None:
        """Note one more face; a photo is written when the next one begins, for its faces come one after the other."""
        if self._photo is None or self._photo.id != row["photo_id"]:
            self._write()
            self._photo = self._begun(row)
            self._credits.add(self._photo.copy, row)
        self._photo.words += [tag["name"] for tag in row["tags"] if tag["name"] not in self._photo.words]
        self._photo.prompts.append(row["prompt"])

    def close(self) -> None:
        """Write the last photo."""
        try:
            self._write()
        finally:
            self._credits.close()

    def _write(self) -> None:
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
            again = f"run authface curate fetch {shell_word(self._target.photoset.root)} with its source again"
            raise AuthfaceError(f"original {one_line(photo.file)}: {one_line(error)}; {again}") from error

    def _begun(self, row: dict[str, Any]) -> _Photo:
        ending = EXTENSIONS[row["photo"]["format"]]
        name = _safe(PurePosixPath(row["source_id"].replace("\\", "/")).stem)
        copy = f"{row['split'] or DEFAULT_SPLIT}/{name}{'-' if name else ''}{row['photo_id'][:ID_LENGTH]}.{ending}"
        return _Photo(row["photo_id"], self._target.photoset.photo_file(row["photo_id"], ending), copy)


def _safe(name: str) -> str:
    """Letters and digits of any language, ``-`` and ``_`` of a name that came from outside."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name).strip("_")[:NAME_LENGTH]
