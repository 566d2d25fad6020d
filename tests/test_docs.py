"""README and docs/ say what is there: links, commands, settings, code; and the site needs nothing of other hosts."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|\s|&& |\$\(|-m )authface(?:\.cli)?\s([^#)`]*)")
SETTING = re.compile(r"-O\s+'?([a-z_.]+)=")


def pages() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every code block: fenced, or indented by four spaces with joined continuations."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield language, body
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for body in re.findall(r"(?:^    .*\n)+", plain, re.MULTILINE):
        yield "", re.sub(r"^    ", "", body, flags=re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words after `authface` of every command line in the code blocks, without what a shell would redirect."""
    found = []
    for language, body in blocks(text):
        if language not in {"", "bash", "sh", "shell"}:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            for words in COMMAND.findall(re.sub(r"\s#\s.*", "", line)):
                found.append(shlex.split(words.replace(" && ", "\n").partition("\n")[0]))
    return found


@cache
def tree() -> Any:
    import typer

    from authface.cli import app

    return typer.main.get_command(app)


def complaints(words: list[str]) -> list[str]:
    """What is wrong with a command line: no such command, no such flag, no such setting or recipe."""
    command, rest = tree(), list(words)
    while getattr(command, "commands", None):
        if not rest or rest[0] in {"COMMAND", "..."}:
            return []
        if rest[0].startswith("-"):
            break
        name = rest.pop(0)
        if "|" in name:  # several at once, in a table of commands
            return [f"no command {one}" for one in name.split("|") if one not in command.commands]
        if name not in command.commands:
            return [f"no command {name}"]
        command = command.commands[name]
    known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}
    given = [word.partition("=")[0] for word in rest if re.match(r"--?[A-Za-z]", word)]
    return [f"no flag {flag} of authface {' '.join(words)}" for flag in given if flag not in known]


@pages()
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r"src=\"([^\"]+)\"", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
    assert [name for name in re.findall(r"`(docs/[\w/]+\.\w+)`", text) if not (ROOT / name).exists()] == []


@pages()
def test_commands_and_flags_exist(page: Path) -> None:
    assert [wrong for words in commands(page.read_text("utf-8")) for wrong in complaints(words)] == []


def marks(text: str) -> dict[str, list[str]]:
    """What a table of marks says of each thing: the cells after its name."""
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {name: cells for name, *cells in rows if cells and cells[0] in {"Y", "P", "N", "-", "?"}}


def test_the_table_of_peers_says_what_its_page_says_and_each_mark_where_it_was_read() -> None:
    table = marks((ROOT / "README.md").read_text("utf-8").partition("## Beside others")[2])
    *peers, ours = (ROOT / "docs" / "peers.md").read_text("utf-8").split("\n## ")[1:]
    for column, section in enumerate([ours, *peers]):
        cells = marks(section)
        assert {name: row[0] for name, row in cells.items()} == {name: row[column] for name, row in table.items()}
        if section is not ours:
            read = dict(re.findall(r"\*\*(\w)\*\* \[[^]]+\]\(([^)]+)\)", section))
            commit = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/")
            assert read and all(commit.match(url) for url in read.values())
            for name, (_, why, where) in cells.items():
                assert why and set(where.split(", ")) <= {*read, "list", "PMRF's R"}, (section.splitlines()[0], name)
    assert len(table) == 15 and all(len(row) == len(peers) + 1 for row in table.values())


@pages()
def test_settings_exist(page: Path) -> None:
    from authface.options import SECTIONS

    for path in SETTING.findall(page.read_text("utf-8")):
        if "." in path:
            assert setting_exists(path, SECTIONS), path


def setting_exists(path: str, sections: dict[str, str]) -> bool:
    section = max((name for name in sections if path.startswith(name + ".")), key=len, default="")
    if not section:
        return False
    module, _, name = sections[section].partition(":")
    model: Any = getattr(importlib.import_module(module), name)
    for key in path.removeprefix(section + ".").split("."):
        if key not in getattr(model, "model_fields", {}):
            return False
        model = model.model_fields[key].annotation
    return True


@pages()
def test_python_compiles(page: Path) -> None:
    for language, body in blocks(page.read_text("utf-8")):
        if language == "python":
            compile(body, str(page), "exec")
        elif language == "toml":
            tomllib.loads(body)


