"""The samplers of latents that restoring, validation pictures and the judging of priors make."""

from __future__ import annotations

from typing import Any


def sampler(kind: Any, trained: Any, **own: Any) -> Any:
    """A scheduler of diffusers' class `kind` with the noise schedule and prediction of the config `trained`.

    Latents are never clipped: a config that does not say so would become ``clip_sample=True`` in some classes, which
    keeps pixels in -1..1 and ruins latents. `own` settings win over the config's.
    """
    return kind.from_config(trained, **{"clip_sample": False, "thresholding": False, **own})
