"""What can be measured of restored faces: names, directions, units, what each figure is, and the weights it needs.

Weights are downloaded once: where they lie, and what to do where they are not.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from authface.errors import AuthfaceError, UsageError, one_line
from authface.files import sha256_of_weights

Kind = Literal["pixels", "faces", "learned", "set"]
"""`pixels` and `faces` need no torch and run in processes; `learned` are networks; `set` are one figure for all."""
Need = Literal["", "truth", "inputs"]


@dataclass(frozen=True)
class RestorationMetric:
    """One figure of an output, or of all outputs (`kind` set)."""

    name: str
    kind: Kind
    needs: Need
    lower_better: bool
    unit: str
    digits: int
    """Decimals that are shown."""
    note: str
    """How it is computed, for the report."""
    pyiqa: str = ""
    """Its name there."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What pyiqa is called with beside the images."""


METRICS = (
    RestorationMetric(
        "psnr", "pixels", "truth", False, "dB", 2,
        "Of RGB in 0..255 (skimage's); for identical images the value for one level in one colour of one pixel.",
    ),
    RestorationMetric(
        "psnr_y", "pixels", "truth", False, "dB", 2,
        "Of luma, BT.601 in 16..235, not rounded (BasicSR's, MATLAB's).",
    ),
    RestorationMetric(
        "ssim", "pixels", "truth", False, "", 4,
        "Of RGB, uniform 7 x 7 window, mean of the channels (skimage's; the authors' script).",
    ),
    RestorationMetric(
        "ssim_y", "pixels", "truth", False, "", 4,
        "Of rounded full-range luma, Gaussian 11 x 11 window of sigma 1.5 (Wang et al. 2004; pyiqa's ssim).",
    ),
    RestorationMetric(
        "identity", "faces", "truth", False, "cosine", 4,
        "Dot product of dlib's unit embeddings of output and truth, both cut by the truth's landmarks. Portraits "
        "of strangers have 0.866 on average.",
    ),
    RestorationMetric(
        "landmarks", "faces", "truth", True, "% of the eyes' distance", 2,
        "Mean distance of the 68 points of output and truth over that of the truth's outer eye corners; dlib's "
        "predictor in one box on both.",
    ),
    RestorationMetric(
        "landmarks_px", "faces", "truth", True, "px", 2,
        "The same in pixels of the image.",
    ),
    RestorationMetric(
        "identity_input", "faces", "inputs", False, "cosine", 4,
        "As identity, of output and degraded input, both cut by the landmarks found on the output.",
    ),
    RestorationMetric(
        "lpips", "learned", "truth", True, "", 4,
        "LPIPS 0.1 with AlexNet, images in -1..1 as it was trained (Zhang et al. 2018).",
        "lpips",
    ),
    RestorationMetric(
        "lpips_raw01", "learned", "truth", True, "", 4,
        "The same fed with images in 0..1, as the authors' script does: comparable with their table only.",
        "lpips", {"normalize": False},
    ),
    RestorationMetric(
        "piqe", "learned", "", True, "0..100", 2,
        "pyiqa's piqe (Venkatanath et al. 2015).",
        "piqe",
    ),
    RestorationMetric(
        "musiq", "learned", "", False, "0..100", 2,
        "pyiqa's musiq, trained on KonIQ-10k (Ke et al. 2021).",
        "musiq",
    ),
    RestorationMetric(
        "clipiqa", "learned", "", False, "0..1", 4,
        "pyiqa's clipiqa: CLIP RN50 with fixed pairs of prompts (Wang et al. 2023).",
        "clipiqa",
    ),
    RestorationMetric(
        "maniqa", "learned", "", False, "0..1", 4,
        "pyiqa's maniqa, trained on KonIQ-10k, 20 crops (Yang et al. 2022).",
        "maniqa",
    ),
    RestorationMetric(
        "niqe", "learned", "", True, "", 2,
        "pyiqa's niqe, of luma (Mittal et al. 2013).",
        "niqe",
    ),
    RestorationMetric(
        "qalign", "learned", "", False, "1..5", 3,
        "pyiqa's qalign: Q-Align's One-Align, float16, a question to a language model of 8 billion weights (Wu et al. "
        "2023).",
        "qalign",
    ),
    RestorationMetric(
        "fid_ffhq_basicsr", "set", "", True, "", 2,
        "FID to FFHQ at 512 px as blind face restoration reports it: BasicSR's patched Inception, images in "
        "-1..1, bilinear to 299 px, against inception_FFHQ_512.pth.",
    ),
    RestorationMetric(
        "fid_ffhq_clean", "set", "", True, "", 2,
        "FID to FFHQ at 512 px as clean-fid computes it (Parmar et al. 2022): antialiased bicubic to 299 px, "
        "against ffhq_clean_trainval70k_512. No figure to set beside the one above.",
    ),
)  # fmt: skip
"""In the order of what they cost."""
BY_NAME = {metric.name: metric for metric in METRICS}
DEAR = frozenset({"maniqa"})
"""Left out on a CPU unless they are named."""
BY_NAME_ONLY = frozenset({"niqe", "qalign"})
"""Never measured unless they are named: terms of `evaluate challenge`."""
WORST_BY = ("identity", "psnr", "lpips", "musiq", "clipiqa", "piqe", "ssim", "landmarks")
"""What orders the worst, where the settings name nothing: the first that was measured."""


