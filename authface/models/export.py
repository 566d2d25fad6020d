"""`models export`: what restoring with a family computes, as ONNX graphs that need no torch.

A cleaner at any size; of the prior an encoder, a step of the denoising with the text in it, and a decoder, at one size.
What is around them is `authface.restore.model.onnx`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from authface import __version__
from authface.console import Tick
from authface.devices import session
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.files import replacing_folder, sha256_of, write_file
from authface.models import sdxl
from authface.models.cleaner import FOLD, PERCEPTION_STEPS, takes_noise
from authface.models.families import ModelSource, Parts, fetch, load
from authface.models.graphs import CLEANER, DECODER, DENOISER, ENCODER, Export, Solver, weights_digest
from authface.models.layout import (
    BASE,
    EXPORT,
    MANIFEST,
    ONNX,
    PARTS,
    FileFacts,
    onnx_files,
    part_files,
    read_manifest,
)
from authface.models.sampling import PresetName, Sampling, begin, make_scheduler, model_side, preset_of, sampling_of

OPSET = 20
TOLERANCE = 2e-4
"""How far a graph's results may be from its network's, of the largest value."""
MAX_BYTES = 1_900_000_000
"""Of a graph's own file; protobuf ends at 2 GiB, so the weights of larger ones lie beside it."""
MIN_HALVED = 64
"""Numbers of a weight that is worth a cast."""
_TEXTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


class CleanerGraph(nn.Module):
    """A cleaner of faces whose sides are multiples of what it halves."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor, perception: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """(1, 3, h, w) of -1..1, () of 0..1 and, where the network takes it, (1, 1, h, w) of noise -> cleaned."""
        planes = image if noise is None else torch.cat([image, noise * perception], 1)
        folded = functional.pixel_unshuffle(planes, FOLD)
        moved = self.net(folded, perception * PERCEPTION_STEPS, return_dict=False)[0]
        return image + functional.pixel_shuffle(moved, FOLD)


class EncoderGraph(nn.Module):
    """The crop's latents and the ControlNet's embedding of it, both the same in all steps."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.vae, self.embedding = parts.vae, parts.controlnet.controlnet_cond_embedding

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 3, side, side) of 0..1."""
        return sdxl.encode(self.vae, image * 2 - 1), self.embedding(image)


class DenoiserGraph(nn.Module):
    """A step: ControlNet and U-Net, with the text's embeddings as constants; guidance applied."""

    def __init__(self, parts: Parts, text: sdxl.TextEmbedding, sampling: Sampling, side: int) -> None:
        super().__init__()
        self.unet, self.controlnet = parts.unet, parts.controlnet
        rows = [0, 1] if sampling.guidance > 1 else [0]
        self.rows, self.guidance, self.scale = len(rows), sampling.guidance, sampling.control_scale
        self.controlnet.controlnet_cond_embedding = nn.Identity()
        self.register_buffer("states", text.states[rows].clone())
        self.register_buffer("pooled", text.pooled[rows].clone())
        self.register_buffer("times", sdxl.time_ids(side, len(rows), text.states).clone())

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(1, c, h, w) latents, () timestep, (1, width, h, w) -> the prediction, as `noisy`."""
        given = noisy.repeat(self.rows, 1, 1, 1)
        added = {"text_embeds": self.pooled, "time_ids": self.times}
        down, mid = self.controlnet(
            given, timestep, encoder_hidden_states=self.states, controlnet_cond=embedding.repeat(self.rows, 1, 1, 1),
            conditioning_scale=self.scale, added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        predicted: torch.Tensor = self.unet(
            given, timestep, encoder_hidden_states=self.states, down_block_additional_residuals=down,
            mid_block_additional_residual=mid, added_cond_kwargs=added, return_dict=False,
        )[0]  # fmt: skip
        if self.rows == 1:
            return predicted
        return predicted[1:] + self.guidance * (predicted[:1] - predicted[1:])


class DecoderGraph(nn.Module):
    """Latents in the U-Net's scale -> an image of about -1..1."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.vae = parts.vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(1, c, h, w) -> (1, 3, side, side)."""
        return sdxl.decode(self.vae, latents)


