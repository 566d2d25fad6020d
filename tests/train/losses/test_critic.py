"""The facial loss's shares of the gradient: on real faces with the built-in family, and over batches and processes.

The time-aware facial loss: equation 3's values, the regions, the discriminators, equation 2 and its gradients.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st

from authface.faces.degrade import degrade, preset
from authface.models import sdxl
from authface.models.families import load, resolve
from authface.train.controlnet import ControlBatch, ControlNetObjective
from authface.train.losses import critic as facial
from authface.train.losses.critic import MOST, ComponentDiscriminator, EqualConv, FacialCritic, GradientBalance, frozen
from authface.train.objective import Noise
from authface.train.prior import ENCODERS
from authface.train.settings import ControlNetSettings, FacialSettings
from tests.train.conftest import CPU, OneProcess

SIZE, FACES = 128, 4


def objective_of(stage: ControlNetObjective, **facial: Any) -> ControlNetObjective:
    """The stage with discriminators as they begin."""
    settings = stage.settings.model_copy(update={"facial": FacialSettings(start=0, **facial)})
    vae = stage.parts.vae
    critic = FacialCritic(int(vae.config.latent_channels), sdxl.spatial_factor(vae), settings.facial, CPU, seed=0)
    return replace(stage, settings=settings, critic=critic)


@pytest.fixture(scope="module")
def stage() -> ControlNetObjective:
    """Stage II over the built-in family, without a dataset."""
    parts = load(resolve("tiny"), [*ENCODERS, "vae", "unet", "controlnet", "scheduler"], CPU, torch.float32)
    for model in (parts.vae, parts.unet):
        model.requires_grad_(False)
    faces = cast(Any, SimpleNamespace(size=SIZE))
    null, settings = sdxl.encode_prompts(parts, [""]), ControlNetSettings(size=SIZE)
    return ControlNetObjective(faces, parts, cast(Any, None), null, preset("gfpgan"), settings, 0)


@pytest.fixture(scope="module")
def batch(stage: ControlNetObjective) -> ControlBatch:
    """Four crops of a portrait, their degradations, and about where eyes and mouth are."""
    portrait = skimage.data.astronaut()[0:240, 100:340]
    clean = np.stack([np.ascontiguousarray(portrait[y : y + SIZE, 60 : 60 + SIZE]) for y in (20, 30, 40, 50)])
    degraded = np.stack([degrade(rgb, (0, i), stage.degradation) for i, rgb in enumerate(clean)])
    with torch.no_grad():
        latents = sdxl.encode(stage.parts.vae, sdxl.to_signed(clean))
    boxes = torch.tensor([[[6.0, 7 - i, 1.5], [11.0, 7 - i, 1.5], [8.5, 11 - i, 2]] for i in range(FACES)])
    return ControlBatch(tuple("abcd"), latents=latents, degraded=sdxl.to_unit(degraded), boxes=boxes)


def shares(objective: ControlNetObjective, batch: ControlBatch, steps: range) -> torch.Tensor:
    """(2,) root mean squares over `steps` of the gradients of the adversarial and style term as they count, at the
    U-Net's output, over those of the noise loss; the balance learns on the way, the networks do not."""
    assert objective.critic is not None
    outputs: list[torch.Tensor] = []
    hook = objective.parts.unet.register_forward_hook(lambda module, given, output: outputs.append(output.sample))
    squares = torch.zeros(3)
    for step in steps:
        lambdas = objective.critic.balance.weights()
        loss = objective.loss(objective.trained, batch, Noise(1, range(step * FACES, (step + 1) * FACES)), step)
        terms = [
            loss.parts["noise"],
            *(lambdas[i] * loss.parts[name] for i, name in enumerate(("adversarial", "style"))),
        ]
        found = [torch.autograd.grad(term, outputs[-1], retain_graph=True)[0] for term in (*terms, loss.total)]
        assert torch.allclose(found[0] + found[1] + found[2], found[3], atol=1e-7), "the loss is the sum of these"
        norms = torch.stack([gradient.norm() for gradient in found[:3]])
        told = torch.stack([loss.parts[f"{name}_share"] for name in ("adversarial", "style")])
        assert torch.allclose(told, norms[1:] / norms[0], rtol=1e-3)
        squares += norms.square()
        objective.critic.step(OneProcess())
    hook.remove()
    return (squares[1:] / squares[0]).sqrt()


