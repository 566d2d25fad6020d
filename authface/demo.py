"""`authface demo`: the whole arrow on photos that ship with the dependencies, and one page that shows it.

Each stage is called as its command calls it, on files that the stage before left; the recipe `demo` holds
the settings. Run again, it does only what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authface.annotate.export.run import export
from authface.annotate.measured.tagger import MeasuredTags
from authface.annotate.settings import ExportSettings, TagsSettings
from authface.curate.align import Align
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.filter.run import filter_photos
from authface.curate.settings import AlignSettings, FetchSettings, FilterSettings
from authface.engine.runner import parts_of
from authface.engine.runner import run as run_parts
from authface.errors import one_line
from authface.extras import need
from authface.faces.degrade import degrade, preset
from authface.files import write_file
from authface.imaging import decode as images
from authface.models import families
from authface.models.layout import FURTHER, part_files
from authface.options import Run
from authface.report import pages as report
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, Session
from authface.restore.settings import RestoreSettings
from authface.review.reviews import ReviewedStep, ReviewSettings, reviewed_crops
from authface.store.photoset import PhotoSet
from authface.train.cli import NEEDED
from authface.train.settings import AutoencoderSettings, CleanerSettings, ControlNetSettings, PriorSettings

DEGRADATION = "medium"
"""Of the photo that is restored."""
STAGES = {
    "autoencoder": ("autoencoder", "as it was | rebuilt from its latents"),
    "prior": ("face prior", "drawn from noise by the tags of each crop"),
    "cleaner": ("cleaner", "damaged | cleaned | as it was"),
    "controlnet": ("ControlNet", "damaged | restored | as it was"),
}
"""The folders of the trainings: the stage's name, and what its validation picture shows."""


@dataclass
class Story:
    """The chapters of the page and how long each took."""

    sections: list[report.Section] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time of a stage."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def demo(out: Path, run: Run) -> Path:
    """Run every stage below `out` and write ``out/report.html``, or say so on a dry run; returns its path."""
    need("authface demo", "train,samples", *NEEDED, "skimage", "matplotlib")
    recipe = "demo" if run.recipe_name == "default" else run.recipe_name
    run = replace(run, recipe_name=recipe)
    page = out / "report.html"
    if run.dry_run:
        _show(out, run)
        return page
    photoset, story = PhotoSet(out / "photoset"), Story()
    with story.timed("curate"), photoset.lock():
        _curate(photoset, run)
    story.sections.append(_curated(photoset))
    with story.timed("annotate"), photoset.lock():
        dataset = _annotate(photoset, run)
    story.sections.append(_annotated(photoset, dataset))
    with story.timed("train"):
        trained = _train(dataset, out / "models", run)
    story.sections.append(_trained(trained))
    with story.timed("restore"):
        before, after = _restore(photoset, trained[-1], out, run)
    story.sections.append(_restored(before, after))
    times = [(name, f"{seconds:.0f} s") for name, seconds in story.seconds.items()]
    report.story(page, "authface: the whole arrow", story.sections, summary=times)
    run.console.result(
        "\n".join(f"{name:>9}: {value}" for name, value in times) + f"\nreport: {one_line(page.resolve())}",
        report=str(page.resolve()),
        seconds=story.seconds,
    )
    return page


def _show(out: Path, run: Run) -> None:
    source = run.settings("curate.fetch", FetchSettings).source
    model = run.settings("train.autoencoder", AutoencoderSettings).model
    lines = [
        f"curate and annotate: {one_line(source)} -> {one_line(out / 'photoset')}",
        f"train: {', '.join(STAGES)}, from {one_line(model)} -> {one_line(out / 'models')}",
        f"restore: {one_line(out / 'degraded.png')} -> {one_line(out / 'restored.png')}",
        f"report: {one_line(out / 'report.html')}",
    ]
    run.console.result("\n".join(lines), report=str(out / "report.html"))


def _curate(photoset: PhotoSet, run: Run) -> None:
    """fetch, filter, align."""
    fetching = run.settings("curate.fetch", FetchSettings)
    fetch(photoset, make_source(fetching, photoset), fetching, run.console, workers=1, limit=run.limit)
    filter_photos(photoset, run.settings("curate.filter", FilterSettings), run.console)
    aligning = Align(photoset.root, run.settings("curate.align", AlignSettings))
    run_parts(aligning, parts_of(photoset.faces), photoset.crops, run.console)


def _curated(photoset: PhotoSet) -> report.Section:
    cells, rows = [], []
    faces = {face.photo_id: face for face in photoset.faces}
    for photo in photoset.photos:
        face = faces.get(photo.id)
        row = face or photo
        why = row.status if row.status == "kept" else f"{row.status}: {row.reason.replace('_', ' ')}"
        if row.value is not None and row.limit is not None:
            why += f" ({report.quantity(row.value)}, limit {report.quantity(row.limit)})"
        cells.append(report.Cell(images.preview(photoset.root / photo.file, 200), photo.source_id, why))
        measured = [face.size, face.sharpness, face.noise, face.piqe] if face else [None] * 4
        rows.append([photo.source_id, photo.licence, why, *(report.quantity(value) for value in measured)])
    text = (
        "Photos that ship with scikit-image and matplotlib. RetinaFace looks for faces; a face is measured on its own "
        "pixels (size, sharpness of the eyes, noise, PIQE), and what is not kept says why. dlib's 68 points place the "
        "kept ones in FFHQ's square, after RetinaFace's five points confirm them."
    )
    crops = [
        report.Cell(images.preview(photoset.root / crop.file, 256), "aligned", f"{crop.size} px")
        for crop in photoset.crops
        if crop.file
    ]
    header = ("photo", "licence", "verdict", "face px", "sharpness", "noise", "PIQE")
    return report.Section("Curate", text, [*cells, *crops], report.ReportTable(header, rows))


