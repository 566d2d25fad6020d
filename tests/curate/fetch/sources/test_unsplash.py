"""The Unsplash API, played by a server with a quota, repeats, holes and traps; the key is seen nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from authface.records import Camera, Photo
from authface.store.photoset import PhotoSet
from tests.conftest import Done, authface
from tests.curate.conftest import Handler, Server

KEY = "k3y-that-nobody-may-see"
FACE, NO_FACE = 0, 2
"""Index of a photo with a face, and of one without, in the fixture `photos`."""


class Api:
    """Searches over a list of entries, a quota, and the photos themselves."""

    def __init__(self, server: Server, photos: list[bytes], quota: int = 10_000) -> None:
        self.server, self.quota, self.left = server, quota, quota
        self.entries: list[Any] = []
        self.photos = photos
        self.key = KEY
        server.routes["/search/photos"] = self.search

    def add(self, name: str, number: int, **changes: Any) -> dict[str, Any]:
        """One entry, its photo served at its address."""
        path = f"/images/{len(self.entries)}"
        self.server.serve(path, self.photos[number], Content_Type="image/jpeg")
        self.server.routes[f"/photos/{name}/download"] = lambda request: self.limited(request, {"url": "ignored"})
        entry = {
            "id": name,
            "width": 7200,
            "height": 6000,
            "description": "line\nbreak\ud800",
            "alt_description": f"a host that repeats the key: {KEY}",
            "urls": {"raw": self.server.url(path), "small": self.server.url(path + "?w=400")},
            "links": {
                "html": f"https://unsplash.com/photos/{name}",
                "download_location": self.server.url(f"/photos/{name}/download?ixid=abc{number}"),
            },
            "user": {"name": "Ana", "username": "ana", "links": {"html": "https://unsplash.com/@ana"}},
        }
        self.entries.append(entry | changes)
        return entry

    def limited(self, request: Handler, answer: object) -> None:
        if request.headers.get("Authorization") != f"Client-ID {self.key}":
            return request.reply(401, b'{"errors": ["OAuth error: The access token is invalid"]}')
        if self.left <= 0:
            return request.reply(403, b"Rate Limit Exceeded", X_Ratelimit_Limit="50", X_Ratelimit_Remaining="0")
        self.left -= 1
        body = json.dumps(answer).encode()
        request.reply(200, body, X_Ratelimit_Limit="50", X_Ratelimit_Remaining=str(self.left))

    def search(self, request: Handler) -> None:
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        page, size = int(asked["page"]), int(asked["per_page"])
        pages = -(-len(self.entries) // size)
        shown = self.entries[(page - 1) * size : page * size]
        self.limited(request, {"total": len(self.entries), "total_pages": pages, "results": shown})


@pytest.fixture
def api(server: Server, photos: list[bytes]) -> Api:
    return Api(server, photos)


def fetch(api: Api, root: Path, *words: str, key: str = KEY) -> Done:
    unsplash = f"curate.fetch.unsplash.api_base={api.server.url('')}"
    options = [unsplash, "curate.fetch.web.allow_private_hosts=true", "curate.fetch.web.host_rate=500"]
    options += ["curate.fetch.web.backoff_seconds=0.02", "curate.fetch.unsplash.per_page=4"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UNSPLASH_ACCESS_KEY", key)
        given = [word for option in options for word in ("-O", option)]
        done = authface("curate", "fetch", root, "--from", "unsplash", *given, *words)
    assert "Traceback" not in done.stderr
    seen = [done.stdout, done.stderr] + [path.read_bytes().decode("latin-1") for path in root.rglob("*.*")]
    assert not key or not any(key in text for text in seen)
    return done


def rows(root: Path) -> dict[str, Photo]:
    found = list(PhotoSet(root).photos)
    assert len({row.source_id for row in found}) == len(found), "one row a photo"
    return {row.source_id: row for row in found}


def test_each_photo_is_one_row_with_all_that_is_owed_to_it(api: Api, tmp_path: Path) -> None:
    for number in range(5):
        api.add(f"photo{number}", number)
    api.entries.insert(3, api.entries[0])
    done = fetch(api, tmp_path, "--accept-terms")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert list(found) == [f"photo{number}" for number in range(5)]
    row = found["photo1"]
    assert (row.photographer, row.licence, row.status) == ("Ana", "Unsplash License", "kept")
    assert row.photographer_url == "https://unsplash.com/@ana?utm_source=authface&utm_medium=referral"
    assert row.page_url == "https://unsplash.com/photos/photo1?utm_source=authface&utm_medium=referral"
    assert row.terms.startswith("Unsplash API Terms and Guidelines, accepted 20") and row.as_of.startswith("20")
    assert (tmp_path / row.file).read_bytes() == api.photos[1]
    assert json.loads(row.extra) == {"description": "line\\nbreak\\ud800"} and row.queries == ("portrait",)
    told = [path for path, _ in api.server.log if "/download" in path]
    assert sorted(told) == [f"/photos/photo{number}/download?ixid=abc{number}" for number in range(5)]
    assert api.server.asked.most_common(1)[0][1] == 1, "nothing is asked for twice"
    assert "up to 7 requests" in done.stderr and "0.1 h at 50 an hour, 0.0 h at 5,000" in done.stderr
    sent = {"images" in path: headers.get("authorization") for path, headers in api.server.log}
    assert sent == {True: None, False: f"Client-ID {KEY}"}


def test_a_second_run_asks_for_nothing(api: Api, tmp_path: Path) -> None:
    api.add("one", 0)
    assert fetch(api, tmp_path, "--accept-terms").returncode == 0
    before = api.server.asked.total()
    again = fetch(api, tmp_path)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert api.server.asked.total() == before


def test_terms_are_accepted_once_and_a_key_is_needed(api: Api, tmp_path: Path) -> None:
    api.add("one", 0)
    refused = fetch(api, tmp_path)
    assert refused.returncode == 2 and "--accept-terms" in refused.stderr and "unsplash.com/data" in refused.stderr
    keyless = fetch(api, tmp_path, "--accept-terms", key="")
    assert keyless.returncode == 2 and "UNSPLASH_ACCESS_KEY" in keyless.stderr
    wrong = fetch(api, tmp_path, "--accept-terms", key="another")
    assert wrong.returncode == 2 and "401" in wrong.stderr and wrong.stderr.count("\n") == 1
    assert list(tmp_path.rglob("*.parquet")) == []
    asked = api.server.asked.total()
    dry = fetch(api, tmp_path, "--dry-run", "-O", "curate.fetch.unsplash.pages=3")
    assert dry.returncode == 0 and "up to 15 requests" in dry.stderr and api.server.asked.total() == asked


def test_holes_and_traps_of_the_listing_are_rows_or_harmless(api: Api, tmp_path: Path) -> None:
    api.add("small", 0, width=800, height=600)
    api.add("../../../up", 1, slug="../../../../tmp/up")
    api.add("premium", 2, urls={"raw": "https://plus.unsplash.com/premium_photo-1", "small": None})
    api.add("nulls", 3, width=None, height=None, description=None, user=None, links=None)
    api.add("no-address", 4, urls=None)
    api.add("types", 5, width="wide", user=[], links="x", id=17, description={"a": 1})
    api.entries += [None, "text", {"id": None}, {}]
    inside = api.add("inside", 6)
    inside["urls"]["raw"] = "http://169.254.169.254/latest"
    elsewhere = api.add("elsewhere", 7)
    elsewhere["links"]["download_location"] = api.server.url("/away").replace("127.0.0.1", "localhost")
    gone = api.add("gone", 8)
    gone["urls"]["raw"] = api.server.url("/nothing")
    page = api.add("page", 9)
    page["urls"]["raw"] = api.server.serve("/page", b"<html>log in</html>", Content_Type="text/html")
    done = fetch(api, tmp_path, "--accept-terms", "-O", "curate.fetch.min_long_side=360")
    assert done.returncode == 3, done.stderr
    found = rows(tmp_path)
    assert {name: row.reason for name, row in found.items() if row.status != "kept" and " " not in name} == {
        "premium": "premium", "no-address": "bad_entry", "inside": "bad_address", "gone": "dead_link",
        "page": "not_an_image",
    }  # fmt: skip
    assert sum(name.startswith("entry ") for name in found) == 2, "entries without an id or anything"
    assert "text/html" in found["page"].detail
    assert {"small", "../../../up", "nulls", "17", "elsewhere"} == {
        n for n, row in found.items() if row.status == "kept"
    }
    assert "another host" in found["elsewhere"].detail and "/away" not in api.server.asked
    assert all(path.resolve().is_relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert not (tmp_path.parent / "up").exists()


def test_small_photos_are_refused_by_the_listing(api: Api, tmp_path: Path) -> None:
    api.add("large", 0)
    api.add("small", 1, width=7679, height=10)
    fetch(api, tmp_path, "--accept-terms", "-O", "curate.fetch.min_long_side=7680")
    small, large = rows(tmp_path)["small"], rows(tmp_path)["large"]
    assert (small.status, small.reason, small.value, small.limit) == ("rejected", "small_photo", 7679, 7680)
    assert (large.reason, large.value) == ("small_photo", 7200), "a listing that says too much is not believed"
    assert not any("/images/1" in path for path in api.server.asked)


def test_a_used_up_quota_stops_cleanly_and_the_next_run_goes_on(api: Api, tmp_path: Path) -> None:
    for number in range(6):
        api.add(f"photo{number}", number)
    api.left = 5
    done = fetch(api, tmp_path, "--accept-terms", "--no-wait")
    assert done.returncode == 0 and "run the same command again" in done.stdout, done.stderr
    kept = len(rows(tmp_path))
    assert 1 <= kept < 6
    api.left = 100
    assert fetch(api, tmp_path, "--no-wait").returncode == 0
    assert {row.status for row in rows(tmp_path).values()} == {"kept"} and len(rows(tmp_path)) == 6
    images = {path: count for path, count in api.server.asked.items() if "images" in path}
    assert set(images.values()) == {1}, "a photo that waited for its turn to be told of is not fetched again"


def test_a_used_up_quota_is_waited_for(api: Api, tmp_path: Path) -> None:
    for number in range(3):
        api.add(f"photo{number}", number)
    api.left = 2
    refill = api.limited

    def limited(request: Handler, answer: object) -> None:
        if api.left <= 0:
            api.left = 100 if api.server.log[-1][0] == "refill" else api.left
        refill(request, answer)
        if api.left <= 0:
            api.server.log.append(("refill", {}))
            api.left = 100

    api.limited = limited  # type: ignore[method-assign]
    done = fetch(api, tmp_path, "--accept-terms", "-O", "curate.fetch.web.window_seconds=2")
    assert done.returncode == 0 and "takes no more requests for now: going on in 0:0" in done.stderr
    assert len(rows(tmp_path)) == 3


def test_details_bring_the_camera(api: Api, tmp_path: Path) -> None:
    api.add("one", 0)
    exif = {
        "make": "Canon",
        "model": "EOS R5",
        "exposure_time": "1/250",
        "aperture": "2.8",
        "focal_length": "85.0",
        "iso": 100,
    }
    api.server.routes["/photos/one"] = lambda request: api.limited(request, {"id": "one", "exif": exif})
    fetch(api, tmp_path, "--accept-terms", "-O", "curate.fetch.unsplash.details=true")
    camera = Camera(make="Canon", model="EOS R5", iso=100, aperture=2.8, focal_length=85, exposure=1 / 250)
    assert rows(tmp_path)["one"].camera == camera


def test_a_preview_spares_photos_without_a_large_face(api: Api, tmp_path: Path) -> None:
    api.add("face", FACE)
    api.add("none", NO_FACE)
    fetch(api, tmp_path / "a", "--accept-terms", "-O", "curate.fetch.prescreen_face=512")
    found = rows(tmp_path / "a")
    assert found["face"].status == "kept"
    none = found["none"]
    assert (none.status, none.reason, none.value, none.limit) == ("rejected", "no_face", 0, 512)
    assert {path for path in api.server.asked if "images" in path} == {
        "/images/0",
        "/images/0?w=400",
        "/images/1?w=400",
    }
    fetch(api, tmp_path / "b", "--accept-terms", "-O", "curate.fetch.prescreen_face=5000")
    refused = rows(tmp_path / "b")["face"]
    assert refused.reason == "small_face" and 1000 < (refused.value or 0) < 5000, "in pixels of the original"
    fetch(api, tmp_path / "c", "--accept-terms", "-O", "curate.fetch.prescreen_face=50")
    assert rows(tmp_path / "c")["none"].status == "kept", "such a face would have 10 px on the preview"
