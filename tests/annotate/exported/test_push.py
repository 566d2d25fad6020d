"""What goes to the hub: against a stand-in of its HTTP API on loopback, by the real client."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from authface.annotate.export import export
from authface.annotate.settings import ExportSettings
from authface.annotate.terms import NO_DERIVATIVES, RESERVED, UNKNOWN, UNSPLASH, Publisher
from authface.cli import main
from authface.console import Console
from authface.decisions import Decision
from authface.photoset import PhotoSet
from authface.reviews import decision_log, now
from authface.uses import dataset_ids

MakeSet = Callable[..., PhotoSet]
TOKEN = "hf_" + "a" * 34


@dataclass
class Repo:
    """A dataset repository."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """The stand-in: as much of the hub's API as an upload and a download need."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    """Every body that came."""
    broken: bool = False
    """Commits fail."""

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """The answer to a POST."""
        self.received.append(body)
        said = json.loads(body) if body[:1] == b"{" and b"\n{" not in body else {}
        if path == "/api/repos/create":
            name = f"{said.get('organization') or 'anna'}/{said['name']}"
            self.repos[name] = Repo(said.get("visibility") == "private" or bool(said.get("private")))
            return 200, {"url": f"{self.url}/datasets/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            modes = [
                (file["path"], "lfs" if file["path"].endswith(".parquet") else "regular") for file in said["files"]
            ]
            return 200, {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes]}
        if path.endswith("/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.url}/upload/{one['oid']}", "header": {}}}}
                for one in said["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            if self.broken:
                return 403, {"error": "you may not"}
            self._commit(self.repos[path.split("/api/datasets/")[1].partition("/commit/")[0]], body)
            return 200, {
                "success": True,
                "commitOid": "c" * 40,
                "commitUrl": f"{self.url}/datasets/a/b/commit/{'c' * 40}",
            }
        return 404, {"error": path}

    def _commit(self, repo: Repo, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                del repo.files[value["path"]]

    def get(self, path: str) -> tuple[int, Any]:
        """The answer to a GET."""
        if path.startswith("/api/whoami"):
            return 200, {"type": "user", "name": "anna", "auth": {"accessToken": {"role": "write"}}}
        owner, name, *rest = path.removeprefix("/api/datasets/").removeprefix("/datasets/").split("/")
        repo = self.repos.get(f"{owner}/{name}")
        if repo is None:
            return 404, {"error": "Repository not found"}
        if path.startswith("/datasets/"):
            return 200, repo.files["/".join(rest[2:])]
        entries = [{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in repo.files.items()]
        if rest[:1] == ["tree"]:
            return 200, entries
        siblings = [{"rfilename": path} for path in repo.files]
        return 200, {"id": f"{owner}/{name}", "private": repo.private, "sha": "c" * 40, "siblings": siblings}


class Handler(BaseHTTPRequestHandler):
    """HTTP of the stand-in."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self._body()
        self._send(*(self.hub.post(self.path.partition("?")[0], body) if self._known() else (401, {"error": "who?"})))

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.received.append(body)
        self.hub.lfs[self.path.rpartition("/")[2]] = body
        self._send(200, {})

    def do_GET(self) -> None:
        self._send(*(self.hub.get(self.path.partition("?")[0]) if self._known() else (401, {"error": "who?"})))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _send(self, status: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        if status == 404:
            self.send_header("x-error-code", "RepoNotFound")
        self.send_header("etag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("x-repo-commit", "c" * 40)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    handler = type("Bound", (Handler,), {"hub": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Done:
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def authface(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `authface annotate` here, with the hub's address and a token; constants of its client by their names."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def run(*words: object, token: str = TOKEN, endpoint: str = "", offline: bool = False) -> Done:
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint or hub.url)
        template = f"{endpoint or hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(sys, "argv", ["authface", "annotate", *map(str, words)])
        close_session()
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        done = Done(code, *capsys.readouterr())
        assert TOKEN not in done.stdout + done.stderr
        return done

    return run


MIXED: list[dict[str, Any]] = [
    {"split": "test"},
    {"source": "unsplash", "licence": "Unsplash License"},
    {"source": "unsplash-lite", "licence": "CC0-1.0"},
    {"source": "urls", "file_url": "https://images.unsplash.com/photo-1"},
    {"licence": "unknown"},
    {"licence": "CC BY-ND 4.0"},
    {},
]


def crops_in(data: bytes) -> list[str]:
    """Ids of the rows of a Parquet file that hold an image."""
    table = pq.read_table(io.BytesIO(data))
    return table.column("id").to_pylist() if "image" in table.column_names else []


def test_what_may_be_passed_on_goes_with_pixels_and_the_rest_without(
    hub: Hub, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    export(photoset, ExportSettings(), Console())
    photos = list(photoset.photos)
    done = authface("push", photoset.root, "anna/faces", "--json")
    assert done.returncode == 0, done.stderr
    said, repo = json.loads(done.stdout), hub.repos["anna/faces"]
    assert repo.private and set(repo.files) == set(said["files"])
    assert said["without_pixels"] == {UNSPLASH: 3, UNKNOWN: 1, NO_DERIVATIVES: 1} and said["with_pixels"] == 2
    shown = {name.split("-")[0]: crops_in(data) for name, data in repo.files.items() if name.startswith("data/")}
    assert shown == {"data/test": [f"{photos[0].id}-0"], "data/train": [f"{photos[6].id}-0"]}
    sent = b"".join(hub.received)
    for number, crop in enumerate(photoset.crops):
        png = photoset.read(crop.file)
        assert (png[:400] in sent) == (number in {0, 6}), number
        assert photoset.read(photos[number].file)[100:400] not in sent
    manifest = [name for name in repo.files if name.startswith("manifest/")]
    rows = [row for name in manifest for row in pq.read_table(io.BytesIO(repo.files[name])).to_pylist()]
    assert {row["photo_id"] for row in rows} == {photo.id for photo in photos}
    assert all("image" not in row and row["quad"] and row["tags"] for row in rows)
    assert str(tmp_path) not in "".join(data.decode("utf-8", "ignore") for data in repo.files.values())
    card = repo.files["README.md"].decode()
    assert f"| {UNSPLASH} | 3 |" in card and "annotate rebuild" in card
    local = tmp_path / "cloned"
    for name, data in repo.files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(data)
    import datasets

    opened = datasets.load_dataset(str(local), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == {"train": 1, "test": 1}
    whole = datasets.load_dataset(str(local), "manifest", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in whole.items()} == {"train": 6, "test": 1}
    assert dataset_ids(photoset.root / "exports" / "hub") == {photo.id for photo in photos}
    again = authface("rebuild", "anna/faces", tmp_path / "new", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["drift"] == {"no_address": 6, "to_fetch": 1}
    unknown = authface("rebuild", "anna/nothing", tmp_path / "new")
    assert unknown.returncode == 1 and "no such repository" in unknown.stderr and unknown.stderr.count("\n") == 1


def test_all_of_it_may_go_and_replaces_what_was_there(
    hub: Hub, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", [{}, {"licence": "unknown"}])
    folder = export(photoset, ExportSettings(), Console()).folder
    hub.repos["anna/faces"] = Repo(True, {"data/old.parquet": b"old", "manifest/old.parquet": b"old", "mine.txt": b"m"})
    done = authface("push", photoset.root, "anna/faces", "--i-hold-the-rights")
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del files["photo_ids.txt"]
    assert hub.repos["anna/faces"].files == files | {"mine.txt": b"m"}
    done = authface("push", photoset.root, "anna/faces", "--no-pixels")
    assert done.returncode == 0, done.stderr
    assert {name.partition("/")[0] for name in hub.repos["anna/faces"].files} == {
        "manifest", "mine.txt", "README.md", "authface.json"
    }  # fmt: skip


def test_a_dry_run_says_what_would_go_and_asks_nobody(
    hub: Hub, authface: Run, make_set: MakeSet, tmp_path: Path
) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    export(photoset, ExportSettings(), Console())
    before = sorted(photoset.root.rglob("*"))
    done = authface("push", photoset.root, "anna/faces", "--dry-run")
    assert done.returncode == 0 and "nothing was sent" in done.stdout
    assert f"3  without pixels: {UNSPLASH}" in done.stdout and "7 rows, 2 with pixels" in done.stdout
    assert not hub.received and not hub.repos and sorted(photoset.root.rglob("*")) == before


def test_what_is_wrong_is_one_line(hub: Hub, authface: Run, make_set: MakeSet, tmp_path: Path) -> None:
    photoset = make_set(tmp_path / "set", MIXED)
    root = photoset.root

    def told(words: str, code: int, *flags: str, name: str = "anna/faces", **how: Any) -> None:
        done = authface("push", root, name, *flags, **how)
        errors = [line for line in done.stderr.splitlines() if not line.startswith(("push: ", "publication: "))]
        assert done.returncode == code and len(errors) == 1, done.stderr
        assert words in done.stderr

    told("run authface annotate export", 2)
    export(photoset, ExportSettings(), Console())
    told("write OWNER/faces", 2, name="faces")
    told("hf auth login", 2, token="")
    told("does not accept the token", 1, token="hf_" + "b" * 34)
    told("HF_HUB_OFFLINE", 1, offline=True)
    told("check the connection", 1, endpoint="http://127.0.0.1:9")
    hub.repos["anna/faces"] = Repo(private=False)
    told("--public", 2)
    assert hub.repos["anna/faces"].files == {}
    hub.broken = True
    told("may not write", 1, "--public")
    crop = next(iter(photoset.crops))
    decision_log(photoset, "anna").append(Decision(id=crop.id, verdict="reject", at=now()))
    told("older than what the set holds", 2)


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC0-1.0", ""), ("CC BY 4.0", ""), ("public domain", ""), ("", UNKNOWN), ("Unknown", UNKNOWN),
        ("CC-BY-NC-ND-4.0", NO_DERIVATIVES), ("Attribution-NoDerivs", NO_DERIVATIVES),
        ("The Unsplash License", UNSPLASH),
        ("© Anna, all rights reserved", RESERVED), ("research", ""), ("Legend of Andes", ""),
    ],
)  # fmt: skip
def test_what_a_licence_says(licence: str, reason: str) -> None:
    origin = {"source": "folder", "licence": licence, "page_url": "", "file_url": "http://[bad"}
    assert Publisher().withholds(origin) == reason
    owner = Publisher(rights=True).withholds(origin)
    assert owner == ("" if reason in {UNKNOWN, RESERVED} else reason)
    assert Publisher(rights=True).withholds(origin | {"source": "unsplash"}) == UNSPLASH
    assert Publisher(rights=True).withholds(origin | {"page_url": "https://unsplash.com/photos/x"}) == UNSPLASH
    assert Publisher(pixels=False).withholds(origin) != ""
