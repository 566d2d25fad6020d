"""Where a model's weights are kept and how its networks run: tiles, CPU offload, compiled code, graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from authface.devices import pick_device
from authface.errors import UsageError
from authface.models.families import Parts
from authface.models.sdxl import spatial_factor
from authface.restore.settings import Offload, RestoreSettings

if TYPE_CHECKING:
    import torch


COMPILER = "inductor"
"""Backend of torch.compile."""


@dataclass(frozen=True)
class Placement:
    """Properties shared by restorers of one model in memory, besides the weights; the fields are those of settings."""

    device: torch.device
    """Device on which the networks run."""
    dtype: str = "auto"
    tiling: int | None = None
    offload: Offload = "none"
    compile: bool = False
    graphs: bool = True

    @property
    def records(self) -> bool:
        """Whether steps are recorded as graphs: offloaded weights have no fixed address for a graph."""
        return self.graphs and self.device.type == "cuda" and self.offload == "none" and not self.compile

    @property
    def home(self) -> torch.device | str:
        """Device to which the weights are loaded."""
        return self.device if self.offload == "none" else "cpu"

    def apply(self, parts: Parts) -> None:
        """Set up the U-Net, ControlNet and VAE of `parts`, which are at `home`. Raises UsageError."""
        if self.tiling is not None:
            tile(parts.vae, self.tiling)
        self._lay_out(parts)
        if self.offload == "sequential":
            from accelerate import cpu_offload

            for network in (parts.controlnet, parts.unet, parts.vae):
                cpu_offload(network, self.device)
        if self.compile:
            import torch

            for network in (parts.controlnet, parts.unet):
                # Not the module's call: hooks, such as that of progress, are none of the compiler's business.
                network.forward = torch.compile(network.forward, backend=COMPILER)

    def _lay_out(self, parts: Parts) -> None:
        """Store channels last, as convolutions prefer: in half precision, and for the VAE on the CPU.

        Not for the other networks in float32 there: 5 % faster, but over 50 steps rounding differences to a stock
        pipeline add up.
        """
        import torch

        for network in (parts.controlnet, parts.unet, parts.vae):
            half = network.dtype in {torch.float16, torch.bfloat16}
            if (network is parts.vae and self.device.type == "cpu") or (half and self.device.type in {"cpu", "cuda"}):
                network.to(memory_format=torch.channels_last)

    @contextmanager
    def on_device(self, *networks: torch.nn.Module) -> Iterator[None]:
        """Keep the networks on the device within the block; with offload by model they are on the CPU otherwise."""
        if self.offload != "model":
            yield
            return
        try:
            for network in networks:
                network.to(self.device)
            yield
        finally:
            for network in networks:
                network.to("cpu")


def placement_of(settings: RestoreSettings, device_name: str) -> Placement:
    """The placement by the settings and ``--device``. Raises UsageError if they contradict each other."""
    device = pick_device(device_name)
    if settings.offload != "none":
        if device.type in {"cpu", "mps"}:  # Apple's GPUs share the CPU's memory
            raise UsageError(
                f"restore.offload={settings.offload} keeps weights in the CPU's memory, where {device.type} has them "
                "anyway: leave it out, or --device cuda"
            )
        if settings.compile:
            raise UsageError(f"restore.compile and restore.offload={settings.offload} do not go together: choose one")
    return Placement(device, settings.dtype, settings.tiling, settings.offload, settings.compile, settings.graphs)


def tile(vae: Any, side: int) -> None:
    """Let a VAE encode and decode images larger than `side` pixels in tiles of that side, blended where they overlap.

    Raises UsageError for a VAE without tiling.
    """
    if type(vae).__name__ == "AutoencoderTiny" and vae.config.latent_channels != 4:
        raise UsageError(
            f"restore.tiling={side}: diffusers tiles an AutoencoderTiny of 4 latent channels, this one has "
            f"{vae.config.latent_channels}: leave it out"
        )
    vae.enable_tiling()
    vae.tile_sample_min_size = side
    vae.tile_latent_min_size = side // spatial_factor(vae)
