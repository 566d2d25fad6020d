"""What a run says of itself while it works, at its end and killed; and what `authface status` tells of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface.console import Console
from authface.restore import watch
from authface.restore.pipeline import Videos
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings
from authface.store.restore_line import STATES, RunState, new_state, read_states, write_state
from authface.store.restore_log import LOG
from tests.restore.conftest import Brighter

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    face = Image.fromarray(data.astronaut()[40:120, 150:230])
    for i in range(5):
        face.rotate(i).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"none")
    return folder


class Seen(Brighter):
    """Looks at the state of its own run, as another process would."""

    home: Path
    states: list[RunState]

    def restore(self, crops, seeds, fidelity=None):  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + 30
        while len(self.calls) == 3 and time.monotonic() < deadline:
            if found := [state for state in read_states(self.home) if state.done]:
                self.states = found
                break
            time.sleep(0.02)
        return super().restore(crops, seeds, fidelity)


def run_watched(album: Path, out: Path, restorer: Brighter) -> Session:
    settings = RestoreSettings(model="identity", colour="none", guard=False, batch=1)
    session = Session(Request(settings, aligned=True), Console())
    session.__dict__["restorer"] = restorer
    jobs = jobs_of([album], out, "same")
    with watch.watched(session, jobs):
        restore_jobs(jobs, session)
    return session


def test_a_run_says_how_far_it_is(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watch, "WRITE_SECONDS", 0.02)
    model, out = Seen(), tmp_path / "out"
    model.home, model.states = out, []
    session = run_watched(album, out, model)
    (during,) = model.states
    assert (during.photos, during.condition(), during.pid, during.ended) == (6, "running", os.getpid(), "")
    assert 0 < during.done < 6 and during.model == "identity" and during.last.endswith(".png")
    (after,) = read_states(out)
    assert (after.done, after.restored, after.failed, after.left) == (6, 5, 1, 0)
    assert after.condition() == "finished" and after.rate > 0 and session.left() == 0
    run_watched(album, out, Brighter())
    (again,) = read_states(out)
    assert again.done_before == 5 and again.started > after.started, "of runs that are over the last one's is kept"


def test_a_video_that_failed_takes_its_bytes_from_what_is_left(album: Path, tmp_path: Path) -> None:
    (album / "broken.mp4").write_bytes(b"none")
    work = run_watched(album, tmp_path / "out", Brighter()).summary.work
    assert (work.photos, work.failed, work.videos, work.failed_videos) == (5, 1, Videos(), Videos(1, 4))
    (state,) = read_states(tmp_path / "out")
    assert (state.done, state.failed) == (7, 2)


def test_a_run_that_an_error_ends_says_it(album: Path, tmp_path: Path) -> None:
    class Broken(Brighter):
        def restore(self, crops, seeds, fidelity=None):  # type: ignore[no-untyped-def]
            if len(self.calls) == 2:
                raise MemoryError("no room for the model")
            return super().restore(crops, seeds, fidelity)

    with pytest.raises(MemoryError):
        run_watched(album, tmp_path / "out", Broken())
    (state,) = read_states(tmp_path / "out")
    assert state.condition() == "stopped" and "no room" in state.ended and state.left is None


def test_one_photo_and_what_is_refused_have_no_state(album: Path, tmp_path: Path, authface: Command) -> None:
    (album / "new").mkdir()
    authface(album / "0.png", "-o", tmp_path / "one", "--model", "identity", "--aligned", "-O", "restore.guard=false")
    assert (tmp_path / "one" / LOG).exists() and not (tmp_path / "one" / STATES).exists()
    authface(album, "-o", album / "new", "--model", tmp_path / "gone")
    assert not (album / "new" / STATES).exists()


def test_a_killed_run_is_told_from_a_living_and_a_silent_one(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    state = replace(new_state(photos=3), pid=child.pid)
    later = state.updated + 100
    assert state.condition(state.updated + 5) == "running" and state.condition(later) == "silent"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert state.condition(later) == "killed" and replace(state, host="elsewhere").condition(later) == "silent"
    assert replace(state, ended="finished").condition(later) == "finished"
    write_state(tmp_path, state)
    (tmp_path / STATES / "torn.json").write_bytes(b'{"host": "a", "pid"')
    (tmp_path / STATES / "other.json").write_bytes(b'{"host": 1}')
    assert [one.pid for one in read_states(tmp_path)] == [child.pid]


def test_status_tells_of_results_and_runs(album: Path, tmp_path: Path, typed: Command) -> None:
    given = ["--model", "identity", "--aligned", "-O", "restore.guard=false"]
    code, _, _ = typed("restore", album, "-o", tmp_path / "out", *given)
    assert code == 3
    code, told, _ = typed("status", tmp_path / "out")
    assert code == 0 and "finished after" in told and "6 of 6 (identity) done" in told
    assert "5 restored, 0 without a face to restore, 1 failed" in told and "log of" in told and "in 1 part" in told
    write_state(tmp_path / "out", replace(new_state(photos=100, restored=40, left=7200.0, rate=2.0), pid=os.getpid()))
    code, told, _ = typed("status", tmp_path / "out")
    assert "under way for " in told and "40 of 100" in told and "120 min left" not in told and "2 h 0 min left" in told
    code, told, _ = typed("status", tmp_path, "--json")
    found = json.loads(told)
    assert [run["condition"] for run in found["runs"]] == ["running"], "this process' own state took the other's place"
    (folder,) = found["folders"]
    assert (folder["restored"], folder["failed"], folder["log_parts"]) == (5, 1, 1)
    code, _, err = typed("status", album)
    assert code == 2 and "no photo set" in err


def test_status_counts_a_photo_as_its_last_lines_do(tmp_path: Path, typed: Command) -> None:
    forged = '", "made": "9", "status": "failed", "lines": '
    line = {"target": 'a "q".jpg', "source": "s", "content": "c", "fingerprint": "f"}
    told = [
        line | {"made": "1", "status": "failed", "lines": 1},
        line | {"made": "2", "status": "skipped", "lines": 2, "face": 0},
        line | {"made": "2", "status": "restored", "lines": 2, "face": 1},
        line | {"target": "b", "made": "3", "status": "restored", "lines": 2, "source": forged},
        line | {"target": "b", "made": "3", "status": "skipped", "lines": 2},
        line | {"target": "c", "made": "4", "status": "skipped"},
        line | {"target": "d", "made": "5", "status": "no_face"},
    ]  # fmt: skip
    (tmp_path / LOG).write_text("".join(json.dumps(one) + "\n" for one in told[:4]) + "none of ours\n")
    (tmp_path / "restore.00001.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told[4:]))
    _, out, _ = typed("status", tmp_path, "--json")
    (folder,) = json.loads(out)["folders"]
    assert (folder["restored"], folder["no_face"], folder["log_parts"]) == (2, 2, 2) and "failed" not in folder


def test_photos_that_lie_ahead_are_glanced_at_evenly_and_within_their_share_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GLANCES", 4)
    (tmp_path / "album").mkdir()
    for number in range(40):
        Image.fromarray(data.astronaut()[40:120, 150 - number :][:, :80]).save(tmp_path / "album" / f"{number:02}.png")
    session = Session(Request(RestoreSettings(model="identity", guard=False)), Console())
    _ = session.fingerprint
    seen = watch._Watch(session, jobs_of([tmp_path / "album"], tmp_path / "out", "same"))
    session.summary.work.failed = 10
    planned = seen._plan()
    assert planned is not None and planned.photos == 40
    monkeypatch.setattr(seen._over, "wait", lambda _: True)  # the run ends as the glances wait
    seen._glance(planned)
    places = sorted(place for place, _ in planned.glances)
    assert len(places) == 4, "no second has passed for more"
    assert places[0] >= 10 and max(np.diff([10, *places, 40])) <= 15
    seen._clock.made = 1e6
    seen._glance(planned)
    assert len(planned.glances) == 4 + 30
