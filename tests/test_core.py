"""The core alone: every command that needs no extra runs where no extra is installed, the others say what to type.

One fresh process, to whose finders all that extras bring is absent, runs the commands one after the other.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from authface.extras import EXTRAS
from authface.imaging.decode import encode_jpeg, read

ROOT = Path(__file__).parent.parent
HIDDEN = sorted({module for extra in EXTRAS.values() for module in extra.modules} | {"pandas", "numba", "sympy"})
HIDE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
"""A sitecustomize.py, which processes that the commands start find too: to all finders these modules are absent."""
DRIVER = """
import contextlib, io, json, sys
from authface.cli import main

said = []
commands, hidden = map(json.loads, sys.argv[1:])
for words in commands:
    sys.argv = ["authface", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
there = sorted({name.partition(".")[0] for name in sys.modules} & set(hidden))
print(json.dumps({"said": said, "there": there}))
"""
SMALL = "curate.filter.min_size=64"
CORE = [
    "doctor",
    "models list",
    "models verify tiny",
    "models push tiny owner/name --i-hold-the-rights --dry-run",
    "curate fetch S --from folder photos",
    f"curate filter S -O {SMALL}",
    "curate align S",
    "curate split S",
    "curate balance S",
    "curate report S",
    "curate credits S",
    "annotate tags S --with measured",
    "annotate export S",
    "annotate export S -O annotate.export.format=imagefolder -O annotate.export.to=folders",
    "annotate export S --format croissant",
    "annotate export S --format fiftyone",
    "annotate export S --format files",
    "status S",
    "why S a.jpg",
    "restore photos/a.jpg -o out/ --model identity --change-map",
    "restore photos/a.jpg -o built-in/",
    "restore photos/a.jpg -o out/ --dry-run",
    "evaluate synth crops -o synth",
    "train prior --dry-run --recipe h200",
    "train controlnet --dry-run --recipe lora-24gb",
    "train configs",
    "evaluate table 1 -o tables",
    "evaluate restoration --outputs synth/degraded --truth synth/clean --dry-run",
    "app --dry-run",
    "curate forget S a.jpg",
]
"""Commands of the core, in the order of a set that grows."""
ASKED = {
    "train autoencoder": "authface train autoencoder needs torch: pip install 'authface[train]'",
    "train prior S/dataset": "authface train prior needs torch: pip install 'authface[train]'",
    "estimate train prior": "authface estimate train prior needs torch: pip install 'authface[train]'",
    "demo": "authface demo needs torch: pip install 'authface[train,samples]'",
    "evaluate restoration --outputs synth/degraded --truth synth/clean":
        "authface evaluate restoration needs torch: pip install 'authface[evaluate]'",
    "evaluate prior": "authface evaluate prior needs torch: pip install 'authface[evaluate]'",
    "evaluate runtime": "authface evaluate runtime needs torch: pip install 'authface[restore]'",
    "evaluate synth crops -o jittered --degradation gfpgan_colour":
        "the degradation gfpgan_colour needs torch: pip install 'authface[restore]'",
    "app": "authface app needs Gradio: pip install 'authface[app]'",
    "curate fetch T --from samples": "curate fetch --from samples needs scikit-image: pip install 'authface[samples]'",
    "curate learn S": "authface curate learn needs scikit-learn: pip install 'authface[learn]'",
    "curate review S --next uncertain":
        "authface curate review --next uncertain needs scikit-learn: pip install 'authface[learn]'",
    "annotate tags S --with llava": "annotate tags --with llava needs torch: pip install 'authface[annotate]'",
    "restore clip.mp4 --model identity -o out/": "a video needs PyAV: pip install 'authface[video]'",
    "status s3://bucket/faces": "s3://bucket/faces needs s3fs: pip install 'authface[s3]'",
    "curate filter S -O curate.filter.metrics={'musiq'=1}":
        "curate.filter.metrics musiq needs pyiqa: pip install 'authface[evaluate]'",
    "annotate tags S --with measured --redo --engine ray": "--engine ray needs Ray: pip install 'authface[ray]'",
    "restore photos/a.jpg -o named/ --model gfpgan": (
        "--model gfpgan needs torch: pip install 'authface[restorers]', or --model gfpgan-onnx, which runs without"
    ),
    "restore photos/a.jpg -o named/ -O restore.engine=torch": (
        "restore.engine=torch needs torch: pip install 'authface[restore]'"
    ),
    "restore photos/a.jpg -o named/ --model sdxl": "--model sdxl needs torch: pip install 'authface[restore]'",
    "models export tiny -o graphs": "models export needs torch: pip install 'authface[onnx]'",
    "restore photos/a.jpg -o parsed/ --model identity -O restore.mask=parsing":
        "restore.mask=parsing needs facexlib: pip install 'authface[restore]', or take restore.mask=square",
}  # fmt: skip
"""Commands that need an extra, and the one line that they end with."""


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Said], list[str]]:
    """What each command said, and which hidden modules were in memory at the end."""
    home, hide = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("hide")
    (hide / "sitecustomize.py").write_text(HIDE.format(hidden=set(HIDDEN)))
    import skimage

    portrait = read(Path(skimage.__file__).parent / "data" / "astronaut.png").rgb
    for folder in ("photos", "crops"):
        (home / folder).mkdir()
        (home / folder / "a.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(portrait[:256, 100:356])))
    (home / "photos" / "b.jpg").write_bytes(encode_jpeg(portrait))
    (home / "clip.mp4").write_bytes(b"\0")
    commands = [*CORE[:-1], *ASKED, CORE[-1]]
    environment = os.environ | {"PYTHONPATH": str(hide), "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    arguments = [json.dumps([command.split() for command in commands]), json.dumps(HIDDEN)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    return {c: Said(*s) for c, s in zip(commands, answer["said"], strict=True)}, answer["there"]


@pytest.mark.parametrize("command", CORE)
def test_it_runs_without_any_extra(command: str, said: tuple[dict[str, Said], list[str]]) -> None:
    found = said[0][command]
    allowed = {0, 1} if command == "doctor" else {0}
    assert found.code in allowed, found.err
    assert "pip install" not in found.err


@pytest.mark.parametrize("command", ASKED)
def test_it_says_in_one_line_what_to_type(command: str, said: tuple[dict[str, Said], list[str]]) -> None:
    found = said[0][command]
    assert (found.code, found.err.splitlines()[-1]) == (2, f"authface: {ASKED[command]}")


def test_nothing_of_an_extra_was_imported(said: tuple[dict[str, Said], list[str]]) -> None:
    assert said[1] == []


def test_doctor_tells_each_extra_and_what_it_brings(said: tuple[dict[str, Said], list[str]]) -> None:
    text = said[0]["doctor"].out
    for name, extra in EXTRAS.items():
        assert re.search(rf"^  \w+ +{re.escape(name)} +{re.escape(extra.brings)}; ", text, re.MULTILINE), name


def test_the_core_asks_for_nothing_heavy() -> None:
    """The dependencies that a plain `pip install authface` brings, by what pip is told."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[<>=\[]", text)[0] for text in project["dependencies"]}
    heavy = {
        "torch", "torchvision", "diffusers", "transformers", "accelerate", "datasets", "pyiqa", "facexlib",
        "tensorboard", "setuptools", "scipy", "scikit-image", "matplotlib",
    }  # fmt: skip
    assert names & heavy == set()
