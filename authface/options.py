"""The flags that every command shares, and what a command is given of them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from typer.models import ArgumentInfo, OptionInfo

from authface.devices import Devices, several
from authface.errors import UsageError, one_line

if TYPE_CHECKING:
    from authface.console import Console
    from authface.engine.ray import Cluster
    from authface.recipe import S, Settings
    from authface.store.photoset import PhotoSet

SECTIONS = {
    "curate.fetch": "authface.curate.settings:FetchSettings",
    "curate.filter": "authface.curate.settings:FilterSettings",
    "curate.learn": "authface.curate.settings:LearnSettings",
    "curate.align": "authface.curate.settings:AlignSettings",
    "curate.review": "authface.review.reviews:ReviewSettings",
    "curate.balance": "authface.curate.settings:BalanceSettings",
    "curate.split": "authface.curate.settings:SplitSettings",
    "annotate.tags": "authface.annotate.settings:TagsSettings",
    "annotate.export": "authface.annotate.settings:ExportSettings",
    "train.autoencoder": "authface.train.settings:AutoencoderSettings",
    "train.prior": "authface.train.settings:PriorSettings",
    "train.cleaner": "authface.train.settings:CleanerSettings",
    "train.controlnet": "authface.train.settings:ControlNetSettings",
    "restore": "authface.restore.settings:RestoreSettings",
    "evaluate.synth": "authface.evaluate.settings:SynthSettings",
    "evaluate.restoration": "authface.evaluate.settings:RestorationSettings",
    "evaluate.challenge": "authface.evaluate.settings:ChallengeSettings",
    "evaluate.prior": "authface.evaluate.settings:PriorEvaluationSettings",
    "evaluate.runtime": "authface.evaluate.settings:RuntimeSettings",
    "evaluate.ab": "authface.evaluate.settings:AbSettings",
}
"""Every table a recipe may hold, and the model that owns it. Names only: nothing is imported for ``--help``."""


def _set(text: str) -> Path:
    from authface.files import place

    return place(_named(text))


def _local(text: str) -> Path:
    from authface.files import local

    return local(_named(text))


def _named(text: str) -> str:
    """The text of a path. Raises UsageError for none, which as a path would be the folder one stands in."""
    if not text:
        raise UsageError("an empty path, as of a shell's variable without a value; . is the folder you are in")
    return text


SetArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SET",
        envvar="AUTHFACE_SET",
        parser=_set,
        help="The folder the dataset grows in, or its address, such as s3://bucket/faces.",
    ),
]
DEFAULT_SET = Path("photoset")


def open_set(place: Path) -> PhotoSet:
    """The photo set of a `SetArgument`. Raises UsageError where there is none."""
    from authface.store.photoset import PhotoSet

    return PhotoSet.open(place)


@dataclass(frozen=True)
class Run:
    """The common flags, resolved."""

    recipe_name: str
    overrides: tuple[str, ...]
    device: str
    workers: int
    engine: str
    seed: int
    limit: int
    dry_run: bool
    console: Console
    most_workers: int = 0
    """As it was given; 0: it was not."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """How the command's own values are typed, such as ``--min-identity``, by their names."""

    def cluster(self, *, gpu: bool = False) -> Cluster | None:
        """Where a step runs under `--engine ray`, None for this machine; `gpu`: its models run on `--device`."""
        if self.engine != "ray":
            return None
        from authface.engine.ray import Cluster

        return Cluster(self.most_workers, gpu and self.device.partition(":")[0] == "cuda")

    def devices(self) -> Devices | None:
        """Several devices of this machine, as `--device cuda:all` names them; None: one, or a cluster's.

        Raises UsageError as `several` does.
        """
        return None if self.engine == "ray" else several(self.device)

    def settings(self, path: str, model: type[S], /, **given: Any) -> S:
        """The settings of one stage, such as ``curate.filter``, with all of the recipe checked.

        `given` are values from the command line's own flags, which win; None stands for a flag not used.
        """
        from authface.recipe import load

        chosen = {name: value for name, value in given.items() if value is not None}
        return load(self.recipe_name, list(self.overrides), SECTIONS).section(path, model, chosen, self.flags)

    def show(self, section: str, settings: Settings) -> None:
        """What ``--dry-run`` prints of a command without a plan of its own: the settings it would work with."""
        lines = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
        self.console.result(f"[{section}]\n{lines}", section=section, settings=settings.model_dump(mode="json"))