def solver_of(sampling: Sampling, trained: Any) -> Solver:
    """The steps of a sampler as weighted sums, read off what diffusers' own makes of unit vectors.

    `trained` is the config of the model's scheduler. Raises UsageError for one that draws noise in its steps, or that
    does anything but weigh and add.
    """
    once, scaled = (_unrolled(sampling, trained, size) for size in (1.0, 1000.0))
    same = all(np.allclose(a * 1000, b, rtol=1e-3, atol=1e-2) for a, b in zip(once[1], scaled[1], strict=True))
    if not same:
        raise UsageError(
            f"the sampler {sampling.scheduler} of this family does more than weigh and add: only torch runs it; take"
            " another preset"
        )
    count = len(once[0])
    rows = [tuple(row[: 2 + i].tolist()) for i, row in enumerate(once[1])]
    return Solver(timesteps=tuple(once[0]), given=tuple(rows[:count]), result=rows[count])


def _unrolled(sampling: Sampling, trained: Any, size: float) -> tuple[list[float], list[NDArray[np.float64]]]:
    """Timesteps, and what each step is given and the last makes of the photo, the noise and each step's prediction.

    Those are unit vectors, times `size`.
    """
    scheduler = make_scheduler(sampling.scheduler, trained)
    timesteps = begin(scheduler, sampling, "cpu")
    basis = torch.eye(2 + len(timesteps), dtype=torch.float64) * size
    photo, noise, predictions = basis[None, None, :1], basis[None, None, 1:2], basis[2:, None, None, None]
    latents = noise * scheduler.init_noise_sigma
    if len(timesteps) < scheduler.num_inference_steps:
        latents = scheduler.add_noise(photo, noise, timesteps[:1])
    drawn = torch.Generator().manual_seed(0)
    before, shared = drawn.get_state(), torch.get_rng_state()
    given = []
    for t, predicted in zip(timesteps, predictions, strict=True):
        given.append(scheduler.scale_model_input(latents, t))
        latents = scheduler.step(predicted, t, latents, return_dict=False, **_drawing(scheduler, drawn))[0]
    if not (torch.equal(before, drawn.get_state()) and torch.equal(shared, torch.get_rng_state())):
        raise UsageError(f"the sampler {sampling.scheduler} draws noise in its steps: only torch runs it")
    return [float(t) for t in timesteps], [row.double().flatten().numpy() for row in (*given, latents)]