def test_each_term_gets_its_share(stage: ControlNetObjective, batch: ControlBatch) -> None:
    """Within a factor of two, on noise that the average has not seen."""
    objective = objective_of(stage)
    shares(objective, batch, range(12))
    adversarial, style = shares(objective, batch, range(12, 20)).tolist()
    assert 0.1 < adversarial < 0.4 and 0.05 < style < 0.2


def test_the_fixed_lambdas_act(stage: ControlNetObjective, batch: ControlBatch) -> None:
    """Style within a factor of three of its share; the verdict within sixteen, of discriminators that know nothing
    yet: its gradient grows as they learn."""
    fixed = objective_of(stage, adversarial_share=0, style_share=0)
    adversarial, style = shares(fixed, batch, range(8)).tolist()
    assert fixed.critic is not None and fixed.critic.balance.weights().tolist() == pytest.approx([0.05, 30])
    assert 0.2 / 16 < adversarial < 0.4 and 0.1 / 3 < style < 0.3


def balance_of(settings: FacialSettings) -> GradientBalance:
    """That of the facial loss."""
    return GradientBalance(
        (settings.adversarial_share, settings.style_share), (settings.adversarial, settings.style), CPU
    )


def measured(balance: GradientBalance, faces: torch.Tensor, near: torch.Tensor, weight: float = 1.0) -> None:
    """Gather made terms, means over `faces` (n, k), of those that are `near` (n,)."""
    guess = faces.clone().requires_grad_()
    noise, linear = guess.square().mean(1).mean(), (guess.abs().mean(1) * near).mean()
    balance.measure(guess, noise, weight * linear, 0.01 * weight * linear)


def test_batches_and_processes_do_not_matter() -> None:
    """Eight faces at once; four and four; two processes of four: the same weights."""

    class Both:
        num_processes = 2

        def reduce(self, gathered: torch.Tensor, how: str) -> torch.Tensor:
            assert how == "sum"
            return gathered + second.gathered

    faces = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    near = torch.tensor([1.0, 0, 1, 1, 0, 0, 0, 0])
    whole, parts, first, second = (balance_of(FacialSettings()) for _ in range(4))
    measured(whole, faces, near)
    for balances in ((parts, parts), (first, second)):
        for balance, half in zip(balances, (slice(0, 4), slice(4, 8)), strict=True):
            measured(balance, faces[half], near[half])
    whole.step(OneProcess())
    parts.step(OneProcess())
    first.step(Both())
    assert torch.allclose(parts.weights(), whole.weights()) and torch.equal(first.weights(), parts.weights())


def test_batches_without_a_near_face_leave_fixed_lambdas_or_a_finite_weight() -> None:
    settings, none = FacialSettings(), torch.zeros(4)
    balance = balance_of(settings)
    fixed = [settings.adversarial, settings.style]
    faces = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        measured(balance, faces, none)
        balance.step(OneProcess())
        assert balance.weights().tolist() == pytest.approx(fixed)
    measured(balance, faces, none + 1)
    balance.step(OneProcess())
    often = balance_of(settings)
    measured(often, faces, none + 1)
    often.step(OneProcess())
    # One of four batches holds all that pulls: it does so twice as hard, root mean square.
    assert torch.allclose(balance.weights(), 2 * often.weights(), rtol=0.02)


def test_who_has_nothing_to_say_is_not_made_to_shout() -> None:
    """The weight ends at a multiple of the fixed lambda; a lambda of 0 leaves a term out."""
    settings = FacialSettings(style=0)
    balance = balance_of(settings)
    measured(balance, torch.ones(4, 6), torch.ones(4), weight=1e-6)
    balance.step(OneProcess())
    assert balance.weights().tolist() == pytest.approx([MOST * settings.adversarial, 0])


