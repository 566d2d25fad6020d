"""A stand-in for the hub: its HTTP API on loopback, as much as an upload and a download need."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

TOKEN = "hf_" + "a" * 34


@dataclass
class Repo:
    """A repository, of datasets or models."""

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

    def add(self, name: str, private: bool, files: dict[str, bytes]) -> None:
        """Make a repository that is there already."""
        self.repos[name] = Repo(private, files)

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
                (file["path"], "lfs" if file["path"].endswith((".parquet", ".safetensors")) else "regular")
                for file in said["files"]
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
            self._commit(self.repos["/".join(path.split("/")[3:5])], body)
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
        owner, name, *rest = (
            path.removeprefix("/api").removeprefix("/datasets").removeprefix("/models").strip("/").split("/")
        )
        repo = self.repos.get(f"{owner}/{name}")
        if repo is None:
            return 404, {"error": "Repository not found"}
        if not path.startswith("/api/"):
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
