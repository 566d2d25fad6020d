"""When a frame is shown, and all sound, survive whatever the container counts time in; and so does a kill."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.console import Console
from authface.faces.geometry import Side
from authface.files import TEMPORARY
from authface.restore.model.crops import ColourFix
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore.video.files import NEAR, VideoReader
from authface.store.restore_log import LOG
from tests.conftest import PATIENCE

av = pytest.importorskip("av")

F = Fraction
COUNT = 12
BASES = [F(1, 25), F(1, 30), F(1, 600), F(1, 1000), F(1001, 30000), F(1, 12800), F(1, 90000)]
EVEN = [F(i, 25) for i in range(COUNT)]
UNEVEN = [F(i, 25) for i in (0, 1, 2, 5, 6, 20, 21, 22, 40, 41, 60, 61)]
"""A talk, a slide, and so on: the last frame is shown as long as any."""
SECONDS = {"even": EVEN, "uneven": UNEVEN, "negative": [at - F(1, 5) for at in EVEN], "late": [at + 10 for at in EVEN]}


class Brighter:
    """Stands for a model: it changes every face, in no time."""

    side = Side(64)
    colour: ColourFix = "none"

    def restore(
        self, crops: Sequence[NDArray[np.uint8]], seeds: Sequence[int], fidelity: float | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        return [np.minimum(crop.astype(int) + 60, 255).astype(np.uint8) for crop in crops]


def film(
    path: Path, seconds: Sequence[Fraction], base: Fraction, *, codec: str = "libx264", reorders: int = 2,
    sound: bool = False, **container: str,
) -> Path:  # fmt: skip
    """Write a face that moves, a frame at each of some times, and a second of sound, which is longer than the film."""
    face = data.astronaut()[60:188:2, 170:298:2]
    with av.open(str(path), "w", options=container) as out:
        options = {"crf": "18", "bf": str(reorders), "g": "6"} if codec == "libx264" else {}
        video = out.add_stream(codec, rate=25, options=options)
        video.width = video.height = 64
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.time_base = video.codec_context.time_base = base
        kind = "libopus" if path.suffix == ".webm" else "aac"
        audio = out.add_stream(kind, rate=48000, layout="mono") if sound else None
        for i, at in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(face, i, 1))).reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = round(at / base), base
            out.mux(video.encode(frame))
        out.mux(video.encode())
        for start in range(0, 48000 if audio else 0, 960):
            piece = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, start, F(1, 48000)
            out.mux(audio.encode(piece))
        if audio is not None:
            out.mux(audio.encode())
    return path


def shown(path: Path) -> tuple[list[float], float, list[bytes]]:
    """When each frame is shown, how long the file says it is, and the packets of sound."""
    with av.open(str(path)) as file:
        times = [frame.time for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        streams = file.streams.audio
        sound = [bytes(packet) for packet in file.demux(*streams) if packet.pts is not None] if streams else []
        return times, file.duration / 1e6, sound


def heard(path: Path) -> list[float]:
    """When each packet of sound is heard, seconds."""
    with av.open(str(path)) as file:
        return [float(packet.pts * packet.time_base) for packet in file.demux(audio=0) if packet.pts is not None]


def pictures(path: Path) -> NDArray[np.float32]:
    """Its frames (n, h, w, 3), RGB 0..255."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(np.float32)


def restore(source: Path, out: Path) -> tuple[Path, RestoreSummary]:
    """Restore frames that are faces."""
    settings = RestoreSettings(model="identity", colour="none", guard=False)
    session = Session(Request(settings, aligned=True), Console())
    session.__dict__["restorer"] = Brighter()
    jobs = jobs_of([source], out, settings.format)
    return jobs[0].target, restore_jobs(jobs, session)


@pytest.mark.parametrize("times", SECONDS)
@pytest.mark.parametrize(
    ("name", "codec", "reorders"),
    [("a.mp4", "libx264", 2), ("a.mp4", "libx264", 0), ("a.mov", "libx264", 2), ("a.mkv", "mjpeg", 0),
     ("a.webm", "libvpx-vp9", 0)],
)  # fmt: skip
def test_each_frame_keeps_its_time_and_all_sound_is_kept(
    name: str, codec: str, reorders: int, times: str, tmp_path: Path
) -> None:
    for base in BASES if codec == "libx264" else BASES[::3]:
        out = tmp_path / f"{base.numerator}-{base.denominator}"
        out.mkdir()
        source = film(out / name, SECONDS[times], base, codec=codec, reorders=reorders, sound=times == "late")
        target, summary = restore(source, out / "out")
        assert not summary.failed
        old, new = shown(source), shown(target)
        assert new[0] == pytest.approx(old[0], abs=1e-3), base
        assert new[1] == pytest.approx(old[1], abs=0.041) and new[2] == old[2], base


@pytest.mark.parametrize("clock", [2, 40_000])
def test_a_recorder_s_clock_begins_at_zero(clock: int, tmp_path: Path) -> None:
    source = film(tmp_path / "a.ts", EVEN, F(1, 90000), sound=True, output_ts_offset=str(clock))
    target, summary = restore(source, tmp_path / "out")
    old, new = shown(source), shown(target)
    assert old[0][0] >= clock and new[0][0] < 0.1 and new[1] == pytest.approx(old[1], abs=0.1)
    assert [at - new[0][0] for at in new[0]] == pytest.approx([at - old[0][0] for at in old[0]], abs=1.1e-3)
    assert heard(target)[0] - new[0][0] == pytest.approx(heard(source)[0] - old[0][0], abs=1.1e-3)
    (line,) = summary.video_lines.values()
    with VideoReader(target) as reader:  # as the page does
        for seconds, *_ in line.moments:
            frame = reader.at(seconds)
            assert frame is not None and frame.time == pytest.approx(seconds, abs=NEAR)


