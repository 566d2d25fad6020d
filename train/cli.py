"""`authface train`: autoencoder, cleaner, prior (stage I), controlnet (stage II); and what they take (`estimate`)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line, shell_word
from authface.extras import need
from authface.options import SECTIONS, Run, command_with_run
from authface.train.estimate.hardware import UTILISATION, gpus_named, local_gpu

if TYPE_CHECKING:
    from authface.train.loop import TrainingResult
    from authface.train.settings import DiffusionSettings, TrainSettings

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
    if run.seed < 0:
        raise UsageError(f"--seed {run.seed}: seeds are 0 and more")
    if run.engine != "local":
        raise UsageError(
            f"--engine {one_line(run.engine)}: trainings run in the processes of accelerate launch, see authface train"
            " configs"
        )
    from authface.faces.degrade import mixture
    from authface.models.families import resolve

    if run.dry_run:
        if (damage := getattr(settings, "degradation", None)) is not None:
            mixture(damage)
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

    onward = NEXT[stage].format(dataset=shell_word(settings.dataset), out=shell_word(outcome.out))
    said = f"trained: {outcome.out}" if outcome.finished else f"stopped and saved: {outcome.out}, run again to go on"
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
    run.console.result(
        f"{said} (step {outcome.step}{loss})" + (f"\nnext: {onward}" if outcome.finished else ""),
        out=str(outcome.out),
        step=outcome.step,
        finished=outcome.finished,
        loss=outcome.loss,
    )


estimate = typer.Typer(
    help="Memory, steps, FLOPs and hours of a training, counted on networks without weights.", no_args_is_help=True
)

FacesOption = Annotated[int, typer.Option(min=0, help="Faces of the dataset; 0 counts those that are there.")]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Processes that train together, a GPU each.")]
ShardingOption = Annotated[
    str, typer.Option(help="none: each has all weights (configs ddp); fsdp: a part of them (configs fsdp).")
]
GpuOption = Annotated[list[str], typer.Option(help="A GPU to judge by, such as L40S; all that are known if not given.")]
UtilisationOption = Annotated[
    float, typer.Option(min=0.01, max=1, help="Share of a GPU's peak that training reaches: an assumption.")
]


@estimate.command("prior")
@command_with_run
def estimate_prior(
    run: Run, dataset: DatasetArgument = None, faces: FacesOption = 0,
    processes: ProcessesOption = 1, sharding: ShardingOption = "none", gpu: GpuOption = [],  # noqa: B006  # typer's default
    utilisation: UtilisationOption = UTILISATION,
) -> None:  # fmt: skip
    """Stage I: the U-Net, its adapters, or U-Net and text encoders."""
    from authface.train.settings import PriorSettings

    settings = run.settings("train.prior", PriorSettings)
    _estimate(run, "prior", settings, dataset, faces, processes, sharding, gpu, utilisation)


@estimate.command("controlnet")
@command_with_run
def estimate_controlnet(
    run: Run, dataset: DatasetArgument = None, faces: FacesOption = 0,
    processes: ProcessesOption = 1, sharding: ShardingOption = "none", gpu: GpuOption = [],  # noqa: B006  # typer's default
    utilisation: UtilisationOption = UTILISATION,
) -> None:  # fmt: skip
    """Stage II: the ControlNet over the frozen prior."""
    from authface.train.settings import ControlNetSettings

    settings = run.settings("train.controlnet", ControlNetSettings)
    _estimate(run, "controlnet", settings, dataset, faces, processes, sharding, gpu, utilisation)


def _estimate(
    run: Run, stage: str, settings: DiffusionSettings, dataset: Path | None, faces: int, processes: int,
    sharding: str, names: list[str],
    utilisation: float,
) -> None:  # fmt: skip
    from authface.models.layout import quiet

    candidates = gpus_named(names)  # refuses a wrong name before torch is loaded
    if sharding not in ("none", "fsdp"):  # those of estimate.Sharding, which loads torch
        raise UsageError(f"--sharding {one_line(sharding)}: there are none and fsdp")
    need(f"authface estimate train {stage}", "train", *NEEDED)
    import torch
    from diffusers.utils import logging

    from authface.models.tiny import VAES
    from authface.train.estimate import estimate as estimating
    from authface.train.estimate import stages
    from authface.train.estimate.report import Report
    from authface.train.settings import AutoencoderSettings, PriorSettings

    quiet()
    logging.set_verbosity_error()  # it warns of weights cast to bfloat16, which is meant
    first, second = run.settings("train.autoencoder", AutoencoderSettings), run.settings("train.prior", PriorSettings)
    begins_from = {str(first.out): first.model, str(second.out): second.model}
    architecture = stages.find_architecture(settings.model, settings.size, begins_from, VAES[first.vae])
    half = settings.half(torch.device("cpu" if run.device == "cpu" else "cuda"))
    known = faces or estimating.count_faces(dataset or settings.dataset, run.limit)
    own = local_gpu()
    if own is not None and not names:
        candidates = (own, *candidates)
    estimator = estimating.Estimator(architecture, half, processes, sharding)
    counted = estimator.count(settings)
    verdicts = estimating.judge(estimator, settings, counted, candidates, utilisation)
    report = Report(
        stage, architecture.origin, settings, half, processes, sharding, utilisation, counted, known, verdicts
    )
    run.console.result(report.to_text(), **report.as_json())
