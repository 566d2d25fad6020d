"""The cleaner: a network in pixels learns to take damage off faces, before the diffusion model adds detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from authface.console import Console
from authface.devices import pick_device
from authface.faces.degrade import Drawn, Mixture, apply, degrade, mixture
from authface.faces.degrade import draw as draw_damage
from authface.models import sdxl
from authface.models.cleaner import Cleaner, make_cleaner, with_noise
from authface.models.families import fetch, load, resolve
from authface.models.layout import FURTHER, PARTS, write_family
from authface.train.damage import DegradedBatch, damages_on, together
from authface.train.data import Draw, FaceDataset, validation_faces
from authface.train.loop import TrainingResult, fit
from authface.train.losses.pixels import PixelTerms
from authface.train.objective import Loss, Noise, ValidationPicture, fidelity, grid, psnr
from authface.train.settings import CleanerSettings

KNEE = 4e-3
"""Added to the root mean square error of a face, in pixels of -1..1: half a level, which no eye sees."""
SEEN = 0.04
"""Root mean square of the damage, in pixels of -1..1, at which half of a face's texture counts as lost: 34 dB."""
LEGIBLE, TONES = 0.08, 16
"""Root mean square of the damage finer than so many pixels, beyond which texture counts for less: too little is left to
tell which there was. Faded tones hide none."""
GRID_FREQUENCIES = (
    (0, 1 / 2), (1 / 2, 0), (1 / 2, 1 / 2), (0, 1 / 4), (1 / 4, 0), (1 / 4, 1 / 4), (1 / 4, -1 / 4), (1 / 4, 1 / 2),
    (1 / 2, 1 / 4),
)  # fmt: skip
"""Cycles a pixel, down and across, of what a network weaves that folds pixels two by two and doubles its features."""
WINDOW = 16
"""Side of the windows in which they are looked for, pixels."""
P = TypeVar("P", np.uint8, np.float32)
PICTURED_DAMAGE = ("mild", "medium", "heavy", "scan")
"""Damage of the faces in a validation picture, in turn."""


