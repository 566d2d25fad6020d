"""`models pull`: a family from the hub, its licence and size said first, the disk looked at before."""

from __future__ import annotations

import fnmatch
import shutil
from dataclasses import dataclass
from pathlib import Path

from authface.errors import AuthfaceError, UsageError, one_line
from authface.models import families as models
from authface.models import hub_cache
from authface.models.layout import BASE, BESIDE, FILES, MANIFEST, PARTS, VARIANTS
from authface.models.weights import in_bytes

PATTERNS = (
    *(f"{part}/{pattern}" for part in PARTS for pattern in FILES),
    *BESIDE,
    MANIFEST,
)
"""What is downloaded of a repository: the parts as stock code reads them, index, card, presets."""


@dataclass(frozen=True)
class Offer:
    """What the hub has of a family."""

    repository: str
    commit: str
    licence: str
    """As this version knows it, else as its card says; empty where neither does."""
    files: dict[str, int]
    """Bytes by name."""
    missing: dict[str, int]
    """Those that are not in the cache yet."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    @property
    def to_download(self) -> int:
        """Bytes that are not in the cache yet."""
        return sum(self.missing.values())


def source_of(name: str) -> models.ModelSource:
    """The repository that `name` stands for. Raises UsageError for a folder, the built-in model and wrong names."""
    if name == "tiny":
        raise UsageError("tiny is built in: there is nothing to pull; authface models verify tiny checks it")
    source = models.resolve(name)
    if source.local:
        raise UsageError(f"{one_line(name)} is a folder of this machine: give sdxl, authface or owner/repository")
    return source


def offer(source: models.ModelSource) -> Offer:
    """What the hub has of the repository, by two questions. Raises AuthfaceError as `models.snapshot` does."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    with hub_cache.hub_errors(source.location):
        info = api.model_info(source.location)
        commit = str(info.sha)
        tree = list(api.list_repo_tree(source.location, recursive=True, revision=commit))
    found = {one.path: one for one in tree if isinstance(one, RepoFile) and wanted(one.path)}
    lacking = [part for part in BASE if not any(name.startswith(f"{part}/") for name in found)]
    if lacking:
        raise AuthfaceError(
            f"{one_line(source.location)} is no family in diffusers' layout: it lacks {', '.join(lacking)}; "
            "give sdxl, authface or another repository"
        )
    files = {name: int(one.size) for name, one in sorted(found.items())}
    etags = {name: one.lfs.sha256 if one.lfs else one.blob_id for name, one in found.items()}
    missing = {name: size for name, size in files.items() if not hub_cache.has_blob(source.location, etags[name])}
    card = info.card_data
    stated = str((card.get("license_name") or card.get("license") or "") if card else "")
    return Offer(source.location, commit, source.licence or stated, files, missing)


def wanted(name: str) -> bool:
    """Whether a repository's file is one that a family is read from."""
    fits = any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)
    return fits and not any(fnmatch.fnmatch(name, pattern) for pattern in VARIANTS)


def check_room(offered: Offer, out: Path | None) -> None:
    """Raise AuthfaceError where the download, and its copy in `out`, would fill the disk."""
    need: dict[int, tuple[Path, int]] = {}
    for place, size in ((hub_cache.cache_folder(), offered.to_download), (out, offered.bytes)):
        if place is not None:
            there = nearest(place)
            device = there.stat().st_dev
            need[device] = there, size + (need[device][1] if device in need else 0)
    for there, size in need.values():
        free = shutil.disk_usage(there).free
        if size > free:
            raise AuthfaceError(
                f"{one_line(offered.repository)} needs {in_bytes(size)} at {one_line(there)}, {in_bytes(free)} are "
                "free: free space, or set HF_HOME to a folder on a larger disk"
            )


def nearest(place: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    here = place.expanduser().absolute()
    return next(folder for folder in (here, *here.parents) if folder.is_dir())


def here_already(source: models.ModelSource) -> Path | None:
    """The repository's folder in the cache if it lies there whole, for when the hub cannot be asked."""
    found = hub_cache.cached(source.location)
    return found.folder if found is not None and not found.missing else None


def download(source: models.ModelSource) -> Path:
    """The family's folder in the cache, with the hub's own bars. Raises AuthfaceError as `models.snapshot` does."""
    return models.snapshot(source.location, PATTERNS)


def family_files(folder: Path) -> list[Path]:
    """The files of a family in a snapshot, whatever else other programs fetched of the repository."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if wanted(name := path.relative_to(folder).as_posix()) and name != MANIFEST]
