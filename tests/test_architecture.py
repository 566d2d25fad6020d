"""The rules of the house that a reader cannot see at a glance: who may import whom, and what start-up costs."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("curate", "annotate", "train", "restore", "evaluate")
KNOW_THE_STAGES = {"authface/cli.py", "authface/demo.py", "authface/__init__.py"}
"""Shared modules that may import stages: the command line, the demo, which runs all of them, and the Python API."""
LEVELS: tuple[set[str], ...] = (
    {"errors", "extras", "records", "devices", "recipes"},
    {"files", "object_store", "console", "recipe", "backends", "web"},
    {"imaging"},
    {"store", "faces", "report", "metrics"},
    {"engine"},
    {"options"},
    {"models", "review"},
    {"inspect"},
    set(STAGES),
    {"demo", "cli", "__init__"},
)
"""The rooms, from the ground up: each imports its own, and those of the levels below."""
HEAVY = {
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "datasets", "cv2", "dlib", "pyiqa",
    "onnxruntime", "numpy", "PIL", "skimage", "pyarrow", "pandas", "scipy", "matplotlib", "tensorboard", "jinja2",
    "ray", "rich",
}  # fmt: skip
"""Not pydantic: typer itself turns words into values with it."""


def sources() -> list[Path]:
    return [path for folder in ("authface", *STAGES) for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def offences(path: Path) -> list[str]:
    """What a module imports and must not."""
    own = path.relative_to(ROOT).parts[0]
    allowed = set(STAGES) if path.relative_to(ROOT).as_posix() in KNOW_THE_STAGES else {own}
    stages = [name for name in imported(path) if name.startswith("authface.") and name.split(".")[1] in STAGES]
    short = [name for name in imported(path) if name.split(".")[0] in STAGES]
    return [name for name in stages if name.split(".")[1] not in allowed] + short


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_stage_imports_shared_modules_and_itself_only(path: Path) -> None:
    assert offences(path) == []


def test_the_rule_sees_an_offence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "restore").mkdir()
    module = tmp_path / "restore" / "a.py"
    module.write_text(
        "def f():\n    from authface import train\n    from authface.curate.align import x\n    import curate\n"
    )
    assert offences(module) == ["authface.train", "authface.curate.align.x", "curate"]


MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("authface."): path for path in sources()}
"""Name below authface -> file."""


def arrows(name: str, path: Path) -> set[str]:
    """The modules, as in `MODULES`, that a module imports, inside functions too; not those for types alone."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {short for full in names if (short := full.removeprefix("authface.")) in MODULES} - {name}


def level(module: str) -> int:
    return next(at for at, rooms in enumerate(LEVELS) if module.split(".")[0] in rooms)


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_those_below_it_only(name: str) -> None:
    up = {other for other in arrows(name, MODULES[name]) if level(other) > level(name)}
    beside = {
        other
        for other in arrows(name, MODULES[name])
        if level(other) == level(name) and other.split(".")[0] in STAGES and other.split(".")[0] != name.split(".")[0]
    }
    assert up | beside == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """What is left once modules are taken away whose imports are all taken away already lies on a circle or above."""
    graph = {name: arrows(name, path) for name, path in MODULES.items()}
    while free := [name for name, below in graph.items() if not below & graph.keys()]:
        for name in free:
            del graph[name]
    used = {other for below in graph.values() for other in below}
    assert {name for name in graph if name in used} == set()


def test_imports_inside_functions_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that a command may not need, `--help`, a package that may lack: `benchmarks/house.py --lazy` tells."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    house = importlib.import_module("house")
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in house.modules(ROOT).items()}
    trees["authface.demo"].body += ast.parse("def a():\n    import json, torch\n    from authface import errors").body
    at_top = {name: house.imported(tree, set(trees), name, lazily=False) for name, tree in trees.items()}
    idle = [place for place, why in house.lazy_imports(trees, at_top) if not why]
    assert idle == ["authface.demo:3 authface.errors"], "hoist these"


def loaded_after(code: str) -> set[str]:
    """Top-level modules in memory after `code` ran in a fresh interpreter."""
    report = f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True, cwd=ROOT.parent)
    return set(run.stdout.splitlines()[-1].split())


def test_the_command_line_imports_nothing_heavy() -> None:
    loaded = loaded_after("import authface.cli")
    assert loaded & HEAVY == set() and "typer" in loaded
    assert loaded & set(STAGES) == set(), "a stage is in memory under its short name: a second copy of its modules"


def test_help_imports_nothing_heavy() -> None:
    for words in (["--help"], ["curate", "--help"], ["curate", "filter", "--help"], ["restore", "--help"]):
        code = f"import sys; sys.argv = ['authface', *{words}]\nfrom authface.cli import main\n"
        loaded = loaded_after(f"{code}try: main()\nexcept SystemExit as end: assert not end.code")
        assert loaded & HEAVY == set(), words


def test_settings_import_nothing_heavy() -> None:
    modules = "\n".join(
        f"import authface.{stage}.settings" for stage in STAGES if (ROOT / stage / "settings.py").exists()
    )
    assert loaded_after(modules) & HEAVY == set()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text("utf-8")
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno and f.end_lineno - f.lineno >= 60}
    assert long == {} and text.count("\n") <= 400


def stray(tests: Path) -> list[str]:
    """Test files below a stage's or a package's folder that are named after no module of the mirrored place.

    `test_detector.py` is of `detector`, and so is `test_detector_turns.py`; files at the top are about the whole.
    """
    found = []
    for path in sorted(tests.glob("*/**/test_*.py")):
        place = ROOT / path.parent.relative_to(tests)
        names = [other.stem for other in place.glob("*") if other.suffix in {".py", ""}]
        if not any(f"{path.stem}_".startswith(f"test_{name}_") for name in names):
            found.append(path.relative_to(tests).as_posix())
    return found


def test_tests_are_named_after_the_modules_they_are_of(tmp_path: Path) -> None:
    assert stray(ROOT / "tests") == []
    (tmp_path / "authface" / "faces").mkdir(parents=True)
    for name in ("detector", "detector_turns", "detectors"):
        (tmp_path / "authface" / "faces" / f"test_{name}.py").touch()
    assert stray(tmp_path) == ["authface/faces/test_detectors.py"]
