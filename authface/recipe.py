"""A recipe: one TOML file for the whole arrow, one table per stage, and the overrides on top.

A setting's name is its path in the recipe: ``curate.align.size``, ``train.controlnet.lr``. Every table is
validated by the settings model of its owner; a name nobody owns is an error, not a silent default.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from importlib import import_module, resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from authface.errors import UsageError, one_line


class Settings(BaseModel):
    """Base of every stage's settings: immutable, and a name that is not a field is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a folder called 2026 needs no quotes
    )

    def fingerprint(self) -> str:
        """sha256 of the settings as JSON, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Recipe:
    """The values asked for, before a stage's model fills its defaults in."""

    name: str
    tables: dict[str, Any] = field(default_factory=dict)

    def table(self, path: str) -> Any:
        """What was asked for of `path`; empty where nothing was."""
        table: Any = self.tables
        for key in path.split("."):
            table = table.get(key, {}) if isinstance(table, dict) else {}
        return table

    def section(self, path: str, model: type[S], given: Mapping[str, Any] = MappingProxyType({})) -> S:
        """The validated settings of `path`, such as ``curate.filter``; `given` wins. Raises UsageError."""
        table = self.table(path)
        try:
            return model.model_validate({**table, **given} if isinstance(table, dict) else table)
        except ValidationError as error:
            raise UsageError(_explain(path, model, error, self.name)) from error


def load(name: str, overrides: list[str], sections: Mapping[str, str]) -> Recipe:
    """The recipe `name` (a built-in name or a .toml file) with ``path=value`` overrides.

    `sections` maps each path to the ``module:Class`` of its settings; all that the recipe or an override has a
    value of are validated here, so that a typing error anywhere shows before work starts. Raises UsageError.
    """
    tables = _read(name)
    for override in overrides:
        _override(tables, override)
    recipe = Recipe(name, tables)
    _refuse_unknown(tables, "", sections, name)
    for path, target in sections.items():
        if recipe.table(path) == {}:
            continue  # defaults: the models of the other stages are not even imported
        module, _, cls = target.partition(":")
        recipe.section(path, getattr(import_module(module), cls))
    return recipe


def builtin_recipes() -> list[str]:
    """Names of the recipes that ship with authface."""
    folder = resources.files("authface.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _read(name: str) -> dict[str, Any]:
    if name in builtin_recipes():
        text = resources.files("authface.recipes").joinpath(f"{name}.toml").read_text("utf-8")
    else:
        try:
            if not Path(name).is_file():
                known = ", ".join(builtin_recipes())
                raise UsageError(f"no recipe {one_line(name)}: give a .toml file or one of {known}")
            text = Path(name).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the recipe {one_line(name)}: {one_line(error)}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {one_line(name)} is not TOML: {one_line(error)}") from error


def _override(tables: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"-O {one_line(override)}: write it as path.to.setting=value")
    for key in keys[:-1]:
        below = tables.setdefault(key, {})
        if not isinstance(below, dict):
            raise UsageError(f"-O {one_line(override)}: {key} is a value, not a table")
        tables = below
    tables[keys[-1]] = _value(text)


def _value(text: str) -> Any:
    """A TOML value, or the text itself where it is none: ``lr=1e-5`` and ``folder=2026-01-31`` need no quotes."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = values.pop("value")
    return text if values or isinstance(value, date | time) else value


def _refuse_unknown(tables: Mapping[str, Any], prefix: str, sections: Mapping[str, str], name: str) -> None:
    for key, value in tables.items():
        path = f"{prefix}{key}"
        if path in sections:
            continue
        if isinstance(value, dict) and any(known.startswith(path + ".") for known in sections):
            _refuse_unknown(value, path + ".", sections, name)
            continue
        near = difflib.get_close_matches(path, sections, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sections)}"
        raise UsageError(f"recipe {one_line(name)}: no settings called {one_line(path)}{hint}")


def _explain(path: str, model: type[Settings], error: ValidationError, name: str) -> str:
    first = error.errors()[0]
    where = ".".join([path, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        fields = _fields(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), fields, n=1)
        hint = f"did you mean {where.rpartition('.')[0]}.{near[0]}?" if near else f"there are {', '.join(fields)}"
        return f"recipe {one_line(name)}: no setting {one_line(where)}; {hint}"
    given = one_line(json.dumps(first["input"], default=str), 80)
    why = one_line(first["msg"].removeprefix("Value error, "))
    return f"recipe {one_line(name)}: {one_line(where)} = {given}: {why}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings in the table at `location` below `model`."""
    for key in location:
        found = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        model = found
    return list(model.model_fields)
