"""The card and the curve of a trained family."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import skimage.data
from huggingface_hub import ModelCard

from authface.imaging.decode import encode_png, read
from authface.models.publish import front_matter
from authface.train.data import FaceDataset
from authface.train.publish import HEIGHT, WIDTH, draw_curve, write_card
from authface.train.settings import ControlNetSettings, PriorSettings

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "controlnet")


@pytest.fixture
def faces(tmp_path: Path) -> FaceDataset:
    """Three faces of two licences and one that names none."""
    image = encode_png(np.ascontiguousarray(skimage.data.astronaut()[:64, 100:164]))
    rows = [
        {"id": f"face-{i}", "image": {"bytes": image, "path": None}, "licence": licence, "source": "a | <b>"}
        for i, licence in enumerate(["CC0-1.0", "CC BY 4.0", ""])
    ]
    kinds = {name: datasets.Value("string") for name in ("id", "licence", "source")}
    table = datasets.Dataset.from_list(rows, features=datasets.Features({"image": datasets.Image(), **kinds}))
    folder = tmp_path / "portraits" / "dataset"
    (folder / "data").mkdir(parents=True)
    table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    table.select([0]).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return FaceDataset(folder, 64)


def family_folder(out: Path, lines: list[dict[str, Any]], parts: tuple[str, ...] = PARTS) -> Path:
    """A folder that looks like a trained family."""
    for part in parts:
        (out / part).mkdir(parents=True)
        (out / part / "config.json").write_text("{}")
    (out / "training").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "training" / "metrics.jsonl").write_text(text + '{"step": 9')
    source = {"dataset": "/home/anna/portraits/dataset", "key": "abcdef0123456789", "rows": 3}
    (out / "training" / "sources.json").write_text(json.dumps([source]))
    return out


def card_of(faces: FaceDataset, tmp_path: Path, name: str, model: str, **more: Any) -> tuple[str, Path]:
    """The text of the card of a run."""
    settings = ControlNetSettings(model=model, out=tmp_path / name, dataset=faces.folder, **more)
    lines = [{"step": i + 1, "loss": 1.0 - 0.1 * i, "lr": 1e-4, "facial": 2.0} for i in range(4)]
    out = family_folder(settings.out, [*lines, {"step": 5, "loss": None, "lr": 0.0, "facial": 4.0}])
    write_card(out, settings, "controlnet", 7, faces)
    return (out / "README.md").read_text("utf-8"), out


def test_a_card_says_what_when_from_whom(faces: FaceDataset, tmp_path: Path) -> None:
    """Metadata that the hub's own reader takes; counts, licences, settings; no path of this machine."""
    text, out = card_of(faces, tmp_path, "faces-v1", "sdxl", degradation="mild")
    told = ModelCard(text).data.to_dict()
    assert told["license"] == "openrail++" and told["base_model"] == "stabilityai/stable-diffusion-xl-base-1.0"
    assert told["library_name"] == "diffusers" and told["pipeline_tag"] == "image-to-image"
    assert "| CC0-1.0 | 1 |" in text and "| unknown | 1 |" in text and "CreativeML Open RAIL++-M" in text
    assert "| a \\| \\<b\\> | 3 |" in text
    assert "3 aligned faces" in text and "| train: trained on | 3 |" in text and "| test | 1 |" in text
    assert "| portraits/dataset | 3 | abcdef012345 |" in text
    assert "| loss | 0.85 | 0.85 |" in text and "| facial | 2.4 | 2.4 |" in text and "5 steps" in text
    assert "| `degradation` | mild |" in text and "| `facial.weight` | time |" in text and "| seed | 7 |" in text
    assert str(tmp_path) not in text and "/home" not in text and "- torch " in text
    picture = read(out / "training-curve.png").rgb
    assert picture.shape == (HEIGHT, WIDTH, 3) and "](training-curve.png)" in text
    assert "| training |" not in text  # the run is no part of the family


def test_a_card_passes_on_what_its_base_says(faces: FaceDataset, tmp_path: Path) -> None:
    """A prior's card gives licence and base to the ControlNet over it; a folder without one is of unknown licence."""
    _, prior = card_of(faces, tmp_path, "prior", "sdxl")
    text, _ = card_of(faces, tmp_path, "over", str(prior))
    told = ModelCard(text).data.to_dict()
    assert told["license"] == "openrail++" and told["base_model"] == "stabilityai/stable-diffusion-xl-base-1.0"
    bare = family_folder(tmp_path / "bare", [])
    told = ModelCard(card_of(faces, tmp_path, "third", str(bare))[0]).data.to_dict()
    assert told["license"] == "other" and told["license_name"] == "unknown" and "base_model" not in told
    told = ModelCard(card_of(faces, tmp_path, "fourth", "authface")[0]).data.to_dict()
    assert told["license"] == "other" and told["license_name"].startswith("non-commercial")
    (bare / "README.md").write_text("---\n: [\n---\n")
    assert front_matter(bare / "README.md") == {}


def test_a_run_without_a_line_has_a_card(faces: FaceDataset, tmp_path: Path) -> None:
    """No metrics, no ControlNet, a model of its own."""
    out = family_folder(tmp_path / "out", [], PARTS[:-1])
    write_card(out, PriorSettings(model="tiny", out=out), "prior", 0, faces)
    text = (out / "README.md").read_text("utf-8")
    assert "pipeline_tag: text-to-image" in text and "evidence" not in text
    assert 'license: other\nlicense_name: "research-non-commercial"' in text, "that of the built-in model's weights"
    write_card(out, PriorSettings(model="new", out=out), "prior", 0, faces)
    assert "license: apache-2.0" in (out / "README.md").read_text("utf-8"), "random weights hold no photo"


def test_the_curve_falls_where_the_loss_falls() -> None:
    """Ink of the mean is higher at the left than at the right; broken values are left out; one value is enough."""
    steps = list(range(1, 201))
    picture = draw_curve(steps, [2.0 - 0.005 * s for s in steps], "loss")
    ink = np.argwhere((picture == (20, 80, 170)).all(axis=2))
    left, right = (ink[ink[:, 1] < 300][:, 0].mean(), ink[ink[:, 1] > 700][:, 0].mean())
    assert left < right - 100
    assert draw_curve([1], [float("nan")], "x").shape == draw_curve([1], [0.5], "x").shape
