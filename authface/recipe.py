"""A recipe: one TOML file for the whole arrow, one table per stage, and the overrides on top.

A setting's name is its path in the recipe: ``curate.align.size``, ``train.controlnet.lr``. Every table is
validated by the settings model of its owner; a name nobody owns is an error, not a silent default.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from importlib import import_module, resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from authface.errors import UsageError, one_line
from authface.files import local


class Settings(BaseModel):
    """Base of every stage's settings: immutable, and a name that is not a field is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a folder called 2026 needs no quotes
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: object) -> object:
        if _is_nan(value):
            raise ValueError(_NO_NUMBER)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_this_machine(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, str) and Path in (kind, *get_args(kind)):
            try:
                return local(value)
            except UsageError as error:
                raise ValueError(str(error)) from error
        return value

    def fingerprint(self) -> str:
        """sha256 of the settings as JSON, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


S = TypeVar("S", bound=Settings)
_NO_NUMBER = "nan is no number"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


@dataclass(frozen=True)
class Recipe:
    """The values asked for, before a stage's model fills its defaults in."""

    name: str
    tables: dict[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Those that are in the tables, ``path=value`` as typed, by their path."""

    def table(self, path: str) -> Any:
        """What was asked for of `path`; empty where nothing was."""
        table: Any = self.tables
        for key in path.split("."):
            table = table.get(key, {}) if isinstance(table, dict) else {}
        return table

    def section(
        self,
        path: str,
        model: type[S],
        given: Mapping[str, Any] = MappingProxyType({}),
        flags: Mapping[str, str] = MappingProxyType({}),
    ) -> S:
        """The validated settings of `path`, such as ``curate.filter``; `given` wins, typed as its `flags` or by name.

        Raises UsageError, which names the place where the value stands: a flag, an override, the recipe.
        """
        table = self.table(path)
        try:
            return model.model_validate({**table, **given} if isinstance(table, dict) else table)
        except ValidationError as error:
            raise UsageError(self._explain(path, model, error, given, flags)) from error

    def origin(self, path: str) -> str:
        """Where the value of `path`, or of what lies below or above it, was typed, for an error's line."""
        typed = (text for name, text in self.overrides.items() if f"{path}.".startswith(f"{name}."))
        below = (text for name, text in self.overrides.items() if name.startswith(f"{path}."))
        text = next(typed, "") or next(below, "")
        return f"-O {one_line(text, 120)}" if text else f"recipe {one_line(self.name)}"

    def _explain(
        self,
        path: str,
        model: type[Settings],
        error: ValidationError,
        given: Mapping[str, Any],
        flags: Mapping[str, str],
    ) -> str:
        """The first of what is wrong with the settings of `path`."""
        first = error.errors()[0]
        location = first["loc"]
        own = str(location[0]) if location and location[0] in given else ""
        where = ".".join(map(str, location)) if own else ".".join([path, *map(str, location)])
        origin = "" if own else self.origin(where)
        if first["type"] == "extra_forbidden":
            fields = _fields(model, location[:-1])
            near = difflib.get_close_matches(str(location[-1]), fields, n=1)
            right = ".".join([*where.split(".")[:-1], *near])
            hint = f"did you mean {right}?" if near else f"there are {', '.join(fields)}"
            return f"{origin}{': ' if origin else ''}no setting {one_line(where)}; {hint}"
        value = first["input"]
        said = _NO_NUMBER if str(value).strip().lower() == "nan" else first["msg"]
        why = one_line(said.removeprefix("Value error, "))
        if own in flags and not location[1:]:
            return f"{flags[own]} {one_line(value, 80)}: {why}"
        if origin.startswith("-O "):
            return f"{origin}: {why}"
        told = one_line(json.dumps(value, default=str), 80)
        return f"{origin}{': ' if origin else ''}{one_line(where)} = {told}: {why}"


def load(name: str, overrides: list[str], sections: Mapping[str, str]) -> Recipe:
    """The recipe `name` (a built-in name or a .toml file) with ``path=value`` overrides.

    `sections` maps each path to the ``module:Class`` of its settings; all that the recipe or an override has a
    value of are validated here, so that a typing error anywhere shows before work starts. Raises UsageError.
    """
    tables = _read(name)
    typed = {_override(tables, override): override for override in overrides}
    recipe = Recipe(name, tables, typed)
    _refuse_unknown(tables, "", sections, recipe)
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


def _override(tables: dict[str, Any], override: str) -> str:
    """Put the value into the tables; its path."""
    try:
        override.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"-O {one_line(override)}: it holds bytes that are no UTF-8, which no recipe can") from error
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
    return ".".join(keys)


def _value(text: str) -> Any:
    """A TOML value, or the text itself where it is none: ``lr=1e-5`` and ``folder=2026-01-31`` need no quotes."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    value = values.pop("value")
    return text if values or isinstance(value, date | time) else value


def _refuse_unknown(tables: Mapping[str, Any], prefix: str, sections: Mapping[str, str], recipe: Recipe) -> None:
    for key, value in tables.items():
        path = f"{prefix}{key}"
        if path in sections:
            continue
        if isinstance(value, dict) and any(known.startswith(path + ".") for known in sections):
            _refuse_unknown(value, path + ".", sections, recipe)
            continue
        near = difflib.get_close_matches(path, sections, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sections)}"
        raise UsageError(f"{recipe.origin(path)}: no settings called {one_line(path)}{hint}")


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings in the table at `location` below `model`."""
    for key in location:
        found = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        model = found
    return list(model.model_fields)
