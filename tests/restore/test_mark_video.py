"""Videos say that a model drew in them, in XMP or tags, and are signed where their container holds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from authface import Restorer
from authface.imaging.xmp import Property, properties_of, with_properties
from authface.restore.mark import COMPOSITE, IPTC, Boxes, append_xmp, read_boxes
from authface.restore.outcome import provenance_of

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "clip.mp4"
    frame = np.ascontiguousarray(data.astronaut()[:200, 130:330])
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 200, 200, "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_xmp_and_credentials_lie_in_files_of_boxes(ending: str, clip: Path, tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa")
    target = tmp_path / f"out.{ending}"
    with Restorer(sign="test", embed_settings=True) as restorer:
        line = restorer.restore_video(clip, target)
    assert line.faces == 3 and line.result_bytes == target.stat().st_size
    assert properties_of(read_boxes(target).xmp)[f"{IPTC} DigitalSourceType"] == COMPOSITE
    assert provenance_of(target).inside["model"] == "authface-tiny"
    with c2pa.Reader(str(target)) as reader:
        told = json.loads(reader.json())
    assert told["validation_state"] == "Valid"
    with av.open(str(target)) as file:
        assert len(list(file.decode(video=0))) == 3


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_tags_lie_in_the_others_and_what_is_not_signed_is_said(ending: str, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / f"out.{ending}"
    with Restorer(sign="test") as restorer:
        line = restorer.restore_video(clip, target)
    assert "holds no Content Credentials: not signed" in line.detail
    with av.open(str(target)) as file:
        assert file.metadata["DIGITAL_SOURCE_TYPE"] == COMPOSITE
        assert file.metadata["AI_SYSTEM_USED"] == "authface with authface-tiny"
        assert len(list(file.decode(video=0))) == 3


def test_a_video_that_was_not_changed_says_nothing(clip: Path, tmp_path: Path) -> None:
    for ending in ("mp4", "mkv"):
        with Restorer("identity", sign="test" if ending == "mp4" else "") as restorer:
            restorer.restore_video(clip, tmp_path / f"out.{ending}")
    assert (tmp_path / "out.mp4").read_bytes() == clip.read_bytes()
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert not [name for name in file.metadata if "SOURCE" in name]


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_tags_leave_the_frame_rate_and_why_reads_them(ending: str, clip: Path, tmp_path: Path) -> None:
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    with Restorer(embed_settings=True) as restorer:
        restorer.restore_video(clip, first)
    with av.open(str(first)) as file:
        assert file.streams.video[0].average_rate == 25
    told = provenance_of(first)
    assert (told.source_type, told.inside["model"]) == (COMPOSITE, "authface-tiny")
    with Restorer() as restorer:
        restorer.restore_video(first, second)
    assert provenance_of(second).source_type == COMPOSITE and not provenance_of(second).inside


def test_xmp_of_a_video_goes_over_and_its_credentials_go_with_a_line(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    before = [
        Property("urn:mine:", "mine", "kept", "as it was"),
        Property(IPTC, "iptc", "DigitalSourceType", "digital"),
    ]
    film, signed = tmp_path / "film.mp4", tmp_path / "signed.mp4"
    shutil.copyfile(clip, film)
    append_xmp(film, with_properties(b"", before))
    with Restorer(sign="test") as restorer:
        assert restorer.restore_video(film, signed).detail == ""
    with Restorer() as restorer:
        line = restorer.restore_video(signed, tmp_path / "plain.mp4")
        other = restorer.restore_video(signed, tmp_path / "plain.mkv")
    assert "does not keep content credentials" in line.detail and "no place for its XMP" in other.detail
    for path in (signed, tmp_path / "plain.mp4"):
        told = properties_of(read_boxes(path).xmp)
        assert told["urn:mine: kept"] == "as it was" and told[f"{IPTC} DigitalSourceType"] == COMPOSITE
    assert not read_boxes(tmp_path / "plain.mp4").credentials


def test_a_video_that_is_only_enlarged_is_not_marked(clip: Path, tmp_path: Path) -> None:
    with Restorer("identity", upscale=2) as restorer:
        restorer.restore_video(clip, tmp_path / "large.mp4")
    assert read_boxes(tmp_path / "large.mp4") == Boxes()


def test_a_box_that_lies_about_its_size_is_passed_over(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    append_xmp(film, b"x" * 40)
    assert read_boxes(film).xmp == b"x" * 40
    film.write_bytes((8).to_bytes(4, "big") + film.read_bytes()[4:])
    assert read_boxes(film).xmp == b""
    film.write_bytes(b"\0\0\0\1moov" + b"\xff" * 40)
    assert read_boxes(film) == Boxes()


@pytest.mark.parametrize(
    ("name", "format", "codec", "said"),
    [
        ("a.mp4", "matroska", "libx264", "matroska"),
        ("a.avi", "avi", "mpeg4", "avi"),
        ("a.mp4", "h264", "libx264", "h264"),
    ],
)
def test_a_video_is_signed_by_what_it_is_not_by_its_name(
    name: str, format: str, codec: str, said: str, clip: Path, tmp_path: Path
) -> None:
    pytest.importorskip("c2pa")
    with av.open(str(clip)) as old, av.open(str(tmp_path / name), "w", format=format) as new:
        stream = new.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 200, 200, "yuv420p"
        for frame in old.decode(video=0):
            new.mux(stream.encode(frame))
        new.mux(stream.encode())
    with Restorer(sign="test") as restorer:
        line = restorer.restore_video(tmp_path / name, tmp_path / "out.mp4")
    assert line.faces == 3 and line.detail == f"{said} holds no Content Credentials: not signed"
    assert properties_of(read_boxes(tmp_path / "out.mp4").xmp)[f"{IPTC} DigitalSourceType"] == COMPOSITE


def test_an_mp4_by_another_name_keeps_its_xmp(clip: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    shutil.copyfile(clip, film)
    append_xmp(film, with_properties(b"", [Property("urn:mine:", "mine", "kept", "as it was")]))
    with Restorer() as restorer:
        restorer.restore_video(film, tmp_path / "out.mp4")
    assert properties_of(read_boxes(tmp_path / "out.mp4").xmp)["urn:mine: kept"] == "as it was"
