"""`authface evaluate`: the paper's tables on any folder of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authface.errors import UsageError, one_line
from authface.extras import need
from authface.options import Run, command_with_run

if TYPE_CHECKING:
    from authface.evaluate.restoration import Evaluation
    from authface.evaluate.settings import RestorationSettings

app = typer.Typer(help="The paper's tables, on any folder of outputs.", no_args_is_help=True)


@app.command()
@command_with_run
def synth(
    run: Run,
    faces: Annotated[Path, typer.Argument(metavar="FACES", help="A folder of square faces, or a dataset folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for clean/, degraded/ and manifest.json.")],
    degradation: Annotated[
        str | None, typer.Option(help="mild, medium, heavy, scan, gfpgan, codeformer_large, ...; default medium.")
    ] = None,
) -> None:
    """A test set with truth: degraded copies of clean faces. Run again, it makes only what is missing."""
    from authface.evaluate.images import open_sources
    from authface.evaluate.settings import SynthSettings
    from authface.evaluate.synth import conclude, synthesize
    from authface.faces.degrade import preset

    if run.engine != "local":
        raise UsageError("--engine ray: evaluate synth uses the cores of this machine alone, --workers N of them")
    settings = run.settings("evaluate.synth", SynthSettings, degradation=degradation)
    degraded = preset(settings.degradation)
    sources = open_sources(faces, settings.split)
    count = min(run.limit, len(sources)) if run.limit else len(sources)
    if run.dry_run:
        said = f"{count} faces of {one_line(faces)} -> {one_line(out)}, {settings.degradation}, seed {run.seed}"
        return run.console.result(said, count=count, settings=settings.model_dump(mode="json"))
    if getattr(degraded, "jitter", 0):
        need(f"the degradation {settings.degradation}", "restore", "torch", "torchvision")
    summary = synthesize(out, sources, settings, run.seed, run.console, limit=run.limit, workers=run.workers)
    for row in summary.failed[:20]:
        run.console.log(f"{one_line(row.id)}: failed ({row.reason}): {row.detail}")
    run.console.result(
        conclude(summary, out),
        made=summary.made,
        done_before=summary.kept,
        removed=summary.removed,
        count=summary.count,
        failed=[{"id": row.id, "reason": row.reason, "detail": row.detail} for row in summary.failed],
        out=str(out),
    )
    if summary.failed:
        run.console.log(f"{len(summary.failed)} faces failed: {one_line(out)}/manifest.json says why")
        raise typer.Exit(3)


@app.command()
@command_with_run
def restoration(
    run: Run,
    outputs: Annotated[
        list[str], typer.Option("--outputs", metavar="[NAME=]DIR", help="Restored faces; again for each method.")
    ],
    truth: Annotated[Path | None, typer.Option(help="The clean faces, by the same names.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="The degraded faces, by the same names.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the report and of its cache.")] = Path(
        "evaluation"
    ),
    metrics: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Names of metrics; without it all that apply.")
    ] = None,
) -> None:
    """Metrics of restored faces with intervals, methods compared face by face. Run again, it measures what is new."""
    from authface.evaluate.catalogue import choose
    from authface.evaluate.images import methods_of
    from authface.evaluate.measure import workers_of
    from authface.evaluate.restoration import RestorationTask, evaluate
    from authface.evaluate.settings import RestorationSettings

    names = None if metrics is None else tuple(name.strip() for name in metrics.split(",") if name.strip())
    settings = run.settings("evaluate.restoration", RestorationSettings, metrics=names)
    device, workers = workers_of(run)
    task = RestorationTask(methods_of(outputs), truth, inputs, settings, device, run.seed, run.limit, workers)
    if run.dry_run:
        chosen = [
            metric.name for metric in choose(settings.metrics, truth=truth is not None, inputs=inputs is not None)
        ]
        said = f"{', '.join(chosen)} of {', '.join(str(method.folder) for method in task.methods)}"
        return run.console.result(said, metrics=chosen, settings=settings.model_dump(mode="json"))
    need("authface evaluate restoration", "evaluate", "torch", "pyiqa", "scipy")
    _report_evaluation(run, evaluate(task, out, run.console), settings, out)


def _report_evaluation(run: Run, evaluation: Evaluation, settings: RestorationSettings, out: Path) -> None:
    """Write the report and print the means; exit code 3 where some outputs failed."""
    from authface.console import render_table
    from authface.evaluate.restoration import differences_table, means_table, write_report, write_tables

    write_tables(evaluation, out)
    page = write_report(evaluation, settings, out)
    parts = [render_table(*means_table(evaluation))]
    if evaluation.differences:
        parts.append(render_table(*differences_table(evaluation)))
    parts.append(f"report: {one_line(page)}")
    read_again = evaluation.measured.read_again
    run.console.result(
        "\n\n".join(parts), **evaluation.as_json(), read_again=read_again, report=str(page), out=str(out)
    )
    if evaluation.failed:
        run.console.log(f"{evaluation.failed} outputs failed: {one_line(page)} says why")
        raise typer.Exit(3)


@app.command()
@command_with_run
def challenge(
    run: Run,
    outputs: Annotated[
        list[str],
        typer.Option(
            "--outputs", metavar="[NAME=]DIR", help="Restored faces, a sub-folder a set; again for each method."
        ),
    ],
    inputs: Annotated[Path | None, typer.Option(help="The degraded faces, by the same names.")] = None,
    on: Annotated[str, typer.Option("--set", metavar="SET", help="The set, of folders without sub-folders.")] = "",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the report and of its cache.")] = Path(
        "evaluation"
    ),
) -> None:
    """The score and the identity gate of NTIRE's face restoration challenge of 2026, as far as weights are there."""
    from authface.evaluate.challenge.page import score_challenge
    from authface.evaluate.settings import ChallengeSettings

    score_challenge(run, outputs, inputs, on, run.settings("evaluate.challenge", ChallengeSettings), out)


