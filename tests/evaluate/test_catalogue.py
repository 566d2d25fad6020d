"""Which metrics are measured of what is given."""

from __future__ import annotations

import pytest

from authface.errors import UsageError
from authface.evaluate.catalogue import BY_NAME_ONLY, METRICS, choose


def test_metrics_are_chosen_by_what_is_given() -> None:
    def names(**given: bool) -> set[str]:
        return {metric.name for metric in choose([], **given)}

    alone = {"piqe", "musiq", "clipiqa", "maniqa", "fid_ffhq_basicsr", "fid_ffhq_clean"}
    assert names(truth=False, inputs=False) == alone
    assert names(truth=False, inputs=True) == alone | {"identity_input"}
    assert names(truth=True, inputs=True) == {metric.name for metric in METRICS} - {"identity_input", *BY_NAME_ONLY}
    assert [m.name for m in choose(["niqe"], truth=False, inputs=False)] == ["niqe"]
    assert [m.name for m in choose(["lpips", "psnr"], truth=True, inputs=False)] == ["psnr", "lpips"]
    with pytest.raises(UsageError, match="needs --truth"):
        choose(["psnr"], truth=False, inputs=False)
    with pytest.raises(UsageError, match="there are .*lpips"):
        choose(["lpip"], truth=True, inputs=False)
