"""`authface train`: autoencoder, cleaner, prior (stage I), controlnet (stage II)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line
from authface.extras import need
from authface.options import SECTIONS, Run, command_with_run

if TYPE_CHECKING:
    from authface.train.loop import TrainingResult
    from authface.train.settings import TrainSettings

app = typer.Typer(
    help="Train a family: the face prior and its ControlNet. The same command again goes on.", no_args_is_help=True
)

NEEDED = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "datasets")
"""Modules that every training imports."""

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[DATASET]", help="A Hugging Face dataset folder; photoset/dataset if not given."),
]


@app.command()
@command_with_run
def autoencoder(run: Run, dataset: DatasetArgument = None) -> None:
    """The VAE of a small family, in pixels: `tiny` begins here, SDXL does not need it."""
    _train(run, "autoencoder", dataset)


@app.command()
@command_with_run
def cleaner(run: Run, dataset: DatasetArgument = None) -> None:
    """A network in pixels that takes damage off faces; any family may have one."""
    _train(run, "cleaner", dataset)


@app.command()
@command_with_run
def prior(run: Run, dataset: DatasetArgument = None) -> None:
    """Stage I: the U-Net becomes a face prior, on captioned faces."""
    _train(run, "prior", dataset)


@app.command()
@command_with_run
def controlnet(run: Run, dataset: DatasetArgument = None) -> None:
    """Stage II: a ControlNet learns to restore over the frozen prior, on degraded faces."""
    _train(run, "controlnet", dataset)


@app.command()
def configs(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="ddp, fsdp or deepspeed; all if not given.")] = "",
) -> None:
    """Where the configurations for several GPUs lie.

    accelerate launch --config_file $(authface train configs fsdp) -m authface.cli train prior
    """
    found = {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.yaml"))}
    if name and name not in found:
        raise UsageError(f"no configuration {one_line(name)}: there are {', '.join(found)}")
    typer.echo("\n".join(str(path) for stem, path in found.items() if name in {"", stem}))


def _train(run: Run, stage: str, dataset: Path | None) -> None:
    """Run `train_STAGE` of authface.train.STAGE by the settings of train.STAGE, or show them."""
    path = f"train.{stage}"
    module, _, name = SECTIONS[path].partition(":")
    model: type[TrainSettings] = getattr(import_module(module), name)
    settings = run.settings(path, model)
    if dataset is not None:
        settings = settings.model_copy(update={"dataset": dataset})
    from authface.models.families import resolve

    if run.dry_run:
        for family in filter(None, (settings.model, getattr(settings, "begin_from", ""))):
            if family != "new":
                resolve(family)
        values = settings.model_dump(mode="json")
        lines = [f"{path}.{key} = {value}" for key, value in values.items()]
        return run.console.result("\n".join(lines), settings=values)
    need(f"authface train {stage}", "train", *NEEDED)
    train = getattr(import_module(f"authface.train.{stage}"), f"train_{stage}")
    _report(run, stage, settings, train(settings, run.console, run.device, run.seed, run.limit))


NEXT = {
    "autoencoder": "authface train prior {dataset} -O train.prior.model={out}",
    "cleaner": "authface restore PHOTO --model {out}",
    "prior": "authface train controlnet {dataset} -O train.controlnet.model={out}",
    "controlnet": "authface restore PHOTO --model {out}",
}
"""What comes after each training."""


def _report(run: Run, stage: str, settings: TrainSettings, outcome: TrainingResult) -> None:

    onward = NEXT[stage].format(dataset=one_line(settings.dataset), out=one_line(outcome.out))
    said = f"trained: {outcome.out}" if outcome.finished else f"stopped and saved: {outcome.out}, run again to go on"
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    run.console.result(
        f"{said} (step {outcome.step}{loss})" + (f"\nnext: {onward}" if outcome.finished else ""),
        out=str(outcome.out),
        step=outcome.step,
        finished=outcome.finished,
        loss=outcome.loss,
    )