@app.command()
@command_with_run
def prior(
    run: Run,
    model: Annotated[str | None, typer.Option(help="A model's name or folder; tiny.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The dataset whose prompts are drawn; photoset/dataset.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="none, semantic, or all: semantic and photographic tags.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Real faces for FID; the dataset's own without it.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the report, the samples and the cache.")] = Path(
        "evaluation"
    ),
) -> None:
    """FID, human preference and obedience of a face prior. Run again, it draws and measures what is new."""
    from authface.evaluate.measure import workers_of
    from authface.evaluate.prior import run as prior_page
    from authface.evaluate.prior.run import evaluate_prior
    from authface.evaluate.prior.samples import sample_requests
    from authface.evaluate.settings import PriorEvaluationSettings
    from authface.models.families import resolve

    device, workers = workers_of(run)
    given = {"model": model, "dataset": dataset, "prompts": prompts, "reference": reference}
    settings = run.settings("evaluate.prior", PriorEvaluationSettings, **given)
    if run.dry_run:
        resolve(settings.model)
        count = len(sample_requests(settings, run.seed, run.limit))
        beside = 2 * len(settings.opposites) * settings.steer_samples
        said = f"{one_line(settings.model)}: {count} samples of {settings.prompts} prompts, {beside} of opposites"
        return run.console.result(said, count=count, opposites=beside, settings=settings.model_dump(mode="json"))
    need("authface evaluate prior", "evaluate", "torch", "diffusers", "transformers", "pyiqa", "scipy")
    report = evaluate_prior(settings, out, device, run.seed, run.limit, run.console, workers)
    page = prior_page.write(report, out)
    text = f"{prior_page.as_text(report)}\n\nreport: {one_line(page)}"
    run.console.result(text, **report.as_json(), drawn=report.drawn, report=str(page), out=str(out))


@app.command()
@command_with_run
def runtime(
    run: Run,
    model: Annotated[str | None, typer.Option(help="A model's name or folder; the recipe's restore.model.")] = None,
    preset: Annotated[str | None, typer.Option(help="quality, fast, or official: the paper's setting.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the faces, pixels; the paper's 512.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Runs; their median counts.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for runtime.json.")] = Path("evaluation"),
) -> None:
    """Seconds a face and peak memory of a model, warm, and where the time goes; -O restore.* as in restoring."""
    import json

    from authface.evaluate import runtime as measuring
    from authface.evaluate.settings import RuntimeSettings
    from authface.models.families import check_restorer

    settings = run.settings("evaluate.runtime", RuntimeSettings, preset=preset, size=size, count=count)
    own = f"restore.preset={json.dumps(settings.preset)}"
    asked = measuring.settings_of_model(run.recipe_name, [*run.overrides, own], model)
    if run.dry_run:
        check_restorer(asked.get("model", "tiny"))
        said = f"{one_line(asked.get('model', 'tiny'))}: {settings.count} runs, {settings.preset}, {settings.size} px"
        return run.console.result(said, settings=settings.model_dump(mode="json"))
    need("authface evaluate runtime", "restore", "torch", "diffusers", "transformers")
    found, how = measuring.run_model(asked, settings, run.device, run.seed, run.console)
    path = measuring.write(found, how, out)
    text = f"{measuring.as_text(found, how)}\n\nreport: {one_line(path)}"
    run.console.result(text, **measuring.as_json(found, how), report=str(path))


@app.command()
@command_with_run
def table(
    run: Run,
    number: Annotated[int, typer.Argument(min=1, max=6)],
    ours: Annotated[
        list[str] | None,
        typer.Option(
            "--ours", metavar="NAME[@SET]=DIR", help="A report of evaluate restoration, ab or runtime; again."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the table and of the grid.")] = Path("evaluation"),
    grid: Annotated[
        bool, typer.Option("--grid", help="The commands that make ours of an ablation, tables 2, 3 and 4.")
    ] = False,
    run_grid: Annotated[bool, typer.Option("--run", help="Run them; again, it goes on.")] = False,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Captioned faces that the grid trains on.")
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SET=]DIR",
            help="Faces to restore, a folder of evaluate synth or of degraded faces; of a grid without it the "
            "dataset's split test.",
        ),
    ] = None,
    restorers: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Models and restorers to run over --test for rows of table 1."),
    ] = None,
) -> None:
    """One of the paper's tables with ours beside theirs; what is not known or measured is shown as missing."""
    from authface.evaluate.paper.page import TableRequest, show_table

    names = (restorers or "").split(",") if restorers else []
    show_table(run, TableRequest(number, ours or [], out, grid, run_grid, dataset, test or [], names))


@app.command()
@command_with_run
def ab(
    run: Run,
    outputs: Annotated[
        list[str] | None, typer.Option("--outputs", metavar="[NAME=]DIR", help="A method's faces; two or more times.")
    ] = None,
    ours: Annotated[
        str | None, typer.Option(metavar="NAME", help="The method that each other stands beside; the last.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The degraded faces, shown between the two.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="STUDY", help="Folder of the study.")] = Path("study"),
    host: Annotated[
        str | None, typer.Option(help="Address the page is served on; 127.0.0.1, this machine alone.")
    ] = None,
    people: Annotated[
        int | None, typer.Option(metavar="N", help="End when so many people have answered all; else with Ctrl-C.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="What people have said so far; serves nothing.")] = False,
) -> None:
    """A blind A/B study as a local page: left, same or right, of pairs in an order and on sides that are drawn."""
    from authface.evaluate.settings import AbSettings
    from authface.evaluate.study.run import report_study, serve_study

    settings = run.settings("evaluate.ab", AbSettings, host=host, people=people)
    if report:
        report_study(run, settings, out)
    else:
        serve_study(run, outputs or [], ours, inputs, settings, out)