def test_the_average_goes_on_with_the_discriminators() -> None:
    """Saved and read with their state; a hundred steps later what was is mostly forgotten."""
    critic, other = (FacialCritic(4, 8, FacialSettings(), CPU, seed=seed) for seed in (0, 1))
    faces = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    measured(critic.balance, faces, torch.ones(4))
    critic.step(OneProcess())
    other.load_state_dict(critic.state_dict())
    assert torch.equal(other.balance.weights(), critic.balance.weights())
    before = critic.balance.weights()
    for _ in range(230):
        measured(critic.balance, faces, torch.ones(4), weight=2.0)
        critic.balance.step(OneProcess())
    assert torch.allclose(critic.balance.weights(), before / 2, rtol=0.05)


Norm = Literal["pdf", "peak", "mean"]

# w(t) of equation 3 with m = -0.5, s = 1, worked out from the formula by hand.
KNOWN = {
    0.01: 9.1e-5, 0.061: 0.032903, 0.1: 0.094494, 0.2: 0.269362, 0.32: 0.386301, 0.3775407: 0.398942,
    0.5: 0.352065, 0.599: 0.265774, 0.7: 0.160969, 0.9: 0.010499, 0.99: 1e-6,
}  # fmt: skip


def weight(t: float | list[float], **settings: object) -> torch.Tensor:
    return facial.time_weight(torch.tensor(t, dtype=torch.float64), FacialSettings.model_validate(settings))


def test_equation_3_has_its_values_and_its_peak() -> None:
    assert np.allclose(weight(list(KNOWN)).numpy(), list(KNOWN.values()), atol=6e-7)
    grid = facial.normalised_time(torch.arange(1000), 1000)
    assert int(facial.time_weight(grid, FacialSettings()).argmax()) == 377
    assert float(grid[0]) == 0.0005 and float(grid[-1]) == 0.9995
    for m, peak in ((-0.5, 0.3775), (0.0, 0.5), (0.5, 0.6225)):
        fine = (torch.arange(100_000) + 0.5) / 100_000
        assert float(fine[facial.time_weight(fine, FacialSettings(m=m)).argmax()]) == pytest.approx(peak, abs=1e-4)


def test_the_jacobian_makes_it_a_density() -> None:
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    density = facial.time_weight(t, FacialSettings(jacobian=True))
    assert float(density.mean()) == pytest.approx(1, abs=1e-3)
    assert float(t[density.argmax()]) == pytest.approx(0.2815, abs=1e-3) and float(density.max()) == pytest.approx(
        1.7928, abs=1e-3
    )


@given(
    st.floats(-3, 3), st.floats(0.2, 3), st.booleans(), st.sampled_from(["pdf", "peak", "mean"]),
    st.floats(1e-4, 1 - 1e-4),
)  # fmt: skip
def test_norms_only_scale(m: float, s: float, jacobian: bool, norm: Norm, t: float) -> None:
    settings = FacialSettings(m=m, s=s, jacobian=jacobian, norm=norm)
    here = facial.time_weight(torch.tensor([t]), settings)
    assert torch.isfinite(here).all() and (here >= 0).all()
    grid = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    all_of_it = facial.time_weight(grid, settings)
    if norm == "peak":
        assert float(all_of_it.max()) == pytest.approx(1)
    if norm == "mean":
        assert float(all_of_it.mean()) == pytest.approx(1)
    assert facial.peak_weight(settings) == pytest.approx(float(all_of_it.max()))


def test_the_ablations() -> None:
    assert weight([0.1, 0.9], weight="off").tolist() == [0, 0]
    assert weight([0.1, 0.9], weight="constant", constant=0.3).tolist() == [0.3, 0.3]
    mean = facial.time_weight((torch.arange(10_000) + 0.5) / 10_000, FacialSettings()).mean()
    assert float(mean) == pytest.approx(FacialSettings().constant, abs=0.002)


