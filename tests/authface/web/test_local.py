"""The application that review, the A/B study and the app mount on: who is answered, and with which headers."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, Response, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from authface.errors import AuthfaceError, ImageError, UsageError
from authface.web.local import PRIVATE_HOUR, local_app

FAILURES = {"image": ImageError("truncated", "cut"), "usage": UsageError("no\nname"), "disk": AuthfaceError("full")}


@pytest.fixture
def client() -> TestClient:
    router = APIRouter()

    @router.get("/fail/{kind}")
    def fail(kind: str) -> None:
        raise FAILURES[kind]

    @router.get("/picture")
    def picture() -> Response:
        return Response(b"", headers=PRIVATE_HOUR | {"Referrer-Policy": "unsafe-url"})

    @router.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("hello")

    app = local_app("token", "127.0.0.1", [router], policy="default-src 'self'")
    return TestClient(app, base_url="http://127.0.0.1:8000/token/")


def test_errors_are_one_line_with_a_status(client: TestClient) -> None:
    for kind, status, detail in (("image", 404, "cut"), ("usage", 422, "no\\nname"), ("disk", 500, "full")):
        answer = client.get(f"fail/{kind}")
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)


def test_the_guards_headers_win_and_nothing_is_kept_unless_it_says_so(client: TestClient) -> None:
    headers = client.get("picture").headers
    assert headers["referrer-policy"] == "no-referrer" and headers["content-security-policy"] == "default-src 'self'"
    assert headers["cache-control"] == PRIVATE_HOUR["Cache-Control"]
    for answer in (client.get("fail/disk"), client.get("nothing"), client.get("picture", headers={"Host": "evil"})):
        assert answer.headers["cache-control"] == "no-store" and "content-security-policy" in answer.headers


def test_a_request_from_elsewhere_gets_one_line_too(client: TestClient) -> None:
    for headers in ({"Host": "evil"}, {"Origin": "http://evil.example"}):
        answer = client.get("picture", headers=headers)
        assert answer.status_code == 403 and "open the address that was printed" in answer.json()["detail"]


def test_a_web_socket_of_another_page_is_refused(client: TestClient) -> None:
    evil = {"origin": "http://evil.example"}
    with client.websocket_connect("ws://127.0.0.1:8000/token/socket") as connection:
        assert connection.receive_text() == "hello"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1:8000/token/socket", headers=evil):
        pass
