"""Videos say that a model drew in them, in XMP or tags, and are signed where their container holds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from authface import Restorer
from authface.imaging.xmp import properties_of
from authface.restore.mark import COMPOSITE, IPTC, read_xmp_box
from authface.restore.provenance import provenance_of

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
    assert properties_of(read_xmp_box(target))[f"{IPTC} DigitalSourceType"] == COMPOSITE
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
