"""Backends by name: packages that are installed beside this one."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from authface import backends
from authface.backends import backend_names, load_backend
from authface.errors import AuthfaceError, UsageError
from tests.conftest import Install


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    backends._registered.cache_clear()
    yield
    backends._registered.cache_clear()


def test_a_package_adds_a_backend(install: Install) -> None:
    install("shoebox", "[authface.sources]\nshoebox = shoebox:Shoebox\n", "class Shoebox:\n    size = 3\n")
    assert "shoebox" in backend_names("sources") and "shoebox" not in backend_names("captioners")
    assert load_backend("sources", "shoebox").size == 3


def test_an_unknown_name_lists_those_there_are(install: Install) -> None:
    install("shoebox", "[authface.restorers]\nshoebox = shoebox:Shoebox\n", "")
    with pytest.raises(UsageError, match="no restorer shoe.{1,4}box: there are .*shoebox") as caught:
        load_backend("restorers", "shoe\nbox")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["raise RuntimeError('two\\nlines')", "import no_such_package", "Shoes = 1"])
def test_a_broken_package_is_one_line(install: Install, module: str) -> None:
    install("shoebox", "[authface.metrics]\nshoebox = shoebox:Shoebox\n", module)
    with pytest.raises(AuthfaceError, match="metric shoebox of shoebox .shoebox:Shoebox. cannot be loaded") as caught:
        load_backend("metrics", "shoebox")
    assert "\n" not in str(caught.value)


def test_two_packages_of_one_name_are_told(install: Install) -> None:
    install("shoebox", "[authface.detectors]\neyes = shoebox:Eyes\n", "Eyes = 1")
    install("drawer", "[authface.detectors]\neyes = drawer:Eyes\n", "Eyes = 2")
    with pytest.raises(AuthfaceError, match="drawer and shoebox both register the detector eyes"):
        load_backend("detectors", "eyes")


def test_names_that_cannot_be_folders_are_left_out(install: Install) -> None:
    install("shoebox", "[authface.captioners]\n../up = shoebox:Up\nUp = shoebox:Up\nup = shoebox:Up\n", "Up = 1")
    assert {"../up", "Up"} & set(backend_names("captioners")) == set() and "up" in backend_names("captioners")
    with pytest.raises(UsageError, match="no captioner ../up"):
        load_backend("captioners", "../up")


@pytest.mark.parametrize("others", [[], [EntryPoint("shoebox", "shoebox:Shoebox", "authface.sources")]])
def test_an_installation_older_than_its_code_says_to_install_again(
    others: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable one of before there were entry points knows no name of authface's own."""
    monkeypatch.setattr(backends, "entry_points", lambda group: others)
    with pytest.raises(UsageError, match=r"no source folder: .*install it again, a checkout by pip install -e \."):
        load_backend("sources", "folder")
