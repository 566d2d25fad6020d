"""The Hugging Face hub, through `huggingface_hub`: its own login, its own retries; what it says becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from authface.errors import AuthfaceError, UsageError, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOGIN = "set HF_TOKEN, or run: hf auth login"


def check_name(repo_id: str) -> None:
    """Raise UsageError for what is no ``owner/name``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not listed

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{one_line(repo_id, 100)} is no name of a repository: {one_line(error, 160)}") from error
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
        with _told(self.token, f"push to {self.repo_id}"):
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
        with _told(self.token, f"push to {self.repo_id}"):
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
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return bool(self._api().repo_info(self.repo_id, repo_type=self.kind).private)
        except RepositoryNotFoundError:
            return None

    def _api(self) -> HfApi:
        import huggingface_hub

        return huggingface_hub.HfApi(token=self.token)


def repository(repo_id: str, *, public: bool, kind: Literal["dataset", "model"] = "dataset") -> Repository:
    """The repository of that name, with the token of HF_TOKEN or of the hub's own login. Raises UsageError."""
    import huggingface_hub

    check_name(repo_id)
    _quiet()
    token = huggingface_hub.get_token()
    if not token:
        raise UsageError(f"no token of the hub: {_LOGIN}")
    return Repository(repo_id, token, public, kind)


def download(repo_id: str, patterns: Sequence[str]) -> Path:
    """The files of a dataset repository that fit `patterns`, in the hub's own cache. Raises AuthfaceError."""
    import huggingface_hub

    check_name(repo_id)
    _quiet()
    with _told(huggingface_hub.get_token() or "", f"get {repo_id}"):
        return Path(huggingface_hub.snapshot_download(repo_id, repo_type="dataset", allow_patterns=list(patterns)))


def _quiet() -> None:
    """Switch off the library's own bars."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # documented, not listed

    disable_progress_bars()


@contextmanager
def _told(token: str, what: str) -> Iterator[None]:
    """Raise what the hub or the network says as an AuthfaceError of one line, without the token."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

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
        problem = f"{type(error).__name__}: {one_line(error, 160)}; check the connection, run the same command again"
        raise line(problem, error) from error
