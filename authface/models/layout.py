"""A family's folder on disk: which files belong to it, how a trained part takes its place, the pipeline index,
what safetensors hold by their headers alone, and `weights.json`, the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from authface.errors import AuthfaceError, UsageError, first_line, one_line
from authface.files import replacing_folder, sha256_of, sha256_of_weights, write_file

Commercial = Literal["yes", "no", "unclear"]
"""Whether weights may be used commercially, as their licences are read here."""

BASE = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
"""The parts of every family."""
FURTHER = ("controlnet", "cleaner")
"""Parts that a family may have: `controlnet` is there after stage II, `cleaner` after authface train cleaner."""
PARTS = (*BASE, *FURTHER)

FILES = ("*.json", "*.txt", "*.safetensors")
VARIANTS = ("*.fp16.*", "*.non_ema.*", "*openvino*", "*flax*")
"""Copies of the weights in other precisions and formats, which are never read."""

WEIGHTED = ("unet", "controlnet", "cleaner", "vae", "text_encoder", "text_encoder_2")
"""Parts with weights."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Endings of files that can run code when they are read."""
INDEX = "model_index.json"
BUILTIN = Path(__file__).parent.parent / "builtin"
"""The built-in model."""
MANIFEST = "weights.json"
"""What `models pack` writes beside a family: sha256 and size of every file."""
OWN_PRESETS = "presets.toml"
"""A family's own presets of restoring: what its ControlNet, over its prior, was measured to need."""
ADAPTER = "lora/pytorch_lora_weights.safetensors"
"""What stage I with LoRA trained, alone, for stock pipelines' ``load_lora_weights``; unet/ has it merged."""
BESIDE = (INDEX, "README.md", "training-curve.png", OWN_PRESETS, ADAPTER)
"""Files of a family that lie beside its parts: index, card, the card's picture, own presets of restoring, adapter."""
ONNX, EXPORT = "onnx", "export.json"
"""The folder of a family's ONNX graphs, and what says of which weights they were made (`authface.models.graphs`)."""
ONNX_FILES = (EXPORT, "*.onnx", "*.onnx.data")
TRAINING_FOLDERS = ("training",)
"""Folders that lie in a trained family and are no part of it: checkpoints, logs, caches."""

NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Precisions that a family is shipped in, and the bytes of one number."""
_WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
"""Bytes of one number of the types that stay as they are in every precision."""

_TRANSFORMERS = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "tokenizer": "CLIPTokenizer",
    "tokenizer_2": "CLIPTokenizer",
}


def _names_modules(record: logging.LogRecord) -> bool:
    return "kept in float32: []" not in record.getMessage()


def quiet() -> None:
    """Switch off the libraries' own bars for loading and saving: the console has its own.

    And tell bitsandbytes not to complain of a kernel that nothing here asks for, and diffusers, before its models are
    imported, that bitsandbytes is not there: it imports it whole where it is installed, torch's compiler with it, for
    quantized models, which no family here is.
    """
    from diffusers.utils import import_utils
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    if hasattr(import_utils, "_bitsandbytes_available"):
        import_utils._bitsandbytes_available = False
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # diffusers 0.42 warns of modules to be kept in float32 where its list of them is empty.
    logging.getLogger("diffusers.models.modeling_utils").addFilter(_names_modules)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def part_files(folder: Path, part: str) -> list[Path]:
    """The files of one part that are read, sorted by name."""
    found = (path for pattern in FILES for path in (folder / part).glob(pattern))
    return sorted(path for path in found if not any(path.match(variant) for variant in VARIANTS))


def holds_part(path: Path) -> bool:
    """Whether a file of a family holds weights of one of its parts; an adapter beside them is none."""
    return path.suffix == ".safetensors" and path.parent.name in WEIGHTED


def onnx_files(folder: Path) -> list[Path]:
    """The files of a family's ONNX graphs, sorted by name."""
    return sorted(path for pattern in ONNX_FILES for path in (folder / ONNX).glob(pattern))


def expected_parts(folder: Path) -> list[str]:
    """`BASE`, which a family must have, and which of `FURTHER` it has."""
    return [*BASE, *(part for part in FURTHER if (folder / part).is_dir())]


