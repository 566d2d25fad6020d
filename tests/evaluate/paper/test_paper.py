"""The paper's tables beside ours: what is known, what is missing, what differs, which report goes where; the grid."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from authface import cli
from authface.console import Console
from authface.errors import AuthfaceError, UsageError
from authface.evaluate.paper import grid
from authface.evaluate.paper.paper import Column, fill, paper_table, parse_reports
from authface.imaging import decode as images
from tests.evaluate.conftest import save as save_image

Command = Callable[..., tuple[int, str, str]]
ROI = {"left_eye": [47.0, 60.0, 9.0], "right_eye": [80.0, 60.0, 9.0], "mouth": [64.0, 92.0, 12.0]}
"""Middle and half side of the regions of the facial loss, pixels of 128."""


def save(folder: Path, kind: str, report: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(report))
    return folder


def mean(value: float) -> dict[str, Any]:
    return {"mean": value, "low": value - 1, "high": value + 1, "count": 4, "deviation": 1}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A report of two methods on one set."""
    means = {"mild": {"psnr": mean(30), "musiq": mean(70)}, "heavy": {"psnr": mean(20)}}
    sets = {"mild": {"fid_ffhq_basicsr": {"value": 52.5, "count": 4}}, "heavy": {}}
    protocol = {
        "faces": 4,
        "truth": {"folder": "clean", "set_sha256": "ab" * 32},
        "methods": {"mild": {"folder": "m", "failed": 0, "set_sha256": "cd" * 32}},
        "weights": {"dlib-68": "ef" * 32},
        "versions": {"authface": "0.1.0"},
    }
    return save(tmp_path / "measured", "restoration", {"means": means, "sets": sets, "protocol": protocol})


def test_the_paper_is_there_as_it_prints() -> None:
    tables = [paper_table(number) for number in range(1, 7)]
    assert [table.reads for table in tables] == ["restoration", "restoration", "prior", "restoration", "ab", "runtime"]
    (celeba,) = [row for row in tables[0].rows if (row.set, row.label) == ("CelebA-Test", "AuthFace")]
    assert {name: value.value for name, value in celeba.values.items()} == {
        "PSNR": 25.57,
        "SSIM": 0.6768,
        "LPIPS": 0.2143,
        "MANIQA": 0.6624,
        "MUSIQ": 75.76,
        "CLIPIQA": 0.7065,
        "FID": 50.93,
    }
    webphoto = [row.values["MUSIQ"].value for row in tables[1].rows if row.set == "WebPhoto-Test"]
    assert webphoto == [67.01, 72.35, 68.52, 74.11]
    assert all(row.set for number in (0, 1, 3) for row in tables[number].rows), "nothing is compared across sets"
    assert max(row.values["seconds"].value for row in tables[5].rows) == 10.36
    for number in grid.CELLS:
        assert {cell.label for cell in grid.CELLS[number]} == {row.label for row in paper_table(number).rows}
    assert [cell.label for cell in grid.PRIORS] == [row.label for row in paper_table(3).rows]


def test_ours_stand_below_the_set_and_differ_from_the_papers_own(measured: Path) -> None:
    table = paper_table(1)
    filled = fill(table, parse_reports([f"AuthFace@WebPhoto-Test={measured}", f"mine={measured}"]))
    labels = [(row.set, row.label, row.origin) for row in filled.rows]
    webphoto = labels.index(("WebPhoto-Test", "AuthFace", "paper"))
    assert labels[webphoto + 1 : webphoto + 3] == [
        ("WebPhoto-Test", "AuthFace: mild", "ours"),
        ("WebPhoto-Test", "AuthFace: heavy", "ours"),
    ]
    assert labels[-2:] == [("", "mine: mild", "ours"), ("", "mine: heavy", "ours")]
    row, musiq, fid = filled.rows[webphoto + 1], Column("MUSIQ", "musiq", 2), Column("FID", "fid_ffhq_basicsr", 2)
    assert filled.difference(row, musiq) == pytest.approx(70 - 74.11)
    assert filled.difference(row, fid) == pytest.approx(52.5 - 90.04)
    assert row.values["PSNR"].count == 4 and filled.difference(row, Column("PSNR", "psnr", 2)) is None
    assert filled.difference(filled.rows[-2], musiq) is None, "a set of one's own is beside nothing"
    assert filled.difference(filled.rows[webphoto], musiq) is None


