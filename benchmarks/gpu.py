"""What a face costs on a GPU at SDXL's full size: seconds, the share of what the card can do, and memory.

    python benchmarks/gpu.py [--json FILE] [--only official,quality-1] [--rounds N] [--steps N] [--compile]
    python benchmarks/gpu.py --small --device cpu --size 64 --rounds 1     a test of the script, without a GPU

The weights are random and made on the device: U-Net and ControlNet of SDXL's shapes in float16, its VAE in float32,
nothing is downloaded. Random weights take as long as trained ones; their pictures are worth nothing. Prompts are random
embeddings, so the text encoders, which run once for all photos, are not in the figures.

A row is a preset (as for families without a presets.toml) at 1 or 8 faces at a time: `official-1`, `quality-8`, ...
`-eager` is without CUDA graphs, `-reuse2` takes the encoder's features of every other step again, `compile-` is with
torch.compile. The `offload-` rows keep the weights on the CPU; those named `8gb` may take no more than 8e9 bytes of the
card. `--only` picks rows by their names or by how these begin. A row that fails says why, and the rest goes on.

    s/face    seconds of a face from numpy crop to numpy crop, synchronised: the median of the rounds after a whole
              call to warm up; the `offload-` rows are one call of 4 steps, unwarmed
    VAE       how many of these are the VAE's, timed alone
    TFLOP     what U-Net and ControlNet compute for a face, counted in eager steps: products of matrices,
              convolutions and attention, a multiplication and an addition as two
    share     TFLOP over the seconds that are not the VAE's, as a share of the rate of a product of two 8192 x 8192
              float16 matrices on the same card in the same run
    GB        the most memory that torch had given out, weights of all networks included, 1e9 bytes
    differs   by how many levels of 255 the pixels differ at most from those of the eager row

About 2 minutes on an H100 without `--compile`. The file of `--json` is written anew after every row.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_networks import count_tflop, find_authface, make_parts, make_text, pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from authface.models.sampling import Sampling
    from authface.restore.model.diffusion import DiffusionRestorer

MATRIX = 8192
OFFLOAD_STEPS = 4
LIMIT_BYTES = 8e9
FIDELITY = 0.5
"""Where a preset is as it stands."""


@dataclass(frozen=True)
class Row:
    """A case; `sampling` and `placement` are fields that differ from the preset's and from the defaults."""

    name: str
    preset: str
    faces: int
    sampling: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, Any] = field(default_factory=dict)
    limit: float = 0.0
    """Bytes of the card that may be taken; 0 is all."""

    @property
    def offloaded(self) -> bool:
        """Whether the weights are to wait on the CPU."""
        return "offload" in self.placement


def all_rows(compiled: bool) -> list[Row]:
    """Those that move the weights come last."""
    few = {"steps": OFFLOAD_STEPS}
    rows = [
        Row("official-1-eager", "official", 1, placement={"graphs": False}),
        Row("official-1", "official", 1),
        Row("official-8", "official", 8),
        Row("quality-1", "quality", 1),
        Row("quality-8", "quality", 8),
        Row("fast-1", "fast", 1),
        Row("fast-8", "fast", 8),
        Row("official-1-reuse2", "official", 1, {"reuse": 2}),
        Row("quality-1-reuse2", "quality", 1, {"reuse": 2}),
        Row("compile-official-1", "official", 1, placement={"compile": True}),
        Row("offload-model", "quality", 1, few, {"offload": "model"}),
        Row("offload-model-8gb", "quality", 1, few, {"offload": "model"}, LIMIT_BYTES),
        Row("offload-sequential-8gb", "quality", 1, few, {"offload": "sequential"}, LIMIT_BYTES),
    ]
    return [row for row in rows if compiled or "compile" not in row.placement]


