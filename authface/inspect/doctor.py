"""`authface doctor`: what this machine has for each command, what it lacks, and the command that fixes it.

Nothing is downloaded; the network is used only with `--online`. torch is not imported.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import httpx

from authface import __version__
from authface.devices import cores
from authface.errors import AuthfaceError, first_line, one_line
from authface.extras import EXTRAS, installed
from authface.faces.detector import (
    AUTHFACE_AGAIN,
    DLIB_AGAIN,
    DLIB_FILES,
    DLIB_SHA256,
    LANDMARKS,
    MOBILENET,
    MOBILENET_SHA256,
    RECOGNITION,
    dlib_file,
    facexlib_folder,
)
from authface.files import sha256_of
from authface.inspect import machine
from authface.models import families as models
from authface.models import hub_cache, networks
from authface.models.layout import in_bytes, read_manifest
from authface.models.networks import NETWORKS
from authface.models.verify import VerifyReport, check_manifest, in_count, inventory

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    section: str
    name: str
    state: State
    said: str
    next: str = ""
    """What to type or do about it."""
    needed: bool = False
    """`authface restore` cannot run without it here."""

    @property
    def stops(self) -> bool:
        """Whether `authface restore` fails for it."""
        return self.needed and self.state != "ok"


BUILTIN_MODEL = "model tiny"
"""Name of the finding on the built-in model."""
_RESTORE = (
    "safetensors", "huggingface_hub", "numpy", "opencv-python-headless",
    "pillow", "onnxruntime", "dlib-bin", DLIB_FILES, "jinja2", "pydantic", "typer",
    "rich",
)  # fmt: skip
"""Packages without which no photo is restored."""
_SHOWN = ("huggingface_hub", "onnxruntime", "dlib-bin", "opencv-python-headless", "numpy", "pyarrow")
_NATIVE = {"cv2": "opencv-python-headless", "onnxruntime": "onnxruntime", "dlib": "dlib-bin"}
"""Modules whose libraries of the system may lack; each loads in a tenth of a second."""
_BY_HAND = "inception_FFHQ_512.pth"
"""Statistics that no program can fetch."""
_LEAST = 200_000_000
"""Free bytes below which a run of `restore` is likely to fill the disk."""
_SDXL = 14_000_000_000
"""Bytes of the `sdxl` family in the cache, about; `authface` takes 19 GB."""


def examine(metric_files: Mapping[str, tuple[str, ...]], *, online: bool) -> list[Finding]:
    """Every check, in the order it is shown.

    `metric_files` are the weights of pyiqa's metrics by metric, below torch.hub's folder; `online` asks the hub.
    """
    return [
        *environment(), *devices(machine.nvidia(), machine.torch_build()), *weights(metric_files), *extras(), *disk(),
        *network(online=online),
    ]  # fmt: skip


def to_text(findings: list[Finding]) -> str:
    """Aligned lines by section, and at the end what would fail."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section] if lines else [section]
        after = f" -> {finding.next}" if finding.next else ""
        lines.append(f"  {finding.state:<8} {finding.name:<{width}}  {one_line(finding.said, 200)}{after}")
    stops = [finding for finding in findings if finding.stops]
    fails = "; ".join(f"{finding.name} is {finding.state}: {finding.next or finding.said}" for finding in stops)
    bare = any(finding.name == BUILTIN_MODEL and finding.state == "missing" for finding in findings)
    runs = "authface restore runs on this machine" + ("; without --model it leaves faces as they are" if bare else "")
    lines += ["", f"authface restore would fail: {fails}" if stops else runs]
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """For `--json`."""
    return {"restore": not any(f.stops for f in findings), "findings": [asdict(finding) for finding in findings]}


