"""`--with llava` by transformers' own LLaVA-NeXT with random weights."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from authface.annotate.captioners.captioner import CaptionerRequest, load_prompt
from authface.annotate.captioners.llava import Generated, Llava, difference, find_model
from authface.annotate.settings import LlavaSettings, TagsSettings
from authface.cli import app
from authface.errors import AuthfaceError, UsageError
from authface.records import Crop
from authface.store.photoset import PhotoSet
from tests.annotate.captioners.conftest import SIZES, crops_of
from tests.conftest import authface
from tests.faults import kill_a_worker, once, take_back


def opened(folder: Path, **settings: Any) -> Llava:
    chosen = LlavaSettings(model=str(folder), max_new_tokens=12, **settings)
    llava = Llava(chosen, load_prompt("semantic"), "test", "cpu")
    llava.open()
    return llava


def pixels(photoset: PhotoSet, llava: Llava) -> list[np.ndarray]:
    return [llava.prepare(photoset, crop) for crop in photoset.crops]


def test_the_command_tags_goes_on_and_makes_again_what_was_asked_otherwise(
    photoset: PhotoSet, llava: Path, tmp_path: Path
) -> None:
    prompt = tmp_path / "mine.txt"
    prompt.write_text("Tags, please.")
    settings = ["-O", "annotate.tags.llava.batch=3", "-O", "annotate.tags.llava.max_new_tokens=12"]
    words = ["annotate", "tags", photoset.root, "--with", "llava", "--model", llava, "--device", "cpu", "--json"]

    def tagged(*more: object) -> dict[str, Any]:
        """In this process: transformers takes seconds to import."""
        done = CliRunner().invoke(app, list(map(str, [*words, *settings, *more])))
        assert done.exit_code in {0, 3}, done.exception
        return dict(json.loads(done.stdout))

    done = authface(*words, *settings)
    assert done.returncode in {0, 3}, done.stderr
    first = json.loads(done.stdout)
    assert (first["made"], sum(first["counts"].values())) == (2, 6)
    rows = list(photoset.tags("llava"))
    assert all(row.answer and (row.tags or row.reason) for row in rows) and any(row.tokens for row in rows)
    assert "llava" in (photoset.root / "reports" / "tags.html").read_text()
    meta = photoset.tags("llava").meta(0)
    assert meta and meta.provenance.settings["prompt_sha256"] == load_prompt("photographic").sha256
    assert list(meta.provenance.weights.values()) == [find_model(LlavaSettings(model=str(llava))).version]
    assert tagged()["made"] == 0
    other = llava.parent / "elsewhere" / ".." / llava.name
    other.parent.parent.mkdir()
    renamed = tagged("--model", other)
    assert (renamed["made"], renamed["reread"]) == (0, 0) and list(photoset.tags("llava")) == rows
    assert tagged()["made"] == 0
    assert tagged("--redo")["made"] == 2 and list(photoset.tags("llava")) == rows
    photoset.tags("llava").remove(0)
    assert tagged("-O", "annotate.tags.llava.self_test=0")["made"] == 1 and list(photoset.tags("llava")) == rows
    assert tagged("-O", f"annotate.tags.prompt={prompt}", "--limit", 1)["made"] == 1


@pytest.mark.parametrize("how", [["--device", "cpu:2"], ["--device", "cpu", "--engine", "ray", "--workers", "2"]])
def test_two_workers_write_the_rows_of_one(
    photoset: PhotoSet, llava: Path, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ray" in how:
        if "CI" not in os.environ:
            pytest.importorskip("ray", reason="the extra ray is not installed")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["annotate", "tags", str(photoset.root), "--with", "llava", "--model", str(llava), "--redo"]
    words += ["-O", "annotate.tags.llava.batch=2", "-O", "annotate.tags.llava.max_new_tokens=12"]
    tables = []
    for chosen in (["--device", "cpu"], how):
        assert CliRunner().invoke(app, [*words, *chosen]).exit_code in {0, 3}
        tables.append((list(photoset.tags("llava")), photoset.tags("llava").metas()))
    assert len(tables[0][0]) == 6 and tables[0] == tables[1]


def test_a_job_that_is_taken_back_and_a_worker_that_is_killed_leave_the_rows_of_a_calm_run(
    llava: Path, tmp_path: Path
) -> None:
    """SIGTERM amid the work of two; the same command goes on, and loses one of them to SIGKILL."""
    words = ["--with", "llava", "--model", llava, "-O", "annotate.tags.llava.max_new_tokens=40"]
    calm, disturbed = (crops_of(tmp_path / name, *([size] for size in 2 * SIZES)) for name in ("calm", "disturbed"))
    table = disturbed.tags("llava")

    def tagged(photoset: PhotoSet, device: str) -> int:
        done = CliRunner().invoke(app, ["annotate", "tags", *map(str, [photoset.root, *words, "--device", device])])
        return done.exit_code

    assert tagged(calm, "cpu") in {0, 3}
    typed = ["annotate", "tags", disturbed.root, *words, "--device", "cpu:2"]
    code, said = take_back(typed, lambda: bool(table.parts()), signal.SIGTERM)
    assert code == 130 and said.splitlines()[-1].endswith("run the same command again to go on"), said
    done = len(table.parts())
    with once(lambda: len(table.parts()) > done, kill_a_worker):
        assert tagged(disturbed, "cpu:2") in {0, 3}
    assert len(table.parts()) == 2 * len(SIZES)
    assert list(table) == list(calm.tags("llava")) and table.metas() == calm.tags("llava").metas()


def test_several_devices_are_refused_where_no_model_is_on_any(photoset: PhotoSet) -> None:
    words = ["annotate", "tags", str(photoset.root), "--with", "openai", "--device", "cpu:2"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UsageError) and "--device cpu:2" in str(done.exception)


def test_a_batch_answers_as_every_photo_alone(photoset: PhotoSet, llava: Path) -> None:
    together = opened(llava, batch=6)
    photos = pixels(photoset, together)
    answers = together.answer(photos)
    assert answers == opened(llava, batch=1).answer(photos)
    assert len({said.text for said in answers}) > 3


def test_a_model_that_cannot_batch_is_refused(photoset: PhotoSet, llava: Path) -> None:
    padded = opened(llava, batch=6)
    padded._processor.tokenizer.padding_side = "right"
    with pytest.raises(AuthfaceError, match=r"in a batch and .* alone.*llava.batch=1") as caught:
        padded.answer(pixels(photoset, padded))
    assert len(str(caught.value).splitlines()) == 1
    lax = opened(llava, batch=6, self_test=0)
    lax._processor.tokenizer.padding_side = "right"
    assert len(lax.answer(pixels(photoset, lax))) == 6


def test_only_a_tie_may_part_a_batch_from_a_photo_alone() -> None:
    import torch

    logits = [torch.tensor([0.0, 20.0, 19.99, 1.0])] * 2
    alone = Generated("alone", False, (1, 9), logits)
    assert difference(Generated("", False, (1, 9, 9)), alone, {9}, 1e-7) == ""
    assert difference(Generated("", False, (2, 9)), alone, {9}, 2**-7) == ""
    assert difference(Generated("", False, (2, 9)), alone, {9}, 1e-7) == "alone"
    assert difference(Generated("", False, (3, 9)), alone, {9}, 2**-7) == "alone"
    assert difference(Generated("", False, (9,)), Generated("", False, (1, 9), logits[:0]), {9}, 1) == "(nothing)"


def test_the_batch_is_halved_until_it_fits(photoset: PhotoSet, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    tight = opened(llava, batch=6, self_test=0)
    photos = pixels(photoset, tight)
    whole, sizes = tight._model.generate, []

    def generate(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(**inputs)

    monkeypatch.setattr(tight._model, "generate", generate)
    assert tight.answer(photos) == opened(llava, batch=1).answer(photos)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1] and tight.batch_size == 1

    def never(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tight._model, "generate", never)
    with pytest.raises(AuthfaceError, match="four_bit"):
        tight.answer(photos)


def test_a_penalty_repeats_less(photoset: PhotoSet, llava: Path) -> None:
    model = opened(llava, batch=1)
    photos = pixels(photoset, model)

    def repeated(penalty: bool) -> int:
        names = [said.text.split(", ") for said in model.answer(photos, penalty=penalty)]
        return sum(len(found) - len(set(found)) for found in names)

    assert repeated(penalty=True) < repeated(penalty=False)


def test_crops_that_cannot_be_read_are_failed_rows(photoset: PhotoSet, llava: Path) -> None:
    crop: Crop = next(iter(photoset.crops))
    photoset.save(crop.file, b"no picture")
    words = ["annotate", "tags", photoset.root, "--with", "llava", "--model", llava, "--device", "cpu"]
    done = CliRunner().invoke(app, list(map(str, [*words, "-O", "annotate.tags.llava.max_new_tokens=4"])))
    assert done.exit_code == 3 and "tags.html says why" in done.stderr
    row = next(iter(photoset.tags("llava")))
    assert (row.status, row.reason) == ("failed", "not_an_image")


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("llava-hf/llava-v1.6-mistral-7b-hf", 1, "--model FOLDER"),
        ("llava", 2, "owner/repository"),
        (".", 2, "safetensors"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    model: str, code: int, words: str, photoset: PhotoSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = authface("annotate", "tags", photoset.root, "--with", "llava", "--model", model)
    assert done.returncode == code and done.stderr.count("\n") == 1, done.stderr
    assert model in done.stderr and words in done.stderr
    assert not photoset.tags("llava").parts()


def test_a_broken_model_and_a_missing_extra_are_one_line(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"none")
    (tmp_path / "config.json").write_text('{"model_type": "llava_next"}')
    with pytest.raises(AuthfaceError, match="cannot load") as caught:
        opened(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    asked = TagsSettings(llava=LlavaSettings(model=str(llava), four_bit=True))
    with pytest.raises(UsageError, match=r"authface\[4bit\]"):  # before any of its weights are fetched
        Llava.make(CaptionerRequest(asked, PhotoSet(tmp_path), "cpu"))


def test_four_bits_answer_and_batch(photoset: PhotoSet, llava: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra authface[4bit]")
    small = opened(llava, batch=6, four_bit=True)
    photos = pixels(photoset, small)
    assert "Linear4bit" in {type(layer).__name__ for layer in small._model.modules()}
    assert small.answer(photos) != opened(llava, batch=6).answer(photos)


def test_a_folder_is_known_by_its_weights_and_texts(llava: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(llava, tmp_path / "copy"))
    before = find_model(LlavaSettings(model=str(llava))).version
    assert find_model(LlavaSettings(model=str(copy))).version == before
    (copy / "chat_template.jinja").write_text("{{ 'other' }}")
    assert find_model(LlavaSettings(model=str(copy))).version != before
