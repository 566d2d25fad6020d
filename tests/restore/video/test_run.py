"""Videos: made here by PyAV, restored by a stand-in for a model, and read again."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data

from authface import Restorer
from authface.console import Console
from authface.errors import UsageError
from authface.restore.page import write_page
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings
from authface.restore.video.files import VideoReader
from authface.restore.video.frame import DecodedFrame
from authface.restore.video.run import MAX_MOMENTS, Spread
from tests.conftest import PATIENCE, heed_ctrl_c
from tests.restore.conftest import Brighter
from tests.restore.video.films import HEIGHT, WIDTH, film, gained, heard, restore, scene, seen

av = pytest.importorskip("av")

Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, Any]]]
SRGB = ImageCms.createProfile("sRGB")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return [scene(i) for i in range(10)]


@pytest.fixture(scope="module")
def clip(pictures: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "clip.mp4", pictures)


def test_each_frame_s_face_changes_and_nothing_else(clip: Path, tmp_path: Path, lines: Lines) -> None:
    model = Brighter()
    target, summary = restore(clip, tmp_path / "out", model, batch=4, crf=8)
    difference = gained(clip, target)
    for i, change in enumerate(difference):
        x, y = 0.6 * 224 - 80 - 2 * i, 0.6 * 118 - 2 - i  # the face's middle, by eye
        assert change[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8].mean() > 45
        assert np.abs(change[120:, 140:]).mean() < 2
    assert [len(call) for call in model.calls] == [4, 4, 2]  # faces of several frames together
    assert len({seed for call in model.calls for seed in call}) == 1  # one noise for one face
    (line,) = lines(tmp_path / "out")
    assert (line["status"], line["frames"], line["faces"], line["followed"]) == ("restored", 10, 10, 1)
    assert (line["width"], line["height"], line["target"]) == (WIDTH, HEIGHT, "clip.mp4")
    assert line["seconds"] > 0 and summary.video_lines[target].faces == 10


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("12:30 turned.mov", {"turns": 3}),
        ("uneven.mkv", {"ticks": [0, 100, 250, 300, 700, 750, 800, 1000, 1100, 1500]}),
        ("wide.mp4", {"colours": (1, 2, 1, 1)}),
        ("old.mp4", {"colours": (5, 1, 6, 5)}),
        ("deep.mp4", {"codec": "libx265", "format": "yuv420p10le"}),
        ("web.webm", {"codec": "libvpx-vp9", "sound": "libopus"}),
    ],
)
def test_times_sound_turn_and_colours_are_kept(
    pictures: list[NDArray[np.uint8]], tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    source = film(tmp_path / name, pictures, **how)
    target, summary = restore(source, tmp_path / "out", crf=8)
    line = summary.video_lines[target]
    assert (line.faces, line.width, line.height) == (10, WIDTH, HEIGHT)  # upright
    old, new = seen(source), seen(target)
    assert [frame.time for frame in new] == [frame.time for frame in old]
    for one in ("rotation", "colorspace", "color_range", "color_primaries", "color_trc"):
        assert {getattr(frame, one) for frame in new} == {getattr(old[0], one)}, one
    assert new[0].format.name == old[0].format.name
    assert heard(target) == heard(source) and heard(source)
    change = gained(source, target)
    assert np.abs(change[:, 120:, 140:].mean()) < 1  # no tone is shifted by a wrong matrix or range
    assert change[0, 61:77, 46:62].mean() > 40  # where the face is, upright
    with av.open(f"file:{target}") as file:
        assert file.metadata["title"] == "A film"
    assert [moment[0] for moment in line.moments] == [round(float(frame.time), 4) for frame in old][::2]
    with VideoReader(source) as before, VideoReader(target) as after:
        for seconds, *quad in line.moments[::-1]:  # backwards: it seeks
            was, now = before.at(seconds), after.at(seconds)
            assert was is not None and now is not None and was.time == now.time == pytest.approx(seconds, abs=1e-3)
            assert len(quad) == 8 and np.abs(now.pixels().astype(int) - was.pixels()).max() > 20
        assert before.at(old[-1].time + 1) is None


def test_each_frame_is_shown_as_long_as_it_was(pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    """Slides of nearly 4 s, of which the last one is short: no muxer may guess its length."""
    whole = film(tmp_path / "whole.mp4", pictures[:4], sound="", ticks=[0, 9400, 18800, 28200])
    source = tmp_path / "slides.mp4"
    with av.open(str(whole)) as old, av.open(str(source), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.dts is not None]
        last = max(packets, key=lambda packet: packet.pts)
        last.duration = round(0.04 / last.time_base)
        for packet in packets:
            packet.stream = stream
            new.mux(packet)
    target, _ = restore(source, tmp_path / "out")
    lengths = []
    for path in (source, target):
        with av.open(str(path)) as file:
            lengths.append(file.duration / 1e6)
    assert lengths[1] == pytest.approx(lengths[0], abs=0.05)
    assert [frame.time for frame in seen(target)] == [frame.time for frame in seen(source)]


@pytest.mark.parametrize("base", [Fraction(1, 1000), Fraction(1, 25)])
def test_a_time_that_is_repeated_or_missing_moves_no_later_frame(
    base: Fraction, pictures: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(tmp_path / "even.mkv", pictures[:8], sound="", codec="mjpeg", format="yuvj420p")
    with VideoReader(source) as reader:
        times = [0, 40, 40, 80, 120, 120, None, 200]
        frames = list(reader.container.decode(video=0))
        for frame, at in zip(frames, times, strict=True):
            frame.pts = None if at is None else round(at / 1000 / base)
            frame.time_base = base

        class Stream:
            time_base, average_rate, guessed_rate = base, Fraction(25), None

            def decode(self, packet: Any) -> list[Any]:
                return [packet]

        stream = Stream()
        packets = [type("Packet", (), {"stream": stream, "is_discard": False})() for _ in frames]
        kept = dict(zip(map(id, packets), frames, strict=True))
        stream.decode = lambda packet: [kept[id(packet)]]  # type: ignore[method-assign]
        reader.video = stream  # type: ignore[assignment]
        reader.container.close()
        reader.container = type("Container", (), {"demux": lambda *_: packets, "close": lambda self: None})()
        monkeypatch.setattr(VideoReader, "over_8_bits", False)
        told = [round(item.time * 1000) for item in reader.read() if isinstance(item, DecodedFrame)]
    assert told == [0, 40, 41, 80, 120, 121, 161, 200]


def test_a_video_where_nothing_changes_is_copied(clip: Path, tmp_path: Path, authface: Command, lines: Lines) -> None:
    code, out, err = authface(clip, "--model", "identity", "-o", tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == clip.read_bytes()
    assert "10 faces (1 followed through 10 frames) found and left as they are in 1 of 1 videos" in out
    assert (tmp_path / "out" / "restore.html").exists()


def test_a_second_run_does_nothing_and_other_settings_do_it_again(clip: Path, tmp_path: Path) -> None:
    again = Brighter()
    target, _ = restore(clip, tmp_path / "out")
    first = target.stat().st_mtime_ns
    _, summary = restore(clip, tmp_path / "out", again)
    assert summary.done_before == 1 and not again.calls and target.stat().st_mtime_ns == first
    assert summary.video_lines[target].faces == 10
    restore(clip, tmp_path / "out", again, crf=30)
    assert again.calls and target.stat().st_mtime_ns > first


def test_photos_and_videos_of_a_folder(clip: Path, tmp_path: Path, authface: Command, lines: Lines) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    Image.fromarray(scene(0)).save(folder / "photo.png")
    code, out, err = authface(folder, "--model", "identity", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["photos"], told["restored"], told["faces"]) == (1, 1, 1)
    assert [video["frames"] for video in told["videos"]] == [10]
    assert {line["target"] for line in lines(tmp_path / "out")} == {"clip.mp4", "photo.png"}
    code, out, err = authface(folder, "--model", "identity", "-o", tmp_path / "out")
    assert "2 inputs were done before" in out


def test_the_page_shows_frames_of_a_video(clip: Path, tmp_path: Path) -> None:
    target, summary = restore(clip, tmp_path / "out", upscale=2)
    session = Session(Request(RestoreSettings(model="identity", guard=False)), Console())
    page = write_page(session, summary, tmp_path / "out").read_text()
    assert "0.00 s, largest face" in page and "10 in 10 frames" in page and "photos restored" not in page
    assert page.count("clip.mp4, ") == 2 * page.count("largest face") == 8
    target.unlink()
    assert "largest face" not in write_page(session, summary, tmp_path / "out").read_text()


def test_frames_that_are_faces_are_shown_once(tmp_path: Path, authface: Command, lines: Lines) -> None:
    source = film(tmp_path / "face.mkv", [scene(0)[10:90, 10:90]] * 3, sound="")
    code, _, err = authface(source, "--aligned", "--model", "identity", "-o", tmp_path / "out")
    assert code == 0, err
    assert [len(moment) for moment in lines(tmp_path / "out")[0]["moments"]] == [1, 1, 1]
    page = (tmp_path / "out/restore.html").read_text()
    assert page.count("face.mkv, ") == 3 and "largest face" not in page


@given(st.integers(0, 3000))
def test_of_many_frames_some_are_kept_evenly(count: int) -> None:
    some = Spread()
    for i in range(count):
        some.add((float(i),))
    kept = [i for (i,) in some.kept]
    assert len(kept) <= MAX_MOMENTS and len(kept) >= min(count, MAX_MOMENTS // 2)
    assert len(set(np.diff(kept))) <= 1 and kept[:1] == [0.0][:count]


def test_a_larger_video(clip: Path, tmp_path: Path) -> None:
    target, _ = restore(clip, tmp_path / "out", upscale=2)
    assert (seen(target)[0].width, seen(target)[0].height) == (2 * WIDTH, 2 * HEIGHT)


def test_odd_sides_lose_no_pixel(tmp_path: Path) -> None:
    odd = [scene(i)[:159, :191] for i in range(3)]
    source = film(tmp_path / "odd.mkv", odd, format="yuv444p", sound="")
    target, summary = restore(source, tmp_path / "out")
    assert (seen(target)[0].width, seen(target)[0].height) == (191, 159)
    assert summary.video_lines[target].faces == 3


def test_an_avi_becomes_matroska(pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    source = film(tmp_path / "old.avi", pictures[:3], codec="mpeg4", sound="libmp3lame")
    target, summary = restore(source, tmp_path / "out")
    assert target.name == "old.mkv" and summary.video_lines[target].faces == 3
    assert [sound for _, sound in heard(target)] == [sound for _, sound in heard(source)]


def test_subtitles_are_kept_where_the_container_takes_them(pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,040 --> 00:00:00,080\nHello\n")
    source = film(tmp_path / "told.mkv", pictures[:3], sound="", words=tmp_path / "words.srt")
    target, summary = restore(source, tmp_path / "out")
    assert summary.video_lines[target].detail == ""
    with av.open(f"file:{target}") as file:
        assert file.streams.subtitles[0].language == "eng"
        (packet,) = [packet for packet in file.demux(subtitles=0) if packet.dts is not None]
        assert (packet.time_base * packet.pts, packet.time_base * packet.duration) == (Fraction(1, 25),) * 2
        assert bytes(packet) == b"Hello"
    target, summary = restore(source, tmp_path / "out.mp4")
    assert "mp4 holds no" in summary.video_lines[target].detail and summary.video_lines[target].faces == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda data: data[: len(data) // 2], "unreadable"),
        (lambda data: b"", "unreadable"),
        (lambda data: b"no video at all" * 99, "unreadable"),
    ],
)
def test_a_broken_video_is_one_line_and_a_row(
    clip: Path, tmp_path: Path, authface: Command, lines: Lines, make: Callable[[bytes], bytes], said: str
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(make(clip.read_bytes()))
    code, _, err = authface(bad, "--model", "identity", "-o", tmp_path / "out")
    assert code == 1 and "no input could be used" in err
    assert len([line for line in err.splitlines() if line.startswith(f"{bad}: failed ({said})")]) == 1
    (line,) = lines(tmp_path / "out")
    assert (line["status"], line["reason"]) == ("failed", said)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".restore", "restore.jsonl"}


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_a_still_picture_named_a_video_is_one_line(ending: str, tmp_path: Path, authface: Command) -> None:
    picture = tmp_path / f"a{ending}"
    Image.fromarray(scene(0)).save(picture, "PNG", icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes())
    code, _, err = authface(picture, "--model", "identity", "-o", tmp_path / "out")
    assert code == 1 and f"{picture}: failed (no_video): no video but what FFmpeg calls png_pipe: name a file" in err


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("nut", "libx264"), ("ivf", "libvpx-vp9"), ("mjpeg", "mjpeg"), ("y4m", "wrapped_avframe"), ("rm", "rv10")]
    + [("h264", "libx264"), ("hevc", "libx265"), ("obu", "libsvtav1")],
)
def test_other_containers_by_a_videos_name_are_read(ending: str, codec: str, tmp_path: Path) -> None:
    source, padded = tmp_path / "a.mp4", np.zeros((3, 160, 208, 3), np.uint8)  # sides that RealVideo has
    padded[:, :HEIGHT, :WIDTH] = [scene(i) for i in range(3)]
    made = film(
        tmp_path / f"a.{ending}", padded, codec=codec, sound="", format="yuvj420p" if codec == "mjpeg" else "yuv420p"
    )
    made.rename(source)
    target, summary = restore(source, tmp_path / "out", min_face=32)
    assert not summary.failed and summary.video_lines[target].frames == len(seen(target)) == 3
    assert summary.video_lines[target].faces == 3


@pytest.mark.parametrize(
    ("codec", "format", "beside"),
    [
        ("png", "rgb24", {"format": "PNG", "icc_profile": ImageCms.ImageCmsProfile(SRGB).tobytes()}),
        ("mjpeg", "yuvj420p", {"format": "JPEG", "exif": _turned(), "quality": 95}),
    ],
)
def test_pictures_with_a_profile_or_exif_are_frames_like_others(
    codec: str, format: str, beside: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / "a.mov"
    with av.open(str(source), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, format
        for i in range(3):
            Image.fromarray(scene(i)).save(coded := BytesIO(), **beside)
            packet = av.Packet(coded.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            packet.is_keyframe = True
            out.mux(packet)
    target, summary = restore(source, tmp_path / "out", min_face=32)
    assert not summary.failed and summary.video_lines[target].frames == 3
    assert {frame.rotation for frame in seen(target)} == {frame.rotation for frame in seen(source)}


def _matrix(path: Path) -> tuple[int, ...]:
    header = path.read_bytes()
    return struct.unpack_from(">9i", header, header.index(b"tkhd") + 44)


def _shown(stored: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """What a player shows of a stored picture: (x, y) at (m0 x + m3 y, m1 x + m4 y)."""
    laid = stored if matrix[0] else stored.swapaxes(0, 1)
    return laid[:: 1 if matrix[1] + matrix[4] > 0 else -1, :: 1 if matrix[0] + matrix[3] > 0 else -1]


def _turned_film(path: Path, stored: NDArray[np.uint8], turned: int, mirrored: str) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = stored.shape[1], stored.shape[0], "yuv420p"
        video.set_display_rotation(turned, **({mirrored: True} if mirrored else {}))
        file.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(stored))))
        file.mux(video.encode())
    return path


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", ["", "hflip", "vflip"])
def test_a_mirrored_video_stays_mirrored_and_is_seen_upright(turned: int, mirrored: str, tmp_path: Path) -> None:
    picture = scene(0)
    matrix = _matrix(_turned_film(tmp_path / "first.mov", picture, turned, mirrored))
    ways = [np.rot90(flip, turns) for flip in (picture, picture[:, ::-1]) for turns in range(4)]
    (stored,) = (way for way in ways if np.array_equal(_shown(way, matrix), picture))
    source = _turned_film(tmp_path / "a.mov", stored, turned, mirrored)
    with VideoReader(source) as reader:
        (frame,) = reader.read()
    assert np.abs(frame.pixels().astype(int) - picture).mean() < 6
    target, _ = restore(source, tmp_path / "out", upscale=2)
    (made,) = seen(target)
    assert _matrix(target) == _matrix(source) == matrix
    assert np.abs(_shown(made.to_ndarray(format="rgb24"), matrix)[::2, ::2].astype(int) - picture).mean() < 25


def test_a_video_cut_short_is_restored_as_far_as_it_goes(pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mkv", pictures, codec="ffv1", sound="").read_bytes()  # all frames are of one size
    (tmp_path / "short.mkv").write_bytes(whole[: int(len(whole) * 0.6)])
    target, summary = restore(tmp_path / "short.mkv", tmp_path / "out")
    assert 0 < summary.video_lines[target].frames < 10
    assert summary.video_lines[target].faces == summary.video_lines[target].frames == len(seen(target))


def test_sound_without_a_picture_is_no_video(tmp_path: Path, authface: Command) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(audio.encode(frame))
        out.mux(audio.encode())
    code, _, err = authface(path, "-o", tmp_path / "out")
    assert code == 1 and "failed (no_video): the file holds no video stream" in err


def test_a_video_without_a_face_is_copied_and_says_so(tmp_path: Path, authface: Command) -> None:
    coffee = [np.ascontiguousarray(data.coffee()[i : i + HEIGHT, :WIDTH]) for i in range(3)]
    source = film(tmp_path / "coffee.mp4", coffee)
    code, _, err = authface(source, "--model", "identity", "-o", tmp_path / "out")
    assert code == 1 and f"{source}: no face restored: no face found of" in err
    assert (tmp_path / "out" / "coffee.mp4").read_bytes() == source.read_bytes()


def test_a_video_whose_faces_a_limit_leaves_says_so(tmp_path: Path, authface: Command, lines: Lines) -> None:
    source = film(tmp_path / "a.mp4", [scene(0), scene(1)])
    out = tmp_path / "out"
    code, _, err = authface(source, "--device", "cpu", "-o", out, "-O", "restore.fidelity=1", "--min-parts", "1")
    (line,) = lines(out)
    assert (line["status"], line["faces"], line["drifted"]) == ("no_face", 0, 2)
    assert "2 of 2 faces in its frames stay as they were" in err and "each restored face drifted" in err
    assert code == 1 and "2 faces drifted from their input" in err and "no face" not in err.splitlines()[-1]


def test_without_pyav_one_line_says_what_to_install(
    clip: Path, tmp_path: Path, authface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = authface(clip, "--model", "identity", "-o", tmp_path / "out")
    assert code == 2 and err.splitlines() == ["authface: a video needs PyAV: pip install 'authface[video]'"]
    Image.fromarray(scene(0)).save(tmp_path / "photo.png")
    code, _, err = authface(clip, tmp_path / "photo.png", "--model", "identity", "-o", tmp_path / "out")
    assert code == 3 and "failed (no_pyav): a video needs PyAV: pip install 'authface[video]'" in err


def test_a_link_to_no_video_is_said(tmp_path: Path, authface: Command) -> None:
    for name, target, said in (("a.mp4", "gone.mp4", "to gone.mp4, which is not there"), ("b.mp4", "b.mp4", "back to")):
        (tmp_path / name).symlink_to(target)
        code, _, err = authface(tmp_path / name, "--model", "identity", "-o", tmp_path / "out")
        assert code == 1 and "failed (unreadable): a symbolic link" in err and said in err


def test_a_result_has_the_ending_of_a_video(clip: Path, tmp_path: Path, authface: Command) -> None:
    code, _, err = authface(clip, "-o", tmp_path / "out.png")
    assert code == 2 and "results are written as .mp4, .m4v, .mov, .mkv, .webm" in err


def test_sound_that_a_container_does_not_take_is_said(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.webm"
    _, summary = restore(clip, out)
    assert [reason for _, reason in summary.failed] == ["audio: webm holds no aac sound: take -o NAME.mkv"]
    assert not out.exists()


def _samples(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as file:
        found = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
    return found if found.dtype == np.int16 else np.rint(found * 32768).astype(np.int16)


@pytest.mark.parametrize(("name", "sound"), [("a.wmv", "wmav2"), ("a.avi", "adpcm_ms"), ("a.avi", "pcm_mulaw")])
def test_sound_that_matroska_does_not_hold_becomes_flac(
    name: str, sound: str, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = film(tmp_path / name, pictures, sound=sound)
    target, summary = restore(source, tmp_path / "out")
    assert summary.video_lines[target].detail == f"matroska holds no {sound} sound: it becomes FLAC"
    np.testing.assert_array_equal(_samples(target), _samples(source))
    late = []
    for path in (source, target):
        with av.open(str(path)) as file:
            late.append(next(file.decode(audio=0)).time - seen(path)[0].time)
    assert late[1] == pytest.approx(late[0], abs=0.002)
    _, summary = restore(source, tmp_path / "out.mp4")
    assert [reason for _, reason in summary.failed] == [f"audio: mp4 holds no {sound} sound: take -o NAME.mkv"]


def test_sound_of_an_unknown_kind_is_left_out_with_a_line(pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    source = film(tmp_path / "a.avi", pictures, sound="pcm_mulaw")
    data = bytearray(source.read_bytes())
    at = data.index(b"strf", data.index(b"auds")) + 8
    data[at : at + 2] = b"\x99\x99"
    source.write_bytes(data)
    target, summary = restore(source, tmp_path / "out")
    assert summary.video_lines[target].detail == "streams of audio are not kept"


@pytest.mark.parametrize("channels", [0, 12])
def test_sound_of_more_channels_than_flac_has_or_none_is_left_out_with_a_line(
    channels: int, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = film(tmp_path / "a.avi", pictures, sound="pcm_mulaw")
    data = bytearray(source.read_bytes())
    struct.pack_into("<H", data, data.index(b"strf", data.index(b"auds")) + 10, channels)
    source.write_bytes(data)
    target, summary = restore(source, tmp_path / "out")
    said = f"matroska holds no pcm_mulaw sound of {channels} channels: it is not kept"
    assert summary.video_lines[target].detail == said and len(seen(target)) == len(pictures)


def test_from_python(clip: Path, tmp_path: Path) -> None:
    restorer = Restorer("identity", guard=False)
    told: list[tuple[int, int]] = []
    line = restorer.restore_video(clip, tmp_path / "out.mp4", progress=lambda done, of: told.append((done, of)))
    assert (line.frames, line.faces, line.followed) == (10, 10, 1)
    assert told == [(i + 1, 10) for i in range(10)]
    assert (tmp_path / "out.mp4").read_bytes() == clip.read_bytes()
    with pytest.raises(UsageError, match="the input itself"):
        restorer.restore_video(clip, clip)
    with pytest.raises(UsageError, match=r"videos are written as \.mp4"):
        restorer.restore_video(clip, tmp_path / "out.gif")

    def stop(done: int, of: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        restorer.restore_video(clip, tmp_path / "stopped.mp4", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4"}


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = film(tmp_path / "long.mp4", [scene(i % 20) for i in range(400)])
    command = [sys.executable, "-m", "authface.cli", "restore", str(source), "--model", "identity", "-o"]
    running = subprocess.Popen(
        [*command, str(tmp_path / "out")], stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "out").glob(".tmp-*")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130 and "authface: stopped; what was finished is kept" in err
    assert "Traceback" not in err
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left <= {"restore.jsonl"}
