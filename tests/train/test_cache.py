"""Latents and text embeddings on disk: written once, read as they were, never stale."""

import shutil
from pathlib import Path

import pytest
import torch

from authface.errors import AuthfaceError
from authface.models import sdxl
from authface.models.families import load, make_tiny, resolve
from authface.train.cache import TensorStore, cache_latents, cache_texts
from authface.train.data import Draw, FaceDataset
from authface.train.objective import Noise
from authface.train.prior import ENCODERS, PriorObjective
from authface.train.settings import (
    PriorSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, quick


def test_the_cache_is_filled_once(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Another VAE means other files; the same one reads what is there."""
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    vae = load(resolve(str(tiny)), ["vae"], CPU, torch.float32).vae
    faces, store = FaceDataset(dataset, SIZE), TensorStore(tmp_path / "cache")
    first = cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet())
    written = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")}
    assert cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet()) == first
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")} == written
    make_tiny(other, seed=9, image_size=SIZE)
    vae = load(resolve(str(other)), ["vae"], CPU, torch.float32).vae
    assert not set(cache_latents(faces, resolve(str(other)), vae, store, 2, Quiet()).keys) & set(first.keys)


def test_cached_and_encoded_anew_give_the_same_loss(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Half precision of the cache is far below the noise: 1e-5 of the loss; a cut file is told of."""
    source, faces = resolve(str(tiny)), FaceDataset(dataset, SIZE)
    parts = load(source, list(ENCODERS) + ["vae", "unet", "scheduler"], CPU, torch.float32)
    store = TensorStore(tmp_path / "cache")
    texts = cache_texts(faces.prompts(), source, CPU, store, Quiet())
    latents = cache_latents(faces, source, parts.vae, store, 2, Quiet())
    settings = PriorSettings(**quick(tiny, dataset, tmp_path / "out"))
    objective = PriorObjective(faces, parts, source, latents, texts, faces.prompts(), settings)
    batch = objective.batch([Draw(0, 0, False), Draw(1, 0, False)])
    with torch.no_grad():
        clean = torch.cat([sdxl.encode(parts.vae, sdxl.to_signed(faces.rgb(i)[None])) for i in range(2)])
        text, null = (sdxl.encode_prompts(parts, p) for p in (list(faces.prompts()[:2]), [""]))
        anew = type(batch)(batch.ids, clean, text.states, text.pooled, null.states, null.pooled)
        cached, encoded = (
            float(objective.loss(objective.trained, b, Noise(0, range(2)), 0).total) for b in (batch, anew)
        )
    assert cached == pytest.approx(encoded, abs=1e-5)
    file = store.path(latents.keys[0])
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(AuthfaceError, match="is broken: delete it and run again"):
        objective.batch([Draw(0, 0, False)])


def test_the_store_is_whole_or_absent(tmp_path: Path) -> None:
    """Half precision in, float32 out; a broken file is named."""
    store = TensorStore(tmp_path)
    key = "ab" * 32
    assert store.missing([key, key]) == [key]
    store.write(key, {"x": torch.arange(4.0)})
    assert store.missing([key]) == [] and torch.equal(store.read(key)["x"], torch.arange(4.0))
    store.path(key).write_bytes(b"cut")
    with pytest.raises(AuthfaceError, match="delete it"):
        store.read(key)
