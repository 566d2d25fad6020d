"""`authface models pack`: what ships, in which precision, the same bytes each time, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from authface.errors import AuthfaceError, UsageError
from authface.files import sha256_of
from authface.models import families as models
from authface.models import publish
from authface.models.layout import ADAPTER, headers, read_manifest
from authface.models.verify import verify

Change = Callable[[Path], None]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def family(whole_family: Path) -> Path:
    """A family with all that a training leaves."""
    (whole_family / "README.md").write_text("# a card\n")
    (whole_family / "training-curve.png").write_bytes(b"\x89PNG curve")
    (whole_family / "notes.txt").write_text("stays at home")
    (whole_family / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"stays at home")
    checkpoint = whole_family / "training" / "checkpoints" / "average.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"stays at home")
    return whole_family


@pytest.fixture
def copy(family: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(family, tmp_path / "copy"))


def packed(folder: Path, out: Path, dtype: str = "float16") -> Path:
    publish.pack(folder, out, dtype, lambda done, note: None)
    return out


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_ships_and_what_stays(family: Path, tmp_path: Path) -> None:
    """Parts, index, card, curve and the list of them; no checkpoint, no other precision, no note."""
    files = everything(packed(family, tmp_path / "out"))
    assert {"README.md", "training-curve.png", "model_index.json", "controlnet/config.json", UNET} < set(files)
    assert {"cleaner/config.json", "cleaner/diffusion_pytorch_model.safetensors"} < set(files)
    assert not any(b"stays at home" in data for data in files.values()) and "notes.txt" not in files
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and set(manifest.files) == set(files) - {"weights.json"}
    assert all(sha256_of(tmp_path / "out" / name) == facts.sha256 for name, facts in manifest.files.items())
    assert manifest.bytes == sum(len(data) for name, data in files.items() if name != "weights.json")
    assert all((tmp_path / "out" / name).stat().st_mode & 0o044 for name in files), "readable by those who install it"


@pytest.mark.parametrize(("dtype", "name"), [("float16", "F16"), ("bfloat16", "BF16"), ("float32", "F32")])
def test_every_tensor_is_in_that_precision(family: Path, tmp_path: Path, dtype: str, name: str) -> None:
    """Under its own name, to the nearest number; parameters are counted from the modules."""
    out = packed(family, tmp_path / "out", dtype)
    assert {h.dtype for path in out.rglob("*.safetensors") for h in headers(path).values()} == {name}
    before, after = load_file(family / UNET), load_file(out / UNET)
    assert set(before) == set(after)
    assert all(torch.equal(after[key], before[key].to(getattr(torch, dtype))) for key in before)
    parts = models.load(models.resolve(str(out)), models.BASE, "cpu", torch.float32)
    manifest = read_manifest(out)
    weighted = [parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2]
    further = sum(h.numbers for p in ("controlnet", "cleaner") for h in headers(out / p / Path(UNET).name).values())
    assert manifest is not None and manifest.dtype == dtype
    assert manifest.parameters == further + sum(p.numel() for part in weighted for p in part.parameters())


def test_half_precision_on_disk_is_loaded_in_the_precision_asked_for(family: Path, tmp_path: Path) -> None:
    """float32 everywhere on a CPU; the VAE always; bfloat16 where asked. Values are those on disk."""
    source = models.resolve(str(packed(family, tmp_path / "out")))
    parts = models.load(source, (*models.BASE, "controlnet", "cleaner"), "cpu", torch.float32)
    for part in (parts.unet, parts.controlnet, parts.cleaner, parts.vae, parts.text_encoder, parts.text_encoder_2):
        assert {p.dtype for p in part.state_dict().values() if p.is_floating_point()} == {torch.float32}
    stored = load_file(tmp_path / "out" / UNET)
    assert all(torch.equal(value, stored[name].float()) for name, value in parts.unet.state_dict().items())
    half = models.load(source, ["unet", "vae", "text_encoder"], "cpu", torch.bfloat16)
    assert {p.dtype for p in half.unet.parameters()} == {p.dtype for p in half.text_encoder.parameters()}
    assert half.unet.dtype == torch.bfloat16 and half.vae.dtype == torch.float32


def test_stock_diffusers_runs_a_packed_family(family: Path, tmp_path: Path) -> None:
    """Without a word of ours, on a CPU."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(packed(family, tmp_path / "out")))
    assert {pipeline.unet.dtype, pipeline.text_encoder.dtype, pipeline.vae.dtype} == {torch.float32}
    assert pipeline("a face", num_inference_steps=1, height=64, width=64, output_type="np").images.shape[-1] == 3


