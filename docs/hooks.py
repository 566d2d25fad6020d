"""What mkdocs fills in: pages of the reference from the code itself, so that they cannot go stale.

A page asks for a part by a line ``<!-- generate: NAME -->``; `PARTS` at the end names them. Nothing heavy is imported.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module, resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
MARK = re.compile(r"^<!-- generate: ([a-z]+) -->$", re.MULTILINE)
OUTSIDE = {"builtin-card.md": "authface/builtin/README.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that are files of the repository outside docs/."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=outside((ROOT / source).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill the marks in, and lead links out of docs/ to the pages that stand for those files."""
    for name, source in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source})", f"]({name})")
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"`docs/([a-z]+)\.md`", rf"[\1]({up}\1.md)", markdown)
    return filled(markdown)


def filled(markdown: str) -> str:
    """The page with what its marks ask for."""
    return MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


def outside(text: str) -> str:
    """A file of the repository as a page: without its YAML head, its long list of hashes wrapped away."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def extras() -> str:
    """What can be installed beside the core, and what each brings."""
    from authface.extras import EXTRAS

    rows = [(f"`pip install 'authface[{name}]'`", extra.brings) for name, extra in EXTRAS.items()]
    return "\n".join(_table(("Type", "For"), rows))


# Commands


def commands() -> str:
    """Every command with its arguments and flags, as typer knows them; the shared flags once."""
    import typer

    from authface.cli import app
    from authface.options import _COMMON

    shared = {name.replace("_output", "") for name in _COMMON}
    leaves = list(_leaves(typer.main.get_command(app), ()))
    some = next(leaf for words, leaf in leaves if words == ("restore",))
    flags = [param for param in some.params if _long(param) in shared]
    lines = ["## Flags of every command", "", *_flags(flags)]
    for words, leaf in leaves:
        own = [param for param in leaf.params if _long(param) not in {*shared, "help"}]
        arguments = [param for param in own if not param.opts[0].startswith("-")]
        usage = " ".join(["authface", *words, "[flags]", *map(_metavar, arguments)])
        lines += ["", f"## authface {' '.join(words)}", "", f"    {usage}", "", inspect.cleandoc(leaf.help or ""), ""]
        lines += _flags(own)
    return "\n".join(lines)


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, sub in below.items():
        yield from _leaves(sub, (*words, name))


def _long(param: Any) -> str:
    return str(
        max((*param.opts, *param.secondary_opts), key=len).lstrip("-").replace("-", "_").replace("O", "override")
    )


def _metavar(param: Any) -> str:
    name = (param.metavar or param.name.upper()).replace("[", "").replace("]", "")
    return name if param.required else f"[{name}]"


def _flags(params: list[Any]) -> list[str]:
    if not params:
        return []
    rows = []
    for param in params:
        flag = param.opts[0].startswith("-")
        named = ", ".join([*param.opts, *param.secondary_opts]) if flag else _metavar(param)
        takes = f" {param.metavar}" if flag and param.metavar else ""
        default = "" if param.default in (None, False, "") or callable(param.default) or not flag else param.default
        shown = f" Default: `{_shown(default)}`." if default != "" and default != [] else ""
        rows.append((f"`{named}{takes}`", f"{_sentence(param.help or '')}{shown}"))
    return _table(("", "Meaning"), rows)


def _sentence(text: str) -> str:
    return text if not text or text[-1] in ".;" else text + "."


# Settings and recipes


def settings() -> str:
    """Every table of a recipe with its settings: type, default, meaning."""
    from authface.options import SECTIONS

    lines: list[str] = []
    for path, target in SECTIONS.items():
        module, _, name = target.partition(":")
        lines += _settings_of(path, getattr(import_module(module), name))
    return "\n".join(lines)


def _settings_of(path: str, model: type[BaseModel]) -> list[str]:
    lines = ["", f"## {path}", "", inspect.cleandoc(model.__doc__ or ""), ""]
    rows, below = [], []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            below += _settings_of(f"{path}.{name}", kind)
            continue
        default = info.get_default(call_default_factory=True) if not info.is_required() else "required"
        rows.append((f"`{name}`", _kind(kind), f"`{_shown(default)}`", _tidy(info.description or "") + _bounds(info)))
    return [*lines, *_table(("Setting", "Type", "Default", "Meaning"), rows), *below]


def _kind(kind: Any) -> str:
    """A type in words a recipe's writer knows."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{_shown(value)}`" for value in inner)
    if origin in (Union, UnionType):
        return ", ".join("none" if one is NoneType else _kind(one) for one in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return "table of numbers"
    if hasattr(kind, "__metadata__"):
        return _kind(inner[0])
    names = {"int": "whole number", "float": "number", "bool": "true, false", "str": "text", "Path": "path"}
    return names.get(getattr(kind, "__name__", ""), "text")


def _bounds(info: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
    found = [f"{word} {getattr(one, sign):g}" for one in info.metadata for sign, word in signs.items()
             if isinstance(getattr(one, sign, None), int | float)]  # fmt: skip
    return f" ({', '.join(found)})" if found else ""


def _shown(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return f'"{value}"' if value == "" else str(value)


def _tidy(text: str) -> str:
    return " ".join(text.split())


def recipes() -> str:
    """What the recipes that ship say, side by side, and each as it is."""
    from authface.recipe import builtin_recipes

    texts = {
        name: resources.files("authface.recipes").joinpath(f"{name}.toml").read_text("utf-8")
        for name in builtin_recipes()
    }
    texts = {name: text for name, text in texts.items() if tomllib.loads(text)}
    values = {name: dict(_values(tomllib.loads(text), "")) for name, text in texts.items()}
    paths = list(dict.fromkeys(path for name in values for path in values[name]))
    paths.sort(key=_order)
    rows = [
        (f"`{path}`", *(f"`{_shown(values[name][path])}`" if path in values[name] else "" for name in texts))
        for path in paths
    ]
    lines = ["## Side by side", "", "An empty cell is the setting's default.", ""]
    lines += _table(("Setting", *(f"`{name}`" for name in texts)), rows)
    for name, text in texts.items():
        lines += ["", f"## {name}", "", "```toml", text.strip(), "```"]
    return "\n".join(lines)


def _values(table: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _values(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _order(path: str) -> int:
    from authface.options import SECTIONS

    return next(at for at, section in enumerate(SECTIONS) if path.startswith(section + "."))


# Classes, read without importing them


def records() -> str:
    """The rows that cross a stage, from authface/records.py."""
    return "\n".join(
        line
        for node in _tree("authface/records.py").body
        if isinstance(node, ast.ClassDef)
        for line in ["", f"## {node.name}", "", ast.get_docstring(node) or "", "", *_fields_of(node)]
    )


def python() -> str:
    """The classes of `from authface import Restorer` with their methods and fields."""
    lines: list[str] = []
    classes = (
        ("restore/api.py", "Restorer"), ("restore/api.py", "FoundFace"),
        ("restore/picture.py", "Restored"), ("restore/photo.py", "FaceResult"),
    )  # fmt: skip
    for module, name in classes:
        node = next((n for n in _tree(module).body if isinstance(n, ast.ClassDef) and n.name == name), None)
        if node is None:
            raise KeyError(f"{module} has no class {name}: docs/hooks.py names it")
        lines += ["", f"## {name}", "", ast.get_docstring(node) or "", "", *_fields_of(node)]
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and (method.name[0] != "_" or method.name == "__init__"):
                lines += ["", f"### {name}{'' if method.name == '__init__' else '.' + method.name}", ""]
                lines += ["```python", _signature(name, method), "```", "", ast.get_docstring(method) or ""]
    return "\n".join(lines)


def _signature(owner: str, method: ast.FunctionDef) -> str:
    if any(isinstance(d, ast.Name) and "property" in d.id for d in method.decorator_list):
        return f"{method.name}: {ast.unparse(method.returns) if method.returns else 'Any'}"
    arguments = ast.unparse(method.args).removeprefix("self, ").removeprefix("self")
    if method.name == "__init__":
        return f"{owner}(\n    {', '.join(arguments.split(', ')[:3])},\n    {', '.join(arguments.split(', ')[3:])}\n)"
    return f"{method.name}({arguments}) -> {ast.unparse(method.returns) if method.returns else 'None'}"


def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text("utf-8"))


def _fields_of(node: ast.ClassDef) -> list[str]:
    rows = []
    for at, field in enumerate(node.body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        after = node.body[at + 1] if at + 1 < len(node.body) else None
        told = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        default = f"`{ast.unparse(field.value)}`" if field.value else ""
        rows.append((f"`{field.target.id}`", f"`{ast.unparse(field.annotation)}`", default, _tidy(str(told))))
    return _table(("Field", "Type", "Default", "Meaning"), rows) if rows else []


def models() -> str:
    """Families and their licences, from authface/models/families.py."""
    from authface.models.families import FAMILIES

    rows = [
        (f"`{one.name}`", one.licence, one.parameters, "built in" if Path(one.location).is_absolute() else one.location)
        for one in FAMILIES.values()
    ]
    return "\n".join(_table(("Name", "Licence", "Parameters", "Where"), rows))


def networks() -> str:
    """Restorers of one file and their licences, from authface/models/networks.toml."""
    from authface.models.networks import NETWORKS

    rows = []
    for one in NETWORKS.values():
        names = " or ".join(f"`{name}`" for name in (one.name, one.also) if name)
        size = f"{one.side} px, {'its own weight' if one.fidelity == 'weight' else 'blend'}"
        known = f"{one.sha256[:8]}…, {one.observed}" if one.sha256 else "unknown"
        rows.append((names, f"`{one.file}`, {one.bytes / 1e6:.0f} MB", size, one.licence, one.commercial, known))
    head = ("Name", "File", "Side, `--fidelity`", "Licence", "Commercial use", "sha256, seen by")
    return "\n".join(_table(head, rows))


def reasons() -> str:
    """Why a face is rejected, and by which limit, in the order of curate/filter/measure.py."""
    from authface.curate.filter.measure import LIMITS
    from authface.curate.settings import FilterSettings

    fields = FilterSettings.model_fields
    rows = [
        (f"`{limit.reason}`", f"`{limit.setting}`", f"`{_shown(fields[limit.setting].default)}`",
         _tidy(fields[limit.setting].description or ""))
        for limit in LIMITS
    ]  # fmt: skip
    return "\n".join(_table(("Reason", "Limit", "Default", "Meaning"), rows))


def _table(header: tuple[str, ...], rows: list[Any]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "recipes": recipes,
    "records": records,
    "python": python,
    "models": models,
    "networks": networks,
    "reasons": reasons,
    "extras": extras,
}
