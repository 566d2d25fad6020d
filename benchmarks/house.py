"""How hard the code is to find one's way in, as figures: run it before and after a restructuring.

    python benchmarks/house.py [--repo FOLDER] [--photo PORTRAIT.jpg] [--names] [--lazy]

It reads the package's files as text; nothing of --repo is run but for --photo, which takes one photo from
`curate fetch` to `restore` in fresh processes and counts the modules and functions of authface that work on it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TOPS = ("authface", "curate", "annotate", "train", "restore", "evaluate")
_TRACER = """
import atexit, json, os, sys, threading
seen = set()
def note(frame, event, arg):
    code = frame.f_code
    name = frame.f_globals.get("__name__", "")
    if name.startswith("authface") and code.co_flags & 1 and not (code.co_name + code.co_filename).count("<"):
        seen.add((code.co_filename, code.co_qualname))
sys.setprofile(note)
threading.setprofile(note)
def keep():
    sys.setprofile(None)
    with open(os.path.join(os.environ["HOUSE_TRACE"], f"{os.getpid()}.json"), "w") as file:
        json.dump(sorted(seen), file)
atexit.register(keep)
try:
    from multiprocessing import util
    util.Finalize(None, keep, exitpriority=100)
except ImportError:
    pass
"""
"""A sitecustomize: the functions of authface that run in a process and its threads.

Not the bodies of modules and classes (no CO_OPTIMIZED, 1): they run wherever a module is loaded, needed or not.
"""


def modules(repo: Path) -> dict[str, Path]:
    """Full name -> file of every module that has code: an empty __init__.py is none."""
    found: dict[str, Path] = {}
    for top in TOPS:
        for path in sorted((repo / top).rglob("*.py")):
            parts = path.relative_to(repo).with_suffix("").parts
            name = ".".join(parts if top == "authface" else ("authface", *parts)).removesuffix(".__init__")
            if path.name != "__init__.py" or path.read_text("utf-8").strip():
                found[name] = path
    return found


def imported(tree: ast.AST, known: set[str], own: str, *, lazily: bool) -> set[str]:
    """Modules of `known` that a module imports at its top, or inside functions too; not those for types alone."""
    names: set[str] = set()
    for node in _statements(tree, lazily):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        else:
            names |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    return (names & known) - {own, "authface"}


def _statements(tree: ast.AST, lazily: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        elif lazily or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(node, lazily)


def reaches(graph: dict[str, set[str]], name: str) -> set[str]:
    """A module and all that its imports bring."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        if (at := waiting.pop()) not in seen:
            seen.add(at)
            waiting += graph[at]
    return seen