def test_a_region_is_where_its_box_says() -> None:
    """A ramp over x: the region's middle holds the box's centre, its sides half a sample within the box's."""
    x = torch.arange(32.0) + 0.5
    ramp = x.expand(1, 1, 32, 32)
    found = facial.crop_region(ramp, torch.tensor([[12.0, 20.0, 4.0]]), 8)[0, 0]
    assert torch.allclose(found[0], torch.linspace(8.5, 15.5, 8), atol=1e-4) and torch.allclose(found[0], found[7])
    mirrored = facial.crop_region(ramp, torch.tensor([[12.0, 20.0, 4.0]]), 8, mirror=True)[0, 0]
    assert torch.equal(mirrored, found.flip(-1))
    pair = facial.crop_region(torch.cat([ramp, 2 * ramp]), torch.tensor([[12.0, 20.0, 4.0], [12.0, 20.0, 4.0]]), 8)
    assert torch.allclose(pair[1], 2 * pair[0])


def test_a_region_has_gfpgans_detail_whatever_the_vae_halves() -> None:
    """80 and 120 of 512 pixels, over 8, 4 and 16 pixels a latent."""
    for factor, sides in ((8, (10, 15)), (4, (20, 30)), (16, (5, 7))):
        assert (facial.region_side("left_eye", factor), facial.region_side("mouth", factor)) == sides
        critic = FacialCritic(4, factor, FacialSettings(), CPU, seed=0)
        seen: set[tuple[int, ...]] = set()
        for net in critic.nets.values():
            net.register_forward_pre_hook(lambda module, given, seen=seen: seen.add(tuple(given[0].shape[-2:])))
        critic.losses(torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 32, 32), torch.tensor([[[16.0, 16, 4]] * 3]))
        assert seen == {(side, side) for side in sides}


def test_a_mirrored_face_has_mirrored_eyes() -> None:
    """Mirrored latents with boxes that changed places give the same two eyes, seen from the other side."""
    latents = torch.randn(1, 4, 32, 32)
    left, right = torch.tensor([[10.0, 12.0, 3.0]]), torch.tensor([[22.0, 13.0, 4.0]])
    flipped_left = torch.tensor([[32 - 22.0, 13.0, 4.0]])
    seen = facial.crop_region(latents, right, 10)
    again = facial.crop_region(latents.flip(-1), flipped_left, 10, mirror=True)
    assert torch.allclose(seen, again, atol=1e-5)
    assert not torch.allclose(facial.crop_region(latents, left, 10), again, atol=0.1)


def test_the_discriminator_is_gfpgans() -> None:
    net = ComponentDiscriminator(4)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1.11e6, rel=0.01)
    for side, shapes in ((10, (3, 5, 3)), (15, (4, 8, 4))):
        logits, first, second = net(torch.randn(2, 4, side, side))
        assert logits.shape == (2, 1, shapes[0], shapes[0])
        assert first.shape == (2, 128, shapes[1], shapes[1]) and second.shape == (2, 256, shapes[2], shapes[2])
    # Equalised: features keep their scale from layer to layer, whatever the width.
    layer = EqualConv(64, 128)
    assert 0.5 < float(layer(torch.randn(8, 64, 16, 16)).detach().std()) < 1.5
    halved = EqualConv(1, 1, halve=True, last=True)
    assert float(halved.blur.sum()) == pytest.approx(1)  # type: ignore[operator]  # a buffer


def test_gram_and_the_terms_of_equation_2() -> None:
    features = torch.randn(2, 3, 4, 5)
    by_hand = torch.einsum("nchw,ndhw->ncd", features, features) / (3 * 4 * 5)
    assert torch.allclose(facial.gram(features), by_hand, atol=1e-6)
    assert facial.style_loss((features, features), (features, features)).tolist() == [0, 0]
    expected = (0.5 + 1.0) * (facial.gram(features) - facial.gram(2 * features)).abs().flatten(1).mean(1)
    assert torch.allclose(facial.style_loss((features, features), (2 * features, 2 * features)), expected)
    zero = torch.zeros(1, 1, 3, 3)
    assert float(facial.generator_loss(zero)) == pytest.approx(np.log(2))
    assert float(facial.discriminator_loss(zero, zero)) == pytest.approx(2 * np.log(2))
    assert float(facial.discriminator_loss(zero + 20, zero - 20)) < 1e-6 < 1 < float(facial.generator_loss(zero - 20))