def choose(names: Sequence[str], *, truth: bool, inputs: bool) -> list[RestorationMetric]:
    """The metrics of these names, or all that apply, in the order of the catalogue.

    Raises UsageError for a name that is not there or that needs what was not given.
    """
    given = {"": True, "truth": truth, "inputs": inputs}
    if not names:
        chosen = [metric for metric in METRICS if given[metric.needs] and metric.name not in BY_NAME_ONLY]
        return [metric for metric in chosen if not (truth and metric.needs == "inputs")]
    for name in names:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, n=3)
            raise UsageError(f"no metric {one_line(name)}: there are {', '.join(near or BY_NAME)}")
        if not given[BY_NAME[name].needs]:
            raise UsageError(f"the metric {name} needs --{BY_NAME[name].needs} DIR")
    return [metric for metric in METRICS if metric.name in names]


_INCEPTION = "pyiqa/pt_inception-2015-12-05-6726825d.pth"
FILES: dict[str, tuple[str, ...]] = {
    "lpips": ("checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"),
    "lpips_raw01": ("checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"),
    "musiq": ("pyiqa/musiq_koniq_ckpt-e95806b9.pth",),
    "clipiqa": ("clip/RN50.pt",),
    "maniqa": ("pyiqa/ckpt_koniq10k.pt",),
    "piqe": (),
    "niqe": ("pyiqa/niqe_modelparameters.mat",),
    "fid_ffhq_basicsr": (_INCEPTION, "pyiqa/inception_FFHQ_512.pth"),
    "fid_ffhq_clean": (_INCEPTION, "pyiqa/ffhq_clean_trainval70k_512.npz"),
    "fid_basicsr": (_INCEPTION,),
    "fid_clean": (_INCEPTION,),
    "hpsv2 v2.0": ("hpsv2/HPS_v2_compressed.pt",),
    "hpsv2 v2.1": ("hpsv2/HPS_v2.1_compressed.pt",),
}
"""Files by metric, below torch.hub.get_dir(), where torch and pyiqa look for them; of FID the statistics come last."""
HUB = {"qalign": "q-future/one-align"}
"""Repositories by metric, below the hub's cache, where transformers looks for them."""
_ALIASES = {"pyiqa/inception_FFHQ_512.pth": "pyiqa/inception_FFHQ_512-f7b384ab.pth"}
"""BasicSR's statistics go about under two names, and are fetched with a browser only."""
_PATIENCE = 30.0
"""Seconds without an answer after which a server counts as out of reach."""


