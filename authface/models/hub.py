"""The Hugging Face hub, through `huggingface_hub`: repositories to push to, families to pull.

Its own login, its own retries; what it says becomes one line.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]  # documented, not listed

from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.models import hub_cache
from authface.models.families import ModelSource, resolve, snapshot
from authface.models.layout import BASE, BESIDE, FILES, MANIFEST, ONNX, ONNX_FILES, PARTS, VARIANTS, in_bytes
from authface.models.networks import NETWORKS

PATTERNS = (
    *(f"{part}/{pattern}" for part in PARTS for pattern in FILES),
    *BESIDE,
    *(f"{ONNX}/{pattern}" for pattern in ONNX_FILES),
    MANIFEST,
)
"""What is downloaded of a repository: the parts as stock code reads them, index, card, presets, ONNX graphs."""
_LOGIN = "set HF_TOKEN, or run: hf auth login"


def check_name(repo_id: str) -> None:
    """Raise UsageError for what is no ``owner/name``."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{one_line(repo_id, 100)} is no name of a repository: {first_line(error, 160)}") from error
    if repo_id.count("/") != 1:
        raise UsageError(f"{one_line(repo_id, 100)} is no name of a repository: write OWNER/{one_line(repo_id, 100)}")


@dataclass(frozen=True)
class Repository:
    """A repository of datasets or models that may be written to, or that will be made."""

    repo_id: str
    token: str = field(repr=False)
    public: bool
    """A new one is made public."""
    kind: Literal["dataset", "model"] = "dataset"

    def check(self) -> None:
        """Raise UsageError where it is public and was not asked to be, AuthfaceError where the hub refuses."""
        with _one_line_errors(self.token, f"push to {self.repo_id}"):
            self._api().whoami()
            if self._is_private() is False and not self.public:
                raise UsageError(
                    f"{one_line(self.repo_id)} is public: add --public if everybody may read this, or make it"
                    " private first"
                )

    def upload(self, folder: Path, *, patterns: Sequence[str], stale: Sequence[str], message: str) -> str:
        """Send the files of `folder` that fit `patterns`, and return the commit's address.

        Files there that fit `stale` and are not among them are deleted. Raises AuthfaceError where the hub refuses.
        """
        with _one_line_errors(self.token, f"push to {self.repo_id}"):
            api = self._api()
            if self._is_private() is None:
                api.create_repo(self.repo_id, repo_type=self.kind, private=not self.public, exist_ok=True)
            done: Any = api.upload_folder(
                repo_id=self.repo_id,
                repo_type=self.kind,
                folder_path=folder,
                allow_patterns=list(patterns),
                delete_patterns=list(stale),
                commit_message=message,
            )
        return str(done.commit_url)

    def _is_private(self) -> bool | None:
        """None where there is no such repository, or none that the token may see."""
        try:
            return bool(self._api().repo_info(self.repo_id, repo_type=self.kind).private)
        except RepositoryNotFoundError:
            return None

    def _api(self) -> HfApi:
        return HfApi(token=self.token)


def repository(repo_id: str, *, public: bool, kind: Literal["dataset", "model"] = "dataset") -> Repository:
    """The repository of that name, with the token of HF_TOKEN or of the hub's own login. Raises UsageError."""
    check_name(repo_id)
    disable_progress_bars()
    token = get_token()
    if not token:
        raise UsageError(f"no token of the hub: {_LOGIN}")
    return Repository(repo_id, token, public, kind)


def download_dataset(repo_id: str, patterns: Sequence[str]) -> Path:
    """The files of a dataset repository that fit `patterns`, in the hub's own cache. Raises AuthfaceError."""
    check_name(repo_id)
    disable_progress_bars()
    with _one_line_errors(get_token() or "", f"get {repo_id}"):
        return Path(snapshot_download(repo_id, repo_type="dataset", allow_patterns=list(patterns)))


