"""The hub's cache on this machine: which families lie in it, and whether their files are what the hub sent.

A snapshot's files are links to blobs that are named by what the hub calls their etag: the sha256 of a large file,
git's sha1 of a small one (`huggingface_hub.file_download`). A blob may be a link itself, into a store that
repositories share. `huggingface_hub.scan_cache_dir` leaves out a repository with one broken link or stale branch, which
is what has to be told of here, and `get_cached_repo_tree` leaves out the sha256 of large files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from authface.errors import AuthfaceError, first_line, one_line
from authface.files import sha256_of
from authface.models.layout import BASE, PARTS, VARIANTS

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Cached:
    """A repository of models in the cache, at the commit its branch `main` was last seen at."""

    repository: str
    folder: Path
    """Its files: ``snapshots/COMMIT``."""

    @property
    def missing(self) -> list[str]:
        """Parts of a family that are not here, and files of which only the link is."""
        parts = [part for part in BASE if not (self.folder / part).is_dir()]
        dead = [path for path in self.folder.rglob("*") if path.is_symlink() and not path.exists()]
        known = [name for name in listing(self.folder) if name.startswith(_WANTED) and name.endswith(_ENDINGS)]
        lost = {name for name in known if not _variant(name) and not (self.folder / name).exists()}
        return sorted({*parts, *lost, *(path.relative_to(self.folder).as_posix() for path in dead)})


_WANTED = tuple(f"{part}/" for part in PARTS)
_ENDINGS = (".json", ".txt", ".safetensors")


def _variant(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in VARIANTS)


def cache_folder() -> Path:
    """Where `huggingface_hub` keeps what it downloads: HF_HUB_CACHE, HF_HOME or their default."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _home(repository: str) -> Path:
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def cached(repository: str) -> Cached | None:
    """The repository in the cache; None where nothing of it is."""
    home = _home(repository)
    try:
        commit = (home / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = home / "snapshots" / commit
    return Cached(repository, folder) if folder.is_dir() else None


def has_blob(repository: str, etag: str) -> bool:
    """Whether a file of that content is in the cache already."""
    return (_home(repository) / "blobs" / etag).is_file()


def families() -> Iterator[Cached]:
    """Every repository of the cache that has the parts of a family, by name."""
    for home in sorted(cache_folder().glob("models--*--*")):
        found = cached(home.name.removeprefix("models--").replace("--", "/", 1))
        if found is not None and all((found.folder / part).is_dir() for part in BASE):
            yield found


def listing(folder: Path) -> dict[str, str]:
    """File -> its etag, as the hub listed the commit of a snapshot; empty where the cache holds no such list."""
    path = folder.parent.parent / "trees" / f"{folder.name}.json"
    try:
        tree = json.loads(path.read_text("utf-8"))
        if tree["format_version"] != 1:
            return {}
        return {str(name): str(file.get("lfs_sha256") or file["blob_id"]) for name, file in tree["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def etag_of(path: Path, listed: dict[str, str], name: str) -> str:
    """What the hub calls the content of a snapshot's file; empty where the cache does not say.

    On a disk without links a snapshot holds the file itself, and only the list of its commit (`listing`) tells.
    """
    if path.is_symlink():
        return path.readlink().name
    return listed.get(name, "")


def is_content(path: Path, etag: str) -> bool | None:
    """Whether a file's content has that etag; None for one that is no hash."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return sha256_of(path) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)  # as git hashes a file
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == etag
    return None


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Raise what the hub or the network says of a repository of models as an AuthfaceError of one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = one_line(repository)
    # The errors of the HTTP client, which is another one from release to release.
    clients = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    broken: tuple[type[Exception], ...] = (*clients, OSError, ValueError)
    try:
        yield
    except GatedRepoError as error:
        raise AuthfaceError(f"{where} asks for consent: accept its terms on its page, set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise AuthfaceError(f"the hub has no {where}, or it is private: check the name, set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise AuthfaceError(f"{where} has no revision {one_line(revision)}: give a branch, tag or commit") from error
    except broken as error:
        by_hand = "copy its files and give --model FOLDER"
        if constants.HF_HUB_OFFLINE:
            raise AuthfaceError(
                f"{where} is not whole on this machine and HF_HUB_OFFLINE is set: unset it, or {by_hand}"
            ) from error
        raise AuthfaceError(
            f"cannot get {where} ({first_line(error, 200)}): check the connection, set HF_ENDPOINT to a mirror, "
            f"or {by_hand}"
        ) from error
