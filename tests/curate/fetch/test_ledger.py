"""What a host or a stop did to a photo says nothing of the photo: it has no row, or one that is tried again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authface.curate.fetch import ledger
from authface.curate.fetch.hosts import Wait
from authface.curate.fetch.ledger import Lanes
from authface.curate.fetch.sources import PhotoItem
from authface.records import Photo
from authface.store.photoset import PhotoSet
from tests.conftest import Done, authface
from tests.curate.conftest import Handler, Server
from tests.curate.fetch.sources.test_unsplash import Api, fetch

BRIEF = ("allow_private_hosts=true", "host_rate=500", "backoff_seconds=0.02", "attempts=2")


def bring(root: Path, urls: list[str], *words: str) -> Done:
    listed = root.with_suffix(".txt")
    listed.write_text("\n".join(urls))
    options = [word for option in BRIEF for word in ("-O", f"curate.fetch.web.{option}")]
    return authface("curate", "fetch", root, "--from", "urls", listed, *options, *words)


def reasons(root: Path) -> dict[str, str]:
    found = list(PhotoSet(root).photos)
    assert len({row.source_id for row in found}) == len(found), "one row a photo"
    return {row.source_id: row.reason for row in found}


def test_a_listing_that_is_told_to_wait_waits(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    api = Api(server, photos)
    for number in range(12):
        api.add(f"photo{number}", number)
    search = api.search

    def once(request: Handler) -> None:
        if "page=2" in request.query and request.tries() == 1:
            more = {"Retry_After": "1", "X_Ratelimit_Remaining": "40"}
            return request.reply(403, b"Rate Limit Exceeded", **more)
        search(request)

    server.routes["/search/photos"] = once
    done = fetch(api, tmp_path, "--accept-terms")
    assert done.returncode == 0, done.stderr
    assert len(reasons(tmp_path)) == 12 and set(reasons(tmp_path).values()) == {""}


def test_what_was_on_its_way_when_a_run_ended_has_no_row(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    api = Api(server, photos)
    for number in range(12):
        api.add(f"photo{number}", number)
    search, ending = api.search, threading.Event()

    def slowly(request: Handler) -> None:
        ending.wait(2)
        request.reply(200, photos[int(request.name.rsplit("/", 1)[1])])

    def broken(request: Handler) -> None:
        return request.reply(500) if "page=2" in request.query and not ending.is_set() else search(request)

    for number in range(4):
        server.routes[f"/images/{number}"] = slowly
    server.routes["/search/photos"] = broken
    assert fetch(api, tmp_path, "--accept-terms").returncode == 1
    ending.set()
    done = fetch(api, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(reasons(tmp_path)) == 12 and set(reasons(tmp_path).values()) == {""}


def please_wait(request: Handler) -> None:
    request.reply(200, b"<html>please wait</html>", Content_Type="text/html")


def cut(request: Handler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"\xff\xd8\xff\xe0half a photo")
    request.close_connection = True


@pytest.mark.parametrize("mishap", [please_wait, cut, lambda request: request.reply(503)])
def test_what_may_pass_is_asked_for_in_the_next_run(
    mishap: Any, server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    down = True
    server.routes["/a"] = lambda request: mishap(request) if down else request.reply(200, photos[0])
    urls = [server.url("/a"), server.url("/never"), server.serve("/b", photos[1])]
    assert bring(tmp_path / "set", urls).returncode == 3
    down = False
    assert bring(tmp_path / "set", urls).returncode == 3
    assert reasons(tmp_path / "set") == dict(zip(urls, ("", "dead_link", ""), strict=True))
    assert bring(tmp_path / "set", urls).returncode == 3
    assert server.asked["/never"] == server.asked["/b"] == 1, "a 404 is final, a photo is asked for once"


def test_tries_are_counted_spaced_and_ended(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["/a"] = please_wait
    root, urls = tmp_path / "set", [server.url("/a")]
    for _ in range(3):
        done = bring(root, urls)
    assert server.asked["/a"] == 2 and "asked for again from" in done.stderr
    (row,) = PhotoSet(root).photos
    assert (row.tries, row.reason) == (2, "not_an_image")
    monkeypatch.setattr(ledger, "_PAUSES", (ledger._PAUSES[0],) * 5)
    for _ in range(9):
        bring(root, urls)
    assert server.asked["/a"] == ledger.MOST_TRIES
    bring(root, urls, "--retry", "failed")
    assert server.asked["/a"] == ledger.MOST_TRIES + 1
    assert bring(root, urls, "--retry", "sometimes").returncode == 2


def test_retry_failed_asks_for_dead_links_too(server: Server, photos: list[bytes], tmp_path: Path) -> None:
    urls = [server.url("/late")]
    assert bring(tmp_path / "set", urls).returncode == 3
    server.serve("/late", photos[0])
    assert bring(tmp_path / "set", urls, "--retry", "failed").returncode == 0
    assert reasons(tmp_path / "set") == {urls[0]: ""}


def test_a_host_that_asks_for_a_long_wait_is_left_to_the_next_run(
    server: Server, photos: list[bytes], tmp_path: Path
) -> None:
    server.routes["/a"] = lambda request: request.reply(429, Retry_After="86400")
    slow = [server.url(f"/a?{number}") for number in range(20)]
    good = [server.serve(f"/{n}.jpg", photos[n]).replace("127.0.0.1", "localhost") for n in range(5)]
    done = bring(tmp_path / "set", slow + good)
    assert list(reasons(tmp_path / "set")) == good
    assert "20 photos are left for the next run" in done.stderr and "24:00:00 h" in done.stderr
    server.serve("/a", photos[9])
    assert bring(tmp_path / "set", slow[:1]).returncode == 0
    assert len(reasons(tmp_path / "set")) == 6


def item(name: str, host: str) -> PhotoItem:
    return PhotoItem(Photo(id="", source="urls", source_id=name, file=""), url=f"http://{host}/{name}")


def test_who_waits_holds_no_thread() -> None:
    """Twenty items of one host wait 0.5 s; sixty of others are done before, in two threads."""
    tried, done = set[str](), list[str]()

    def work(one: PhotoItem) -> list[Photo]:
        if "slow" in one.url and one.photo.source_id not in tried:
            tried.add(one.photo.source_id)
            raise Wait("slow", 0.5)
        done.append(one.photo.source_id)
        return [replace(one.photo, id=one.photo.source_id)]

    items = [item(f"s{n}", "slow") for n in range(20)] + [item(f"g{n}", f"good{n % 7}") for n in range(60)]
    made = [row.id for _, rows in Lanes(work, 2)(iter([[one] for one in items])) for row in rows]
    assert sorted(made) == sorted(one.photo.source_id for one in items)
    assert all(name.startswith("g") for name in done[:60])


@pytest.mark.parametrize("asked", ["host-a", "www.host-a"])
def test_what_an_earlier_run_did_comes_behind_what_a_host_lets_wait(asked: str) -> None:
    """The photo's own or that of its page: rows of a host are as in a run without a stop, others do not wait."""
    tried = set[str]()

    def work(one: PhotoItem) -> list[Photo]:
        if one.photo.source_id in {"a1", "a4"} and one.photo.source_id not in tried:
            tried.add(one.photo.source_id)
            raise Wait(asked, 0.2)
        return [replace(one.photo, id=one.photo.source_id)]

    items = [item(name, f"host-{name[0]}") for name in ("a0", "a1", "a2", "b0", "a3", "a4", "b1", "a5")]
    made = [row.id for _, rows in Lanes(work, 3)(iter([[one] for one in items])) for row in rows]
    assert [name for name in made if name[0] == "a"] == ["a0", "a1", "a2", "a3", "a4", "a5"]
    assert made.index("b1") < made.index("a4")