def test_the_files_hold_missing_cells_and_the_protocol(authface: Command, measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, _ = authface("table", 1, "--ours", f"mine@CelebA-Test={measured}", "-o", out)
    assert code == 0 and "30.00 [29.00, 31.00] of 4 (+4.43)" in text and " - " in text
    assert "mine@CelebA-Test: faces 4, truth abababababab, mild cdcdcdcdcdcd, dlib-68 efefefef, authface 0.1.0" in text
    told = json.loads((out / "table1.json").read_text())
    rows = {(row["set"], row["label"]): row for row in told["rows"]}
    assert rows["LFW-Test", "SUPIR"]["values"]["PSNR"] is None, "the paper prints none: no truth is known"
    assert rows["CelebA-Test", "mine: mild"]["differences"]["PSNR"] == pytest.approx(4.43)
    assert told["protocols"]["mine@CelebA-Test"]["weights"] == {"dlib-68": "ef" * 32}
    with (out / "table1.csv").open(newline="") as file:
        cells = {(row["set"], row["label"], row["column"]): row for row in csv.DictReader(file)}
    assert (
        cells["LFW-Test", "SUPIR", "PSNR"]["value"] == "" and cells["CelebA-Test", "SUPIR", "FID"]["value"] == "35.01"
    )
    assert float(cells["CelebA-Test", "mine: mild", "PSNR"]["high"]) == 31
    page = (out / "table1.html").read_text()
    assert "<h1>Table 1: " in page and text.startswith("Table 1. ")
    assert "efefefefef" in page and "30.00 [29.00, 31.00] of 4 (+4.43)" in page and "https://" not in page
    assert json.loads(authface("table", 4, "-o", out, "--json")[1])["rows"][4]["values"]["PSNR"] is None


def test_other_reports(tmp_path: Path) -> None:
    share = {"count": 3, "share": 0.75, "wilson": [0.3, 0.95], "interval": None}
    row = {"other": "theirs", "answers": 4, "shares": {"other": share | {"share": 0.25}, "ours": share}}
    study = save(tmp_path / "study", "ab", {"table": [row], "protocol": {}})
    (ours,) = [row for row in fill(paper_table(5), parse_reports([f"mine={study}"])).rows if row.origin == "ours"]
    assert (ours.values["others"].value, ours.values["ours"].high, "same" in ours.values) == (25, 95, False)
    face = {"median": 5.0, "low": 4.5, "high": 5.5}
    timed = save(tmp_path / "timed", "runtime", {"face": face, "memory": None, "runs": 5, "protocol": {}})
    filled = fill(paper_table(6), parse_reports([f"supir={timed}", f"mine={timed}"]))
    assert [row.label for row in filled.rows][-4:] == ["SUPIR", "supir", "AuthFace", "mine"]
    seconds = paper_table(6).columns[0]
    ours = [row for row in filled.rows if row.label in ("supir", "mine")]
    assert [filled.difference(row, seconds) for row in ours] == pytest.approx([5 - 10.36, 5 - 5.25])


def test_what_is_no_report_is_said(authface: Command, measured: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "restoration.json").write_text('{"means": 3}')
    (tmp_path / "wrong" / "ab.json").write_text("{")
    for words, said in (
        ((1, "--ours", measured), "NAME=REPORT_DIR"),
        ((1, "--ours", f"a={measured}", "--ours", f"a={measured}"), "two are called"),
        ((1, "--ours", f"a={tmp_path}"), "holds no restoration.json: authface evaluate restoration"),
        ((1, "--ours", f"a={tmp_path}/wrong"), "lacks"),
        ((5, "--ours", f"a={tmp_path}/wrong"), "cannot be read"),
        ((1, "--grid", "--dataset", tmp_path), "is no grid of trainings"),
        ((2, "--grid"), "--dataset photoset/dataset"),
        ((2, "--grid", "--dataset", tmp_path, "--test", tmp_path), "no clean/ and degraded/"),
    ):
        code, _, log = authface("table", *words, "-o", tmp_path / "out")
        assert code == 2 and said in log and log.count("\n") == 1, log


def test_the_grid_is_commands_that_anyone_could_type(authface: Command, tmp_path: Path) -> None:
    words = (
        "table",
        2,
        "--grid",
        "--dataset",
        "faces",
        "-O",
        "train.prior.model=models/base",
        "-O",
        "train.prior.steps=2",
        "-o",
        tmp_path,
    )
    code, text, _ = authface(*words)
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    assert (
        code == 0 and len(commands) == 1 + 1 + 4 * 3 + 1 and commands[0].startswith("authface evaluate synth faces -o")
    )
    assert "-O train.prior.steps=2 -O train.prior.model=models/base" in commands[1]
    trained = [command for command in commands if "train controlnet" in command]
    assert "train.controlnet.model=models/base" in trained[0] and "facial.weight=off" in trained[0]
    assert all(f"train.controlnet.model={tmp_path}/grid/prior" in command for command in trained[1:])
    assert "facial.weight=constant" in trained[2] and "facial.weight=time" in trained[3]
    assert not list(tmp_path.iterdir()), "it is only said"
    other = json.loads(authface(*("table", 4), *words[2:], "--json")[1])["steps"]
    names = [step["step"] for step in other]
    assert "time train" in names and "time_m0.5_s1.0 train" in names
    assert [step["command"] for step in other if step["step"] == "time train"] == [trained[3]], "one training for both"
    third = {
        step["step"]: step["command"] for step in json.loads(authface(*("table", 3), *words[2:], "--json")[1])["steps"]
    }
    assert third["prior"] == commands[1] and "train.prior.prompts=semantic" in third["prior_semantic"]
    assert "--model models/base" in third["base judge"] and "--prompts semantic" in third["prior_semantic judge"]
    assert all("train.prior.steps" not in command for step, command in third.items() if "judge" in step)


def test_each_command_is_told_its_own_settings(tmp_path: Path) -> None:
    def told(*overrides: str) -> dict[str, str]:
        steps = grid.plan(2, grid.GridSetup(tmp_path, Path("faces"), None, "models/base", ("--seed", "0"), overrides))
        return grid.fingerprints(steps)

    plain = told()
    changed = {name for name, digest in told("restore.steps=4").items() if digest != plain[name]}
    assert changed == {f"{cell.name} {what}" for cell in grid.CELLS[2] for what in ("restore", "measure")} | {
        "compare 2"
    }
    assert "test" not in {n for n, d in told("train.controlnet.lr=1").items() if d != plain[n]} and len(plain) == 15
    whole = {name for name, digest in told("train={}").items() if digest != plain[name]}
    assert "prior" in whole and "time train" in whole, "a table above a setting holds it"


def test_a_step_is_done_again_when_what_it_builds_on_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(grid, "_run_one", lambda step, folder: ran.append(step.name))

    def ground(*common: str) -> grid.GridSetup:
        return grid.GridSetup(tmp_path, Path("faces"), None, "models/base", common)

    first = grid.plan(2, ground())
    assert grid.run(first, tmp_path, Console()).ran == 15 and grid.run(first, tmp_path, Console()).ran == 0
    ran.clear()
    steps = [
        grid.GridStep(step.name, (*step.words, "--changed"), step.needs) if step.name == "constant train" else step
        for step in first
    ]
    assert grid.run(steps, tmp_path, Console()).ran == 4 and ran == [
        "constant train",
        "constant restore",
        "constant measure",
        "compare 2",
    ]
    ran.clear()
    assert grid.run(grid.plan(4, ground()), tmp_path, Console()).ran == 10, "prior, test and the cell of both are there"


def test_two_runs_do_not_share_a_grid(tmp_path: Path) -> None:
    from authface.store.lock import write_lock

    steps = grid.plan(2, grid.GridSetup(tmp_path, Path("faces"), None, "models/base", ()))
    with write_lock(tmp_path), pytest.raises(AuthfaceError, match="is in use by another authface"):
        grid.run(steps, tmp_path, Console())


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    step = grid.GridStep("prior", ("train", "configs", "none"))
    with pytest.raises(
        AuthfaceError, match=r"grid: prior ended with 2: authface: no configuration none.*see .*prior.log"
    ):
        grid.run([step], tmp_path, Console())
    assert grid.finished([step], tmp_path) == set()


def test_a_grid_of_one_cell_from_training_to_table(
    authface: Command, faces: Path, portrait: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authface.models.families import make_tiny

    monkeypatch.setitem(grid.CELLS, 4, grid.CELLS[4][:1])
    monkeypatch.setattr(grid, "_ended", in_this_process)
    make_tiny(tmp_path / "base", seed=1, image_size=64, channels=(16, 16, 16))
    dataset = dataset_of(faces, tmp_path / "dataset")
    for side in ("clean", "degraded"):
        (tmp_path / "test" / side).mkdir(parents=True)
        (tmp_path / "test" / side / "a.png").write_bytes(images.encode_png(np.ascontiguousarray(portrait[::2, ::2])))
    values = {"size": 64, "steps": 2, "batch": 2, "tracker": "none", "validate_every": 0}
    words = [f"train.{stage}.{name}={value}" for stage in ("prior", "controlnet") for name, value in values.items()]
    words += [f"train.prior.model={tmp_path}/base", "restore.steps=1", "restore.guard=false"]
    words += ['evaluate.restoration.metrics=["psnr"]']
    own = ["--grid", "--dataset", dataset, "--test", tmp_path / "test", "-o", tmp_path / "out", "--device", "cpu"]
    own += [word for value in words for word in ("-O", value)]
    code, text, log = authface("table", 4, *own, "--run", "--json")
    assert code == 0, log
    rows = json.loads(text)["rows"]
    ours = next(row for row in rows if row["from"] == "ours" and row["label"] == "m = -0.5, s = 1")
    assert ours["set"] == "" and not any(ours["differences"].values()), "the paper measures on other faces"
    assert ours["values"]["PSNR"]["count"] == 1 and ours["values"]["PSNR"]["value"] > 1
    held = json.loads((tmp_path / "out/grid/time/report/restoration.json").read_text())
    assert held["means"]["time"]["psnr"]["mean"] == ours["values"]["PSNR"]["value"]
    monkeypatch.setattr(grid, "_ended", None)
    code, _, log = authface("table", 4, *own, "--run")
    assert code == 0 and "0 of 5 steps ran, 5 were finished" in log


def in_this_process(words: Sequence[str], log: IO[bytes]) -> int:
    """A command of the grid without what a process of its own costs: each imports torch anew."""
    before, sys.argv = sys.argv, ["authface", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def dataset_of(faces: Path, folder: Path) -> Path:
    """Four captioned faces as `annotate export` writes them, regions where the eyes and the mouth may be."""
    import datasets

    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "prompt": datasets.Value("string"),
            "roi": {name: datasets.List(datasets.Value("float32"), length=3) for name in ROI},
            "size": datasets.Value("int32"),
        }
    )
    rows = [
        {"id": path.stem, "image": {"bytes": path.read_bytes(), "path": None}, "prompt": "a face", "roi": ROI,
         "size": 128}
        for path in sorted(faces.iterdir())[:4]
    ]  # fmt: skip
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def test_newer_methods_stand_apart_and_are_compared_with_nothing(
    authface: Command, measured: Path, tmp_path: Path
) -> None:
    table = paper_table(1)
    assert all(row.source.count("arXiv") == 1 and row.values for row in table.newer)
    assert {row.set for row in table.newer} <= {row.set for row in table.rows}
    assert not any(paper_table(number).newer for number in range(2, 7))
    code, text, _ = authface("table", 1, "--ours", f"PMRF@CelebA-Test={measured}", "-o", tmp_path)
    below = text.partition(table.newer_heading)[2]
    assert code == 0 and "versions of metrics" in table.newer_heading and "2410.00418" in below and "37.46" in below
    told = json.loads((tmp_path / "table1.json").read_text())
    (mine,) = [row for row in told["rows"] if row["label"] == "PMRF: mild"]
    assert mine["differences"]["FID"] == pytest.approx(52.5 - 50.93), "beside AuthFace's own, not PMRF's 37.46"
    assert {row["label"] for row in told["newer"]} == {"PMRF", "OSDFace", "DiffBIR v2"}
    assert "2411.17163" in (tmp_path / "table1.html").read_text()
    with (tmp_path / "table1.csv").open(newline="") as file:
        others = [row for row in csv.DictReader(file) if row["from"] == "others" and row["value"]]
    assert len(others) == 8 and all(row["difference"] == "" and row["source"] for row in others)


@pytest.fixture
def sets(tmp_path: Path, faces: Path) -> tuple[Path, Path]:
    """A test set with its truth, and one without."""
    whole, real = tmp_path / "whole", tmp_path / "real"
    for path in sorted(faces.iterdir())[:2]:
        for folder in (whole / "hq", whole / "lq", real):
            save_image(folder / path.name, images.read(path).rgb)
    return whole, real


def test_restorers_make_their_own_rows(
    authface: Command, sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command: what restores is measured on each set, what cannot is a line; twice is nothing."""
    monkeypatch.setattr(grid, "_ended", in_this_process)
    own = ["--device", "cpu", "--workers", 1, "-o", tmp_path / "out", "-O", "restore.guard=false"]
    own += ["-O", "restore.size=128", "-O", 'evaluate.restoration.metrics=["piqe"]']
    both = [*own, "--test", f"CelebA-Test={sets[0]}", "--test", f"mine={sets[1]}"]
    code, text, log = authface("table", 1, "--restorers", "identity,missing", *both, "--grid")
    commands = [line for line in text.splitlines() if line.startswith("authface")]
    assert code == 0 and len(commands) == 8 and not (tmp_path / "out").exists()
    assert "--truth" in commands[1] and f"--inputs {sets[0]}/lq" in commands[1] and "--truth" not in commands[3]
    code, text, log = authface("table", 1, "--restorers", "identity,missing", *both, "--json")
    assert code == 3 and "4 of 8 steps ran, 0 were finished, 4 failed" in log, log
    ours = [row for row in json.loads(text)["rows"] if row["from"] == "ours"]
    assert [(row["set"], row["label"]) for row in ours] == [("CelebA-Test", "identity"), ("mine", "identity")]

    def one(metric: str) -> tuple[dict[str, Any], str]:
        words = [*own[:-1], f'evaluate.restoration.metrics=["{metric}"]', "--test", f"CelebA-Test={sets[0]}"]
        code, text, log = authface("table", 1, "--restorers", "identity", *words, "--json")
        assert code == 0, log
        return next(row for row in json.loads(text)["rows"] if row["from"] == "ours"), log

    row, log = one("psnr")
    assert "1 of 2 steps ran, 1 were finished" in log, "other figures of the same outputs"
    assert row["values"]["PSNR"]["value"] > 60 and row["values"]["PSNR"]["count"] == 2, "hq and lq are alike"
    assert row["differences"]["PSNR"] == pytest.approx(row["values"]["PSNR"]["value"] - 25.57)
    assert "0 of 2 steps ran, 2 were finished" in one("psnr")[1]
    save_image(sets[0] / "lq" / "face1.png", np.full((128, 128, 3), 90, np.uint8))
    row, log = one("psnr")
    assert "2 of 2 steps ran" in log and row["values"]["PSNR"]["value"] < 60, "another face is restored anew"


def test_rows_that_cannot_be_asked_for(authface: Command, sets: tuple[Path, Path], tmp_path: Path) -> None:
    for words, said in (
        ((2, "--restorers", "identity", "--test", sets[0]), "rows of table 1"),
        ((1, "--restorers", "identity"), "--test WIDER-Test=DIR"),
        ((1, "--restorers", "identity", "--test", tmp_path), "no faces there"),
        ((1, "--restorers", "identity", "--test", sets[0], "--test", sets[1]), "two sets have one name"),
    ):
        code, _, log = authface("table", *words, "-o", tmp_path / "out")
        assert code == 2 and said in log and log.count("\n") == 1, log


def test_names_of_reports() -> None:
    (one, two) = parse_reports(["a@LFW-Test=x=y", "b=c"])
    assert (one.name, one.set, str(one.folder), two.set) == ("a", "LFW-Test", "x=y", "")
    with pytest.raises(UsageError):
        parse_reports(["=c"])
