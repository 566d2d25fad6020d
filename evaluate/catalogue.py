"""What can be measured of restored faces: names, directions, units, and what each figure is, in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from authface.errors import UsageError, one_line

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
