"""A photo set on an object store: the same commands against a real S3 server on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from authface.errors import AuthfaceError, UsageError
from authface.files import place, replacing
from authface.records import Photo
from authface.store import lock
from authface.store.photoset import PhotoSet, Provenance, Table
from tests import conftest

SMALL = ["-O", "curate.align.size=128", "-O", "curate.filter.min_size=40"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A new bucket on a moto server; the environment tells s3fs where it is."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="faces")
        yield "s3://faces"
    server.stop()


def authface(*words: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which knows the store by what lies in it."""
    done = subprocess.run([sys.executable, "-m", "authface.cli", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode in codes, done.stderr
    return done


def test_the_commands_make_the_same_set_on_a_store_as_on_a_disk(bucket: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    for step in (["fetch", "--from", "samples"], ["filter", *SMALL], ["align", *SMALL]):
        assert conftest.authface("curate", step[0], local, *step[1:]).returncode == 0
        authface("curate", step[0], f"{bucket}/set", *step[1:])
    ours, theirs = PhotoSet(local), PhotoSet(place(f"{bucket}/set"))
    assert [replace(p, asked_at="") for p in ours.photos] == [replace(p, asked_at="") for p in theirs.photos]
    for name in ("faces", "crops"):
        assert list(getattr(ours, name)) == list(getattr(theirs, name))
    kept = [crop for crop in theirs.crops if crop.status == "kept"]
    assert len(kept) == 2
    assert all(ours.read(crop.file) == theirs.read(crop.file) for crop in kept)
    again = json.loads(authface("curate", "align", f"{bucket}/set", *SMALL, "--json").stdout)
    assert (again["made"], again["skipped"]) == (0, 1)
    assert not theirs.exists(".lock")
    assert theirs.exists("reports/curate.html") and theirs.exists("recipe.toml")


def test_one_writer_at_a_time(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.0)
    root = place(f"{bucket}/leased")
    with lock.write_lock(root), pytest.raises(AuthfaceError, match="is in use by"), lock.write_lock(root):
        pass
    with lock.write_lock(root):
        pass
    dead = {"owner": "elsewhere:1:x", "at": time.time() - lock.LEASE_SECONDS - 1}
    (root / ".lock").write_bytes(json.dumps(dead).encode())
    with lock.write_lock(root):
        assert json.loads((root / ".lock").read_text())["owner"] != dead["owner"]


@pytest.mark.parametrize("notices", ["while it runs", "at its end"])
def test_a_run_that_slept_past_its_lease_leaves_anothers(
    notices: str, bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which workers of pytest ignore
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.05 if notices == "while it runs" else 60.0)
    root = place(f"{bucket}/slept")
    other = json.dumps({"owner": "elsewhere:1:x", "at": time.time()}).encode()
    ran = False
    with pytest.raises(AuthfaceError, match="elsewhere:1:x took it over: run the same command again"):  # noqa: SIM117
        with lock.write_lock(root):
            (root / ".lock").write_bytes(other)
            try:
                for _ in range(200 if notices == "while it runs" else 1):
                    time.sleep(0.05)
                ran = True
            except KeyboardInterrupt:  # what a step writes at Ctrl-C, it must not write now
                with pytest.raises(AuthfaceError, match="took it over"):
                    PhotoSet(root).save("photos/late.jpg", b"late")
                with pytest.raises(AuthfaceError, match="took it over"):
                    PhotoSet(root).photos.write(0, [], Provenance("fetch", 1, {}, {}), "")
                raise
    assert ran == (notices == "at its end") and (root / ".lock").read_bytes() == other
    (root / ".lock").unlink()
    PhotoSet(root).save("photos/later.jpg", b"a later run's")
    assert not PhotoSet(root).exists("photos/late.jpg") and not PhotoSet(root).photos.parts()


def test_a_file_is_whole_or_absent(bucket: str) -> None:
    path = place(f"{bucket}/whole/file")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert not path.exists()
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(b"all")
    assert path.read_bytes() == b"all"


@pytest.mark.parametrize("letters", [1, 100_000], ids=["short", "longer than what is fetched first"])
def test_metadata_is_read_from_the_end_of_a_part(bucket: str, tmp_path: Path, letters: int) -> None:
    rows = [Photo(id=f"{n * 7919:064x}", source="folder", source_id=str(n), file="") for n in range(3000)]
    provenance = Provenance("fetch", 1, {"long": "x" * letters}, {})
    ours, theirs = (Table(folder, Photo) for folder in (tmp_path, place(f"{bucket}/metas")))
    for table in (ours, theirs):
        table.write(0, rows, provenance, "inputs")
    assert theirs.metas() == ours.metas() == {0: ours.meta(0)} != {0: None}
    (theirs.folder / "00000.parquet").write_bytes(b"no part")
    assert theirs.metas() == {0: None}


def test_a_store_that_cannot_be_had_is_one_line(bucket: str) -> None:
    with pytest.raises(UsageError, match="no store called nothing"):
        place("nothing://bucket/set")
    done = authface("curate", "filter", "s3://no-such-bucket/set", codes=(1, 2))
    assert done.stderr.count("\n") == 1 and "no photo set at s3://no-such-bucket/set" in done.stderr
