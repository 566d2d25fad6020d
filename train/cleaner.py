"""The cleaner: a network in pixels learns to take damage off faces, before the diffusion model adds detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from authface.console import Console
from authface.faces.degrade import Mixture, degrade, mixture
from authface.models import sdxl
from authface.models.cleaner import Cleaner, make_cleaner, with_noise
from authface.models.families import fetch, load, pick_device, resolve
from authface.models.layout import FURTHER, PARTS, write_family
from authface.train.data import Batch, Draw, FaceDataset, validation_faces
from authface.train.loop import TrainingResult, fit
from authface.train.losses.pixels import PixelTerms
from authface.train.objective import Loss, Noise, ValidationPicture, fidelity, grid, psnr
from authface.train.settings import CleanerSettings

KNEE = 1e-3
"""Of the Charbonnier distance, in pixels of -1..1: below it, the error counts by its square."""
GRID_FREQUENCIES = (
    (0, 1 / 2), (1 / 2, 0), (1 / 2, 1 / 2), (0, 1 / 4), (1 / 4, 0), (1 / 4, 1 / 4), (1 / 4, -1 / 4), (1 / 4, 1 / 2),
    (1 / 2, 1 / 4),
)  # fmt: skip
"""Cycles a pixel, down and across, of what a network weaves that folds pixels two by two and doubles its features."""
WINDOW = 16
"""Side of the windows in which they are looked for, pixels."""
PICTURED_DAMAGE = ("mild", "medium", "heavy", "scan")
"""Damage of the faces in a validation picture, in turn."""


@dataclass(frozen=True)
class CleanerBatch(Batch):
    """`clean` and `degraded` (n, 3, patch, patch) in -1..1; `weights` (n, 1, patch, patch), of each pixel's error."""

    clean: torch.Tensor
    degraded: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Patch:
    """A face at some zoom, before and after damage, (patch, patch, 3), and what its pixels weigh, (patch, patch)."""

    clean: NDArray[np.uint8]
    degraded: NDArray[np.uint8]
    weights: NDArray[np.float32]


@dataclass
class CleanerObjective:
    """Charbonnier distance of pixels + `spectrum` x that of Fourier coefficients + `grid` x that of a grid's.

    Eyes and mouth count `face_parts` times. The Fourier transform is unitary, so that both terms have one scale.
    With `pixels` some faces have a perception p above 0, told to the network, and p x the losses on pixels beside.
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

    @property
    def auxiliaries(self) -> tuple[PixelTerms, ...]:
        """The discriminator that is trained beside the cleaner."""
        return () if self.pixels is None else (self.pixels,)

    def batch(self, draws: Sequence[Draw]) -> CleanerBatch:
        """A patch of each face, with a zoom and damage of its own in each pass over the dataset.

        Zoomed from the resolution that the face has in its photo, up to `size`: an enlarged face is no sharp one.
        """
        patches = [self._patch(draw) for draw in draws]
        return CleanerBatch(
            tuple(self.faces.id(draw.index) for draw in draws),
            sdxl.to_signed(np.stack([patch.clean for patch in patches])),
            sdxl.to_signed(np.stack([patch.degraded for patch in patches])),
            torch.from_numpy(np.stack([patch.weights for patch in patches])[:, None]),
        )

    def loss(self, model: torch.nn.Module, batch: CleanerBatch, random: Noise, step: int) -> Loss:
        """mean w sqrt((x - y)^2 + `KNEE`^2) + spectrum x mean |F(x - y)| + grid x `grid_distance`, and perception's.

        Over pixels in -1..1.
        """
        if self.pixels is None:
            return self._distance(model(batch.degraded), batch)
        perception = torch.where(random.uniform() < self.settings.perceived, 1 - random.uniform(), 0.0)
        perception = perception.to(batch.degraded.device)
        noise = random.normal(1, *batch.degraded.shape[2:]).to(batch.degraded.device)
        made = model(batch.degraded, perception, noise)
        near = self._distance(made, batch)
        seen = perception > 0
        return near + self.pixels.loss(near.total, made, made[seen], batch.clean[seen], step, perception[seen])

    def _distance(self, made: torch.Tensor, batch: CleanerBatch) -> Loss:
        error = made - batch.clean
        pixels = ((error.square() + KNEE**2).sqrt() * batch.weights).mean()
        spectrum = torch.fft.rfft2(error, norm="ortho").abs().mean()
        parts = {"pixels": pixels, "spectrum": spectrum}
        total = pixels + self.settings.spectrum * spectrum
        if self.settings.grid:
            parts["grid"] = grid_distance(error)
            total = total + self.settings.grid * parts["grid"]
        return Loss(total, None, parts)

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

    def _patch(self, draw: Draw) -> Patch:
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
        degraded = degrade(rgb, words, self.damage)
        weights = np.ones((side, side), np.float32)
        if s.face_parts > 1:
            boxes = self.faces.boxes(draw.index, draw.flip) * (side / self.faces.size)
            weights = part_weights(boxes, side, s.face_parts)
        top, left = random.integers(0, side - s.patch + 1, 2)
        cut = (slice(top, top + s.patch), slice(left, left + s.patch))
        return Patch(rgb[cut], degraded[cut], weights[cut])


def grid_distance(error: torch.Tensor) -> torch.Tensor:
    """Mean size of (n, c, h, w)'s Fourier coefficients at the periods of a grid, in windows that overlap by half.

    Folding and doubling can leave patterns of 2 and 4 pixels behind, so regular that over a window they add up, which
    texture and noise do not. Sides are `WINDOW` and more.
    """
    rows, columns = (torch.arange(length, device=error.device) for length in error.shape[2:])
    sizes = []
    for y, x in GRID_FREQUENCIES:
        angle = 2 * torch.pi * (y * rows[:, None] + x * columns)
        waves = (error * wave for wave in (angle.cos(), angle.sin()))
        real, imaginary = (functional.avg_pool2d(wave, WINDOW, WINDOW // 2) for wave in waves)
        sizes.append((real.square() + imaginary.square() + 1e-10).sqrt().mean())
    return torch.stack(sizes).mean()


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
    if settings.begin_from:
        net = load(resolve(settings.begin_from), ["cleaner"], where, torch.float32).cleaner
    else:
        net = make_cleaner(seed, settings.channels)
    if settings.pixels.adversarial:
        net = with_noise(net)
    pixels = PixelTerms(settings.pixels, where, seed) if settings.pixels.on else None
    objective = CleanerObjective(faces, base, Cleaner(net.to(where)), damage, settings, where, seed, pixels)
    return fit(objective, settings, console, where, seed, "cleaner")