class Bench:
    """The networks, and what was measured of them so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        self.given, self.device = given, torch.device(given.device)
        self.cuda = self.device.type == "cuda"
        if self.cuda and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())  # memory limits take no other
        self.rounds: int = given.rounds
        self.size: int = given.size
        self.flops: dict[tuple[bool, int], float] = {}
        self.first: dict[tuple[Any, ...], NDArray[np.uint8]] = {}
        began = time.perf_counter()
        self.parts = make_parts(self.device, getattr(torch, given.dtype), given.small)
        self.text = make_text(self.parts, self.device)
        self.sync()
        self.told: dict[str, Any] = {
            "device": torch.cuda.get_device_name(self.device) if self.cuda else "CPU",
            "torch": torch.__version__,
            "size": self.size,
            "dtype": given.dtype,
            "small": given.small,
            "parameters": {
                name: sum(weight.numel() for weight in getattr(self.parts, name).parameters())
                for name in ("unet", "controlnet", "vae")
            },
            "make_seconds": time.perf_counter() - began,
            "rows": [],
        }

    def sync(self) -> None:
        """Wait for the device."""
        import torch

        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call, by the clock, until the device is done."""
        self.sync()
        began = time.perf_counter()
        call()
        self.sync()
        return time.perf_counter() - began

    def clean(self) -> None:
        """Give back what no tensor holds, and count the most memory anew."""
        import torch

        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def matrix_rate(self) -> float:
        """TFLOP a second of a product of two square matrices in the networks' precision."""
        import torch

        side, times = (MATRIX, 20) if self.cuda else (512, 3)
        dtype = self.parts.unet.dtype
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        for _ in range(3):
            torch.mm(a, b)
        work = 2 * side**3 * times / 1e12
        if not self.cuda:
            return work / self.seconds(lambda: [torch.mm(a, b) for _ in range(times)])
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(times):
            torch.mm(a, b)
        end.record()
        torch.cuda.synchronize(self.device)
        return work / (float(begin.elapsed_time(end)) / 1e3)

    def measure_vae(self) -> None:
        """Seconds and TFLOP of a face's decoding and encoding."""
        import torch

        from authface.models.sdxl import decode, encode, spatial_factor

        vae, side = self.parts.vae, self.size // spatial_factor(self.parts.vae)
        latents = torch.randn(1, vae.config.latent_channels, side, side, device=self.device)
        image = torch.rand(1, 3, self.size, self.size, device=self.device)
        work: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(vae, latents),
            "encode": lambda: encode(vae, image * 2 - 1),
        }
        with torch.inference_mode():
            for name, call in work.items():
                self.told[f"{name}_tflop"] = count_tflop(call)
                self.told[f"{name}_seconds"] = statistics.median(self.seconds(call) for _ in range(self.rounds))

    def sampling(self, row: Row, **changes: Any) -> Sampling:
        """As the row has it, with these changes. Raises TypeError for a field that this version lacks."""
        from authface.models.sampling import PRESETS, sampling_of

        preset = PRESETS[row.preset]  # type: ignore[index]
        steps = {"steps": self.given.steps} if self.given.steps else {}
        return replace(sampling_of(preset, row.faces), **({"batch": row.faces} | steps | row.sampling | changes))

    def restorer(self, row: Row, sampling: Sampling, **changes: Any) -> DiffusionRestorer:
        """What restores as the row says, with `changes` in its placement.

        Its U-Net is an object of its own over the same weights: graphs are kept for a U-Net as long as it lives, and a
        row's memory is to hold no other row's.
        """
        from authface.restore.model.diffusion import DiffusionRestorer
        from authface.restore.model.placement import Placement

        given = row.placement | changes
        known = {each.name for each in fields(Placement)}
        placement = Placement(self.device, **{name: value for name, value in given.items() if name in known})
        parts = replace(self.parts, unet=copy.copy(self.parts.unet), controlnet=copy.copy(self.parts.controlnet))
        placement.apply(parts)
        return DiffusionRestorer(parts, self.text, sampling, self.size, FIDELITY, placement)

    def tflop(self, row: Row) -> float:
        """What U-Net and ControlNet compute for one face; counted once for rows whose steps are alike.

        A cycle is as many steps as features are used for; two of them less one are one cycle alone, without what is
        done once a face.
        """
        sampling = self.sampling(row)
        cycle, guided = getattr(sampling, "reuse", 1), sampling.guidance > 1
        key = (guided, cycle)
        alike = Row(row.name, row.preset, 1, {k: v for k, v in row.sampling.items() if k != "steps"})

        def counted(steps: int) -> float:
            restorer = self.restorer(alike, self.sampling(alike, batch=1, steps=steps), graphs=False)
            return count_tflop(lambda: restorer.restore(list(pictures(1, self.size)), [0]))

        if key not in self.flops:
            one, two = counted(cycle), counted(2 * cycle)
            self.flops[key] = two - one
            vae = self.told["decode_tflop"] + (self.told["encode_tflop"] if sampling.needs_photo else 0)
            self.told[f"tflop_once_guided_{guided}_reuse_{cycle}"] = 2 * one - two - vae
        return self.flops[key] * sampling.steps / cycle

    def run(self, row: Row) -> dict[str, Any]:
        """Measure a row."""
        import numpy as np
        import torch

        sampling = self.sampling(row)
        tflop = self.told["offload_tflop"] if row.offloaded else self.tflop(row)
        self.clean()
        restorer = self.restorer(row, sampling)
        crops, seeds = list(pictures(row.faces, self.size)), list(range(row.faces))
        seen: list[NDArray[np.uint8]] = []

        def call() -> None:
            seen[:] = [np.stack(restorer.restore(crops, seeds))]

        told: dict[str, Any] = {"name": row.name, "faces": row.faces, "steps": sampling.steps}
        if row.offloaded:
            taken = [self.seconds(call)]
        else:
            told["warm_up_seconds"] = self.seconds(call)
            key = (row.preset, row.faces, getattr(sampling, "reuse", 1))
            before = self.first.setdefault(key, seen[0])
            if before is not seen[0]:
                told["differs"] = int(np.abs(before.astype(int) - seen[0]).max())
            taken = [self.seconds(call) for _ in range(self.rounds)]
        vae = self.told["decode_seconds"] + (self.told["encode_seconds"] if sampling.needs_photo else 0)
        each = statistics.median(taken) / row.faces
        told |= {
            "seconds": each,
            "all_seconds": [one / row.faces for one in taken],
            "vae_seconds": vae,
            "tflop": tflop,
            "share": tflop / (each - vae) / self.told["matrix_tflop_a_second"] if each > vae else None,
            "share_of_all": tflop / each / self.told["matrix_tflop_a_second"],
        }
        if self.cuda:
            told["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)
            told["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return told

    def offload(self) -> None:
        """Move the weights to the CPU, once what they compute is counted."""
        row = Row("offload", "quality", 1, {"steps": OFFLOAD_STEPS})
        if "offload_tflop" not in self.told:
            self.told["offload_tflop"] = self.tflop(row)
        for network in (self.parts.unet, self.parts.controlnet, self.parts.vae):
            network.to("cpu")
        self.clean()

    @contextlib.contextmanager
    def limited(self, limit: float) -> Any:
        """Within the block torch may take so many bytes of the card and no more; 0 is all."""
        import torch

        if not (limit and self.cuda):
            yield
            return
        whole = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / whole), self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    def lacking(self, row: Row) -> str:
        """What keeps this row from being measured here, if anything."""
        from authface.models.sampling import Sampling
        from authface.restore.model.placement import Placement

        if row.offloaded and not self.cuda:
            return "the weights are on the CPU anyway"
        known = {each.name for kind in (Placement, Sampling) for each in fields(kind)}
        return ", ".join(f"no switch {name}" for name in {**row.sampling, **row.placement} if name not in known)

    def attempt(self, row: Row) -> None:
        """Measure a row, print it and keep it, or why it failed."""
        began = time.perf_counter()
        if why := self.lacking(row):
            told: dict[str, Any] = {"name": row.name, "left_out": why}
        else:
            try:
                if row.offloaded:
                    self.offload()
                with self.limited(row.limit):
                    told = self.run(row)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other rows go on
                lines = f"{type(error).__name__}: {error}".splitlines()
                told = {"name": row.name, "error": lines[0][:300]}
                if error.__cause__ is not None:
                    told["cause"] = f"{type(error.__cause__).__name__}: {error.__cause__}".splitlines()[0][:300]
            self.clean()
        told["elapsed_seconds"] = time.perf_counter() - began
        self.told["rows"].append({"row": asdict(row)} | told)
        self.save()
        print(line_of(told), flush=True)

    def save(self) -> None:
        """Write what is known to the file of `--json`."""
        if self.given.json:
            Path(self.given.json).write_text(json.dumps(self.told, indent=1) + "\n", encoding="utf-8")


def line_of(told: dict[str, Any]) -> str:
    """A row as it is printed."""
    ended = f"   [{told['elapsed_seconds']:.1f} s]"
    if "seconds" not in told:
        why = " <- ".join(str(told[name]) for name in ("left_out", "error", "cause") if name in told)
        return f"{told['name']:24} {'left out' if 'left_out' in told else 'FAILED'}: {why}{ended}"
    share = "    -" if told["share"] is None else f"{told['share']:5.1%}"
    memory = f"{told['peak_bytes'] / 1e9:6.2f}" if "peak_bytes" in told else "     -"
    line = f"{told['name']:24} {told['steps']:5d} {told['seconds']:8.3f} {told['vae_seconds']:6.3f} "
    line += f"{told['tflop']:9.3f} {share:>6} {memory}"
    return line + (f"  differs by {told['differs']}" if "differs" in told else "") + ended


def main() -> int:
    """Make the networks and measure the rows; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--size", type=int, default=512, help="side of the crops, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="in place of the presets'")
    parser.add_argument("--only", default="", help="rows' names or beginnings of them, with commas")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes")
    parser.add_argument("--small", action="store_true", help="networks of the tiny family's shapes")
    parser.add_argument("--json", default="", help="file for all figures")
    given = parser.parse_args()
    began = time.perf_counter()
    find_authface()
    bench = Bench(given)
    told = bench.told
    told["matrix_tflop_a_second"] = bench.matrix_rate()
    bench.clean()
    bench.measure_vae()
    counts = ", ".join(f"{name} {count / 1e6:,.1f} M" for name, count in told["parameters"].items())
    print(f"{told['device']}, torch {told['torch']}; {counts} weights, made in {told['make_seconds']:.1f} s")
    print(f"matrix product {told['matrix_tflop_a_second']:.3g} TFLOP/s; VAE of a face: ", end="")
    print(f"decode {told['decode_seconds']:.3f} s, encode {told['encode_seconds']:.3f} s", flush=True)
    print(f"{'':24} steps   s/face    VAE     TFLOP  share     GB", flush=True)
    rows = all_rows(given.compile)
    names = {row.name for row in rows}
    asked = given.only.split(",")
    begins = tuple(word for word in asked if word not in names)
    for row in rows:
        if row.name in asked or row.name.startswith(begins):
            bench.attempt(row)
    print(f"{time.perf_counter() - began:.0f} s in all", flush=True)
    return int(any("error" in row for row in told["rows"]))


if __name__ == "__main__":
    raise SystemExit(main())