def test_a_sound_that_is_longer_than_the_frames_is_kept_whole(tmp_path: Path) -> None:
    """Frames that wait for no later ones are written at once: what comes behind all of them must not be lost."""
    source = film(tmp_path / "a.mkv", EVEN, F(1, 1000), codec="mjpeg", sound=True)
    target, _ = restore(source, tmp_path / "out")
    assert len(shown(source)[2]) > 40 and shown(target)[2] == shown(source)[2]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_a_time_that_is_repeated_in_a_coarse_base_moves_no_later_frame(ending: str, tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", EVEN, F(1, 25), video_track_timescale="25")
    data = bytearray(source.read_bytes())
    at = data.index(b"ctts") + 8
    (count,) = struct.unpack_from(">I", data, at)
    entries = [struct.unpack_from(">II", data, at + 4 + 8 * n) for n in range(count)]
    n = next(n for n, (frames, offset) in enumerate(entries) if n and frames == 1 and offset > 1)
    struct.pack_into(">I", data, at + 8 + 8 * n, entries[n][1] - 1)
    source.write_bytes(data)
    old = shown(source)[0]
    target, summary = restore(source, tmp_path / f"out{ending}")
    new = shown(target)[0]
    assert not summary.failed and len(set(old)) == COUNT - 1 and len(set(new)) == COUNT
    assert new == pytest.approx(old, abs=1.2e-3)


def test_frames_that_an_edit_list_hides_are_not_missing_ones(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", SECONDS["negative"], F(1, 90000), reorders=0)
    target, _ = restore(source, tmp_path / "out")
    line = json.loads((tmp_path / "out" / LOG).read_text())
    assert line["frames"] == COUNT - 5 == len(shown(target)[0])
    assert line["detail"] == "5 frames that it holds and does not show are not kept"


KILLED = """
import os, signal, sys
from pathlib import Path

import numpy as np

from authface import files
from authface.console import Console
from authface.faces.geometry import Side
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from authface.restore import mark
from authface.restore.video.files import VideoWriter
from authface.restore.video.files import NEAR, VideoReader
from authface.store.restore_log import Log

class Brighter:
    side, colour = Side(64), "none"

    def restore(self, crops, seeds, fidelity=None):
        return [np.minimum(crop.astype(int) + 60, 255).astype(np.uint8) for crop in crops]

PLACES = {
    "first": (VideoWriter, "write", 1), "middle": (VideoWriter, "write", 7), "closing": (VideoWriter, "__exit__", 1),
    "marking": (mark, "append_xmp", 1), "logging": (Log, "add", 1), "renaming": (files, "take_place", 1),
    "ending": (RestoreSummary, "count_video", 1),
}
for name, (where, what, left) in PLACES.items():
    if child := os.fork():
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), name
        continue
    real = getattr(where, what)
    def dying(*given, **named):
        global left
        left -= 1
        return os.kill(os.getpid(), signal.SIGKILL) if left == 0 else real(*given, **named)
    setattr(where, what, dying)
    settings = RestoreSettings(model="identity", colour="none", guard=False)
    session = Session(Request(settings, aligned=True), Console())
    session.__dict__["restorer"] = Brighter()
    restore_jobs(jobs_of([Path(sys.argv[1])], Path(sys.argv[2]) / name, settings.format), session)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends SIGKILL")
def test_killed_at_any_point_a_rerun_ends_as_an_undisturbed_run(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", EVEN, F(1, 25), sound=True)
    target, _ = restore(source, tmp_path / "whole")
    given = [str(source), str(tmp_path)]
    told = subprocess.run([sys.executable, "-P", "-c", KILLED, *given], capture_output=True, timeout=PATIENCE)
    assert told.returncode == 0, told.stderr.decode()
    places = sorted({path.name for path in tmp_path.iterdir()} - {"a.mp4", "whole"})
    assert len(places) == 7
    begun = 0
    for name in places:
        out = tmp_path / name
        begun += bool(list(out.glob(f"{TEMPORARY}*")))
        again, summary = restore(source, out)
        # Not the bytes: of the same frames x264 makes other ones in some five to ten of a hundred runs.
        assert not summary.failed and shown(again) == shown(target), name
        assert np.abs(pictures(again) - pictures(target)).mean() < 2, name
        assert {path.name for path in out.iterdir()} == {target.name, LOG}, name
        assert logged(out) == logged(tmp_path / "whole"), name
    assert begun >= 5, "the kills came while files were begun"


def logged(folder: Path) -> list[list[object]]:
    """What its lines say was made, but for the encoder's own bytes: a line each where it made other ones."""
    lines = [json.loads(text) for text in (folder / LOG).read_text().splitlines()]
    assert len({line["result"] for line in lines}) == len(lines), "nothing is told twice"
    told = [[line.get(name) for name in ("target", "content", "fingerprint", "status", "frames")] for line in lines]
    return [line for place, line in enumerate(told) if line not in told[:place]]
