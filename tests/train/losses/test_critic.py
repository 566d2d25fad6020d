"""The facial loss's shares of the gradient: on real faces with the built-in family, and over batches and processes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import skimage.data
import torch

from authface.faces.degrade import degrade, preset
from authface.models import sdxl
from authface.models.families import load, resolve
from authface.train.controlnet import ControlBatch, ControlNetObjective
from authface.train.losses.critic import MOST, FacialCritic, GradientBalance
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
    for frozen in (parts.vae, parts.unet):
        frozen.requires_grad_(False)
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
