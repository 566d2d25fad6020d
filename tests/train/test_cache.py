"""Latents and text embeddings on disk: written once, read as they were, never stale."""

import hashlib
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from authface.errors import AuthfaceError
from authface.models import sdxl
from authface.models.families import load, make_tiny, resolve
from authface.train import cache
from authface.train.cache import Entries, TensorStore, cache_latents, cache_texts
from authface.train.data import Draw, FaceDataset
from authface.train.objective import Noise
from authface.train.prior import ENCODERS, PriorObjective
from authface.train.settings import (
    PriorSettings,
)
from tests.train.conftest import CPU, SIZE, Quiet, quick


def packs(store: TensorStore) -> dict[str, int]:
    """The packs of a store, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in store.folder.glob("*.safetensors")}


def test_the_cache_is_filled_once(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Another VAE or size means other entries; the same one reads what is there, and more faces are added to it."""
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    vae = load(resolve(str(tiny)), ["vae"], CPU, torch.float32).vae
    store = TensorStore(tmp_path / "cache")
    cache_latents(FaceDataset(dataset, SIZE, limit=2), resolve(str(tiny)), vae, store, 2, Quiet())
    (begun,) = packs(store)
    faces = FaceDataset(dataset, SIZE)
    first = cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet())
    written = packs(store)
    assert len(written) == 2 and begun in written
    again = cache_latents(faces, resolve(str(tiny)), vae, store, 2, Quiet())
    assert np.array_equal(again.entries.places, first.entries.places) and packs(store) == written
    assert all(torch.equal(again.read(n, flip), first.read(n, flip)) for n in range(4) for flip in (False, True))
    cache_latents(FaceDataset(dataset, 2 * SIZE), resolve(str(tiny)), vae, store, 2, Quiet())
    make_tiny(other, seed=9, image_size=SIZE)
    vae = load(resolve(str(other)), ["vae"], CPU, torch.float32).vae
    cache_latents(faces, resolve(str(other)), vae, store, 2, Quiet())
    assert len(packs(store)) == 4


def test_a_disk_that_is_full_is_one_line_and_leaves_no_pack(tmp_path: Path) -> None:
    """safetensors raises no OSError: what it says of the system's is told as the system's own is."""
    store = TensorStore(tmp_path)
    keys = [hashlib.sha256(b"a").digest()]

    def make(numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        yield from ((number, {"x": torch.zeros(40_000)}) for number in numbers)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_960, hard))
    try:
        with pytest.raises(AuthfaceError, match=r"^cannot write .*File too large.*what was finished is kept$") as said:
            store.fill(keys, make, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(said.value) and not list(tmp_path.iterdir())
    assert not len(store.fill(keys, make, CPU).missing)


def test_cached_and_encoded_anew_give_the_same_loss(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """Half precision of the cache is far below the noise: 1e-5 of the loss."""
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


def values(store: TensorStore, numbers: Sequence[int], made: list[int] | None = None, stop: int = 100) -> Entries:
    """Entries of `numbers`, made where they are missing, each its number; `stop` cannot be made."""

    def make(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for place in missing:
            if numbers[place] == stop:
                raise AuthfaceError("stopped")
            if made is not None:
                made.append(numbers[place])
            yield place, {"x": torch.full((2, 3), numbers[place])}

    return store.fill([hashlib.sha256(bytes([number])).digest() for number in numbers], make, CPU)


def test_a_store_keeps_what_was_made_and_makes_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In packs of two: what a stopped run finished is read, in float32; equal keys are made once."""
    monkeypatch.setattr(cache, "PACK_ROWS", 2)
    store, made = TensorStore(tmp_path), list[int]()
    with pytest.raises(AuthfaceError, match="stopped"):
        values(store, range(6), made, stop=3)
    assert made == [0, 1, 2] and len(packs(store)) == 2
    (tmp_path / ".tmp-0123456789ab").write_bytes(b"half")  # of a run that was killed
    found = values(store, [5, 1, 7, 5, 0, 2], made)
    assert made == [0, 1, 2, 5, 7]
    assert [float(found.read(at)["x"][1, 2]) for at in range(6)] == [5, 1, 7, 5, 0, 2]
    assert found.read(0)["x"].dtype == torch.float32


def test_processes_make_their_shares_and_one_that_is_not_seen_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two processes each makes half; where one does not see the other's, the line says what the cache lacks."""
    monkeypatch.setattr(cache, "barrier", lambda device: None)
    monkeypatch.setattr(cache, "PATIENCE", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(list[int]())
        with pytest.raises(AuthfaceError, match=r"lacks 2 of 5|lacks 3 of 5"):
            values(TensorStore(tmp_path / rank), range(5), shares[-1])
    assert shares == [[0, 1], [2, 3, 4]]


def test_a_broken_pack_is_named(tmp_path: Path) -> None:
    values(TensorStore(tmp_path), range(3))
    (pack,) = tmp_path.glob("*.safetensors")
    pack.unlink()
    pack.write_bytes(b"cut")
    cache._open.cache_clear()
    with pytest.raises(AuthfaceError, match=rf"{pack.name} is broken: delete it"):
        values(TensorStore(tmp_path), range(3))
