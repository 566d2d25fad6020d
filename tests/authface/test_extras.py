"""Extras: the table says what pyproject.toml says, and one line says what to type."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from authface import extras
from authface.cli import main
from authface.errors import UsageError
from authface.extras import EXTRAS, installed, lack, need, of_import

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
KNOWN = packages_distributions()
WHOLE = PROJECT["optional-dependencies"]


def brought(name: str) -> set[str]:
    """Packages of an extra, with those of the extras that it takes in."""
    found: set[str] = set()
    for text in WHOLE[name]:
        if inner := re.match(r"authface\[(.*)\]", text):
            found |= {package for one in inner[1].split(",") for package in brought(one)}
        else:
            found.add(re.split(r"[<>=\[]", text)[0].lower().replace("_", "-"))
    return found


def test_every_extra_is_in_the_table() -> None:
    assert set(EXTRAS) == set(WHOLE) - {"all", "dev"}


@pytest.mark.parametrize("name", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_packages(name: str) -> None:
    for module in EXTRAS[name].modules:
        packages = {package.lower().replace("_", "-") for package in KNOWN.get(module, [])}
        assert packages & brought(name) or not installed(module), module


def test_all_is_what_a_person_may_want_on_one_machine() -> None:
    assert brought("all") >= brought("train") | brought("annotate") | brought("evaluate") | brought("restore")
    assert "ray" not in brought("all") and "pytest" not in brought("all")


def test_need_names_the_first_package_that_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module not in {"peft", "gradio", "matplotlib"})
    assert lack("train.prior.lora_rank", "lora") == "train.prior.lora_rank needs peft: pip install 'authface[lora]'"
    with pytest.raises(UsageError, match=r"^authface app needs Gradio: pip install 'authface\[app\]'$"):
        need("authface app", "app")
    assert lack("it", "samples").startswith("it needs matplotlib:")
    need("it", "samples", "skimage")


def test_what_cannot_be_found_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, blocked, and half gone."""
    assert installed("numpy") and not installed("no_such_module_here")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert not installed("spandrel")


def test_an_import_that_nobody_asked_for_first_ends_in_the_same_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "datasets")
    missing = ModuleNotFoundError("No module named 'datasets.load'", name="datasets.load")
    assert str(of_import(missing)) == "this needs datasets: pip install 'authface[train]'"
    assert of_import(ModuleNotFoundError("No module named 'yaml'", name="yaml")) is None

    def fails() -> None:
        raise missing

    monkeypatch.setattr("authface.cli.app", fails)
    monkeypatch.setattr(sys, "argv", ["authface"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "authface: this needs datasets: pip install 'authface[train]'\n"
