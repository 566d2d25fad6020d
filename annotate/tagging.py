"""`annotate tags`: which step an annotator is, and its run over the crops that people left in."""

from __future__ import annotations

from dataclasses import dataclass

from authface import backends
from authface.annotate.captioners.captioner import Captioner, CaptionerRequest
from authface.annotate.captioners.step import CaptionStep, reread_parts
from authface.annotate.measured.step import MeasuredTags
from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary.resolve import MEASURED
from authface.engine.runner import CHUNK_ROWS, Summary
from authface.engine.runner import run as run_parts
from authface.errors import AuthfaceError, UsageError, one_line
from authface.options import Run
from authface.review.reviews import ReviewedStep, ReviewSettings, reviewed_crops
from authface.store.photoset import PhotoSet

WITH_MODEL = ("llava", "openai")
"""Annotators that are asked a prompt and have a model of their own choosing."""


@dataclass(frozen=True)
class Tagged:
    """What a run did."""

    summary: Summary
    reread: int = 0
    """Parts whose answers were read again under other rules, without a model."""


def with_model(settings: TagsSettings, model: str | None) -> TagsSettings:
    """The settings with `model` in place of the annotator's own. Raises UsageError where it has none."""
    if model is None:
        return settings
    if settings.annotator not in WITH_MODEL:
        raise UsageError(f"--model {one_line(model)}: --with {settings.annotator} has no model; llava and openai have")
    chosen = getattr(settings, settings.annotator).model_copy(update={"model": model})
    return settings.model_copy(update={settings.annotator: chosen})


def tag(photoset: PhotoSet, settings: TagsSettings, review: ReviewSettings, run: Run, *, redo: bool = False) -> Tagged:
    """Tag the crops that are new or changed, all with `redo`; the caller holds the set's lock. Raises AuthfaceError."""
    kind: type[Captioner] | None = None
    if settings.annotator != MEASURED:
        kind = backends.load("captioners", settings.annotator)
    inputs = reviewed_crops(photoset, review, run.limit)
    if not any(part.count for part in inputs):
        where = one_line(photoset.root)
        raise AuthfaceError(f"{where} has no kept crops to tag: authface curate report {where} says why")
    target = photoset.tags(settings.annotator)
    if kind is None:
        measured = ReviewedStep(MeasuredTags(photoset.root, settings.measured))
        return Tagged(
            run_parts(measured, inputs, target, run.console, workers=run.workers, cluster=run.cluster(), redo=redo)
        )
    cluster, devices = run.cluster(gpu=kind.gpu), run.devices()
    if devices and not kind.gpu:
        raise UsageError(f"--device {one_line(run.device)}: --with {settings.annotator} has no model on a device here")
    device = "cuda" if cluster is not None and cluster.gpu else devices.kind if devices else run.device
    captioner = kind.make(CaptionerRequest(settings, photoset, device))
    work = CaptionStep(photoset.root, captioner, settings)
    reread = reread_parts(target, work.provenance, settings)
    if reread:
        run.console.log(f"{reread} parts were read again under other rules; no model was asked")
    # One process a device: a model fills it; a server is asked by threads.
    summary = run_parts(
        ReviewedStep(work),
        inputs,
        target,
        run.console,
        seats=devices.seats if devices else (),
        cluster=cluster,
        redo=redo,
        chunk_rows=max(CHUNK_ROWS, captioner.batch_size),
    )
    return Tagged(summary, reread)