def environment() -> Iterator[Finding]:
    """Python, the system, authface, and the packages that it requires."""
    section = "environment"
    recent = sys.version_info >= (3, 11)
    yield Finding(section, "python", "ok" if recent else "broken", f"{platform.python_version()}, {sys.executable}",
                  "" if recent else "install python 3.11 or newer", needed=True)  # fmt: skip
    yield Finding(section, "system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    packages = machine.required_packages()
    if not packages:
        yield Finding(
            section, "authface", "broken", f"{__version__}, not installed as a package", "pip install authface"
        )
        return
    yield Finding(section, "authface", "ok", __version__)
    fine = [one for one in packages if one.fits]
    for one in packages:
        needed = one.name in _RESTORE
        if not one.version:
            yield Finding(section, one.name, "missing", f"{one.specifier} is required", one.install, needed)
        elif not one.fits:
            said = f"{one.version}, {one.specifier} is required"
            yield Finding(section, one.name, "broken", said, one.install, needed)
        elif one.name in _SHOWN:
            yield Finding(section, one.name, "ok", one.version)
    yield Finding(section, "other packages", "ok", f"{sum(one.name not in _SHOWN for one in fine)} as required")
    beside = [one for name in EXTRAS for one in machine.required_packages(extra=name)]
    for one in machine.version_conflicts({one.name: None for one in (*packages, *beside) if one.version}):
        said = f"{one.version}, {one.required_by} requires {one.specifier}"
        yield Finding(section, one.name, "broken", said, one.install, one.required_by in _RESTORE)
    yield from _modules(section, {one.name for one in fine})


def _modules(section: str, installed: set[str]) -> Iterator[Finding]:
    """Modules that are installed and do not load, for want of a library of the system."""
    for module, package in _NATIVE.items():
        if package not in installed:
            continue
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001  a broken module fails in its own way
            said = f"does not load: {type(error).__name__}: {first_line(error, 100)}"
            again = f"pip install --force-reinstall {package}"
            if "libGL" in str(error):
                again = "pip install --force-reinstall opencv-python-headless, or apt-get install libgl1 libglib2.0-0"
            yield Finding(section, package, "broken", said, again, needed=True)


def devices(driver: machine.Nvidia | None, build: machine.TorchBuild | None) -> Iterator[Finding]:
    """What models can run on, and what torch was built for."""
    section = "devices"
    ram = machine.memory()
    small = "; too little for the families sdxl and authface in float32 (14 and 19 GB)" if ram < 20e9 else ""
    yield Finding(section, "cpu", "ok", f"{platform.processor() or platform.machine()}, {cores()} cores")
    yield Finding(section, "memory", "ok", f"{in_bytes(ram)}{small}")
    if chip := machine.apple():
        yield Finding(section, "mps", "ok", f"{chip}, memory shared with the CPU")
    if build is not None and build.hip:
        yield Finding(section, "rocm", "ok", f"torch is built for ROCm {build.hip}: --device cuda takes the GPU")
    if driver is None:
        yield Finding(section, "cuda", "missing", "no NVIDIA driver: models run on " + ("mps" if chip else "the CPU"))
        return
    yield from _cuda(section, driver, build)


def _cuda(section: str, driver: machine.Nvidia, build: machine.TorchBuild | None) -> Iterator[Finding]:
    newest = ".".join(map(str, driver.cuda))
    for number, gpu in enumerate(driver.gpus):
        precision = "bfloat16 and float16" if gpu.bf16 else "float16, no bfloat16: train with precision=fp32"
        yield Finding(section, f"cuda:{number}", "ok", f"{gpu.name}, {in_bytes(gpu.bytes)}, {precision}")
    if driver.problem or not driver.gpus:
        said = driver.problem or "a driver and no GPU"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        mend = (
            f"CUDA_VISIBLE_DEVICES={one_line(hidden, 40)} hides them" if hidden is not None else "nvidia-smi says more"
        )
        yield Finding(section, "cuda", "missing" if hidden is not None else "broken", said, mend)
    elif build is not None and not build.cuda and not build.hip:
        mend = "pip install --force-reinstall torch torchvision"
        yield Finding(section, "cuda", "broken", "torch is built without CUDA: models run on the CPU", mend)
    elif build is not None and build.cuda and int(build.cuda.partition(".")[0]) > driver.cuda[0]:
        said = f"torch is built for CUDA {build.cuda}, the driver runs {newest}: models run on the CPU"
        mend = f"update the driver, or install a torch for CUDA {driver.cuda[0]}"
        yield Finding(section, "cuda", "broken", said, mend)


def weights(metric_files: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Weights of the face detector, landmarks, identity, metrics and model families, with their licences."""
    yield from face_weights()
    yield builtin_weights()
    yield from family_weights()
    yield from network_weights()
    if installed("pyiqa"):
        yield from metric_weights(metric_files)


def face_weights() -> Iterator[Finding]:
    """RetinaFace, dlib, which comes with a package, and what is downloaded: the larger RetinaFace, face parsing."""
    yield _retinaface()
    yield _dlib("dlib landmarks", LANDMARKS, "trained on 300-W: no commercial use")
    yield _dlib("dlib identity", RECOGNITION, "public domain")
    yield _downloaded("retinaface-resnet50", "detection_Resnet50_Final.pth", "MIT",
                      "109 MB; only for curate.filter.detector")  # fmt: skip
    yield _downloaded("face parsing", "parsing_parsenet.pth", "CelebAMask-HQ: research, not commercial",
                      "85 MB; only for restore.mask")  # fmt: skip


def _retinaface() -> Finding:
    """The small RetinaFace, which comes along, hashed."""
    if not MOBILENET.is_file():
        return Finding("weights", "retinaface", "missing", "MIT; not in this installation", AUTHFACE_AGAIN, True)
    if sha256_of(MOBILENET) != MOBILENET_SHA256:
        said = f"MIT; {one_line(MOBILENET, 100)} is another file"
        return Finding("weights", "retinaface", "broken", said, AUTHFACE_AGAIN, True)
    return Finding("weights", "retinaface", "ok", f"MIT, {in_bytes(MOBILENET.stat().st_size)}, sha256 as shipped")


def _downloaded(name: str, file: str, licence: str, use: str) -> Finding:
    """A file that facexlib downloads where it is first asked for."""
    place = facexlib_folder()
    if place is not None and (place / file).is_file():
        return Finding("weights", name, "ok", f"{licence}, {one_line(place, 100)}")
    return Finding("weights", name, "missing", f"{licence}, {use}", "downloaded where it is first asked for")


def _dlib(name: str, file: str, licence: str) -> Finding:
    """A file of dlib's weights, hashed: 120 MB take a tenth of a second."""
    try:
        path = dlib_file(file, name)
    except AuthfaceError:
        return Finding("weights", name, "missing", f"{licence}; {file} of {DLIB_FILES} is not here", DLIB_AGAIN, True)
    if sha256_of(path) != DLIB_SHA256[file]:
        return Finding("weights", name, "broken", f"{licence}; {one_line(path, 100)} is another file", DLIB_AGAIN, True)
    return Finding("weights", name, "ok", f"{licence}, {in_bytes(path.stat().st_size)}, sha256 as known")


def builtin_weights() -> Finding:
    """The built-in model, each file hashed: 42 MB take a tenth of a second."""
    licence = models.FAMILIES["tiny"].licence
    if not models.has_builtin():
        said = f"{licence}; not in this installation: authface restore leaves faces as they are"
        return Finding("weights", BUILTIN_MODEL, "missing", said, "give --model FOLDER, or install authface again")
    try:
        manifest = read_manifest(models.BUILTIN)
    except AuthfaceError as error:
        return Finding("weights", BUILTIN_MODEL, "broken", str(error), AUTHFACE_AGAIN, needed=True)
    if manifest is None:
        return Finding("weights", BUILTIN_MODEL, "ok", f"{licence}; no weights.json: authface models verify tiny")
    found = VerifyReport("tiny", models.BUILTIN)
    bad = [(file, fault) for file, fault in check_manifest(found, manifest) if fault]
    if bad:
        return Finding(
            "weights", BUILTIN_MODEL, "broken", f"{one_line(bad[0][0])} {bad[0][1]}", AUTHFACE_AGAIN, needed=True
        )
    said = f"{licence}, {in_count(manifest.parameters)}, {in_bytes(manifest.bytes)}, sha256 as shipped"
    return Finding("weights", BUILTIN_MODEL, "ok", said)


def family_weights() -> Iterator[Finding]:
    """The families in the hub's cache; those known by name that are not there."""
    for row in inventory():
        if row.name == "tiny" or row.name in NETWORKS:
            continue
        name = f"model {one_line(row.name, 60)}"
        licence = row.licence or "licence: see its page"
        if row.state == "partly here":
            lost = one_line(row.missing[0], 80)
            yield Finding("weights", name, "broken", f"{licence}; {len(row.missing)} files lack: {lost}", row.advice)
        elif row.state == "not here":
            yield Finding("weights", name, "missing", f"{licence}, {in_bytes(row.bytes)}", row.advice)
        else:
            yield Finding("weights", name, "ok", f"{licence}, {in_bytes(row.bytes)}, in the hub's cache")


def network_weights() -> Iterator[Finding]:
    """Restorers of one file that are here, by their sizes, and where they lie."""
    rows = [row for row in inventory() if row.name in NETWORKS and row.state != "not here"]
    for row in rows:
        name, said = f"restorer {row.name}", f"{row.licence}, {in_bytes(row.bytes)}"
        if row.state == "partly here":
            yield Finding("weights", name, "broken", f"{said}; {row.missing[0]} is not whole", row.advice)
        else:
            yield Finding("weights", name, "ok", f"{said}, {one_line(row.folder, 100)}")
    if not rows:
        said = f"{', '.join(NETWORKS)}: none in {one_line(networks.folder(), 100)}"
        yield Finding("weights", "restorers", "missing", said, "authface models pull NAME")


def metric_weights(files: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Weights of metrics, below the folder of torch.hub."""
    home = torch_hub()
    for name, wanted in files.items():
        lacking = [file for file in wanted if not _exists(home / file)]
        licence = "HPSv2: Apache-2.0" if name.startswith("hpsv2") else "pyiqa: noncommercial"
        if lacking:
            mend = f"authface evaluate downloads them, or copy them below {one_line(home, 100)}"
            if by_hand := [file for file in lacking if file.endswith(_BY_HAND)]:
                mend = f"{mend}; {by_hand[0]} has no address: fetch it from BasicSR's cloud drive with a browser"
            yield Finding("weights", name, "missing", f"{licence}; lacks {', '.join(lacking)}", mend)
        else:
            size = sum((home / file).stat().st_size for file in wanted if (home / file).is_file())
            yield Finding("weights", name, "ok", f"{licence}, {in_bytes(size) if wanted else 'needs no weights'}")


def torch_hub() -> Path:
    """torch.hub.get_dir(), by its documented rule and without torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", str(Path(cache) / "torch"))).expanduser() / "hub"


def _exists(path: Path) -> bool:
    """Also under the name with a hash, as torch.hub stores some."""
    return path.is_file() or any(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def extras() -> Iterator[Finding]:
    """What can be installed beside: each extra, what it brings, and which of its packages are here."""
    for name, extra in EXTRAS.items():
        packages = machine.required_packages(extra=name)
        lacking = [one.name for one in packages if not one.version]
        old = [f"{p.name} {p.version}, {p.specifier} is required" for p in packages if p.version and not p.fits]
        there = [f"{p.name} {p.version}" for p in packages if p.version]
        said = ", ".join(old) or (f"lacks {', '.join(lacking)}" if lacking else ", ".join(there))
        state: State = "broken" if old else "missing" if lacking else "ok"
        mend = "" if state == "ok" else f"pip install -U 'authface[{name}]'"
        yield Finding("extras", name, state, f"{extra.brings}; {said}", mend)


def disk() -> Iterator[Finding]:
    """Free bytes where files are written."""
    cache = hub_cache.cache_folder()
    places = (("here", Path.cwd(), True), ("temporary", Path(tempfile.gettempdir()), True), ("hub cache", cache, False))
    for name, place, needed in places:
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(there).free
        said = f"{in_bytes(free)} free, {one_line(place, 80)}"
        if not os.access(there, os.W_OK):
            mend = {"here": "go to another folder, or give -o", "temporary": "set TMPDIR", "hub cache": "set HF_HOME"}
            yield Finding("disk", name, "broken", f"may not be written to: {one_line(place, 80)}", mend[name])
        elif free < _LEAST:
            yield Finding("disk", name, "broken", f"{said}; 200 MB are needed", "free space", needed)
        elif not needed and free < _SDXL:
            yield Finding("disk", name, "broken", f"{said}; sdxl takes 14 GB, authface 19 GB", "set HF_HOME elsewhere")
        else:
            yield Finding("disk", name, "ok", said)


def network(*, online: bool) -> Iterator[Finding]:
    """How the hub is reached; it is asked only if `online`."""
    from huggingface_hub import constants, get_token

    offline = bool(constants.HF_HUB_OFFLINE)
    endpoint = one_line(constants.ENDPOINT, 80)
    token = "with a token" if get_token() else "without a token: HF_TOKEN is needed for what asks for consent"
    if offline:
        said = "HF_HUB_OFFLINE is set: nothing is downloaded"
        yield Finding("network", "hub", "missing", said, "unset HF_HUB_OFFLINE to pull models")
    elif not online:
        yield Finding("network", "hub", "ok", f"{endpoint}, {token}; not asked: --online asks")
    else:
        yield _ask_hub(endpoint, token)


def _ask_hub(endpoint: str, token: str) -> Finding:
    try:
        answer = httpx.head(endpoint, timeout=5, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{endpoint} does not answer: {type(error).__name__}: {first_line(error, 80)}"
        return Finding(
            "network", "hub", "broken", said, "check the connection and proxy, or set HF_ENDPOINT to a mirror"
        )
    if answer.status_code >= 500:
        return Finding("network", "hub", "broken", f"{endpoint} answers with {answer.status_code}", "try again later")
    return Finding("network", "hub", "ok", f"{endpoint} answers, {token}")
