"""The page's server: who may ask, what is on disk when it answers, and that nonsense changes nothing."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from authface.curate.review import server
from authface.curate.review.gallery import _window
from authface.errors import UsageError
from authface.imaging import decode as images
from authface.review.reviews import decision_log
from authface.store.photoset import PhotoSet
from authface.web.local import listen
from tests.conftest import authface

Ids = Callable[[int], str]


def lines(photoset: PhotoSet, reviewer: str = "anna") -> list[tuple[str, str, str]]:
    read, torn = decision_log(photoset, reviewer).read()
    assert torn == 0
    return [(line.id, line.verdict, line.reason) for line in read]


def rows(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    view = client.get("api/view", params=query).json()
    found: list[dict[str, Any]] = client.get("api/rows", params={"view": view["view"]}).json()["rows"]
    assert len(found) == view["total"]
    return found


def test_a_decision_is_on_disk_when_it_is_answered(client: TestClient, photoset: PhotoSet, ids: Ids) -> None:
    answer = client.post("api/decide", json={"id": ids(1), "verdict": "reject", "reason": "blurred"})
    assert answer.status_code == 200
    assert answer.json()["counts"] == {"keep": 0, "retouch": 0, "reject": 1, "crops": 6}
    assert lines(photoset) == [(ids(1), "reject", "blurred")]
    client.post("api/decide", json={"id": ids(1), "verdict": "reject", "reason": "blurred"})
    assert len(lines(photoset)) == 1, "what holds is not written again"
    client.post("api/decide", json={"id": ids(1), "verdict": "keep"})
    assert [row["verdict"] for row in rows(client)][:3] == ["", "keep", ""]


def test_an_undo_is_a_line_and_brings_back_what_held(client: TestClient, photoset: PhotoSet, ids: Ids) -> None:
    for crop, verdict in ((0, "keep"), (1, "retouch"), (0, "reject")):
        client.post("api/decide", json={"id": ids(crop), "verdict": verdict})
    view = client.get("api/view").json()["view"]
    undone = [client.post("api/undo", json={"view": view}).json() for _ in range(3)]
    assert [(one["index"], one["verdict"]) for one in undone] == [(0, "keep"), (1, ""), (0, "")]
    assert client.post("api/undo", json={"view": view}).status_code == 409
    assert [verdict for _, verdict, _ in lines(photoset)] == ["keep", "retouch", "reject", "undo", "undo", "undo"]


def test_of_a_forgotten_photo_no_line_is_written(client: TestClient, photoset: PhotoSet, ids: Ids) -> None:
    for crop in (0, 1):
        client.post("api/decide", json={"id": ids(crop), "verdict": "keep"})
    (photoset.root / photoset.crop_file(ids(1))).unlink()
    before = lines(photoset)
    assert client.post("api/decide", json={"id": ids(1), "verdict": "reject"}).status_code == 410
    assert lines(photoset) == before
    undone = client.post("api/undo", json={"view": client.get("api/view").json()["view"]}).json()
    assert undone["id"] == ids(0) and lines(photoset) == [*before, (ids(0), "undo", "")]


def test_views_filter_sort_and_stay_as_they_were_opened(client: TestClient, ids: Ids) -> None:
    noise = [row["measures"]["noise"] for row in rows(client, measure="noise", descending=True)]
    assert noise == sorted(noise, reverse=True) and len(noise) == 6
    assert [row["measures"]["noise"] for row in rows(client, measure="noise", low=2, high=3)] == [2, 3]
    view = client.get("api/view", params={"decision": "undecided"}).json()
    client.post("api/decide", json={"id": ids(2), "verdict": "reject", "reason": "bad crop"})
    assert len(client.get("api/rows", params={"view": view["view"]}).json()["rows"]) == 6
    assert ids(2) not in [row["id"] for row in rows(client, decision="undecided")]
    assert [row["id"] for row in rows(client, reason="bad crop")] == [ids(2)]
    rejected = rows(client, show="rejected", reason="blurred")
    assert [(row["crop"], row["why"]) for row in rejected] == [(False, ["blurred", 0.05, 0.15])] * 2
    start = client.get("api/start").json()
    assert start["filter_reasons"] == [["blurred", 2]] and {"noise", "sharpness", "size"} <= set(start["measures"])


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("api/decide", {"id": "ff-0", "verdict": "keep"}, 404),
        ("api/decide", {"id": "../../etc/passwd", "verdict": "keep"}, 404),
        ("api/decide", {"id": "FIRST", "verdict": "destroy"}, 422),
        ("api/decide", {"id": "FIRST", "verdict": "undo"}, 422),
        ("api/decide", {"id": "FIRST", "verdict": "reject", "reason": "her nose"}, 422),
        ("api/decide", {"id": "FIRST", "verdict": "keep", "reason": "blurred"}, 422),
        ("api/decide", {"id": "FIRST", "verdict": "keep", "more": 1}, 422),
        ("api/decide", {"id": ["FIRST"], "verdict": "keep"}, 422),
        ("api/decide", {"id": "REJECTED", "verdict": "keep"}, 409),
        ("api/decide", b'{"id": "\\ud800", "verdict": "keep"}', 422),
        ("api/decide", b"not json", 422),
        ("api/undo", {"view": "x"}, 422),
        ("api/view", None, 405),
    ],
)
def test_a_malformed_wish_changes_nothing(
    path: str, body: Any, code: int, client: TestClient, photoset: PhotoSet, ids: Ids
) -> None:
    if isinstance(body, dict):
        body = {k: {"FIRST": ids(0), "REJECTED": ids(6)}.get(str(v), v) for k, v in body.items()}
        answer = client.post(path, json=body)
    else:
        answer = client.post(path, content=body or b"", headers={"Content-Type": "application/json"})
    assert answer.status_code == code
    assert lines(photoset) == [] and not (photoset.root / "review").exists()


@pytest.mark.parametrize(
    "path",
    [
        "thumbnail/..%2f..%2f..%2fetc%2fpasswd",
        "whole/../../recipe.toml",
        "whole/nothing",
        "eyes/x?width=100&height=100",
        "server.py",
        "..%2freview.html",
        "api/rows?view=77",
    ],
)
def test_only_known_faces_and_files_are_given(path: str, client: TestClient) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "view?low=much",
        "view?show=all",
        "view?decision=burn",
        "view?unknown=1",
        "rows?view=1&count=100000",
        "rows?view=1&start=-1",
        "rows",
    ],
)
def test_a_wrong_question_is_refused(query: str, client: TestClient) -> None:
    assert client.get(f"api/{query}").status_code == 422


def test_without_the_token_or_from_elsewhere_nothing_is_answered(
    client: TestClient, photoset: PhotoSet, ids: Ids
) -> None:
    wish = {"id": ids(0), "verdict": "keep"}
    here = "http://127.0.0.1:8000"
    for path in (f"{here}/", f"{here}/api/start", f"{here}/wrong/api/start", f"{here}/docs", f"{here}/openapi.json"):
        assert client.get(path).status_code == 404
    assert client.post(f"{here}/wrong/api/decide", json=wish).status_code == 404
    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
    ):
        assert client.post("api/decide", json=wish, headers=headers).status_code == 403
        assert client.get("api/start", headers=headers).status_code == 403
    assert lines(photoset) == []
    assert client.post("api/decide", json=wish, headers={"Origin": here}).status_code == 200
    assert client.post("api/decide", json=wish, headers={"Host": "localhost:1"}).status_code == 200  # an ssh tunnel


def test_answers_forbid_what_the_page_does_not_need(client: TestClient) -> None:
    for path in ("", "review.js", "api/start"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    page = "".join(client.get(name).text for name in ("", *server._FILES) if name != "review.html")
    assert not re.findall(r"(?:https?:)?//[a-z]+\.", page), "the page asks nothing of outside"


def test_pictures_are_the_crop_itself_and_the_photos_own_pixels(
    client: TestClient, photoset: PhotoSet, ids: Ids
) -> None:
    assert client.get(f"whole/{ids(3)}").content == photoset.read(photoset.crop_file(ids(3)))
    with Image.open(io.BytesIO(client.get(f"thumbnail/{ids(3)}").content)) as small:
        assert (small.format, small.size) == ("JPEG", (64, 64))
    photo = images.decode(photoset.read("photos/00/shared.png")).rgb
    for face, (x, y) in ((3, (200, 120)), (6, (200, 120))):  # by the crop's landmarks, by the detector's points
        eyes = images.decode(client.get(f"eyes/{ids(face)}?width=80&height=40").content).rgb
        assert np.array_equal(eyes, photo[y - 20 : y + 20, x - 40 : x + 40]) or np.array_equal(
            eyes, photo[y - 19 : y + 21, x - 39 : x + 41]
        )
    whole = images.decode(client.get(f"eyes/{ids(3)}?width=4096&height=4096").content).rgb
    assert np.array_equal(whole, photo)
    assert client.get(f"eyes/{ids(3)}?width=9999&height=40").status_code == 422


def test_a_crop_that_cannot_be_read_is_an_answer(client: TestClient, photoset: PhotoSet, ids: Ids) -> None:
    (photoset.root / photoset.crop_file(ids(1))).write_bytes(b"broken")
    (photoset.root / photoset.crop_file(ids(2))).unlink()
    for number in (1, 2):
        assert client.get(f"thumbnail/{ids(number)}").status_code == 404


def test_a_full_disk_is_said_and_nothing_is_believed(
    client: TestClient, photoset: PhotoSet, ids: Ids, tmp_path: Path
) -> None:
    (photoset.root / "review").write_text("a file where the folder should be")
    answer = client.post("api/decide", json={"id": ids(0), "verdict": "keep"})
    assert answer.status_code == 500 and "cannot write" in answer.json()["detail"]
    assert rows(client)[0]["verdict"] == ""


@given(st.floats(-50, 500), st.integers(16, 600), st.integers(1, 500))
def test_a_window_lies_in_the_photo_and_around_the_centre(centre: float, length: int, whole: int) -> None:
    first, end = _window(centre, length, whole)
    assert 0 <= first < end <= whole and end - first == min(length, whole)
    if first > 0 and end < whole:
        assert abs((first + end - 1) / 2 - centre) <= 0.51


def test_an_address_in_use_is_one_line() -> None:
    with listen("127.0.0.1", 0, server.INSTEAD) as waiting, pytest.raises(UsageError, match=r"curate\.review\.port=0"):
        listen("127.0.0.1", waiting.getsockname()[1], server.INSTEAD)


def test_a_kill_loses_no_answered_decision(photoset: PhotoSet, ids: Ids) -> None:
    command = [sys.executable, "-m", "authface.cli", "curate", "review", str(photoset.root), "--reviewer", "ben"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        said = running.stderr.readline()
        url = re.findall(r"http://127\.0\.0\.1:\d+/\S+/", said)[0]
        for number in range(4):
            asked = {"id": ids(number), "verdict": "keep"}
            assert httpx.post(f"{url}api/decide", json=asked, trust_env=False).status_code == 200
        running.send_signal(signal.SIGKILL)
    assert lines(photoset, "ben") == [(ids(number), "keep", "") for number in range(4)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reviewer", "../anna"], "--reviewer anna"),
        (["--reviewer", "Anna"], "a-z, 0-9 and dashes"),
        (["--compare"], "two reviewers"),
        (["--compare", "--export-retouch", "out"], "one at a time"),
        (["--export-retouch", "out"], "no crop awaits retouching"),
        (["--import-retouch", "out"], "retouch.json"),
        (["-O", "curate.review.policy=mine"], "curate.review.policy"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], words: str, photoset: PhotoSet, tmp_path: Path) -> None:
    done = authface("curate", "review", photoset.root, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
    assert not (photoset.root / "review").exists()