_COMMON: dict[str, tuple[Any, Any]] = {
    "recipe": (Annotated[str, typer.Option(help="Name of a built-in recipe, or a .toml file.")], "default"),
    "override": (
        Annotated[
            list[str], typer.Option("-O", metavar="PATH=VALUE", help="One setting, such as curate.align.size=1024.")
        ],
        [],
    ),
    "device": (
        Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps; several: cuda:all, cuda:0,cuda:2, cpu:2.")],
        "auto",
    ),
    "workers": (Annotated[int, typer.Option(min=0, help="Processes, or workers of a cluster; 0 takes one a core.")], 0),
    "engine": (Annotated[str, typer.Option(help="local, or ray: the cluster at RAY_ADDRESS, else here.")], "local"),
    "seed": (Annotated[int, typer.Option(help="Seed of everything random.")], 0),
    "limit": (Annotated[int, typer.Option(min=0, help="Stop after this many inputs; 0 takes all.")], 0),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="Show what would be done, do nothing.")], False),
    "json_output": (Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")], False),
}

F = TypeVar("F", bound=Callable[..., None])


def command_with_run(function: F) -> F:
    """Give a command's `run` parameter the common flags: the command itself declares only its own arguments."""
    signature = inspect.signature(function, eval_str=True)
    own = [_of_this_machine(p) for name, p in signature.parameters.items() if name != "run"]
    flags = {p.name: _flag(p) for p in own}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _COMMON.items()
    ]

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        from authface.console import Console

        common = {name: arguments.pop(name) for name in _COMMON}
        console = Console(json_output=common["json_output"], debug=common["debug"])
        with console:
            function(run=_run(common, console, flags), **arguments)

    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    wrapper.__signature__ = signature.replace(parameters=own + common)  # type: ignore[attr-defined]  # read by typer
    wrapper.__annotations__ = {p.name: p.annotation for p in own + common}
    return wrapper  # type: ignore[return-value]  # the same command with more flags


def _of_this_machine(parameter: inspect.Parameter) -> inspect.Parameter:
    """A command's parameter; one of paths refuses addresses, unless it has a parser of its own, as a set has."""
    kind, *told = get_args(parameter.annotation)
    declared = copy(next(one for one in told if isinstance(one, OptionInfo | ArgumentInfo)))
    if declared.parser is not None or Path not in (kind, *get_args(kind)):
        return parameter
    declared.parser = _local
    return parameter.replace(annotation=Annotated[kind, declared])


def _flag(parameter: inspect.Parameter) -> str:
    """How a command's value is typed: its option, or what its usage calls an argument."""
    told = getattr(parameter.annotation, "__metadata__", ())
    declared = next((one for one in told if isinstance(one, OptionInfo | ArgumentInfo)), None)
    named = parameter.name.replace("_", "-")
    if isinstance(declared, ArgumentInfo):
        return str(declared.metavar or named.upper())
    names = (declared.default, *(declared.param_decls or ())) if declared else ()  # typer takes the first for a default
    options = [one.partition("/")[0] for one in names if isinstance(one, str) and one.startswith("--")]
    return options[0] if options else f"--{named}"


def _run(common: dict[str, Any], console: Console, flags: Mapping[str, str]) -> Run:
    if common["engine"] not in {"local", "ray"}:
        raise UsageError(f"--engine {one_line(common['engine'])}: there are local and ray")
    return Run(
        recipe_name=common["recipe"],
        overrides=tuple(common["override"]),
        device=common["device"],
        workers=common["workers"] or os.cpu_count() or 1,
        engine=common["engine"],
        seed=common["seed"],
        limit=common["limit"],
        dry_run=common["dry_run"],
        console=console,
        most_workers=common["workers"],
        flags=flags,
    )