def _drawing(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    return {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}


def export(source: ModelSource, out: Path, preset: PresetName, tick: Tick) -> Export:
    """Write `onnx/` of the family into `out`, whole or not at all; one that is there is replaced.

    Where the preset adds none of the prior's detail to cleaned faces, the cleaner is all that is exported. Every graph
    is run and compared with the network it was made of. `weights.json`, where `out` has one, is told.
    Raises UsageError for a family without a ControlNet, a preset that ONNX cannot hold, missing packages and an `out`
    with other weights, AuthfaceError where a graph differs and where the disk refuses.
    """
    need("models export", "onnx", "onnx", "onnxscript")
    folder = fetch(source, PARTS)
    chosen = preset_of(preset, folder)
    sampling = sampling_of(chosen, 1)
    if sampling.reuse > 1 or sampling.shared_seed is not None:
        raise UsageError(f"the preset {preset} reuses features or draws all faces' noise at once: only torch runs it")
    weights = weights_digest(folder)
    if any(part_files(out, part) for part in BASE) and weights_digest(out) != weights:
        raise UsageError(f"-o {one_line(out)} has other weights than {one_line(source.name)}: choose another folder")
    text = sdxl.encode_prompts(load(source, _TEXTS, "cpu", torch.float32), [chosen.prompt, chosen.negative_prompt])
    cleaner = ("cleaner",) if part_files(folder, "cleaner") else ()
    parts = load(source, ("unet", "controlnet", "vae", "scheduler", *cleaner), "cpu", torch.float32)
    factor = sdxl.spatial_factor(parts.vae)
    side = model_side(folder)
    shape = (int(parts.unet.config.in_channels), side // factor, side // factor)
    told = Export(
        authface=__version__,
        opset=OPSET,
        weights=weights,
        side=side,
        latents=shape,
        multiple=FOLD * 2 ** (len(parts.cleaner.config.block_out_channels) - 1) if cleaner else 0,
        noise=bool(cleaner) and takes_noise(parts.cleaner),
        preset=chosen,
        control_scale=sampling.control_scale,
        solver=solver_of(sampling, parts.scheduler.config),
        files={},
    )
    with replacing_folder(out / ONNX) as temporary:
        for name, module, given, shapes in _graphs(parts, text, sampling, told):
            _write(module, given, shapes, temporary / name)
            tick(1, name)
        facts = {path.name: FileFacts(sha256_of(path), path.stat().st_size) for path in sorted(temporary.iterdir())}
        told = told.model_copy(update={"files": facts})
        (temporary / EXPORT).write_text(told.model_dump_json(indent=2) + "\n", "utf-8")
    _tell_manifest(out)
    return told


def _graphs(
    parts: Parts, text: sdxl.TextEmbedding, sampling: Sampling, told: Export
) -> Iterator[tuple[str, nn.Module, dict[str, torch.Tensor], dict[str, Any] | None]]:
    """Name, network, an input to trace it with, and which of its sides are open; each is made when it is asked for.

    The denoiser is the last: it takes the ControlNet's embedding away.
    """
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, told.side, told.side, generator=draw)
    latents = torch.randn(1, *told.latents, generator=draw)
    if told.multiple:
        height, width = (torch.export.Dim(name, min=2, max=4096 // told.multiple) for name in ("rows", "columns"))
        face = torch.rand(1, 3, 6 * told.multiple, 4 * told.multiple, generator=draw) * 2 - 1
        sides = {2: told.multiple * height, 3: told.multiple * width}
        given, shapes = {"image": face, "perception": torch.tensor(0.5)}, {"image": sides, "perception": {}}
        if told.noise:
            given["noise"], shapes["noise"] = torch.randn(1, 1, *face.shape[2:], generator=draw), sides
        yield CLEANER, CleanerGraph(parts.cleaner), given, shapes
        if not told.preset.detail:
            return
    encoder = EncoderGraph(parts)
    yield ENCODER, encoder, {"image": image}, None
    yield DECODER, DecoderGraph(parts), {"latents": latents}, None
    with torch.inference_mode():
        embedding = encoder(image)[1].clone()
    step = {"noisy": latents, "timestep": torch.tensor(told.solver.timesteps[0]), "embedding": embedding}
    yield DENOISER, DenoiserGraph(parts, text, sampling, told.side), step, None


def _write(module: nn.Module, given: dict[str, torch.Tensor], shapes: dict[str, Any] | None, path: Path) -> None:
    """One graph, compared with the network. Raises AuthfaceError where it differs."""
    import onnx

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter's own innards
        expected = module.eval()(**given)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (), kwargs=given, input_names=list(given), dynamic_shapes=shapes, opset_version=OPSET,
            dynamo=True, optimize=True, verbose=False,
        )  # fmt: skip
    if program is None:
        raise AuthfaceError(f"torch.onnx exports no {path.name}: install another torch")
    model = _lean(program.model_proto)
    beside = model.ByteSize() > MAX_BYTES
    onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data")
    found = session(path, "cpu").run(None, {name: tensor.numpy() for name, tensor in given.items()})
    wanted = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(found, wanted, strict=True):
        apart = float(np.abs(one - other.numpy()).max()) / max(float(other.abs().max()), 1e-6)
        if not apart < TOLERANCE:
            raise AuthfaceError(f"{path.name} differs from its network by {apart:.2g} of the largest value: install "
                                "another torch, onnxscript or onnxruntime")  # fmt: skip


def _lean(model: Any) -> Any:
    """The graph without traces of this machine, and with weights in half precision where that loses nothing.

    They are cast back as the graph is opened, so that all is computed in float32.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for holder in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16) if values.dtype == np.float32 else None
        if half is None or values.size < MIN_HALVED or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _tell_manifest(folder: Path) -> None:
    """Put the files of `onnx/` into `weights.json`, if the folder has one: it is what `models verify` compares with."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    kept = {name: facts for name, facts in manifest.files.items() if not name.startswith(f"{ONNX}/")}
    manifest.files, manifest.bytes = kept, sum(facts.bytes for facts in kept.values())
    for path in onnx_files(folder):
        manifest.add(f"{ONNX}/{path.name}", path)
    write_file(folder / MANIFEST, manifest.text().encode())