@dataclass
class MetricWeights:
    """The files of metrics, fetched where they are missing; a network that failed once is not tried again."""

    log: Callable[[str], None]
    _offline: str = field(default="")
    """Why nothing can be fetched."""

    def ensure(self, metric: str, own: Path | None = None) -> dict[str, Path]:
        """The files of a metric by name; `own` stands for the last of them.

        Raises AuthfaceError, one line with every file that is missing, where it comes from and where it belongs.
        """
        if metric in HUB:
            return self._snapshot(metric, HUB[metric])
        wanted = FILES[metric]
        found = [_place(relative) for relative in (wanted[:-1] if own is not None else wanted)]
        missing = [
            (path, url)
            for path, relative in zip(found, wanted, strict=False)
            if (url := self._miss(path, relative)) is not None
        ]
        if own is not None:
            found.append(own)
            if not own.is_file():
                missing.append((own, ""))
        if missing:
            why = f" and cannot be fetched ({self._offline})" if self._offline else ""
            raise AuthfaceError(f"{metric} is not measured: its weights are missing{why}: {_advice(missing)}")
        return {path.name: path for path in found}

    def _snapshot(self, metric: str, repository: str) -> dict[str, Path]:
        """The config of a repository that is whole in the hub's cache, under a name that holds its commit."""
        from huggingface_hub import constants, snapshot_download

        if find_spec("icecream") is None:
            raise AuthfaceError(
                f"{metric} is not measured: pip install 'authface[{metric}]', and {_of_hub(repository)}"
            )
        try:
            if not (self._offline or constants.HF_HUB_OFFLINE):
                self.log(f"fetching {repository}, 16 GB where it is not here yet")
            folder = Path(snapshot_download(repository, local_files_only=bool(self._offline)))
        except Exception as error:  # a network fails in many ways, and so do disks
            self._offline = self._offline or one_line(f"{type(error).__name__}: {error}", 100)
            raise AuthfaceError(
                f"{metric} is not measured: its weights are missing: {_of_hub(repository)}, into "
                f"{one_line(constants.HF_HUB_CACHE)}"
            ) from error
        return {f"{repository}@{folder.name[:12]}": folder / "config.json"}

    def _miss(self, path: Path, relative: str) -> str | None:
        """None where the file is there now; else its address, empty for one that has none."""
        if path.is_file():
            return None
        url = _url(relative)
        if url and not self._offline:
            self._offline = self._fetch(url, path)
        return None if path.is_file() else url

    def _fetch(self, url: str, path: Path) -> str:
        """Empty, or why it could not be fetched."""
        import torch
        from huggingface_hub.constants import HF_HUB_OFFLINE

        if HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        self.log(f"fetching {url}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _patient():
                torch.hub.download_url_to_file(url, str(path), progress=False)
        except Exception as error:  # noqa: BLE001  a network fails in many ways, and so do disks
            return one_line(f"{type(error).__name__}: {error}", 100)
        return ""


def sha256s(files: dict[str, Path]) -> dict[str, str]:
    """Hex sha256 of each file."""
    return {name: sha256_of_weights(path) for name, path in files.items()}


def _place(relative: str) -> Path:
    import torch

    home = Path(torch.hub.get_dir())
    other = _ALIASES.get(relative)
    return home / other if other and (home / other).is_file() else home / relative


def _url(relative: str) -> str:
    """Where pyiqa and torchvision say the file is; empty for one that has no address."""
    folder, _, file = relative.partition("/")
    if folder == "checkpoints":
        from torchvision.models import AlexNet_Weights

        return str(AlexNet_Weights.IMAGENET1K_V1.url)
    if folder == "clip":
        from pyiqa.archs.clip_model import _MODELS

        return str(_MODELS["RN50"])
    if folder == "hpsv2":
        return f"https://huggingface.co/xswu/HPSv2/resolve/main/{file}"
    from pyiqa.archs.arch_util import get_url_from_name

    return "" if relative in _ALIASES else str(get_url_from_name(file))


def _of_hub(repository: str) -> str:
    return f"hf download {repository} (16 GB)"


def _advice(missing: Sequence[tuple[Path, str]]) -> str:
    return "; ".join(f"place {url or path.name} in {one_line(path.parent)}" for path, url in missing)


@contextmanager
def _patient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
