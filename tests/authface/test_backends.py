"""Backends by name: packages that are installed beside this one."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authface import backends
from authface.errors import AuthfaceError, UsageError

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package: its name, its entry points, and the text of its one module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    backends._registered.cache_clear()

    def add(name: str, points: str, module: str = "") -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        (tmp_path / f"{name}.py").write_text(module)
        monkeypatch.delitem(sys.modules, name, raising=False)
        backends._registered.cache_clear()

    return add


@pytest.fixture(autouse=True)
def forgotten() -> None:
    backends._registered.cache_clear()


def test_a_package_adds_a_backend(install: Install) -> None:
    install("shoebox", "[authface.sources]\nshoebox = shoebox:Shoebox\n", "class Shoebox:\n    size = 3\n")
    assert "shoebox" in backends.names("sources") and "shoebox" not in backends.names("captioners")
    assert backends.load("sources", "shoebox").size == 3


def test_an_unknown_name_lists_those_there_are(install: Install) -> None:
    install("shoebox", "[authface.restorers]\nshoebox = shoebox:Shoebox\n", "")
    with pytest.raises(UsageError, match="no restorer shoe.{1,4}box: there are .*shoebox") as caught:
        backends.load("restorers", "shoe\nbox")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["raise RuntimeError('two\\nlines')", "import no_such_package", "Shoes = 1"])
def test_a_broken_package_is_one_line(install: Install, module: str) -> None:
    install("shoebox", "[authface.metrics]\nshoebox = shoebox:Shoebox\n", module)
    with pytest.raises(AuthfaceError, match="metric shoebox of shoebox .shoebox:Shoebox. cannot be loaded") as caught:
        backends.load("metrics", "shoebox")
    assert "\n" not in str(caught.value)


def test_two_packages_of_one_name_are_told(install: Install) -> None:
    install("shoebox", "[authface.detectors]\neyes = shoebox:Eyes\n", "Eyes = 1")
    install("drawer", "[authface.detectors]\neyes = drawer:Eyes\n", "Eyes = 2")
    with pytest.raises(AuthfaceError, match="drawer and shoebox both register the detector eyes"):
        backends.load("detectors", "eyes")


def test_names_that_cannot_be_folders_are_left_out(install: Install) -> None:
    install("shoebox", "[authface.captioners]\n../up = shoebox:Up\nUp = shoebox:Up\nup = shoebox:Up\n", "Up = 1")
    assert {"../up", "Up"} & set(backends.names("captioners")) == set() and "up" in backends.names("captioners")
    with pytest.raises(UsageError, match="no captioner ../up"):
        backends.load("captioners", "../up")
