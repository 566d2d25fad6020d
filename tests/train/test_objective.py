"""The noise of a batch, whoever computes it."""

import pytest
import torch

from authface.train.objective import Noise


def test_a_face_keeps_its_noise_in_any_batch() -> None:
    """Four faces at once, and two and two: the same numbers, and others for another face or seed."""
    whole, first, second = Noise(3, range(8, 12)), Noise(3, range(8, 10)), Noise(3, range(10, 12))
    for draw in (lambda n: n.normal(4, 2, 2), lambda n: n.integers(1000), lambda n: n.uniform()):
        drawn = draw(whole)
        assert torch.equal(drawn, torch.cat([draw(first), draw(second)])) and len(drawn.unique()) == drawn.numel()
    assert not torch.equal(Noise(3, [0]).normal(4), Noise(4, [0]).normal(4))
    many = Noise(0, range(4000))
    assert float(many.normal(4).std()) == pytest.approx(1, abs=0.03) and float(many.uniform().mean()) == pytest.approx(
        0.5, abs=0.03
    )
    late = Noise(0, range(4000)).integers(1000, 1).double()  # density 2 t: mean 2/3, a quarter below the middle
    assert float(late.mean()) == pytest.approx(667, abs=15) and late.min() >= 0 and late.max() < 1000
    assert float((late < 500).double().mean()) == pytest.approx(0.25, abs=0.03)
