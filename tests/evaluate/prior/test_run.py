"""Samples of a prior: what decides a file, going on, what is asked of whom; FID, preference, obedience; table 3."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from skimage import data

from authface.console import Console
from authface.devices import Devices
from authface.errors import AuthfaceError, UsageError
from authface.evaluate.catalogue import FILES
from authface.evaluate.measure import Workers
from authface.evaluate.prior import run as prior
from authface.evaluate.prior.run import first_tag, sheet, steering_of
from authface.evaluate.prior.samples import Sampler, SampleRequest, sample_requests
from authface.evaluate.settings import PriorEvaluationSettings
from authface.imaging import decode as images

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dataset(tmp_path: Path, faces: Path) -> Path:
    """Six captioned faces, as the columns of `annotate export` that are read."""
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    rows = [
        {
            "id": path.stem,
            "image": {"bytes": path.read_bytes(), "path": None},
            "prompt": f"a face, number {number}, low key",
            "prompt_semantic": f"a face, number {number}",
        }
        for number, path in enumerate(sorted(faces.iterdir()))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "test-00000-of-00001.parquet")
    return folder


def few(dataset: Path, family: Path, **own: object) -> PriorEvaluationSettings:
    return PriorEvaluationSettings.model_validate(
        {"model": str(family), "dataset": dataset, "steps": 2, "steer_samples": 2, "opposites": (), **own}
    )


def test_what_is_asked(dataset: Path, family: Path) -> None:
    def prompts(**own: object) -> list[tuple[str, str]]:
        return [(one.prompt, one.judged_by) for one in sample_requests(few(dataset, family, **own), 0, limit=2)]

    semantic = ["a face, number 0", "a face, number 1"]
    assert prompts() == [(f"{text}, low key", text) for text in semantic]
    assert prompts(prompts="semantic") == list(zip(semantic, semantic, strict=True))
    assert prompts(prompts="none") == [("", text) for text in semantic], "judged by one text: priors can be compared"
    twice = sample_requests(few(dataset, family, per_prompt=2), 0)
    assert len(twice) == 12 and len({one.seed for one in twice}) == 12
    assert [one.seed for one in sample_requests(few(dataset, family), 0)] != [
        one.seed for one in sample_requests(few(dataset, family), 1)
    ]
    with pytest.raises(UsageError, match=r"no split train: there are test; -O evaluate\.prior\.split=NAME"):
        sample_requests(few(dataset, family, split="train"), 0)
    path = next((dataset / "data").iterdir())
    pq.write_table(pq.read_table(path).drop_columns("prompt_semantic"), path)
    with pytest.raises(UsageError, match="has no column prompt_semantic: it has id, image, prompt"):
        sample_requests(few(dataset, family), 0)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++"])
def test_neither_batch_nor_order_nor_a_stop_changes_a_sample(
    scheduler: str, dataset: Path, family: Path, tmp_path: Path
) -> None:
    settings = few(dataset, family, scheduler=scheduler, steps=3, batch=4)
    asked = sample_requests(settings, 7)

    def drawn(folder: str, batch: int, *parts: Sequence[SampleRequest]) -> dict[str, NDArray[np.uint8]]:
        sampler = Sampler(settings.model_copy(update={"batch": batch}), "cpu", tmp_path / folder)
        assert sum(sampler.draw(part, "samples", Console()) for part in parts) == 6
        assert sampler.draw(asked, "samples", Console()) == 0
        return {sampler.file(one).name: images.read(sampler.file(one)).rgb for one in asked}

    whole = drawn("whole", 4, asked)
    other = drawn("parts", 1, asked[3:], asked)
    assert whole.keys() == other.keys() and len(whole) == 6
    for name in whole:
        assert np.abs(whole[name].astype(int) - other[name]).max() <= 1, "the same to a rounding"
    first, second = list(whole.values())[:2]
    assert first.shape == (64, 64, 3) and np.abs(first.astype(int) - second).max() > 20


def test_two_processes_draw_what_one_draws(dataset: Path, family: Path, tmp_path: Path) -> None:
    """To a rounding: each has its share of the cores, and how many threads add up a convolution moves its last bit."""
    settings = few(dataset, family, batch=2)
    asked = sample_requests(settings, 7)

    def drawn(folder: str, workers: Workers) -> dict[str, NDArray[np.int64]]:
        sampler = Sampler(settings, "cpu", tmp_path / folder, workers)
        assert sampler.draw(asked, "samples", Console()) == 6
        assert sampler.draw(asked, "samples", Console()) == 0
        return {path.name: images.read(path).rgb.astype(int) for path in (tmp_path / folder / "samples").iterdir()}

    two, one = drawn("two", Workers(devices=Devices("cpu", (0, 1)))), drawn("one", Workers())
    assert two.keys() == one.keys() and len(one) == 6
    assert max(np.abs(two[name] - one[name]).max() for name in one) <= 1
    assert not multiprocessing.active_children()


def test_all_that_makes_a_sample_is_in_its_name(dataset: Path, family: Path, tmp_path: Path) -> None:
    one = SampleRequest("a face", 3)

    def name(asked: SampleRequest = one, **own: object) -> str:
        return Sampler(few(dataset, family, **own), "cpu", tmp_path).file(asked).name

    others = [
        name(steps=3), name(guidance=1), name(scheduler="dpm++"), name(size=128), name(SampleRequest("a face", 4)),
        name(SampleRequest("two", 3)),
    ]  # fmt: skip
    assert len({name(), *others}) == 7
    assert name() == name(batch=1, per_prompt=3, resamples=100) == name(SampleRequest("a face", 3, "judged otherwise"))


def test_the_stock_pipeline_draws_the_same(dataset: Path, family: Path, tmp_path: Path) -> None:
    """With its own text encoders and decoder, in one call of prompts in words."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    sampler = Sampler(few(dataset, family), "cpu", tmp_path)
    asked = SampleRequest("a smiling face", 11)
    sampler.draw([asked], "samples", Console())
    stock = StableDiffusionXLPipeline.from_pretrained(family, add_watermarker=False)
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config, clip_sample=False, timestep_spacing="trailing")
    stock.set_progress_bar_config(disable=True)
    made = stock(
        asked.prompt, negative_prompt="", height=64, width=64, num_inference_steps=2, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(11), output_type="np",
    ).images[0]  # fmt: skip
    ours = images.read(sampler.file(asked)).rgb
    assert np.abs(np.rint(made * 255) - ours).max() <= 1