@contextmanager
def _one_line_errors(token: str, what: str) -> Iterator[None]:
    """Raise what the hub or the network says as an AuthfaceError of one line, without the token."""
    # The errors of the HTTP client, which is another one from release to release.
    clients = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    broken: tuple[type[Exception], ...] = (*clients, RuntimeError, ValueError)

    def line(problem: str, error: BaseException) -> AuthfaceError:
        text = f"cannot {what}: {problem}"
        return AuthfaceError(one_line(text.replace(token, "***") if token else text))

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise line("HF_HUB_OFFLINE is set; unset it and run the same command again", error) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        refused = {401: f"the hub does not accept the token: {_LOGIN}", 403: "the token may not write there"}
        refused[404] = "there is no such repository, or the token may not see it"
        said = (getattr(error, "server_message", "") or str(error)).strip()
        raise line(refused.get(status, f"HTTP {status}: {one_line(said, 160)}"), error) from error
    except broken as error:
        problem = f"{type(error).__name__}: {first_line(error, 160)}; check the connection, run the same command again"
        raise line(problem, error) from error


@dataclass(frozen=True)
class RemoteFamily:
    """What the hub has of a family."""

    repository: str
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


def hub_source(name: str) -> ModelSource:
    """The repository that `name` stands for. Raises UsageError for a folder, the built-in model and wrong names."""
    if name == "tiny":
        raise UsageError("tiny is built in: there is nothing to pull; authface models verify tiny checks it")
    source = resolve(name, others=NETWORKS)
    if source.local:
        raise UsageError(f"{one_line(name)} is a folder of this machine: give sdxl, authface or owner/repository")
    return source


def remote_family(source: ModelSource) -> RemoteFamily:
    """What the hub has of the repository, by two requests. Raises AuthfaceError as `families.snapshot` does."""
    api = HfApi()
    with hub_cache.hub_errors(source.location):
        info = api.model_info(source.location)
        tree = list(api.list_repo_tree(source.location, recursive=True, revision=str(info.sha)))
    found = {one.path: one for one in tree if isinstance(one, RepoFile) and _is_read(one.path)}
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
    return RemoteFamily(source.location, source.licence or stated, files, missing)


def _is_read(name: str) -> bool:
    """Whether a repository's file is one that a family is read from."""
    fits = any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)
    return fits and not any(fnmatch.fnmatch(name, pattern) for pattern in VARIANTS)


def check_room(name: str, places: Sequence[tuple[Path, int]], elsewhere: str) -> None:
    """Raise AuthfaceError where so many bytes in these folders would fill the disk; `elsewhere` says what to set."""
    need: dict[int, tuple[Path, int]] = {}
    for place, size in places:
        there = _existing_parent(place)
        device = there.stat().st_dev
        need[device] = there, size + (need[device][1] if device in need else 0)
    for there, size in need.values():
        free = shutil.disk_usage(there).free
        if size > free:
            raise AuthfaceError(
                f"{one_line(name)} needs {in_bytes(size)} at {one_line(there)}, {in_bytes(free)} are free: free space, "
                f"or set {elsewhere} on a larger disk"
            )


def _existing_parent(place: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    here = place.expanduser().absolute()
    return next(folder for folder in (here, *here.parents) if folder.is_dir())


def complete_snapshot(source: ModelSource) -> Path | None:
    """The repository's folder in the cache if it lies there whole, for when the hub cannot be asked."""
    found = hub_cache.cached(source.location)
    return found.folder if found is not None and not found.missing else None


def download_family(source: ModelSource) -> Path:
    """The family's folder in the cache, with the hub's own bars. Raises AuthfaceError as `families.snapshot` does."""
    return snapshot(source.location, PATTERNS)


def snapshot_files(folder: Path) -> list[Path]:
    """The files of a family in a snapshot, whatever else other programs fetched of the repository."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if _is_read(name := path.relative_to(folder).as_posix()) and name != MANIFEST]
