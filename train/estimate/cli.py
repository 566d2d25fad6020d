"""`authface estimate train`: what a training will take, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line
from authface.extras import need
from authface.options import Run, command_with_run
from authface.train.cli import NEEDED, DatasetArgument
from authface.train.estimate.hardware import UTILISATION, gpus_named, local_gpu

if TYPE_CHECKING:
    from pathlib import Path

    from authface.train.settings import DiffusionSettings

app = typer.Typer(
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


@app.command()
@command_with_run
def prior(
    run: Run, dataset: DatasetArgument = None, faces: FacesOption = 0,
    processes: ProcessesOption = 1, sharding: ShardingOption = "none", gpu: GpuOption = [],  # noqa: B006  # typer's default
    utilisation: UtilisationOption = UTILISATION,
) -> None:  # fmt: skip
    """Stage I: the U-Net, its adapters, or U-Net and text encoders."""
    from authface.train.settings import PriorSettings

    settings = run.settings("train.prior", PriorSettings)
    _estimate(run, "prior", settings, dataset, faces, processes, sharding, gpu, utilisation)


@app.command()
@command_with_run
def controlnet(
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
    from authface.train.estimate import estimate, stages
    from authface.train.estimate.report import Report
    from authface.train.settings import AutoencoderSettings, PriorSettings

    quiet()
    logging.set_verbosity_error()  # it warns of weights cast to bfloat16, which is meant
    first, second = run.settings("train.autoencoder", AutoencoderSettings), run.settings("train.prior", PriorSettings)
    begins_from = {str(first.out): first.model, str(second.out): second.model}
    architecture = stages.find_architecture(settings.model, settings.size, begins_from, VAES[first.vae])
    half = settings.half(torch.device("cpu" if run.device == "cpu" else "cuda"))
    known = faces or estimate.count_faces(dataset or settings.dataset, run.limit)
    own = local_gpu()
    if own is not None and not names:
        candidates = (own, *candidates)
    estimator = estimate.Estimator(architecture, half, processes, sharding)
    counted = estimator.count(settings)
    verdicts = estimate.judge(estimator, settings, counted, candidates, utilisation)
    report = Report(
        stage, architecture.origin, settings, half, processes, sharding, utilisation, counted, known, verdicts
    )
    run.console.result(report.to_text(), **report.as_json())