def family_parts(folder: Path) -> list[str]:
    """The parts a family has, those of `BASE` and which of `FURTHER` are there. Raises UsageError for no family."""
    missing = [part for part in BASE if not part_files(folder, part)]
    if missing:
        raise UsageError(f"{one_line(folder)} is no model folder: it lacks {', '.join(missing)}")
    return expected_parts(folder)


def strange_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and fault of all that must not lie in a family: pickles, folders that are no part, links out of it.

    What begins with a dot, a training's own folder and what else a repository of the hub holds are not looked at.
    """
    snapshot = folder.resolve().parent.name == "snapshots"
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in TRAINING_FOLDERS:
            continue
        if path.is_dir() and path.name not in {*PARTS, ONNX, Path(ADAPTER).parent.name}:
            if not snapshot:
                yield path.name, "is no part of a family: move it away"
            continue
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            name = file.relative_to(folder).as_posix()
            if file.suffix.lower() in PICKLES:
                yield name, "is a pickle, which can run code: convert it to safetensors, or delete it"
            elif file.is_symlink() and not _stays(file, folder):
                yield name, "is a link out of the folder: copy the file there"


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link ends in the folder, or leads to a blob of the hub's cache that the folder is a snapshot of."""
    home = folder.resolve()
    if link.resolve().is_relative_to(home):
        return True
    # One step only: a blob may be a link itself, into a store that all repositories of the cache share.
    step = Path(os.path.normpath(link.parent.resolve() / link.readlink()))
    return home.parent.name == "snapshots" and step.parent == home.parent.parent / "blobs"


def weight_files(folder: Path, part: str) -> tuple[list[Path], Path | None]:
    """The safetensors that hold a part's weights, and the index that names them where they are several shards.

    Raises UsageError where there are none, a shard is missing, or others lie beside them: it is unclear what is read.
    """
    stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
    index = folder / part / f"{stem}.safetensors.index.json"
    wanted = {f"{stem}.safetensors"}
    if index.is_file():
        wanted = set(shard_map(index).values())
    found = {path.name: path for path in part_files(folder, part) if path.suffix == ".safetensors"}
    where = one_line(folder / part)
    if missing := sorted(wanted - set(found)):
        raise UsageError(f"{where} has no {one_line(missing[0])}: get the files again, or convert them to safetensors")
    if more := sorted(set(found) - wanted):
        raise UsageError(f"{where}/{one_line(more[0])} is not read beside {min(wanted)}: delete the one that is wrong")
    return [found[name] for name in sorted(wanted)], index if index.is_file() else None


def shard_map(index: Path) -> dict[str, str]:
    """Tensor -> file name of a safetensors.index.json. Raises UsageError where it is broken."""
    try:
        told = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = {str(name): str(file) for name, file in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{one_line(index)} is broken ({first_line(error, 80)}): get the files again") from error
    if strange := next((file for file in shards.values() if Path(file).name != file), None):
        raise UsageError(
            f"{one_line(index)} names {one_line(strange)}, which is no file beside it: get the files again"
        )
    return shards


def digest(folder: Path, parts: tuple[str, ...]) -> str:
    """sha256 of the files of `parts` with their names, in hex: caches made with them are keyed by it."""
    total = hashlib.sha256()
    for part in parts:
        for path in part_files(folder, part):
            total.update(f"{part}/{path.name}\n{sha256_of_weights(path)}\n".encode())
    return total.hexdigest()


def write_family(
    out: Path, base: Path, changed: Mapping[str, Any], kept: Collection[str] = ("cleaner",), presets: Path | None = None
) -> None:
    """Make `out` a whole family: `changed` modules are saved as safetensors, the other parts copied from `base`.

    `kept` are those of `FURTHER` that stay right whatever changed, and are copied where `base` has them: a cleaner
    works in pixels, a ControlNet belongs to its prior. `presets` is the family that the ControlNet is of, or began
    from: its own presets come along where `out` has none.

    Copied, not saved again: transformers 5 names the text encoders' weights otherwise than older readers expect.
    Each part appears whole; model_index.json comes last. Raises AuthfaceError where the disk refuses.
    """
    further = [part for part in kept if part_files(base, part)]
    for part in dict.fromkeys((*BASE, *further, *changed)):
        if part not in changed and base.resolve() == out.resolve():
            continue
        with replacing_folder(out / part) as temporary:
            if part in changed:
                changed[part].save_pretrained(str(temporary), safe_serialization=True)
            else:
                for path in part_files(base, part):
                    shutil.copyfile(path, temporary / path.name)
    if presets is not None and (own := presets / OWN_PRESETS).is_file() and not (out / OWN_PRESETS).exists():
        write_file(out / OWN_PRESETS, own.read_bytes())
    write_index(out)


def write_index(folder: Path) -> None:
    """Write model_index.json, by which stock pipelines find the parts that `folder` holds."""
    import diffusers

    control = (folder / "controlnet").is_dir()
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLControlNetPipeline" if control else "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        # The prior is trained with the encoded empty prompt, not with zeros in its place.
        "force_zeros_for_empty_prompt": False,
    }
    for part in expected_parts(folder):
        if part in _TRANSFORMERS:
            index[part] = ["transformers", _TRANSFORMERS[part]]
        else:
            index[part] = ["diffusers", class_name(folder, part)]
    write_file(folder / INDEX, json.dumps(index, indent=2).encode())