def lazy_imports(trees: dict[str, ast.Module], at_top: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Each import inside a function, as module, line and name, and the reason for it; empty where there is none.

    The reasons: a library that not every command which loads the module needs, or a module that brings such a one;
    a module that `authface --help` need not load; one that a system may lack (`except ImportError`); a circle.
    """
    below = {name: reaches(at_top, name) for name in trees}
    outside = {name: set(_targets(tree, set())) for name, tree in trees.items()}
    loads = {name: set().union(*(outside[other] for other in found)) for name, found in below.items()}
    helped = below["authface.cli"]

    def reason(name: str, target: str) -> str:
        if target in below and name in below[target]:
            return "circle"
        if name in helped:
            return "" if target in helped or target in loads["authface.cli"] else "--help"
        brought = (loads[target] if target in below else {target}) - loads[name]
        return ", ".join(sorted({one.partition(".")[0] for one in brought} - sys.stdlib_module_names))

    found = []
    for name, tree in trees.items():
        optional = {id(one) for node in ast.walk(tree) if _may_lack(node) for one in ast.walk(node)}
        top = {id(node) for node in _statements(tree, False)}
        for node in _statements(tree, True):
            if id(node) not in top:
                targets = _names(node, set(trees))
                why = "may lack" if id(node) in optional else next(filter(None, (reason(name, t) for t in targets)), "")
                found.append((f"{name}:{node.lineno} {targets[0]}", why))
    return found


def _may_lack(node: ast.AST) -> bool:
    return isinstance(node, ast.Try) and any("ImportError" in ast.dump(h.type) for h in node.handlers if h.type)


def _names(node: ast.Import | ast.ImportFrom, known: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return list(
        dict.fromkeys(f"{node.module}.{n.name}" if f"{node.module}.{n.name}" in known else str(node.module)
                      for n in node.names)
    )  # fmt: skip


def _targets(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """What a module imports at its top that is not of authface."""
    for node in _statements(tree, False):
        yield from (name for name in _names(node, known) if name.partition(".")[0] != "authface")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(group := stack[at:]) > 1:
                groups.append(sorted(group))
            del stack[at:]

    for name in graph:
        if name not in index:
            visit(name)
    return groups


def depth(graph: dict[str, set[str]]) -> tuple[int, list[str]]:
    """The longest chain of imports, without going in circles."""
    best: dict[str, list[str]] = {}

    def chain(name: str, under: tuple[str, ...]) -> list[str]:
        if name not in best:
            below = [chain(other, (*under, name)) for other in sorted(graph[name]) if other not in under]
            best[name] = [name, *max(below, key=len, default=[])]
        return best[name]

    longest = max((chain(name, ()) for name in graph), key=len)
    return len(longest), longest


def classes(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Class name -> the modules that define one of this name."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    return found


def touched(photo: Path) -> tuple[list[str], int]:
    """The files, and the number of functions, of the installed authface that work on `photo` from fetch to restore."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "site").mkdir()
        (work / "trace").mkdir()
        (work / "photos").mkdir()
        (work / "site" / "sitecustomize.py").write_text(_TRACER, "utf-8")
        (work / "photos" / photo.name).write_bytes(photo.read_bytes())
        environment = {
            **os.environ, "PYTHONPATH": str(work / "site"), "HOUSE_TRACE": str(work / "trace"), "HF_HUB_OFFLINE": "1"
        }  # fmt: skip
        for words in (
            ["curate", "fetch", "set", "--from", "folder", "photos"],
            ["curate", "filter", "set", "-O", "curate.filter.min_size=32"],
            ["curate", "align", "set"],
            ["annotate", "tags", "set", "--with", "measured"],
            ["annotate", "export", "set"],
            ["restore", f"photos/{photo.name}", "-o", "out"],
        ):
            command = [sys.executable, "-m", "authface.cli", *words]
            done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(words)}: {done.stderr[-400:]}")
        ran = {tuple(one) for file in (work / "trace").glob("*.json") for one in json.loads(file.read_text("utf-8"))}
    return sorted({file for file, _ in ran}), len(ran)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--photo", type=Path, help="a portrait: counts what works on it, of the authface installed")
    parser.add_argument("--names", action="store_true", help="list what is counted: names, circles, chain, files")
    parser.add_argument("--lazy", action="store_true", help="list the imports inside functions, and why they are there")
    options = parser.parse_args()
    files = modules(options.repo)
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in files.items()}
    known = set(files)
    at_top = {name: imported(tree, known, name, lazily=False) for name, tree in trees.items()}
    everywhere = {name: imported(tree, known, name, lazily=True) for name, tree in trees.items()}
    defined = classes(trees)
    double = {name: where for name, where in defined.items() if len(where) > 1}
    lazy = lazy_imports(trees, at_top)
    long, chain = depth(at_top)
    print(f"{len(files):7,} modules with code")
    print(f"{sum(path.read_text('utf-8').count(chr(10)) for path in files.values()):7,} lines")
    print(f"{sum(map(len, defined.values())):7,} classes, {len(double)} names of several")
    print(f"{len(lazy):7,} imports inside functions, {sum(not why for _, why in lazy)} without a reason")
    print(f"{long:7,} modules in the longest chain of imports")
    print(f"{len(circles(everywhere)):7,} circles, imports inside functions counted")
    if options.names:
        for name, where in sorted(double.items()):
            print(f"        {name}: {', '.join(where)}")
        for circle in circles(everywhere):
            print(f"        circle: {', '.join(circle)}")
        print(f"        chain: {' > '.join(chain)}")
    if options.lazy:
        for place, why in sorted(lazy, key=lambda one: one[1]):
            print(f"        {why or 'none':30} {place}")
    if options.photo:
        touching, functions = touched(options.photo.resolve())
        print(f"{len(touching):7,} modules and {functions} functions work on one photo, from fetch to restore")
        if options.names:
            print(*(f"        {file}" for file in touching), sep="\n")


if __name__ == "__main__":
    main()
