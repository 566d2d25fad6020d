"""`authface serve`: what curl sends and gets, under limits, a crowd, bad clients and signals."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface import Restorer, devices
from authface.errors import UsageError
from authface.restore.cli import TOKEN, read_token
from authface.restore.queue import Limits, RestoreQueue, make_restorers
from authface.restore.service import answers
from authface.restore.service import app as service
from authface.restore.service.answers import OPTIONS
from authface.restore.service.app import ServiceServer
from authface.restore.settings import RestoreSettings
from authface.web import local
from tests.conftest import PATIENCE, heed_ctrl_c

SECRET = "correct-horse-battery"
ASTRONAUT = np.ascontiguousarray(data.astronaut()[:300, 60:400])


def jpeg(pixels: np.ndarray = ASTRONAUT) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


PHOTO = jpeg()


def strip(height: int) -> bytes:
    """A PNG that is wider than JPEG and WebP hold, once enlarged by 4."""
    buffer = io.BytesIO()
    Image.new("RGB", (20_000, height)).save(buffer, "PNG")
    return buffer.getvalue()


class Gate(Restorer):
    """Faces stay as they are, once somebody opens the gate."""

    gate = threading.Event()

    def restore(self, image, **given):  # type: ignore[no-untyped-def]  # as its parent's
        assert self.gate.wait(30)
        return super().restore(image, **given)


@contextlib.contextmanager
def serving(
    restorers: list[Restorer],
    limits: Limits | None = None,
    token: str = "",
    host: str = "127.0.0.1",
    *,
    debug: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """The address, and the lines of the log."""
    log: list[str] = []
    with local.listen("127.0.0.1", 0, "") as waiting, RestoreQueue(restorers, limits) as queue:
        running = ServiceServer(service.service_app(queue, token, host, log.append, debug=debug), queue)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [waiting]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{waiting.getsockname()[1]}", log
        finally:
            running.handle_exit(signal.SIGTERM, None)
            thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def identity() -> Restorer:
    made = Restorer("identity")
    made.load()
    return made


@pytest.fixture(scope="module")
def url(identity: Restorer) -> Iterator[str]:
    with serving([identity], Limits(megabytes=2, megapixels=1)) as (url, _):
        yield url


def test_a_photo_goes_in_and_the_commands_result_comes_out(family: Path) -> None:
    with Restorer(str(family), device="cpu", steps=2) as restorer, serving([restorer]) as (url, log):
        expected = restorer.with_settings(upscale=2, fidelity=0.7).restore(PHOTO)
        asked = {"upscale": "2", "fidelity": "0.7"}
        form = httpx.post(f"{url}/restore", files={"photo": ("aunt <b>.jpg", PHOTO)}, data=asked, timeout=60)
        assert form.status_code == 200 and form.content == expected.encoded()
        assert form.headers["content-type"] == "image/jpeg" and form.headers["x-authface-restored"] == "1"
        raw = httpx.post(f"{url}/restore", content=PHOTO, params=asked, timeout=60)
        assert raw.content == form.content
        both = httpx.post(f"{url}/restore", content=PHOTO, params={**asked, "result": "both"}, timeout=60).json()
        assert base64.b64decode(both["photo"]) == form.content
        assert (both["width"], both["height"], both["scale"], both["restored"]) == (340, 300, 2, 1)
        assert both["faces"][0] == json.loads(json.dumps(expected.faces[0].facts()))
        assert family.as_posix() not in json.dumps(both)
        assert len(log) == 3 and all(line.startswith("restore 200: 0.0") and "aunt" not in line for line in log)


def test_curl_does(url: str, tmp_path: Path) -> None:
    (tmp_path / "old.jpg").write_bytes(PHOTO)
    command = ["curl", "-sSf", "-F", "photo=@old.jpg", f"{url}/restore", "-o", "new.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "new.jpg").read_bytes() == PHOTO
    subprocess.run(["curl", "-sSf", "--data-binary", "@old.jpg", f"{url}/restore", "-o", "b"], cwd=tmp_path, check=True)
    assert (tmp_path / "b").read_bytes() == PHOTO


def test_facts_are_json_where_they_are_asked_for(url: str) -> None:
    by_header = httpx.post(f"{url}/restore", content=PHOTO, headers={"Accept": "application/json"}).json()
    by_query = httpx.post(f"{url}/restore?result=json", content=PHOTO).json()
    assert by_header == by_query and by_query["photo"] is None and by_query["model"] == "identity"
    (face,) = by_query["faces"]
    assert face["status"] == "restored" and len(face["box"]) == 4 and face["placed_by"] == "dlib68"
    png = httpx.post(f"{url}/restore?format=png&result=photo", content=PHOTO)
    assert png.headers["content-type"] == "image/png" and png.content[:4] == b"\x89PNG"


def test_openapi_lists_the_options_and_health_answers(url: str) -> None:
    described = httpx.get(f"{url}/openapi.json").json()
    post = described["paths"]["/restore"]["post"]
    assert {entry["name"] for entry in post["parameters"]} == {*OPTIONS, "result"}
    assert {"401", "413", "415", "422", "429", "503"} <= post["responses"].keys()
    assert "#/components/schemas/PhotoFacts" in json.dumps(post["responses"]["200"])
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["fidelity"]["maximum"] == 1
    health = httpx.get(f"{url}/health")
    assert health.json()["status"] == "ok" and health.json()["places"] == 17
    assert httpx.get(f"{url}/docs").status_code == 404 and httpx.get(f"{url}/restore").status_code == 405


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 2.5 gigapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (50_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "query", "status", "said"),
    [
        (b"not an image", "", 415, "not a photo"),
        (PHOTO[:4000], "", 422, "truncated"),
        (b"", "", 422, "0 bytes"),
        (bomb(), "", 413, "megapixels"),
        (PHOTO, "fidelity=2", 422, "fidelity = 2: "),
        (PHOTO, "fidelity=nan", 422, "nan is no number"),
        (PHOTO, "upscale=3", 422, "upscale = 3: "),
        (PHOTO, "upscale=1e400", 422, "upscale = Infinity: "),
        (PHOTO, "upscale=NaN", 422, "upscale = NaN: "),
        (PHOTO, "quality=1e400", 422, "quality = Infinity: "),
        (PHOTO, "grain=NaN", 422, "grain = NaN: "),
        (PHOTO, "format=1e400", 422, "format = Infinity: "),
        (PHOTO, f"faces={'[' * 20_000}", 422, "a number from 1"),
        (PHOTO, "faces=1e400", 422, "a number from 1"),
        (PHOTO, "model=/etc", 422, "unknown option model"),
        (PHOTO, "upscaler=/etc/passwd", 422, "unknown option upscaler"),
        (PHOTO, "fidelity=1&fidelity=0", 422, "named twice"),
        (strip(2), "format=webp", 413, "20000 x 2, WEBP holds at most 16383 px a side"),
        (strip(2), "format=webp&result=json", 413, "20000 x 2, WEBP holds at most 16383 px a side"),
        (strip(1), "format=jpeg&upscale=4", 413, "80000 x 4, JPEG holds at most"),
        (PHOTO, "result=pdf", 422, "photo, json, both"),
        (PHOTO, "faces=none%0Aat%20all", 422, "a number from 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_status(
    url: str, content: bytes, query: str, status: int, said: str
) -> None:
    answer = httpx.post(f"{url}/restore?{query}", content=content)
    assert answer.status_code == status
    assert said in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def test_a_form_without_a_photo_and_other_bodies_are_refused(url: str) -> None:
    assert httpx.post(f"{url}/restore", files={"picture": PHOTO}).status_code == 422
    assert httpx.post(f"{url}/restore", data={"photo": "text"}, files={"x": b""}).status_code == 422
    assert httpx.post(f"{url}/restore", json={"photo": "abc"}).status_code == 415
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert httpx.post(f"{url}/restore", content=b"--y\r\n", headers=broken).status_code == 422
    form = b'--x\r\nContent-Disposition: form-data; name="fidelity"\r\n\r\n1\r\n--x--\r\n'
    for charset, said in (("undefined", "not a form: "), ("idna", "no file"), ("zlib", "no file"), ("?", "no file")):
        odd = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
        answer = httpx.post(f"{url}/restore", content=form, headers=odd)
        assert answer.status_code == 422 and answer.json()["detail"].startswith(said)


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_is_one_line_too(
    identity: Restorer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], debug: bool
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("first\nsecond, of /home/me")

    monkeypatch.setattr(service, "options_of", broken)
    with serving([identity], debug=debug) as (url, log):
        answer = httpx.post(f"{url}/restore", content=PHOTO)
    assert (answer.status_code, answer.json()) == (
        500, {"detail": "unexpected RuntimeError: the server's log says more"}
    )  # fmt: skip
    assert log == [
        "restore 500: unexpected RuntimeError: first\\nsecond, of /home/me; authface serve --debug shows the trace"
    ]
    assert ("Traceback" in capfd.readouterr().err) == debug


def test_a_large_upload_is_refused_before_it_is_in_memory(url: str) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 1_000_000
            yield bytes(1_000_000)

    answer = httpx.post(f"{url}/restore", content=pieces(), timeout=30)  # chunked: its size is not known before
    assert answer.status_code == 413 and "2 MB" in answer.json()["detail"]
    named = httpx.post(f"{url}/restore", content=bytes(200_000_000), timeout=30)
    assert named.status_code == 413
    form = httpx.post(f"{url}/restore", files={"photo": bytes(3_000_000)}, timeout=30)
    assert form.status_code == 413
    assert httpx.post(f"{url}/restore", content=PHOTO).status_code == 200


def test_only_who_has_the_token_is_served(identity: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LINGER", 1.0)
    with serving([identity], token=SECRET) as (url, log):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SECRET}"}):
            answer = httpx.post(f"{url}/restore", content=PHOTO, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert SECRET not in answer.text
        assert httpx.get(f"{url}/openapi.json").status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200
        right = {"Authorization": f"Bearer {SECRET}"}
        assert httpx.post(f"{url}/restore", content=PHOTO, headers=right).content == PHOTO
        assert len(log) == 1


def test_another_page_in_the_browser_is_not_served(url: str) -> None:
    for headers in ({"Origin": "http://evil.test"}, {"Host": "evil.test"}):
        answer = httpx.post(f"{url}/restore", content=PHOTO, headers=headers)
        assert answer.status_code == 403 and list(answer.json()) == ["detail"]


@pytest.mark.parametrize(
    ("host", "token", "said"),
    [("0.0.0.0", "", "needs? a token|clients need"), ("127.0.0.1", "short", "at least 16"), ("::", "", "clients need")],
)
def test_a_token_is_needed_where_others_can_come_in(
    host: str, token: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(UsageError, match=said):
        read_token(None, host)


def test_tokens_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_token(None, "localhost") == read_token(None, "127.0.0.2") == read_token(None, "::1") == ""
    monkeypatch.setenv(TOKEN, SECRET)
    assert read_token(None, "0.0.0.0") == SECRET
    (tmp_path / "token").write_text(f"{SECRET}-of-the-file\n")
    assert read_token(tmp_path / "token", "0.0.0.0") == f"{SECRET}-of-the-file"
    (tmp_path / "token").write_text("")
    for name in ("token", "absent"):
        with pytest.raises(UsageError, match="--token-file"):
            read_token(tmp_path / name, "127.0.0.1")


def test_sixty_four_clients_lose_nothing() -> None:
    photos = [jpeg(np.roll(ASTRONAUT, shift, axis=1)) for shift in range(64)]
    workers = [Restorer("identity", guard=False) for _ in range(2)]
    with (
        serving(workers, Limits(waiting=8)) as (url, _),
        httpx.Client(limits=httpx.Limits(max_connections=64)) as client,
    ):
        refused: list[int] = []

        def post(photo: bytes) -> bytes:
            while True:
                answer = client.post(f"{url}/restore", content=photo, timeout=120)
                if answer.status_code == 200:
                    return answer.content
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
                refused.append(1)
                time.sleep(0.1)

        with ThreadPoolExecutor(64) as pool:
            results = list(pool.map(post, photos))
        assert results == photos and refused
        health = client.get(f"{url}/health").json()
        assert (health["busy"], health["waiting"]) == (0, 0)


def test_a_full_queue_and_a_long_wait_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "gate", threading.Event())
    gated = Gate("identity", guard=False)
    gated.with_settings = lambda **changed: gated  # type: ignore[method-assign]  # itself, behind the gate
    with serving([gated], Limits(waiting=1, seconds=1.5)) as (url, _), ThreadPoolExecutor(2) as pool:
        both = [pool.submit(httpx.post, f"{url}/restore", content=PHOTO, timeout=30) for _ in range(2)]
        until(lambda: sum(httpx.get(f"{url}/health").json()[name] for name in ("busy", "waiting")) == 2)
        full = httpx.post(f"{url}/restore", content=PHOTO)
        assert full.status_code == 429 and 1 <= int(full.headers["retry-after"]) <= 60
        late = [answer.result() for answer in both]
        assert [answer.status_code for answer in late] == [503, 503]
        assert "1.5 s" in late[0].json()["detail"] and late[0].headers["retry-after"] == "30"
        Gate.gate.set()
        until(lambda: httpx.get(f"{url}/health").json()["busy"] == 0)
        assert httpx.post(f"{url}/restore", content=PHOTO).content == PHOTO


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_client_that_leaves_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "gate", threading.Event())
    gated = Gate("identity", guard=False)
    gated.with_settings = lambda **changed: gated  # type: ignore[method-assign]  # itself, behind the gate
    with serving([gated], Limits(waiting=4)) as (url, log):
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/restore", content=PHOTO, timeout=0.5)
        until(lambda: len(log) == 2)
        health = httpx.get(f"{url}/health").json()
        assert (health["busy"], health["waiting"]) == (1, 0)
        Gate.gate.set()
    assert all("the client went away" in line for line in log)


def test_slow_clients_are_given_up(identity: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SILENCE", 0.3)
    monkeypatch.setattr(service, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(service, "LINGER", 0.2)
    with serving([identity]) as (url, _):
        port = int(url.rpartition(":")[2])
        head = b"POST /restore HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n"
        for sent, said in ((b"", b""), (head, b""), (head + b"\r\nabc", b"HTTP/1.1 408")):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(sent)
                connection.settimeout(10)
                got = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := connection.recv(4096):
                        got += piece
                assert got.startswith(said) and (said or not got)
        assert httpx.get(f"{url}/health").json()["waiting"] == 0


def test_a_client_that_does_not_read_is_cut_off(identity: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READ_SECONDS", 0.3)
    large = jpeg(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    with serving([identity]) as (url, _):
        port = int(url.rpartition(":")[2])
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            head = "POST /restore?upscale=2&format=tiff HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            head += f"Content-Length: {len(large)}\r\n\r\n"
            connection.sendall(head.encode() + large)
            assert connection.recv(1)
            time.sleep(2)
            connection.settimeout(10)
            got = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    got += len(piece)
            assert got < 5_000_000, "of 27 MB"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_finish(how: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from authface.restore.api import Restorer\n"
        "own = Restorer.restore\n"
        "def slow(self, *given, **named):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    time.sleep(1.5)\n"
        "    return own(self, *given, **named)\n"
        "Restorer.restore = slow\n"
        "sys.argv = ['authface', 'serve', '--model', 'identity', '--port', '0', '-O', 'restore.guard=false']\n"
        "from authface.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, TOKEN: ""}, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[4]
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(httpx.post, url, content=PHOTO, timeout=PATIENCE)
            assert process.stderr.readline() == "begun\n"
            waiting = pool.submit(httpx.post, url, content=PHOTO, timeout=PATIENCE)
            health = url.replace("/restore", "/health")
            until(lambda: httpx.get(health).json()["waiting"] == 1)
            time.sleep(0.2)
            process.send_signal(how)
            assert running.result().content == PHOTO
            assert waiting.result().status_code == 503 and "stopping" in waiting.result().text
        out, rest = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and "what was begun is finished" in out
        assert "Traceback" not in rest
    finally:
        process.kill()


def test_a_signal_waits_for_nothing(identity: Restorer) -> None:
    """What it interrupts may hold the queue's lock, and goes on only after it."""
    with RestoreQueue([identity]) as queue:
        server = ServiceServer(service.service_app(queue, "", "127.0.0.1", print), queue)
        with queue._lock:
            handler = threading.Thread(target=server.handle_exit, args=(signal.SIGTERM, None), daemon=True)
            handler.start()
            handler.join(10)
            assert not handler.is_alive()


def test_several_workers_need_no_torch_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation of the core: ONNX Runtime restores, with as many threads as a worker's share."""
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    monkeypatch.setattr(devices, "_sharers", 1)
    whole = devices.cores()
    made = make_restorers(RestoreSettings(engine="onnxruntime", guard=False), "cpu", 0, 2)
    assert len(made) == 2 and devices.cores() == max(1, whole // 2)
