"""Restorers of one file by name: downloads that are cut, changed and wrong, mirrors, folders, and what commands say."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from authface.console import Console
from authface.errors import AuthfaceError, UsageError
from authface.inspect import doctor
from authface.models import hub, networks
from authface.models.families import FAMILIES
from authface.models.networks import NETWORKS, Network, Window
from authface.web import http
from tests.curate.conftest import Handler, Server

BODY = bytes(range(256)) * 4000
OTHER = BODY[::-1]
Run = Callable[..., Any]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def small(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network of a megabyte that the server has, known by name."""
    network = Network("small", "small.onnx", len(BODY), "MIT", "yes", (server.url("/small.onnx"),), sha256(BODY), "us")
    monkeypatch.setenv(networks.FOLDER, str(tmp_path / "networks"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    monkeypatch.setitem(NETWORKS, "small", network)
    return network


def fetch(network: Network) -> bytes:
    return networks.fetch(network, Console()).path.read_bytes()


def left(network: Network) -> list[str]:
    return sorted(path.name for path in network.path.parent.glob("*") if not path.name.endswith(".lock"))


def cutting(body: Callable[[Handler], bytes], tag: Callable[[Handler], str], whole_from: int) -> Callable[..., None]:
    """A route that ends the connection after a third of what is left, until it was asked so often."""

    def route(request: Handler) -> None:
        data, validator, first = body(request), tag(request), 0
        asked = request.headers.get("Range")
        if asked and request.headers.get("If-Range") == validator:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        rest = data[first:]
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if validator:
            request.send_header("ETag", validator)
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest if request.tries() >= whole_from else rest[: len(rest) // 3])
        request.close_connection = True

    return route


def starts(server: Server) -> list[int]:
    return [int(headers.get("range", "bytes=0-")[6:-1]) for _, headers in server.log]


# The table


def test_the_table_is_what_was_looked_up() -> None:
    """Sizes and hashes as docs/restoring.md and the makers' pages have them; every address is of the file's name."""
    facts = {one.name: (one.file, one.bytes, one.sha256[:8], one.commercial) for one in NETWORKS.values()}
    assert facts == {
        "gfpgan": ("GFPGANv1.4.pth", 348_632_874, "e2cd4703", "no"),
        "gfpgan-1.3": ("GFPGANv1.3.pth", 348_632_874, "c953a88f", "no"),
        "gfpgan-onnx": ("gfpgan_1.4.onnx", 340_299_087, "", "no"),
        "codeformer": ("codeformer.pth", 376_637_898, "1009e537", "no"),
        "codeformer-onnx": ("codeformer.onnx", 376_951_650, "", "no"),
        "restoreformer-plus": ("restoreformer_plus_plus.onnx", 294_264_232, "", "unclear"),
        "gpen-512": ("gpen_bfr_512.onnx", 284_340_240, "d5f066b9", "no"),
        "gpen-256": ("gpen_bfr_256.onnx", 75_792_988, "bad8bf04", "no"),
    }
    for one in NETWORKS.values():
        assert all(at.startswith("https://") and at.endswith(f"/{one.file}") for at in one.addresses)
        assert bool(one.sha256) == bool(one.observed) and len(one.sha256) in {0, 64}
        assert one.path.suffix in networks.ENDINGS and one.licence
        assert one.name not in FAMILIES
    assert networks.known("gpen") is NETWORKS["gpen-512"] and networks.known("") is None
    assert NETWORKS["gpen-256"].window == Window(299, 22, 36)


def test_what_stands_for_a_network(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert networks.is_network("gfpgan") and networks.is_network("my.ONNX") and networks.is_network("~/my.pth")
    assert not any(map(networks.is_network, ("tiny", "anna/faces", str(tmp_path), str(tmp_path / "folder.onnx"))))
    with pytest.raises(UsageError, match=r"no such file; known by name are gfpgan"):
        networks.find("absent.onnx", Console())


# Downloads


def test_a_file_comes_once_and_is_met_again(small: Network, server: Server) -> None:
    server.serve("/small.onnx", BODY)
    assert fetch(small) == fetch(small) == BODY
    assert server.asked == {"/small.onnx": 1} and left(small) == ["small.onnx"]


def test_a_run_that_gives_up_keeps_what_came(
    small: Network, server: Server, on_hub: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was killed does: the next run asks for the rest alone."""
    server.routes["/small.onnx"] = cutting(lambda _: BODY, lambda _: '"one"', whole_from=2)
    with monkeypatch.context() as patch:
        patch.setattr(http, "ATTEMPTS", 0)
        with pytest.raises(AuthfaceError, match=r"cannot get small.onnx \(.*341,333 of 1,024,000 bytes came, then"):
            fetch(small)
    assert left(small) == [".tmp-small.onnx", ".tmp-small.onnx.json"]
    rows = {row["name"]: row for row in json.loads(on_hub("models", "list", "--json").stdout)["models"]}
    assert rows["small"]["where"] == "partly here" and rows["small"]["missing"] == ["small.onnx"]
    dry = on_hub("models", "pull", "small", "--dry-run", "--json")
    assert json.loads(dry.stdout)["to_download"] == len(BODY) - len(BODY) // 3
    assert fetch(small) == BODY and starts(server) == [0, len(BODY) // 3]


def test_a_cut_download_goes_on_where_it_broke(small: Network, server: Server) -> None:
    server.routes["/small.onnx"] = cutting(lambda _: BODY, lambda _: '"one"', whole_from=4)
    assert fetch(small) == BODY
    assert starts(server) == sorted(set(starts(server))) and len(starts(server)) == 4
    assert left(small) == ["small.onnx"]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_validator_it_begins_anew(small: Network, server: Server, tag: str) -> None:
    server.routes["/small.onnx"] = cutting(lambda _: BODY, lambda _: tag, whole_from=3)
    assert fetch(small) == BODY and starts(server) == [0, 0, 0]


def test_a_file_that_changed_on_the_server_begins_anew(small: Network, server: Server) -> None:
    """Its first third is of another file: with the rest of the new one it would be neither."""
    server.routes["/small.onnx"] = cutting(
        lambda request: BODY if request.tries() > 1 else OTHER, lambda request: f'"{min(request.tries(), 2)}"', 3
    )
    assert fetch(small) == BODY
    assert starts(server)[1] == len(BODY) // 3, "it asked for the rest of the old one"


def test_a_part_of_another_address_is_not_gone_on_with(small: Network, server: Server) -> None:
    server.routes["/small.onnx"] = cutting(lambda _: OTHER, lambda _: '"one"', whole_from=99)
    server.routes["/again.onnx"] = cutting(lambda _: BODY, lambda _: '"one"', whole_from=1)
    both = replace(small, addresses=(*small.addresses, server.url("/again.onnx")))
    assert fetch(both) == BODY
    assert [headers.get("range") for path, headers in server.log if path == "/again.onnx"] == [None]


def test_the_wrong_file_is_refused(small: Network, server: Server) -> None:
    """Of the right size and another content, of another size, longer than it said; nothing is left of it."""
    server.serve("/small.onnx", OTHER)
    with pytest.raises(AuthfaceError, match=r"127.0.0.1:\d+: what came has another sha256\): .*AUTHFACE_MIRROR"):
        fetch(small)
    server.serve("/small.onnx", BODY[:-1])
    with pytest.raises(AuthfaceError, match="its file has 1,023,999 bytes, small.onnx has 1,024,000"):
        fetch(small)
    server.serve("/small.onnx", BODY + b"x", Content_Length="", Connection="close")
    with pytest.raises(AuthfaceError, match=r"longer than the 1,024,000 bytes|cannot get"):
        fetch(small)
    assert left(small) == []


def test_what_an_address_refuses_the_next_one_has(small: Network, server: Server) -> None:
    server.routes["/busy"] = lambda request: request.reply(503 if request.tries() < 3 else 200, BODY)
    both = replace(small, addresses=(server.url("/gone"), server.url("/busy")))
    assert fetch(both) == BODY and server.asked == {"/gone": 1, "/busy": 3}
    small.path.unlink()
    with pytest.raises(AuthfaceError) as caught:
        fetch(replace(small, addresses=(server.url("/gone"), "http://127.0.0.1:9/nobody")))
    assert "HTTP 404" in str(caught.value) and "ConnectError" in str(caught.value) and "\n" not in str(caught.value)


def test_two_processes_download_it_once(small: Network, server: Server) -> None:
    server.serve("/small.onnx", BODY)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(small))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 4 and server.asked == {"/small.onnx": 1}


def test_a_mirror_is_asked_alone_and_the_hub_at_its_endpoint(
    small: Network, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    assert networks.addresses(NETWORKS["gpen-256"])[0].startswith("https://hub.example/facefusion/")
    assert networks.addresses(NETWORKS["gfpgan"])[0].startswith("https://github.com/TencentARC/")
    server.serve("/mirror/small.onnx", BODY)
    monkeypatch.setenv(networks.MIRROR, server.url("/mirror/"))
    assert fetch(small) == BODY and server.asked == {"/mirror/small.onnx": 1}


def test_offline_says_which_file_to_put_where(
    small: Network, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AuthfaceError, match=r"put small.onnx \(1,024,000 bytes\) into .*/networks"):
        fetch(small)
    small.path.parent.mkdir()
    small.path.write_bytes(BODY)
    assert fetch(small) == BODY and not server.log


# What is known of a file


def test_a_wrong_file_under_a_known_name(small: Network, server: Server) -> None:
    small.path.parent.mkdir(parents=True)
    small.path.write_bytes(b"12 bytes here")
    with pytest.raises(AuthfaceError, match=r"small.onnx has 13 bytes, small has 1,024,000: delete it, then"):
        fetch(small)
    small.path.write_bytes(OTHER)
    with pytest.raises(
        AuthfaceError, match=rf"has sha256 {sha256(OTHER)[:12]}…, {sha256(BODY)[:12]}… was observed by us"
    ):
        fetch(small)
    assert not server.log


def test_a_hash_that_nobody_knows_is_recorded_once(
    small: Network, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And another file of the size is refused from then on."""
    unknown = replace(small, sha256="", observed="")
    server.serve("/small.onnx", BODY)
    assert fetch(unknown) == BODY
    assert f"that of this file is {sha256(BODY)}, recorded in" in capsys.readouterr().err
    assert (small.path.parent / "small.onnx.sha256").read_text() == f"{sha256(BODY)}  small.onnx\n"
    assert fetch(unknown) == BODY and "recorded" not in capsys.readouterr().err
    small.path.write_bytes(OTHER)
    with pytest.raises(AuthfaceError, match="was recorded when it first came"):
        fetch(unknown)


def test_a_file_of_ones_own_is_known_by_its_content(small: Network, tmp_path: Path) -> None:
    """Wherever it lies and whatever it is called."""
    (tmp_path / "renamed.onnx").write_bytes(BODY)
    (tmp_path / "mine.onnx").write_bytes(OTHER)
    assert networks.find(str(tmp_path / "renamed.onnx"), Console()).network is small
    own = networks.find(str(tmp_path / "mine.onnx"), Console())
    assert own.network is None and own.sha256 == sha256(OTHER) and own.name == "mine.onnx"


# Commands


def test_pull_list_verify_and_doctor(small: Network, server: Server, on_hub: Run, tmp_path: Path) -> None:
    server.routes["/small.onnx"] = cutting(lambda _: BODY, lambda _: '"one"', whole_from=2)
    dry = on_hub("models", "pull", "small", "--dry-run", "--json")
    assert json.loads(dry.stdout)["to_download"] == len(BODY) and "licence MIT" in dry.stderr and not server.log
    done = on_hub("models", "pull", "small", "--out", tmp_path / "copy", "--commercial", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == sha256(BODY)
    assert (tmp_path / "copy" / "small.onnx").read_bytes() == BODY
    rows = {row["name"]: row for row in json.loads(on_hub("models", "list", "--json").stdout)["models"]}
    assert rows["small"]["where"] == "downloaded" and rows["small"]["commercial"] == "yes"
    assert rows["gfpgan"]["where"] == "not here" and rows["gfpgan"]["next"] == "authface models pull gfpgan"
    assert (
        rows["tiny"]["commercial"] == rows["codeformer"]["commercial"] == "no" and rows["sdxl"]["commercial"] == "yes"
    )
    verified = on_hub("models", "verify", "small")
    assert verified.stdout == f"small: whole, 1.0 MB; sha256 {sha256(BODY)}, as observed by us\n"
    assert on_hub("models", "verify", tmp_path / "copy" / "small.onnx").returncode == 0
    assert [(one.name, one.state) for one in doctor.network_weights()] == [("restorer small", "ok")]
    small.path.write_bytes(OTHER)
    broken = on_hub("models", "verify", "small")
    assert broken.returncode == 1 and broken.stdout.count("\n") == 1 and "delete it, then" in broken.stdout
    small.path.write_bytes(b"short")
    (found,) = doctor.network_weights()
    assert found.state == "broken" and found.next == "authface models pull small"
    small.path.unlink()
    gone = on_hub("models", "verify", "small")
    assert gone.returncode == 1 and "authface models pull small" in gone.stderr
    (found,) = doctor.network_weights()
    assert found.state == "missing" and "gpen-256" in found.said


def test_verify_says_the_hash_of_a_file_that_nobody_knows(on_hub: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(OTHER)
    told = on_hub("models", "verify", tmp_path / "mine.onnx")
    assert told.returncode == 0 and f"sha256 {sha256(OTHER)}, nothing says what it should be" in told.stdout
    assert on_hub("models", "verify", tmp_path / "absent.onnx").returncode == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("codeformer", "the licence of codeformer forbids commercial use (S-Lab 1.0, non-commercial)"),
        ("restoreformer-plus", "the licence of restoreformer-plus leaves commercial use unclear"),
        ("authface", "the licence of authface forbids commercial use"),
        ("anna/faces", "the licence of anna/faces is not known here"),
    ],
)
def test_commercial_refuses(on_hub: Run, name: str, said: str) -> None:
    done = on_hub("models", "pull", name, "--commercial")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_disk_that_is_too_small(small: Network, on_hub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda place: type("Disk", (), {"free": 10})())
    done = on_hub("models", "pull", "small")
    assert done.returncode == 1 and "set AUTHFACE_NETWORKS to a folder on a larger disk" in done.stderr