def test_what_is_tried_again_lets_its_host_go_on() -> None:
    """After an answer that may pass it waits in a lane of its own, called after its address."""
    tried = set[str]()

    def work(one: PhotoItem) -> list[Photo]:
        if one.photo.source_id == "a0" and not tried:
            tried.add("a0")
            raise Wait(one.url, 0.3)
        return [replace(one.photo, id=one.photo.source_id)]

    items = [item(f"a{n}", "host-a") for n in range(4)]
    made = [row.id for _, rows in Lanes(work, 2)(iter([[one] for one in items])) for row in rows]
    assert made == ["a1", "a2", "a3", "a0"]


def test_a_host_that_does_not_answer_leaves_threads_to_others() -> None:
    release, released = threading.Event(), list[bool]()

    def work(one: PhotoItem) -> list[Photo]:
        if "slow" in one.url:
            released.append(release.wait(5))
        return [one.photo]

    items = [item(f"s{n}", "slow") for n in range(6)] + [item(f"g{n}", "good") for n in range(9)]
    waiting = Lanes(lambda one: [*work(one), *seen(one)], 4)

    def seen(one: PhotoItem) -> list[Photo]:
        if one.photo.source_id == "g8":
            release.set()
        return []

    made = list(waiting(iter([[one] for one in items])))
    assert len(made) == 15 and all(released), "the good ones are done while the host is silent"