def test_the_checks_see_what_is_wrong() -> None:
    assert complaints(["restor", "a.jpg"]) == ["no command restor"]
    assert complaints(["curate", "filter", "--swep"]) == ["no flag --swep of authface curate filter --swep"]
    assert complaints(["restore", "a.jpg", "-o", "out", "--json"]) == []
    text = "    pip install x && authface restore a.jpg \\\n        --nothing 1   # why\n"
    assert [complaints(words) for words in commands(text)] == [
        ["no flag --nothing of authface restore a.jpg --nothing 1"]
    ]
    from authface.options import SECTIONS

    assert setting_exists("train.controlnet.facial.weight", SECTIONS)
    assert not setting_exists("curate.align.siz", SECTIONS)


@cache
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_names_every_command_flag_setting_and_recipe() -> None:
    from authface.options import SECTIONS
    from authface.recipe import builtin_recipes

    told = hooks().commands()
    for words in (["restore"], ["curate", "filter"], ["annotate", "push"], ["estimate", "train", "prior"]):
        command = tree()
        for word in words:
            command = command.commands[word]
        section = (
            told.partition(f"## authface {' '.join(words)}\n")[2].partition("\n## ")[0]
            + told.partition("\n## authface")[0]
        )
        flags = [flag for param in command.params for flag in param.opts if flag.startswith("-")]
        assert len(flags) >= 10 and [flag for flag in flags if flag not in section] == []
    told = hooks().settings()
    for path, target in SECTIONS.items():
        module, _, name = target.partition(":")
        section = told.partition(f"## {path}\n")[2]
        for field in getattr(importlib.import_module(module), name).model_fields:
            assert f"`{field}`" in section or f"## {path}.{field}\n" in told, f"{path}.{field}"
    told = hooks().recipes()
    assert all(f"## {name}\n" in told for name in builtin_recipes() if name != "default")
    assert "\n## Photo\n" in hooks().records() and "`photographer_url`" in hooks().records()
    assert "Restorer.restore_aligned" in hooks().python() and "FaceResult" in hooks().python()


def test_the_site_builds_and_asks_nothing_of_other_hosts(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs the extra docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) >= 15
    for page in built:
        html = page.read_text("utf-8")
        assert "<!-- generate" not in html, page
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\"\s>]+)", html)
        loaded += [tag for tag in re.findall(r"<link[^>]*>", html) if 'rel="stylesheet"' in tag or "preconnect" in tag]
        assert [one for one in loaded if "//" in one] == [], page


def test_ci_builds_the_site_strictly() -> None:
    assert "mkdocs build --strict" in (ROOT / ".ci" / "run").read_text("utf-8")
    assert "/site/" in (ROOT / ".gitignore").read_text("utf-8").split()


def test_the_examples_of_a_new_backend_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/backends.md, top to bottom: its package is built and installed, its commands are typed."""
    import shutil

    import cv2

    from authface import backends
    from authface.cli import main
    from authface.curate.fetch.sources.folder import Samples
    from authface.store.photoset import PhotoSet

    text = (ROOT / "docs" / "backends.md").read_text("utf-8")
    monkeypatch.syspath_prepend(str(install(tmp_path / "shoebox", text)))
    monkeypatch.chdir(tmp_path)
    backends._registered.cache_clear()
    (tmp_path / "boxes").mkdir()
    item = next(iter(Samples().items()))
    shutil.copy(item.path, tmp_path / "boxes" / "anna_0012.png")
    typed = [words for words in commands(text) if {"archive-set", "boxes/anna_0012.png"} & set(words)]
    assert len(typed) == 6
    detectors = []
    for words in typed:
        monkeypatch.setattr(sys, "argv", ["authface", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, (words, capsys.readouterr().err[-3000:])
        if words[:2] == ["curate", "filter"]:
            (measured,) = PhotoSet.open(tmp_path / "archive-set").measured.metas().values()
            assert measured is not None and measured.counts == {"kept": 1}
            detectors.append(measured.provenance.settings["detector"])
    backends._registered.cache_clear()
    assert detectors == ["half", "retinaface"]
    photoset = PhotoSet.open(tmp_path / "archive-set")
    assert [photo.photographer for photo in photoset.photos] == ["anna"]
    (face,) = photoset.faces
    assert face.status == "kept" and face.scores[0].metric == "contrast" and face.scores[0].value > 5
    (tags,) = photoset.tags("brightness")
    assert [tag.name for tag in tags.tags] in (["high key"], ["low key"]), tags
    before, after = (cv2.imread(str(tmp_path / name / "anna_0012.png")) for name in ("boxes", "sharp"))
    assert before is not None and after is not None and before.shape == after.shape and (before != after).any()


def install(package: Path, text: str) -> Path:
    """The folder that the page's package was installed into; each of its files is within its promised lines."""
    package.mkdir()
    (project,) = (body for language, body in blocks(text) if language == "toml")
    (package / "pyproject.toml").write_text(project)
    for language, body in blocks(text):
        if language == "python" and body.startswith("# shoebox_"):
            name = body.splitlines()[0].removeprefix("# ")
            assert len(body.strip().splitlines()) <= {"shoebox_contrast.py": 25}.get(name, 40), name
            (package / name).write_text(body)
    there = package.parent / "installed"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(there), str(package)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return there