def _annotate(photoset: PhotoSet, run: Run) -> Path:
    """tags, export; returns the dataset's folder."""
    review, settings = run.settings("curate.review", ReviewSettings), run.settings("annotate.tags", TagsSettings)
    tagging = ReviewedStep(MeasuredTags(photoset.root, settings.measured))
    run_parts(tagging, reviewed_crops(photoset, review), photoset.tags("measured"), run.console)
    return export(photoset, run.settings("annotate.export", ExportSettings), run.console, review=review).folder


def _annotated(photoset: PhotoSet, dataset: Path) -> report.Section:
    import datasets

    rows = datasets.load_dataset(str(dataset), split="train")
    text = (
        "Tags that say how a portrait was photographed, measured from pixels and landmarks without any model, each "
        f"with its confidence. datasets.load_dataset opens the result: {len(rows)} rows with the columns "
        f"{', '.join(rows.column_names)}."
    )
    groups = [
        [Path(row["source_id"]).stem, tag["group"], tag["name"], f"{tag['confidence']:.2f}"]
        for row in rows
        for tag in row["tags"]
    ]
    return report.Section("Annotate", text, table=report.ReportTable(("photo", "group", "tag", "confidence"), groups))


def _train(dataset: Path, models: Path, run: Run) -> list[Path]:
    """A few steps of each stage, from what the one before left; the families' folders, the last of which restores."""
    from authface.train.autoencoder import train_autoencoder
    from authface.train.cleaner import train_cleaner
    from authface.train.controlnet import train_controlnet
    from authface.train.prior import train_prior

    def places(name: str, begun: str = "") -> dict[str, Any]:
        came = {"model": str(trained[-1])} if trained else {}
        return {"dataset": dataset, "out": models / name, **came, **({"begin_from": begun} if begun else {})}

    trained: list[Path] = []
    first = run.settings("train.autoencoder", AutoencoderSettings, **places("autoencoder"))
    trained.append(train_autoencoder(first, run.console, run.device, run.seed).out)
    further = _further_parts(first.model)
    second = run.settings("train.prior", PriorSettings, **places("prior"))
    trained.append(train_prior(second, run.console, run.device, run.seed).out)
    if "cleaner" in further:  # a new one would learn nothing in a few steps
        third = run.settings("train.cleaner", CleanerSettings, **places("cleaner", first.model))
        trained.append(train_cleaner(third, run.console, run.device, run.seed).out)
    begun = first.model if "controlnet" in further else ""
    last = run.settings("train.controlnet", ControlNetSettings, **places("controlnet", begun))
    trained.append(train_controlnet(last, run.console, run.device, run.seed).out)
    return trained


def _further_parts(model: str) -> list[str]:
    """Which parts the family `model` has beyond those that every family has."""
    folder = None if model == "new" else families.fetch(families.resolve(model), FURTHER)
    return [part for part in FURTHER if folder is not None and part_files(folder, part)]


def _trained(families: list[Path]) -> report.Section:
    cells, rows = [], []
    for training in (family / "training" for family in families):
        name, shown = STAGES[training.parent.name]
        losses = [json.loads(line)["loss"] for line in (training / "metrics.jsonl").read_text().splitlines()]
        settings = json.loads((training / "run.json").read_text())["settings"]
        rows.append([name, f"{len(losses):,}", f"{settings['lr']:g}", report.quantity(sum(losses) / len(losses))])
        for picture in sorted((training / "validation").glob("*.png"))[-1:]:
            cells.append(report.Cell(images.preview(picture, 1024), name, shown))
    text = (
        "Each stage goes on from the model that comes along, for a few steps on the crops above: the decoder of its "
        "autoencoder, its face prior (stage I), its cleaner where it has one, and its ControlNet (stage II, with the "
        "facial loss). They show that every stage works; the learning rate is so low that what the model knows stays, "
        "and so few portraits teach it nothing new. The pictures are each stage's own, drawn after its last step."
    )
    return report.Section(
        "Train", text, cells, report.ReportTable(("stage", "steps", "learning rate", "mean loss"), rows)
    )


def _restore(photoset: PhotoSet, model: Path, out: Path, run: Run) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Degrade the photo of the last crop, restore it with `restore`'s own code, and read both back."""
    subject = [crop.photo_id for crop in photoset.crops if crop.file][-1]
    photo = next(row for row in photoset.photos if row.id == subject)
    clean = images.read(photoset.root / photo.file).rgb
    side = min(clean.shape[:2])
    degraded, restored = out / "degraded.png", out / "restored.png"
    write_file(degraded, images.encode_png(degrade(clean[:side, :side], run.seed, preset(DEGRADATION))))
    settings = run.settings("restore", RestoreSettings, model=str(model), report=False)
    session = Session(Request(settings, device=run.device, seed=run.seed), run.console)
    restore_jobs(jobs_of([degraded], restored, settings.format), session, overwrite=True)
    return images.read(degraded).rgb, images.read(restored).rgb


def _restored(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> report.Section:
    text = (
        f"The photo is degraded (preset {DEGRADATION}: blur, downsampling, noise, JPEG), its face found, aligned, "
        "restored by the family trained above, and pasted back; nothing outside of the face's mask changes. The "
        "training saw this photo: how good the model is on people it never saw, authface/builtin/README.md tells."
    )
    return report.Section("Restore", text, pairs=[report.Comparison("degraded | restored", before, after)])
