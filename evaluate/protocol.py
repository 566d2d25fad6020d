"""How figures came about: what has to be the same for two runs to be comparable."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from authface import __version__
from authface.evaluate.catalogue import BY_NAME
from authface.evaluate.images import Method
from authface.evaluate.measure import Measured
from authface.evaluate.settings import RestorationSettings

LANDMARKS = (
    "RetinaFace (MobileNet-0.25) finds the face once, on the truth; dlib's 68-point predictor looks into that one box "
    "on the truth and on the output. The faces are aligned: the truth's landmarks cut both for the identity embedding."
)
PAIRING = "by file name without ending; a missing or an extra file is an error; images of another size are not measured"
_PACKAGES = (
    "torch", "torchvision", "pyiqa", "numpy", "scipy", "opencv-python-headless", "pillow", "dlib-bin",
    "onnxruntime",
)  # fmt: skip


def protocol(
    methods: Sequence[Method],
    truth: Path | None,
    inputs: Path | None,
    measured: Measured,
    settings: RestorationSettings,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """JSON of counts, hashes of the sets, versions, weights, the device and the rules."""
    outcomes = measured.outcomes.values()
    names = {outcome.pair.name for outcome in outcomes}
    roles = {"truth": truth, "inputs": inputs}
    return {
        "faces": len(names),
        "pairing": PAIRING,
        "methods": {
            method.name: {
                "folder": str(method.folder),
                "failed": sum(bool(o.reason) for o in outcomes if o.pair.method == method.name),
                "set_sha256": set_sha256(
                    (o.pair.name, o.contents.get("output", "")) for o in outcomes if o.pair.method == method.name
                ),
            }
            for method in methods
        },
        **{
            role: {
                "folder": str(folder),
                "set_sha256": set_sha256((o.pair.name, o.contents.get(role.rstrip("s"), "")) for o in outcomes),
            }
            for role, folder in roles.items()
            if folder is not None
        },
        **({"synth": made} if truth is not None and (made := _synth(truth)) else {}),
        "metrics": {
            name: {"how": BY_NAME[name].note, "unit": BY_NAME[name].unit, "lower_better": BY_NAME[name].lower_better}
            for name in measured.versions
        },
        **({"landmarks": LANDMARKS} if any(BY_NAME[name].kind == "faces" for name in measured.versions) else {}),
        "intervals": f"95 %, percentile bootstrap over faces, {settings.resamples} resamples, seed {seed}",
        "differences": "paired by face; p: two-sided Wilcoxon signed-rank, not corrected for the number of tests",
        "weights": dict(sorted(measured.weights.items())),
        "versions": versions(*_PACKAGES),
        "device": device,
        "seed": seed,
    }


def set_sha256(files: Iterable[tuple[str, str]]) -> str:
    """Hex sha256 of a set of files by name and sha256, in whatever order they come, each counted once."""
    lines = sorted(f"{name} {sha256}\n" for name, sha256 in set(files))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def device_name(kind: str) -> str:
    """What the networks ran on, in words."""
    if kind.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(torch.device(kind))} ({kind})"
    return f"{platform.processor() or platform.machine()} ({kind})"


def versions(*packages: str) -> dict[str, str]:
    """Releases of this toolkit, Python, torch and these packages, as far as they are installed."""
    found = {"authface": __version__, "python": platform.python_version()}
    for name in ("torch", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _synth(truth: Path) -> dict[str, Any] | None:
    """How `authface evaluate synth` made the test set, where the truth is a folder of one."""
    try:
        held = json.loads((truth.resolve().parent / "manifest.json").read_text("utf-8"))
        return dict(held["recipe"]) if held.get("made_by") == "authface evaluate synth" else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