def test_the_same_family_gives_the_same_bytes_and_packs_replace_packs(family: Path, tmp_path: Path) -> None:
    """Whatever was there of an earlier pack is gone; a pack of a pack changes nothing."""
    first = everything(packed(family, tmp_path / "a"))
    assert everything(packed(family, tmp_path / "b")) == first
    packed(family, tmp_path / "b", "bfloat16")
    assert everything(packed(family, tmp_path / "b")) == first
    assert everything(packed(tmp_path / "a", tmp_path / "c")) == first
    assert not list(tmp_path.glob(".tmp-*"))


def test_no_trace_of_this_machine_ships(copy: Path, tmp_path: Path) -> None:
    """The folders that the libraries note in configurations; the rest of a configuration stays."""
    config = copy / "vae" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"_name_or_path": "/home/anna/vae"}))
    files = everything(packed(copy, tmp_path / "out"))
    assert not any(b"/home/anna" in data for data in files.values())
    assert json.loads(files["vae/config.json"]) == {k: v for k, v in told.items() if k != "_name_or_path"}
    assert files["tokenizer/tokenizer.json"] == (copy / "tokenizer" / "tokenizer.json").read_bytes()


def shard(folder: Path) -> Path:
    """Its U-Net in two files and an index, as SDXL's on the hub; an integer tensor among them."""
    whole = load_file(folder / UNET)
    whole["steps"] = torch.tensor([3, 2**40])
    names = sorted(whole)
    shards = {"a": names[: len(names) // 2], "b": names[len(names) // 2 :]}
    weight_map = {}
    for letter, inside in shards.items():
        file = f"diffusion_pytorch_model-{letter}.safetensors"
        save_file({name: whole[name] for name in inside}, folder / "unet" / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(inside, file)
    (folder / UNET).unlink()
    index = folder / f"{UNET}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_shards_stay_shards(copy: Path, family: Path, tmp_path: Path) -> None:
    """Each in the new precision, integers as they are, and an index that tells the new size."""
    shard(copy)
    out = packed(copy, tmp_path / "out")
    index = json.loads((out / f"{UNET}.index.json").read_text())
    tensors = {name: load_file(out / "unet" / file)[name] for name, file in index["weight_map"].items()}
    assert tensors["steps"].tolist() == [3, 2**40]
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    del tensors["steps"]
    before = load_file(family / UNET)
    assert all(torch.equal(tensors[name], value.half()) for name, value in before.items())
    loaded = models.load(models.resolve(str(out)), ["unet"], "cpu", torch.float32).unet
    assert torch.equal(loaded.state_dict()[name := "conv_in.weight"], before[name].half().float())


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (70_000.0, "float16", "conv_in.weight reaches 70000, float16 ends at 65504: pack with --dtype bfloat16"),
        (float("nan"), "bfloat16", "conv_in.weight holds NaN or infinity"),
    ],
)
def test_numbers_that_would_be_lost_are_refused(
    copy: Path, tmp_path: Path, value: float, dtype: str, said: str
) -> None:
    """By the tensor's name; nothing is written, and an earlier pack stays."""
    out = packed(copy, tmp_path / "out")
    before = everything(out)
    weights = load_file(copy / UNET)
    weights["conv_in.weight"][0, 0, 0, 0] = value
    save_file(weights, copy / UNET, metadata={"format": "pt"})
    with pytest.raises(AuthfaceError, match=said):
        packed(copy, out, dtype)
    assert everything(out) == before and not list(tmp_path.glob(".tmp-*"))
    if value == 70_000:
        packed(copy, out, "bfloat16")


def _pickle(folder: Path) -> None:
    (folder / "unet" / "extra.bin").write_bytes(b"\x80")


def _part(folder: Path) -> None:
    (folder / "safety_checker").mkdir()


def _link(folder: Path) -> None:
    config = folder / "vae" / "config.json"
    config.rename(folder.parent / "config.json")
    config.symlink_to(folder.parent / "config.json")


def _lost(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer_2")


def _unweighted(folder: Path) -> None:
    (folder / UNET).unlink()


def _two(folder: Path) -> None:
    shutil.copy(folder / UNET, folder / "unet" / "old.safetensors")


def _unfinished(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _shard(folder: Path) -> None:
    shard(folder)
    (folder / "unet" / "diffusion_pytorch_model-b.safetensors").unlink()


def _escape(folder: Path) -> None:
    index = shard(folder)
    index.write_text(index.read_text().replace("diffusion_pytorch_model-b", "../../b"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_pickle, r"unet/extra\.bin is a pickle"),
        (_part, "safety_checker is no part of a family"),
        (_link, r"vae/config\.json is a link out of the folder"),
        (_lost, "lacks tokenizer_2"),
        (_unweighted, r"unet has no diffusion_pytorch_model\.safetensors"),
        (_two, r"old\.safetensors is not read"),
        (_unfinished, "the training did not end"),
        (_shard, r"has no diffusion_pytorch_model-b\.safetensors"),
        (_escape, "no file beside it"),
    ],
)
def test_what_is_no_family_to_ship_is_refused(copy: Path, tmp_path: Path, spoil: Change, said: str) -> None:
    """In one line, before anything is written."""
    spoil(copy)
    with pytest.raises(UsageError, match=said) as caught:
        packed(copy, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_broken_files_are_named(copy: Path, tmp_path: Path) -> None:
    """A cut safetensors, and an index that names a tensor no shard holds."""
    whole = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(whole[:-10])
    with pytest.raises(AuthfaceError, match=r"unet/diffusion_pytorch_model\.safetensors is broken"):
        packed(copy, tmp_path / "out")
    (copy / UNET).write_bytes(whole)
    index = shard(copy)
    told = json.loads(index.read_text())
    told["weight_map"]["ghost"] = next(iter(told["weight_map"].values()))
    index.write_text(json.dumps(told))
    with pytest.raises(AuthfaceError, match="ghost is not in"):
        packed(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".tmp-*"))


def test_only_packs_are_replaced(copy: Path, tmp_path: Path) -> None:
    """A folder of another kind, a pack with a stranger in it, the family itself and what is around or in it stay."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for out, said in [(other, "no earlier pack"), (copy, "lies in the family"), (copy / "out", "lies in the family"),
                      (tmp_path, "or around it")]:  # fmt: skip
        with pytest.raises(UsageError, match=said):
            packed(copy, out)
    out = packed(copy, tmp_path / "out")
    (out / "unet" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"unet/mine\.txt, which no pack wrote"):
        packed(copy, out)
    assert (other / "thesis.txt").read_text() == "mine" and (out / "unet" / "mine.txt").is_file()


def test_a_snapshot_of_the_hubs_cache_is_packed_through_its_links(family: Path, tmp_path: Path) -> None:
    """Its files are links to blobs beside it."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for path in publish.family_files(family):
        link = snapshot / path.relative_to(family)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = blobs / sha256_of(path)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    files = everything(packed(snapshot, tmp_path / "out"))
    assert files == everything(packed(family, tmp_path / "again"))
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_a_full_disk_is_said_before(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is needed and what is free."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(AuthfaceError, match=r"needs [\d.]+ MB, 1\.0 MB are free"):
        packed(family, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_ships_as_it_is(copy: Path, tmp_path: Path) -> None:
    """Its scale is in the file's metadata, which no conversion may lose; its numbers are in unet/ already."""
    (copy / "lora").mkdir()
    scale = {"lora_adapter_metadata": '{"unet.lora_alpha": 4}', "format": "pt"}
    save_file({"unet.down": torch.ones(2, 2)}, copy / ADAPTER, metadata=scale)
    plain = publish.pack(Path(shutil.copytree(copy, tmp_path / "plain")), tmp_path / "a", "float16", lambda *_: None)
    shutil.rmtree(tmp_path / "plain" / "lora")
    bare = publish.pack(tmp_path / "plain", tmp_path / "b", "float16", lambda *_: None)
    assert (tmp_path / "a" / ADAPTER).read_bytes() == (copy / ADAPTER).read_bytes()
    assert set(plain.files) - set(bare.files) == {ADAPTER} and plain.parameters == bare.parameters
    assert verify(str(tmp_path / "a"), lambda *_: None).faults == {}
    (tmp_path / "a" / ADAPTER).with_suffix(".bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match="lora/pytorch_lora_weights.bin is a pickle"):
        publish.family_files(tmp_path / "a")