def class_name(folder: Path, part: str) -> str:
    """The diffusers class that a part's config names. Raises AuthfaceError where there is no readable config."""
    return str(config_value(folder, part, "_class_name"))


def config_value(folder: Path, part: str, name: str) -> Any:
    """A value of a part's config. Raises AuthfaceError where there is no readable config with it."""
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    try:
        return json.loads(path.read_text("utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuthfaceError(
            f"{one_line(path)} is missing or broken ({first_line(error, 80)}): get the files again"
        ) from error


@dataclass(frozen=True)
class FileFacts:
    """What `weights.json` says of a file."""

    sha256: str
    bytes: int


@dataclass
class WeightsManifest:
    """What a packed family holds: `weights.json`."""

    dtype: str
    """Of its floating-point tensors."""
    parameters: int = 0
    """Numbers in its floating-point tensors, all parts together."""
    bytes: int = 0
    """Of all files but this one."""
    files: dict[str, FileFacts] = field(default_factory=dict)
    """By name, such as ``unet/config.json``."""

    def add(self, name: str, path: Path) -> None:
        """Note a file that is written."""
        facts = FileFacts(sha256_of(path), path.stat().st_size)
        self.files[name] = facts
        self.bytes += facts.bytes

    def text(self) -> str:
        """As it is written: sorted, so that the same family gives the same bytes."""
        return json.dumps({"format": 1} | asdict(self), indent=2, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> WeightsManifest | None:
    """What a folder's weights.json says; None where there is none. Raises AuthfaceError for a broken one."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
        files = {str(name): FileFacts(str(one["sha256"]), int(one["bytes"])) for name, one in told["files"].items()}
        return WeightsManifest(str(told["dtype"]), int(told["parameters"]), int(told["bytes"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({first_line(error, 80)}): get the files again") from error


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of a tensor."""

    dtype: str
    """Its name there, such as F16."""
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many it holds."""
        total = 1
        for side in self.shape:
            total *= side
        return total

    def bytes_in(self, dtype: str) -> int:
        """What it takes where the floating-point numbers are of `dtype`."""
        return self.numbers * (NUMBER_BYTES[dtype] if self.floating else _WIDTHS.get(self.dtype, 8))

    @property
    def floating(self) -> bool:
        """Whether they are floating-point numbers."""
        return self.dtype.startswith(("F", "BF"))


def headers(path: Path) -> dict[str, TensorHeader]:
    """The tensors of a safetensors file, whose length is checked with them. Raises AuthfaceError where it is broken."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            slices = {str(name): file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return {name: TensorHeader(str(one.get_dtype()), tuple(one.get_shape())) for name, one in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise AuthfaceError(f"{one_line(path)} is broken ({first_line(error, 100)}): get the file again") from error


def in_bytes(size: float) -> str:
    """A size for people, in decimal units as the hub's pages tell it."""
    for unit, least in (("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"
