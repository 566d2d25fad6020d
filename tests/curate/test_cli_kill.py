"""SIGKILL at any moment: the tables end as those of an undisturbed run, and what was fetched is not asked for again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authface.curate.fetch.ledger import FinishedPhoto
from authface.store.journal import Journal
from authface.store.photoset import PhotoSet, Table
from tests.curate.conftest import Handler, Server

PARTS = 12
FETCH_KILLS = 8
LATER_KILLS = {"filter": 6, "align": 6}
CONNECTIONS = 3


@pytest.fixture
def links(server: Server, photos: list[bytes], tmp_path: Path) -> Path:
    """48 addresses in a list, answered slowly: two lead to the same photo, one to half of one, one to nothing."""

    def slowly(request: Handler, body: bytes) -> None:
        time.sleep(0.03)
        request.reply(200, body)

    bodies = [*photos[:45], photos[3], photos[0][:3000]]
    for number, body in enumerate(bodies):
        server.routes[f"/{number}.jpg"] = lambda request, body=body: slowly(request, body)  # type: ignore[misc]
    path = tmp_path / "links.txt"
    path.write_text("\n".join(server.url(f"/{number}.jpg") for number in range(len(bodies) + 1)))
    return path


def command(photoset: Path, links: Path, step: str) -> list[str]:
    settings = [
        f"curate.fetch.part_rows={48 // PARTS}", f"curate.fetch.web.connections={CONNECTIONS}",
        "curate.fetch.web.allow_private_hosts=true", "curate.fetch.web.host_rate=500",
        "curate.align.size=128", "curate.filter.min_size=40", "curate.filter.max_pixelation=1",
        "curate.filter.max_sharpening=1",
    ]  # fmt: skip
    source = ["--from", "urls", str(links)] if step == "fetch" else []
    options = [word for setting in settings for word in ("-O", setting)]
    return [sys.executable, "-m", "authface.cli", "curate", step, str(photoset), *source, *options]


def finish(photoset: Path, links: Path, step: str) -> float:
    start = time.monotonic()
    done = subprocess.run(command(photoset, links, step), capture_output=True, text=True, check=False)
    assert done.returncode in {0, 3}, done.stderr
    return time.monotonic() - start


def killed_after(run: subprocess.Popen[bytes], seconds: float) -> bool:
    """SIGKILL the run after so long; whether it was still at work."""
    try:
        run.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
        return True


def start(photoset: Path, links: Path, step: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(photoset, links, step), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fetched(root: Path) -> set[str]:
    """Addresses whose photos the set has a row of, in a part or waiting for one."""
    waiting, _ = Journal(root / "sources" / "fetched.jsonl", FinishedPhoto).read()
    return {row.source_id for row in PhotoSet(root).photos} | {line.photo.source_id for line in waiting}


def timeless(row: Any) -> Any:
    """The row without the times at which it failed and its opt-outs were read."""
    return replace(row, tried_at="", asked_at="") if hasattr(row, "tried_at") else row


def test_twenty_kills_leave_the_tables_of_an_undisturbed_run(server: Server, links: Path, tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    seconds = {step: finish(calm, links, step) for step in ("fetch", *LATER_KILLS)}
    assert set(server.asked.values()) == {1} and len(server.asked) == 48
    server.asked.clear()
    rng = random.Random(20)
    asked_before: Counter[str] = Counter()
    hits = 0
    for _ in range(FETCH_KILLS):
        before = server.asked.total()
        with start(killed, links, "fetch") as run:
            further = rng.randint(1, 9)
            while run.poll() is None and server.asked.total() < before + further:
                time.sleep(0.002)
            hits += killed_after(run, rng.uniform(0, 0.05))
        for address in fetched(killed):
            path = address.removeprefix(server.url(""))
            assert server.asked[path] == asked_before.setdefault(path, server.asked[path]), "asked for again"
    finish(killed, links, "fetch")
    assert all(server.asked[path] == count for path, count in asked_before.items())
    assert server.asked.total() - 48 <= FETCH_KILLS * CONNECTIONS, "none but those in flight"
    assert hits == FETCH_KILLS
    for step, kills in LATER_KILLS.items():
        for kill in range(kills):
            with start(killed, links, step) as run:
                if kill % 2:  # once a part is there; else at any time, while the models load too
                    parts = len(table(killed, step).parts())
                    while run.poll() is None and len(table(killed, step).parts()) == parts:
                        time.sleep(0.002)
                hits += killed_after(run, rng.uniform(0, 0.02) if kill % 2 else rng.uniform(0.2, 0.8) * seconds[step])
        finish(killed, links, step)
    assert hits >= FETCH_KILLS + 4
    for step in ("fetch", *LATER_KILLS):
        undisturbed, survived = table(calm, step), table(killed, step)
        assert len(undisturbed.parts()) == PARTS
        assert [timeless(row) for row in undisturbed] == [timeless(row) for row in survived]
        assert [undisturbed.meta(n) for n in range(PARTS)] == [survived.meta(n) for n in range(PARTS)]
    assert files(calm) == files(killed)
    assert sum(crop.status == "kept" for crop in PhotoSet(calm).crops) >= 4
    assert (killed / "sources" / "fetched.jsonl").read_bytes() == b"", "nothing waits for a part"


def table(root: Path, step: str) -> Table[Any]:
    photoset = PhotoSet(root)
    return {"fetch": photoset.photos, "filter": photoset.faces, "align": photoset.crops}[step]


def files(root: Path) -> dict[str, bytes]:
    kept = [path for folder in ("photos", "crops") for path in (root / folder).rglob("*.*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in kept if not path.name.startswith(".tmp-")}
