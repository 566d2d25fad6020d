"""The wheel holds every package and data file under `authface`, and nothing else at the top."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("curate", "annotate", "train", "restore", "evaluate")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def folders(root: Path) -> dict[str, Path]:
    """Every folder with an ``__init__.py``, by the name it is imported under."""
    found = {}
    for top in ("authface", *STAGES):
        for init in (root / top).rglob("__init__.py"):
            parts = init.parent.relative_to(root).parts
            found[".".join(parts if top == "authface" else ("authface", *parts))] = init.parent
    return found


def data_files(root: Path) -> set[str]:
    """Every file that is no module, by its name in the wheel."""
    ours = [path for folder in ("authface", *STAGES) for path in (root / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(root) for path in ours if path.suffix not in {".py", ".pyc", ".bin", ".pt"}]
    return {(name if name.parts[0] == "authface" else Path("authface") / name).as_posix() for name in names}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONSAFEPATH"}} | environment
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is built from, so that a build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for folder in ("authface", *STAGES):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    if not (copy / "authface" / "builtin").is_dir():
        stand_in(copy / "authface" / "builtin")
    return copy


BUILTIN = (
    "model_index.json", "weights.json", "README.md", "training-curve.png", "presets.toml", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt", "tokenizer/tokenizer.json",
)  # fmt: skip
"""Files of every kind that a packed family has."""


def stand_in(folder: Path) -> None:
    """Files of a built-in model's names, for a checkout without it, and some that must not travel."""
    for name in (*BUILTIN, "unet/pytorch_model.bin", "training/average.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    manifest = {n: {"sha256": hashlib.sha256(n.encode()).hexdigest()} for n in BUILTIN if n != "weights.json"}
    (folder / "weights.json").write_text(json.dumps({"files": manifest}))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive as a user's installer does it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean virtual environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    binary = folder / "bin" / "python"
    quiet = ("-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check", "-q")
    run(binary, *quiet, wheel, cwd=folder)
    return binary


def test_every_package_is_named() -> None:
    assert set(SETUPTOOLS["packages"]) == set(folders(ROOT)), "pyproject.toml: [tool.setuptools] packages"


def test_package_dir_maps_every_top_folder() -> None:
    expected = {"authface": "authface"} | {f"authface.{stage}": stage for stage in STAGES}
    assert SETUPTOOLS["package-dir"] == expected


def test_checkers_see_every_stage() -> None:
    for stage in STAGES:
        assert (ROOT / "typings" / "authface" / stage / "__init__.py").is_file(), "a link, or a checkout without links"


def test_the_wheel_holds_every_module_and_data_file(wheel: Path, tree: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"{name.replace('.', '/')}/{p.name}" for name, folder in folders(tree).items() for p in folder.glob("*.py")
    }
    assert modules <= names
    assert data_files(tree) <= names and data_files(tree), "package-data in pyproject.toml"
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"authface"}
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]


def test_the_built_in_model_travels_whole(wheel: Path, tree: Path) -> None:
    """Every file of it is in the wheel and in the source archive, with the bytes that its weights.json names."""
    (archive,) = wheel.parent.glob("*.tar.gz")
    told = json.loads((tree / "authface" / "builtin" / "weights.json").read_text())["files"]
    wanted = {f"authface/builtin/{name}" for name in (*told, "weights.json")}
    with zipfile.ZipFile(wheel) as inside:
        names = {name for name in inside.namelist() if name.startswith("authface/builtin/") and name[-1] != "/"}
        assert names == wanted, "package-data in pyproject.toml"
        for name, facts in told.items():
            assert hashlib.sha256(inside.read(f"authface/builtin/{name}")).hexdigest() == facts["sha256"], name
    with tarfile.open(archive) as source:
        files = {member.name.partition("/")[2] for member in source if member.isfile()}
    assert {name for name in files if name.startswith("authface/builtin/")} == wanted
    assert not [name for name in files if name.endswith((".bin", ".pt"))], "a pickle in the source archive"


def test_the_licence_travels(wheel: Path) -> None:
    (name,) = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/LICENSE")]
    assert b"Apache License" in zipfile.ZipFile(wheel).read(name)


def test_the_stages_import_from_the_wheel_and_leak_no_name(python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, importlib.util, sys\n"
        f"for stage in {STAGES}:\n"
        "    module = importlib.import_module('authface.' + stage)\n"
        "    assert module.__file__.startswith(sys.prefix), module.__file__\n"
        "    assert importlib.util.find_spec(stage) is None, stage\n"
        "from importlib.resources import files\n"
        "assert files('authface.recipes').joinpath('default.toml').is_file()\n"
        "assert files('authface.report.templates').joinpath('_base.html.jinja').read_text()\n"
        "assert files('authface').joinpath('py.typed').is_file()\n"
        "print('whole')"
    )
    assert run(python, "-c", code, cwd=tmp_path) == "whole\n"


def test_the_installed_command_runs(python: Path, tmp_path: Path) -> None:
    import typer

    libraries = str(Path(typer.__file__).parent.parent)  # the dependencies, without this checkout: it is a .pth hook
    listing = run(python.parent / "authface", "--help", cwd=tmp_path, PYTHONPATH=libraries)
    assert "curate" in listing and "restore" in listing
    where = run(python, "-c", "import authface.cli as c; print(c.__file__)", cwd=tmp_path, PYTHONPATH=libraries)
    assert Path(where.strip()).is_relative_to(python.parent.parent)


def test_this_checkout_leaks_no_name(tmp_path: Path) -> None:
    code = f"import importlib.util; print([s for s in {STAGES} if importlib.util.find_spec(s)])"
    assert run(sys.executable, "-c", code, cwd=tmp_path) == "[]\n"