@dataclass(frozen=True, kw_only=True)
class CleanerBatch(DegradedBatch):
    """`clean` and `degraded` (n, 3, patch, patch) in -1..1; `weights` (n, 1, patch, patch), of each pixel's error.

    `corners` (row, column) are where the patches begin in whole faces, which the device may still have to damage.
    """

    clean: torch.Tensor
    weights: torch.Tensor
    corners: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`, damaged."""
        moved = super().to(device)
        if not self.drawn:
            return moved
        patch = self.clean.shape[-1]
        cut = [
            face[:, top : top + patch, left : left + patch]
            for face, (top, left) in zip(moved.degraded, self.corners, strict=True)
        ]
        return replace(moved, degraded=torch.stack(cut).mul(2).sub(1))


@dataclass(frozen=True)
class Zoomed:
    """A face at some zoom (side, side, 3), what is drawn to damage it, and what its pixels weigh (side, side).

    The patch to train on begins at `corner` (row, column).
    """

    clean: NDArray[np.uint8]
    drawn: Drawn
    weights: NDArray[np.float32]
    corner: tuple[int, int]


@dataclass
class CleanerObjective:
    """The logarithm of each face's distance: its root mean square error + `grid` x that of a grid's frequencies.

    That is PSNR, but for what eyes and mouth count more: `face_parts` times. By its logarithm a face that is hardly
    damaged counts as one that is much, whose errors are some four times as large.
    With `pixels` some faces have a perception p above 0, told to the network, and p x the losses on pixels beside,
    of each face by its own distance, too, and by how much of it was `lost`.
    Where a discriminator judges them, the network is given p x a plane of noise to make texture of: what is fine in
    skin and hair is lost in a damaged face, and a network without noise can only weave a pattern of its own.
    """

    faces: FaceDataset
    base: Path
    trained: Cleaner
    damage: Mixture
    settings: CleanerSettings
    device: torch.device
    seed: int
    pixels: PixelTerms | None = None
    """The losses of perception; None trains without."""
    damages_later: bool = False
    """Whether a batch brings whole faces and their damage, for the device that it moves to: see `damages_on`."""

    @property
    def auxiliaries(self) -> tuple[PixelTerms, ...]:
        """The discriminator that is trained beside the cleaner."""
        return () if self.pixels is None else (self.pixels,)

    def batch(self, draws: Sequence[Draw]) -> CleanerBatch:
        """A patch of each face, with a zoom and damage of its own in each pass over the dataset.

        Zoomed from the resolution that the face has in its photo, up to `size`: an enlarged face is no sharp one.
        """
        zoomed = [self._zoomed(draw) for draw in draws]
        if self.damages_later:
            degraded, drawn = together([one.clean for one in zoomed]), tuple(one.drawn for one in zoomed)
        else:
            degraded, drawn = sdxl.to_signed(self._patches(zoomed, [apply(one.clean, one.drawn) for one in zoomed])), ()
        return CleanerBatch(
            tuple(self.faces.id(draw.index) for draw in draws),
            clean=sdxl.to_signed(self._patches(zoomed, [one.clean for one in zoomed])),
            degraded=degraded,
            drawn=drawn,
            weights=torch.from_numpy(self._patches(zoomed, [one.weights for one in zoomed])[:, None]),
            corners=tuple(one.corner for one in zoomed),
        )

    def loss(self, model: torch.nn.Module, batch: CleanerBatch, random: Noise, step: int) -> Loss:
        """The mean over faces of log(sqrt(mean w (x - y)^2 + `KNEE`^2) + grid x `grid_distance`), and perception's.

        Over pixels in -1..1.
        """
        if self.pixels is None:
            return self._distance(model(batch.degraded), batch)[0]
        perception = torch.where(random.uniform() < self.settings.perceived, 1 - random.uniform(), 0.0)
        perception = perception.to(batch.degraded.device)
        noise = random.normal(1, *batch.degraded.shape[2:]).to(batch.degraded.device)
        made = model(batch.degraded, perception, noise)
        near, each = self._distance(made, batch)
        seen = perception > 0
        weights = (perception * lost(batch.degraded - batch.clean) / each)[seen]
        return near + self.pixels.loss(near.total, made, made[seen], batch.clean[seen], step, weights)

    def _distance(self, made: torch.Tensor, batch: CleanerBatch) -> tuple[Loss, torch.Tensor]:
        """The loss of distance, and each face's (n,) distance itself, without a gradient."""
        error = made - batch.clean
        each = ((error.square() * batch.weights).mean((1, 2, 3)) + KNEE**2).sqrt()
        parts = {"pixels": each.mean()}
        if self.settings.grid:
            woven = grid_distance(error)
            parts["grid"] = woven.mean()
            each = each + self.settings.grid * woven
        return Loss(each.log().mean(), None, parts), each.detach()

    def picture(self) -> ValidationPicture:
        """Rows of degraded | cleaned, with a perception of 1 too where that is trained | clean.

        They are damaged as `PICTURED_DAMAGE` in turn; the figures are those of a perception of 0.
        """
        held_out = validation_faces(self.faces.folder, self.faces.size, self.settings.validate_count)
        clean = np.stack([held_out.rgb(i) for i in range(len(held_out))])
        damages = [mixture(PICTURED_DAMAGE[i % len(PICTURED_DAMAGE)]) for i in range(len(clean))]
        degraded = np.stack(
            [degrade(rgb, (self.seed, i), damage) for i, (rgb, damage) in enumerate(zip(clean, damages, strict=True))]
        )
        made = self._cleaned(degraded, 0)
        scores = fidelity(held_out, clean, made)
        for name in dict.fromkeys(PICTURED_DAMAGE):
            mine = [i for i in range(len(clean)) if PICTURED_DAMAGE[i % len(PICTURED_DAMAGE)] == name]
            if mine:
                gains = psnr(clean[mine], made[mine]) - psnr(clean[mine], degraded[mine])
                scores[f"gain_{name}"] = float(gains.mean())
        few = slice(0, 8)
        looked = [] if self.pixels is None else [self._cleaned(degraded[few], 1)]
        return ValidationPicture(grid([degraded[few], made[few], *looked, clean[few]]), scores)

    def _cleaned(self, faces: NDArray[np.uint8], perception: float) -> NDArray[np.uint8]:
        """(n, size, size, 3) faces, one after the other."""
        drawn = torch.Generator().manual_seed(self.seed)
        done = []
        for face in faces:
            signed = sdxl.to_signed(face[None]).to(self.device)
            noise = torch.randn(1, 1, *face.shape[:2], generator=drawn).to(self.device)
            done.append(sdxl.to_rgb(self.trained(signed, perception, noise)))
        return np.concatenate(done)

    def write(self, out: Path) -> None:
        """Save the cleaner; the rest of the family is the base's."""
        write_family(out, self.base, {"cleaner": self.trained.net}, FURTHER, presets=self.base)

    def _zoomed(self, draw: Draw) -> Zoomed:
        s = self.settings
        words = (self.seed, draw.epoch, draw.index, int(draw.flip))
        random = np.random.default_rng(np.random.SeedSequence((*words, 3)))
        rgb = self.faces.rgb(draw.index, draw.flip)
        side = max(s.patch, round(float(self.faces.sides[draw.index]) * random.uniform(*s.zoom)))
        if side != len(rgb):
            how = cv2.INTER_AREA if side < len(rgb) else cv2.INTER_CUBIC
            rgb = np.asarray(cv2.resize(rgb, (side, side), interpolation=how), np.uint8)
        if random.random() < s.grey:
            rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)
        weights = np.ones((side, side), np.float32)
        if s.face_parts > 1:
            boxes = self.faces.boxes(draw.index, draw.flip) * (side / self.faces.size)
            weights = part_weights(boxes, side, s.face_parts)
        top, left = random.integers(0, side - s.patch + 1, 2).tolist()
        return Zoomed(rgb, draw_damage(words, side, self.damage), weights, (top, left))

    def _patches(self, zoomed: Sequence[Zoomed], planes: Sequence[NDArray[P]]) -> NDArray[P]:
        """(n, patch, patch, ...): the patch of each plane (side, side, ...)."""
        size = self.settings.patch
        corners = [one.corner for one in zoomed]
        return np.stack(
            [plane[top : top + size, left : left + size] for plane, (top, left) in zip(planes, corners, strict=True)]
        )


def grid_distance(error: torch.Tensor) -> torch.Tensor:
    """(n,) mean sizes of (n, c, h, w)'s Fourier coefficients at a grid's periods, in windows that overlap by half.

    Folding and doubling can leave patterns of 2 and 4 pixels behind, so regular that over a window they add up, which
    texture and noise do not. Sides are `WINDOW` and more.
    """
    rows, columns = (torch.arange(length, device=error.device) for length in error.shape[2:])
    sizes = []
    for y, x in GRID_FREQUENCIES:
        angle = 2 * torch.pi * (y * rows[:, None] + x * columns)
        waves = (error * wave for wave in (angle.cos(), angle.sin()))
        real, imaginary = (functional.avg_pool2d(wave, WINDOW, WINDOW // 2) for wave in waves)
        sizes.append((real.square() + imaginary.square() + 1e-10).sqrt().mean((1, 2, 3)))
    return torch.stack(sizes).mean(0)


def lost(damage: torch.Tensor) -> torch.Tensor:
    """(n,) in 0..1: how much of each face (n, c, h, w) in -1..1 was lost to the damage that was added to it.

    What is little damaged is seen, not guessed: there a texture that looks right costs truth and wins little.
    """
    power = damage.square().mean((1, 2, 3))
    fine = power - functional.avg_pool2d(damage, min(TONES, *damage.shape[2:])).square().mean((1, 2, 3))
    return power / (power + SEEN**2) * (LEGIBLE**2 / fine.clamp_min(LEGIBLE**2))


def part_weights(boxes: NDArray[np.float32], side: int, weight: float) -> NDArray[np.float32]:
    """(side, side): `weight` in each box of `boxes` (n, 3: centre x, centre y, half side, pixels), 1 elsewhere."""
    weights = np.ones((side, side), np.float32)
    for x, y, half in boxes:
        left, right, top, bottom = (max(0, round(float(v))) for v in (x - half, x + half, y - half, y + half))
        weights[top:bottom, left:right] = weight
    return weights


def train_cleaner(
    settings: CleanerSettings, console: Console, device: str = "auto", seed: int = 0, limit: int = 0
) -> TrainingResult:
    """Train a cleaner on `settings.dataset`; the family `settings.model` with it is written to `settings.out`."""
    damage = mixture(settings.degradation)
    source = resolve(settings.model)
    faces = FaceDataset(settings.dataset, settings.size, limit)
    if settings.face_parts > 1:
        _ = faces.regions  # reports missing columns before anything is trained
    where = pick_device(device)
    faces.prepare(where)
    base = fetch(source, PARTS)
    built_on: dict[str, Path] = {}
    if settings.begin_from:
        begun = load(resolve(settings.begin_from), ["cleaner"], where, torch.float32)
        net, built_on["cleaner"] = begun.cleaner, begun.folder
    else:
        net = make_cleaner(seed, settings.channels)
    if settings.pixels.adversarial:
        net = with_noise(net)
    pixels = PixelTerms(settings.pixels, where, seed) if settings.pixels.on else None
    objective = CleanerObjective(
        faces, base, Cleaner(net.to(where)), damage, settings, where, seed, pixels, damages_on(where)
    )
    return fit(objective, settings, console, where, seed, "cleaner", built_on)