@cache
def identifiers() -> frozenset[str]:
    """Every name that stands in the package's code."""
    tops = ("authface", "curate", "annotate", "train", "restore", "evaluate")
    code = "\n".join(path.read_text("utf-8") for top in tops for path in (ROOT / top).rglob("*.py"))
    return frozenset(re.findall(r"[A-Za-z_]\w*", code))


def is_defined(parts: list[str]) -> bool:
    """Whether a dotted name below authface is a package or a module, or an identifier in one."""
    top = ROOT if parts[0] in {"curate", "annotate", "train", "restore", "evaluate"} else ROOT / "authface"
    for count in range(len(parts), 0, -1):
        place = top.joinpath(*parts[:count])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if place.is_dir() and count == len(parts):
            return True
        if module.is_file():
            return set(parts[count:]) <= set(re.findall(r"\w+", module.read_text("utf-8")))
    return False


def missing_names(text: str) -> list[str]:
    """Names, dotted names and paths in backticks that are not there."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    missing = []
    for name in re.findall(r"`([^`\n]+)`", plain):
        if re.fullmatch(r"authface(\.\w+)+", name):
            entry = re.fullmatch(r"authface\.(sources|metrics|captioners|restorers|detectors)", name)
            if not entry and not is_defined(name.split(".")[1:]):
                missing.append(name)
        elif re.fullmatch(r"[\w./-]+(/|\.(py|md|toml|txt))", name):
            if not (ROOT / name).exists() and ("/" in name.rstrip("/") or not any(ROOT.rglob(name))):
                missing.append(name)
        elif re.fullmatch(r"[A-Za-z_]\w*(\(\))?", name) and name.removesuffix("()") not in identifiers():
            missing.append(name)
    return missing


NOT_IN_THE_TREE = {
    *("clean/", "degraded/", "hq/", "lq/", "samples/", "dataset/", "SET/recipe.toml"),  # what commands read and write
    *("inference.py", "test_face_xl.py"),  # other projects' files
    *("robots.txt", "ai.txt"),  # hosts' files
    *("h200", "gain_mild", "gain_medium", "gain_heavy", "gain_scan"),  # a recipe; columns that are put together
}


@pages()
def test_every_name_in_backticks_is_there(page: Path) -> None:
    assert [name for name in missing_names(page.read_text("utf-8")) if name not in NOT_IN_THE_TREE] == []


def strayed(text: str) -> list[str]:
    """What a page places in a file that has no such name: `` `NAME` in `FILE.py` ``."""
    placed = re.findall(r"`([A-Za-z_]\w*)` in `([\w/]+\.py)`", text)
    return [
        f"{name} in {file}" for name, file in placed if not re.search(rf"\b{name}\b", (ROOT / file).read_text("utf-8"))
    ]


@pages()
def test_a_name_is_in_the_file_that_a_page_says(page: Path) -> None:
    assert strayed(page.read_text("utf-8")) == []


def test_a_name_that_is_gone_is_found() -> None:
    text = "`NoSuchThing`, `authface.faces.gone`, `curate/gone.py`, `Face`, `authface.records`, `curate/align.py`"
    assert missing_names(text) == ["NoSuchThing", "authface.faces.gone", "curate/gone.py"]
    assert strayed("`LIMITS` in `curate/align.py`, `LIMITS` in `curate/filter/measure.py`") == [
        "LIMITS in curate/align.py"
    ]
