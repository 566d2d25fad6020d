"""`authface models push` against a stand-in of the hub's HTTP API: what goes, under which licence, and what may not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from authface.models.cleaner import make_cleaner
from authface.models.families import make_tiny
from authface.models.layout import MANIFEST, OWN_PRESETS
from authface.models.publish import licence_of
from authface.models.verify import verify

Run = Callable[..., Any]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A real family with what a training leaves beside it."""
    out = tmp_path / "out"
    make_tiny(out, 0, 64)
    make_cleaner(0, (16, 16)).save_pretrained(out / "cleaner")
    (out / "README.md").write_text("---\nlicense: openrail++\nbase_model: anna/base\n---\n# out\n")
    (out / "training-curve.png").write_bytes(b"\x89PNG curve")
    (out / OWN_PRESETS).write_text("[quality]\nsteps = 3\n")
    for name in ("training/checkpoints/step-1/model.safetensors", "training/cache/ab/x.safetensors", "notes.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"secret")
    (out / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"secret")
    return out


def test_the_family_goes_and_nothing_else(hub: Any, on_hub: Run, family: Path) -> None:
    """Parts, index, card, curve; stale files of parts are replaced, others stay; public if asked."""
    earlier = {"unet/old.safetensors": b"old", "onnx/fast.onnx": b"old", "onnx/export.json": b"{}", MANIFEST: b"{}"}
    hub.add("anna/faces", True, {**earlier, "lora/pytorch_lora_weights.safetensors": b"old", "mine.txt": b"m"})
    done = on_hub("models", "push", family, "anna/faces", "--json")
    assert done.returncode == 0, done.stderr
    said, files = json.loads(done.stdout), hub.repos["anna/faces"].files
    assert set(files) == {*said["files"], "mine.txt"} and not any(b"secret" in body for body in hub.received)
    assert {"model_index.json", "README.md", "training-curve.png", OWN_PRESETS, "vae/config.json"} < set(files)
    assert {"cleaner/config.json", "cleaner/diffusion_pytorch_model.safetensors"} < set(files)
    assert all((family / name).read_bytes() == files[name] for name in said["files"])
    assert on_hub("models", "push", family, "anna/new").returncode == 0
    assert hub.repos["anna/new"].private
    assert on_hub("models", "push", family, "anna/open", "--public").returncode == 0
    assert not hub.repos["anna/open"].private


def test_a_dry_run_lists_and_sends_nothing(hub: Any, on_hub: Run, family: Path) -> None:
    """Names with sizes; the hub is not asked."""
    done = on_hub("models", "push", family, "anna/faces", "--dry-run")
    size = (family / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert done.returncode == 0 and f"{size:,}  unet/diffusion_pytorch_model.safetensors" in done.stdout
    assert "nothing was sent" in done.stdout and "training/" not in done.stdout
    assert not hub.received and not hub.repos


def test_what_may_not_go_is_said_in_one_line(hub: Any, on_hub: Run, family: Path) -> None:
    """Pickles, links, missing parts, an unfinished training, a wrong name, a public repository, a refusal."""

    def told(words: str, code: int, *flags: str, name: str = "anna/faces", model: object = family) -> None:
        done = on_hub("models", "push", model, name, *flags)
        errors = [line for line in done.stderr.splitlines() if not line.startswith(("push: ", "check: "))]
        assert done.returncode == code and len(errors) == 1 and words in errors[0], done.stderr

    told("write OWNER/faces", 2, name="faces")
    hub.add("anna/faces", False, {})
    told("add --public", 2)
    hub.broken = True
    told("may not write", 1, "--public")
    pickle = family / "unet" / "extra.bin"
    pickle.write_bytes(b"\x80")
    told("extra.bin is a pickle", 2)
    pickle.unlink()
    config = family / "vae" / "config.json"
    kept = config.rename(family / "kept.json")
    config.symlink_to(kept)
    told("is a link", 2)
    config.unlink()
    kept.rename(config)
    told("on the hub already", 2, model="sdxl")
    weights = family / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    told("vae/diffusion_pytorch_model.safetensors is broken", 1)
    weights.write_bytes(whole)
    index = (family / "model_index.json").rename(family / "index.txt")
    told("did not end", 2)
    index.rename(family / "model_index.json")
    (family / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (family / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    for path in (family / "scheduler").iterdir():
        path.unlink()
    told("scheduler, unet missing", 2)
    assert hub.repos["anna/faces"].files == {}


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"license": "apache-2.0"}, "apache-2.0"),
        ({"license": "other", "license_name": "research-non-commercial"}, "research-non-commercial"),
        ({"license": "other", "license_name": "unknown"}, ""),
        ({"license": "other"}, ""),
        ({}, ""),
    ],
)
def test_what_a_card_says_of_the_licence(told: dict[str, Any], licence: str) -> None:
    assert licence_of(told) == licence


def test_weights_of_no_known_licence_go_only_if_they_are_yours(hub: Any, on_hub: Run, family: Path) -> None:
    card = family / "README.md"
    card.write_text("---\nlicense: other\nlicense_name: unknown\n---\n# out\n")
    refused = on_hub("models", "push", family, "anna/faces")
    assert refused.returncode == 2 and "names no licence" in refused.stderr and not hub.repos
    assert on_hub("models", "push", family, "anna/faces", "--i-hold-the-rights").returncode == 0
    card.write_text("---\nlicense: other\nlicense_name: research-only\n---\n# out\n")
    refused = on_hub("models", "push", family, "anna/more")
    assert refused.returncode == 2 and "none recognised" in refused.stderr and "anna/more" not in hub.repos
    card.unlink()
    refused = on_hub("models", "push", family, "anna/faces", "--i-hold-the-rights")
    assert refused.returncode == 2 and "has no README.md" in refused.stderr


def test_what_the_hub_has_of_the_built_in_family_is_whole(hub: Any, on_hub: Run, tmp_path: Path) -> None:
    """Its card says the licence, its weights.json goes along, and a copy from the hub is checked by it."""
    done = on_hub("models", "push", "tiny", "anna/tiny", "--json", "--i-hold-the-rights")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["licence"] == "research-non-commercial"
    files = hub.repos["anna/tiny"].files
    assert ModelCard(files["README.md"].decode()).data.license_name == "research-non-commercial"
    for name, data in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    report = verify(str(tmp_path / "copy"), lambda *_: None)
    assert report.faults == {} and report.against == "weights.json" and report.files == len(files) - 1