def test_the_command_its_files_and_again(
    hub: Path, authface: Command, dataset: Path, family: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["prior", "--model", family, "--dataset", dataset, "-o", out, "--device", "cpu", "--json"]
    for value in ("steps=1", "steer_samples=2", 'opposites=[["low key", "high key"]]', "resamples=100"):
        words += ["-O", f"evaluate.prior.{value}"]
    assert authface(*words, "--dry-run")[0] == 0 and not out.exists()
    code, text, log = authface(*words)
    found = json.loads(text)
    assert code == 0 and found["drawn"] == 6 + 2 * 2, log
    assert set(found["values"]) == {"fid_basicsr", "fid_clean", "faces", "steering"}
    assert found["values"]["fid_basicsr"]["value"] > 0 and found["values"]["faces"]["value"] == 0
    assert (
        "HPS_v2_compressed.pt" in found["unmeasured"]["hpsv2"] and "FFHQ_512" in found["unmeasured"]["fid_ffhq_basicsr"]
    )
    assert {path.name for path in out.iterdir()} >= {
        "prior.json",
        "prior.html",
        "prior.csv",
        "samples.csv",
        "sheet.png",
    }
    assert images.read(out / "sheet.png").rgb.shape == (64, 8 * 64, 3)
    with (out / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows][:2] == ["a face, number 0, low key", "a face, number 1, low key"]
    assert all((out / row["file"]).is_file() for row in rows)
    again = json.loads(authface(*words)[1])
    assert again.pop("drawn") == 0 and again == {k: v for k, v in found.items() if k != "drawn"}
    (out / rows[0]["file"]).write_bytes(b"cut")
    code, _, log = authface(*words)
    assert code == 1 and "is damaged" in log and "delete it, it is drawn again" in log
    (out / rows[0]["file"]).unlink()
    assert json.loads(authface(*words)[1])["drawn"] == 1
    code, text, _ = authface("table", 3, "--ours", f"SDXL={out}", "-o", tmp_path / "table")
    (line,) = [line for line in text.splitlines() if line.startswith("SDXL") and " ours " in line]
    assert f"{found['values']['fid_basicsr']['value']:,.2f} of 6" in line and code == 0


def test_fid_to_the_samples_themselves_is_none(hub: Path, dataset: Path, family: Path, tmp_path: Path) -> None:
    settings = few(dataset, family)
    report = prior.evaluate_prior(settings, tmp_path / "one", "cpu", 0, 3, Console())
    to_itself = settings.model_copy(update={"reference": tmp_path / "one" / "samples"})
    again = prior.evaluate_prior(to_itself, tmp_path / "one", "cpu", 0, 3, Console())
    assert again.drawn == 0 and report.values["fid_clean"].value > 1
    assert (report.protocol["samples"], report.protocol["real_faces"]) == (3, 6), "of the prompts alone there are fewer"
    assert again.values["fid_clean"].value == pytest.approx(0, abs=1e-4)


def test_asked_tags_are_counted_where_they_and_where_their_opposites_were_asked_for(
    dataset: Path, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The astronaut smiles with an open mouth; noise shows no face."""
    portrait = np.ascontiguousarray(data.astronaut()[20:276, 90:346])

    def draw(self: Sampler, asked: Sequence[SampleRequest], title: str, console: Console) -> int:
        for number, one in enumerate(asked):
            random = np.random.default_rng(number).integers(0, 256, portrait.shape, np.uint8)
            rgb = portrait if "smiling" in one.prompt else random
            self.file(one).parent.mkdir(parents=True, exist_ok=True)
            self.file(one).write_bytes(images.encode_png(rgb))
        return len(asked)

    monkeypatch.setattr(Sampler, "draw", draw)
    settings = few(dataset, family, opposites=(("smiling, mouth open", "mouth closed"),), steer_samples=3)
    report = prior.evaluate_prior(settings, tmp_path, "cpu", 0, 2, Console())
    smile, shut = report.steering
    assert (smile.tag, smile.where_asked.found, smile.where_not.found, smile.difference) == ("smiling", 3, 0, 1)
    assert (shut.tag, shut.where_asked.found, shut.where_not.found, shut.difference) == ("mouth closed", 0, 0, 0)
    assert report.values["faces"].value == 0 and report.values["steering"].value == 0.5
    assert [path.name for path in report.opposites["mouth closed"]] != [
        path.name for path in report.opposites["smiling, mouth open"]
    ]


def test_newcombes_interval() -> None:
    """56 of 70 against 48 of 80: his example (a), 0.2 with 0.0524 to 0.3339."""
    found = steering_of("a, b", "c", [True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    assert (found.tag, found.difference) == ("a", pytest.approx(0.2))
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
    assert first_tag(" mouth closed ") == "mouth closed"


def test_preference_is_open_clips_cosine(
    empty_hub: Path, dataset: Path, family: Path, portrait: NDArray[np.uint8], tmp_path: Path
) -> None:
    """A small network of the same kind with random weights, saved as the release saves its own."""
    import open_clip
    import torch
    from PIL import Image

    from authface.evaluate.prior.samples import HPSv2

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    torch.manual_seed(3)
    network, _, preprocess = open_clip.create_model_and_transforms("small")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "hps.pt")
    ours = HPSv2(tmp_path / "hps.pt", torch.device("cpu"), "small")(portrait, "a smiling face")
    seen = preprocess(Image.fromarray(portrait))[None]
    with torch.no_grad():
        image, text, _ = network.eval()(seen, open_clip.get_tokenizer("small")(["a smiling face"]))
    assert ours == pytest.approx(float((image * text).sum()), abs=2e-3), "theirs rounds the small image to 8 bits"
    other = HPSv2(tmp_path / "hps.pt", torch.device("cpu"), "small")(portrait, "a dog")
    assert ours != other
    with pytest.raises(AuthfaceError, match=r"^hpsv2 is not measured: its weights cannot be loaded"):
        (tmp_path / "hps.pt").write_bytes(b"cut")
        HPSv2(tmp_path / "hps.pt", torch.device("cpu"), "small")
    assert FILES["hpsv2 v2.0"] == ("hpsv2/HPS_v2_compressed.pt",)


def test_a_sheet_leaves_empty_places_white(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(images.encode_png(portrait))
    made = sheet(paths, 2)
    assert made.shape == (256, 256, 3)
    assert (made[:128, 128:] == portrait).all() and (made[128:, 128:] == 255).all()


def test_what_cannot_be_drawn_is_said(authface: Command, dataset: Path, family: Path, tmp_path: Path) -> None:
    words = ["prior", "--model", family, "--dataset", dataset, "-o", tmp_path / "out", "--device", "cpu"]
    cases = [
        (("--model", tmp_path / "nowhere"), "no model"),
        (("--dataset", tmp_path / "nowhere"), "has no split test: there are none"),
        (("--prompts", "poems"), "--prompts poems: "),
        (("-O", "evaluate.prior.size=72"), "this model takes multiples of 16 px"),
        (("--reference", tmp_path / "nowhere"), "no folder"),
        (("--seed", "-1"), "seeds are 0 and more"),
    ]
    for given, said in cases:
        code, _, log = authface(*words, *given)
        assert code == 2 and said in log and log.count("\n") == 1, (given, log)