@pytest.mark.parametrize("share", [True, False])
def test_gradients_go_where_they_belong(share: bool) -> None:
    """Equation 2 leads the estimate and leaves the discriminators; their own loss does the reverse."""
    critic = FacialCritic(4, 8, FacialSettings(share_eyes=share), CPU, seed=0)
    assert list(critic.nets) == (["eyes", "mouth"] if share else ["left_eye", "right_eye", "mouth"])
    clean, estimate = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32, 32, requires_grad=True)
    boxes = torch.tensor([[[10.0, 12, 3], [22, 12, 3], [16, 22, 4]]] * 2)
    judged = critic.losses(clean, estimate, boxes)
    assert judged.adversarial.shape == judged.style.shape == judged.critic.shape == (2,)
    (judged.adversarial + judged.style).sum().backward()  # type: ignore[no-untyped-call]
    assert estimate.grad is not None and float(estimate.grad.abs().max()) > 0
    outside = estimate.grad.clone()
    for x, y, half in ((10, 12, 3), (22, 12, 3), (16, 22, 4)):
        outside[:, :, y - half - 1 : y + half + 1, x - half - 1 : x + half + 1] = 0
    assert float(outside.abs().max()) == 0  # eyes and mouth alone
    assert all(p.grad is None for p in critic.nets.parameters())
    gradient = estimate.grad.clone()
    judged.critic.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(estimate.grad, gradient) and all(p.grad is not None for p in critic.nets.parameters())


def test_the_discriminators_learn_to_tell() -> None:
    """Real and blurred regions: after some steps the verdict is better than chance, and state goes on where it was."""

    critic = FacialCritic(4, 8, FacialSettings(lr=0.02), CPU, seed=0)
    random = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[[10.0, 12, 3], [22, 12, 3], [16, 22, 4]]] * 8)
    losses = []
    for _ in range(20):
        clean = torch.randn(8, 4, 32, 32, generator=random)
        blurred = torch.nn.functional.avg_pool2d(clean, 3, 1, 1)
        loss = critic.losses(clean, blurred, boxes).critic.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        critic.step(OneProcess())
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    other = FacialCritic(4, 8, FacialSettings(lr=0.02), CPU, seed=1)
    other.load_state_dict(critic.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(critic.nets.parameters(), other.nets.parameters(), strict=True))
    assert (
        FacialCritic(4, 8, FacialSettings(), CPU, seed=1).nets["mouth"].first[0].weight[0, 0, 0, 0]
        != FacialCritic(4, 8, FacialSettings(), CPU, seed=2).nets["mouth"].first[0].weight[0, 0, 0, 0]
    )


def test_frozen_gives_back_what_it_took() -> None:
    net = torch.nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(net):
        assert not net.weight.requires_grad
        raise ZeroDivisionError
    assert net.weight.requires_grad and not net.bias.requires_grad


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_one_step_estimate_inverts_the_noising(kind: str) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)
    clean, noise = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    steps = torch.tensor([3, 320, 700, 990])
    noisy = scheduler.add_noise(clean, noise, steps)
    target = sdxl.loss_target(scheduler, clean, noisy, steps)
    assert torch.allclose(sdxl.clean_estimate(scheduler, noisy, target, steps), clean, atol=1e-3)


def test_min_snr_weights() -> None:
    """Capped where there is little noise, untouched where there is much; a velocity's are those over SNR + 1."""
    from diffusers import DDPMScheduler

    plain = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    steps = torch.tensor([0, 300, 999])
    kept = plain.alphas_cumprod[steps]
    snr = kept / (1 - kept)
    assert torch.allclose(sdxl.snr_weight(plain, steps, 5), torch.minimum(snr, torch.tensor(5.0)) / snr)
    assert sdxl.snr_weight(plain, steps, 0).tolist() == [1, 1, 1]
    velocity = DDPMScheduler.from_config(plain.config, prediction_type="v_prediction")
    assert torch.allclose(sdxl.snr_weight(velocity, steps, 5) * (snr + 1), sdxl.snr_weight(plain, steps, 5) * snr)
