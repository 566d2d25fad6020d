"""Files of hosts: asked for once, kept for a day, and one that does not answer holds up no other host."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from authface.console import Console
from authface.curate.fetch.optouts.sites import PATHS
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.settings import FetchSettings
from authface.records import Photo
from authface.store.photoset import PhotoSet
from tests.curate.conftest import Handler, Server

WEB = {"allow_private_hosts": True, "host_rate": 500, "backoff_seconds": 0.01, "attempts": 2, "timeout_seconds": 0.5}
DENY = b"User-agent: *\nDisallow: /0"


@pytest.fixture
def other() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()


def bring(root: Path, links: list[str], level: str = "strict", **web: object) -> dict[str, Photo]:
    path = root.parent / "list.txt"
    path.write_text("\n".join(links))
    wanted = FetchSettings.model_validate({"source": "urls", "path": str(path), "web": WEB | web, "opt_outs": level})
    photoset = PhotoSet(root)
    with make_source(wanted, photoset) as origin:
        fetch(photoset, origin, wanted, Console(), workers=1, limit=0)
    return {row.source_id: row for row in photoset.photos}


def served(server: Server, photos: list[bytes], count: int) -> list[str]:
    return [server.serve(f"/{n}.jpg", photos[n]) for n in range(count)]


def test_a_host_is_asked_once_whatever_the_threads_and_the_runs(
    server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    server.serve("/robots.txt", DENY)
    links = served(server, photos, 24)
    rows = bring(tmp_path / "set", links)
    assert [rows[link].status for link in links[:2]] == ["rejected", "kept"] and len(rows) == 24
    assert server.site_asked == dict.fromkeys(PATHS.values(), 1)
    bring(tmp_path / "set", [*links, server.serve("/new.jpg", photos[30])])
    assert server.site_asked == dict.fromkeys(PATHS.values(), 1), "kept in the set"
    assert server.asked["/0.jpg"] == 0 and server.asked["/1.jpg"] == 1


def test_what_a_host_said_counts_for_a_day(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    links = served(server, photos, 2)
    bring(tmp_path / "set", links[1:])
    (kept,) = (tmp_path / "set" / "sources" / "opt-outs").iterdir()
    held = json.loads(kept.read_text())
    kept.write_text(json.dumps(held | {"at": "2020-01-01T00:00:00+00:00"}))
    server.serve("/robots.txt", DENY)
    rows = bring(tmp_path / "set", links)
    assert rows[links[0]].reason == "opt_out_robots_txt" and server.site_asked["/robots.txt"] == 2
    older = [path for path in kept.parent.iterdir() if path != kept]
    assert [json.loads(path.read_text())["files"]["robots.txt"] for path in older] == [""], "evidence of earlier rows"
    kept.write_text("{ torn")
    assert len(bring(tmp_path / "set", [*links, server.serve("/2.jpg", photos[2])])) == 3
    assert server.site_asked["/robots.txt"] == 3, "what cannot be read is asked for again"


@pytest.mark.parametrize("file", ["/robots.txt", "/.well-known/tdmrep.json"])
def test_a_file_that_fails_is_a_refusal_that_passes(
    file: str, server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    down = True
    server.routes[file] = lambda request: request.reply(503 if down else 404)
    links = served(server, photos, 3)
    rows = bring(tmp_path / "set", links)
    assert {(row.status, row.reason) for row in rows.values()} == {("failed", "opt_out_unread")}
    assert "503" in rows[links[0]].detail and server.site_asked[file] == 2, "two tries in all, not two a photo"
    assert {row.status for row in bring(tmp_path / "stated", links, "stated").values()} == {"kept"}
    down = False
    rows = bring(tmp_path / "set", links)
    assert {row.status for row in rows.values()} == {"kept"} and len(rows) == 3


def test_a_host_that_is_gone_fails_as_ever(tmp_path: Path) -> None:
    (row,) = bring(tmp_path / "set", ["http://127.0.0.1:9/a.jpg"]).values()
    assert (row.status, row.reason) == ("failed", "unreachable")
    (row,) = bring(tmp_path / "private", ["http://127.0.0.1:9/a.jpg"], allow_private_hosts=False).values()
    assert (row.status, row.reason) == ("rejected", "bad_address")


def test_a_file_that_never_comes_holds_up_no_other_host(
    server: Server, other: Server, photos: list[bytes], tmp_path: Path
) -> None:
    ended, done_while_silent = threading.Event(), threading.Event()
    left = 12

    def silent(request: Handler) -> None:
        done_while_silent.wait(30)
        ended.wait(0.2)
        request.reply(404)

    def last(request: Handler) -> None:
        nonlocal left
        left -= 1
        if not left:
            done_while_silent.set()
        request.reply(200, photos[int(request.path[1:-4])])

    server.routes["/robots.txt"] = silent
    slow = served(server, photos, 12)
    quick = [f"http://localhost:{other.server_port}/{n + 20}.jpg" for n in range(12)]  # lanes are by name
    for n in range(12):
        other.routes[f"/{n + 20}.jpg"] = last
    rows = bring(tmp_path / "set", slow + quick, connections=2, timeout_seconds=40)
    assert done_while_silent.is_set()
    assert {(row.status, row.detail) for row in rows.values()} == {("kept", "")} and len(rows) == 24


def test_a_host_that_drips_its_file_is_given_up(
    server: Server, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authface.curate.fetch.web._TEXT_SECONDS", 0.4)
    ended = threading.Event()

    def drip(request: Handler) -> None:
        request.send_response(200)
        request.end_headers()
        while not ended.wait(0.05):
            request.wfile.write(b"#")

    server.routes["/robots.txt"] = drip
    start = time.monotonic()
    (row,) = bring(tmp_path / "set", served(server, photos, 1)).values()
    ended.set()
    assert row.reason == "opt_out_unread" and time.monotonic() - start < 20


def test_a_file_without_end_is_cut_and_read(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /0\n" + b"# padding\n" * 200_000)
    rows = bring(tmp_path / "set", served(server, photos, 2))
    assert sorted(row.reason for row in rows.values()) == ["", "opt_out_robots_txt"]


def test_a_set_of_before_opens_and_says_what_is_not_known(
    server: Server, photos: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = served(server, photos, 3)
    bring(tmp_path / "set", links)
    photoset = PhotoSet(tmp_path / "set")
    meta = photoset.photos.meta(0)
    assert meta is not None
    photoset.photos.put(0, photoset.photos.arrow(0).drop_columns(["signals", "asked_at"]), meta)
    assert "signals" not in pq.read_schema(tmp_path / "set/tables/photos/00000.parquet").names
    capsys.readouterr()
    rows = bring(tmp_path / "set", links)
    assert "3 photos came before opt-outs were read" in capsys.readouterr().err
    assert {(row.status, row.signals, row.asked_at) for row in rows.values()} == {("kept", (), "")}


def test_a_level_changes_the_digest_of_the_parts_it_changes_alone(
    server: Server, photos: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free, told = served(server, photos, 1), server.serve("/told.jpg", photos[9], tdm_reservation="1")
    bring(tmp_path / "set", free)
    rows = bring(tmp_path / "set", [*free, told], "recorded")
    photoset = PhotoSet(tmp_path / "set")
    before = [photoset.photos.meta(part) for part in (0, 1)]
    bring(tmp_path / "set", [*free, told], "recorded")
    assert [photoset.photos.meta(part) for part in (0, 1)] == before
    capsys.readouterr()
    after = bring(tmp_path / "set", [*free, told], "strict")
    said = capsys.readouterr().err
    assert "refuses 1 photos that the set has (1 opt_out_tdmrep)" in said
    assert photoset.photos.meta(0) == before[0] and photoset.photos.meta(1) != before[1]
    assert replace(after[told], status="kept", reason="", detail="") == rows[told] and after[free[0]] == rows[free[0]]
