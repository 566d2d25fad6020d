"""Videos made by PyAV, restored by a stand-in for a model, and read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.console import Console
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session
from authface.restore.settings import RestoreSettings
from tests.restore.conftest import Brighter

av = pytest.importorskip("av")

Command = Callable[..., tuple[int, str, str]]
Lines = Callable[[Path], list[dict[str, Any]]]
WIDTH, HEIGHT = 192, 160
RATE = 25
TICKS = 100
"""Of the time base in a frame."""


def scene(i: float, noise: float = 0, seed: int = 0) -> NDArray[np.uint8]:
    """A face of some 60 px that moves by 2 and 1 px a frame."""
    turn = np.array([[0.6, 0, -80 - 2 * i], [0, 0.6, -2 - i]], np.float64)
    rgb = cv2.warpAffine(data.astronaut(), turn, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    if noise:
        grain = np.random.default_rng(seed).normal(0, noise, rgb.shape)
        rgb = np.clip(rgb + grain, 0, 255).astype(np.uint8)
    return np.asarray(rgb, np.uint8)


def film(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    sound: str = "aac",
    turns: int = 0,
    ticks: Sequence[int] | None = None,
    colours: tuple[int, int, int, int] = (1, 1, 1, 1),
    format: str = "yuv420p",
    words: Path | None = None,
) -> Path:
    """Write upright pictures, with a sine for sound; `turns` quarter turns make the stored ones upright.

    `words` is a file of subtitles.
    """
    base = Fraction(1, RATE * TICKS)
    with av.open(f"file:{path}", "w") as out:
        out.metadata["title"] = "A film"
        video = out.add_stream(codec, rate=RATE, options={"crf": "8"} | ({"b": "0"} if "vp9" in codec else {}))
        stored = np.rot90(pictures[0], -turns)
        video.width, video.height, video.pix_fmt = stored.shape[1], stored.shape[0], format
        video.time_base = video.codec_context.time_base = base
        context = video.codec_context
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = colours
        if turns:
            video.set_display_rotation({1: 90, 2: 180, 3: -90}[turns])
        audio = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        if audio is not None and sound == "wmav2":  # has no rate of its own
            audio.bit_rate = 64_000
        if words is not None:
            with av.open(str(words)) as told:
                stream = out.add_stream_from_template(told.streams[0])
                stream.metadata["language"] = "eng"
                for packet in told.demux():
                    if packet.dts is not None:
                        packet.stream = stream
                        out.mux(packet)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(picture, -turns)))
            frame = frame.reformat(format=format, dst_colorspace=colours[0], dst_color_range=colours[1])
            frame.pts, frame.time_base = (ticks[i] if ticks else i * TICKS), base
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None:
            wave = np.sin(2 * np.pi * 440 * np.arange(48000 * len(pictures) // RATE) / 48000).astype(np.float32) * 0.3
            for start in range(0, len(wave), 960):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 960].copy(), format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                out.mux(audio.encode(piece))
            out.mux(audio.encode())
    return path


def seen(path: Path) -> list[Any]:
    """Its frames as they are stored."""
    with av.open(f"file:{path}") as file:
        return list(file.decode(video=0))


def upright(path: Path) -> list[NDArray[np.uint8]]:
    return [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4) for frame in seen(path)]


def heard(path: Path) -> list[tuple[Any, ...]]:
    """Its packets of sound: when, and what bytes."""
    with av.open(f"file:{path}") as file:
        packets = [packet for packet in file.demux(audio=0) if packet.dts is not None]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


def restore(source: Path, out: Path, model: Any = None, **chosen: Any) -> tuple[Path, RestoreSummary]:
    settings = RestoreSettings(**({"model": "identity", "colour": "none", "guard": False} | chosen))
    session = Session(Request(settings), Console())
    session.__dict__["restorer"] = model or Brighter()
    jobs = jobs_of([source], out, settings.format)
    summary = restore_jobs(jobs, session)
    return jobs[0].target, summary


def gained(before: Path, after: Path) -> NDArray[np.float64]:
    """(n, h, w) how much brighter each pixel of each frame became."""
    pairs = zip(upright(before), upright(after), strict=True)
    return np.stack([new.astype(float).mean(axis=2) - old.astype(float).mean(axis=2) for old, new in pairs])
