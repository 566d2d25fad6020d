"""What one run of `authface restore` holds: its request, model, face finder and logs, and what it counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from authface import __version__, backends
from authface.console import Console
from authface.errors import UsageError
from authface.faces import parsing
from authface.faces.identity import weights_sha256
from authface.faces.parsing import FaceParser
from authface.imaging.bitdepth import Pixels
from authface.models.families import pick_device
from authface.models.networks import is_network
from authface.restore.background import Upscaler, file_sha256, make_upscaler
from authface.restore.credentials import credentials
from authface.restore.finder import FaceFinder, whole_photo
from authface.restore.guard import IdentityGuard
from authface.restore.inputs import RestoreJob
from authface.restore.mark import Mark
from authface.restore.model.cleaned import CleanedRestorer
from authface.restore.model.network import refuse_unused
from authface.restore.model.restorer import (
    IDENTITY,
    CropRestorer,
    RestorerFiles,
    builtin_is_missing,
    find_weights,
    load_restorer,
)
from authface.restore.photo import paste_faces, restore_faces
from authface.restore.pipeline import Seconds, part
from authface.restore.result import Finish
from authface.restore.settings import RestoreSettings
from authface.restore.types import FaceResult, Finder, PhotoResult
from authface.store.restore_log import LOG, Line, Log, Status, now, prove_writable

VERSION = 7
"""Raised when the same settings and weights give other pixels: what was done before is then done again."""


Load = Callable[[RestorerFiles, RestoreSettings, str], CropRestorer]
"""Makes a restorer of a model's files, settings and a device's name."""

NOT_IN_PIXELS = {"batch", "engine", "offload", "compile", "graphs", "report", "model", "identity_weights", "upscaler"}
"""Settings that no result depends on, or that the fingerprint holds by content."""
OF_VIDEOS = {"smooth", "crf"}
"""Settings that no photo depends on."""


@dataclass(frozen=True)
class Request:
    """What a run restores with."""

    settings: RestoreSettings
    aligned: bool = False
    """The whole photo is the crop: no face is looked for."""
    device: str = "auto"
    seed: int = 0


@dataclass
class RestoreSummary:
    """What a run did. Of photos but where videos are named; those `done_before` are counted in the others as well."""

    photos: int = 0
    """All that were given."""
    videos: int = 0
    """All that were given."""
    done_before: int = 0
    """Photos and videos."""
    restored: int = 0
    """Photos with a restored face."""
    faces: int = 0
    no_face: int = 0
    """Photos without any face, or without one that was to be restored: copied as they are."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0
    seconds_by_part: Seconds = field(default_factory=dict)
    """Of them, in each part."""
    identities: list[float] = field(default_factory=list)
    """Of the restored faces, where it was measured."""
    tried_again: int = 0
    """Faces, restored or not."""
    kept: int = 0
    """Faces whose every restoration drifted from the input, which therefore stays."""
    left_alone: dict[str, tuple[int, str]] = field(default_factory=dict)
    """For each reason the number of faces that were found and not restored, and what is said of the first."""
    jobs: list[RestoreJob] = field(default_factory=list)
    """Those that gave a restored photo or video, now or before."""
    video_lines: dict[Path, Line] = field(default_factory=dict)
    """The line of each video that is done, by its result."""

    @property
    def inputs(self) -> int:
        """Photos and videos that were given."""
        return self.photos + self.videos

    def count_photo(self, job: RestoreJob, lines: Sequence[Line]) -> None:
        """Add a photo that is done, with the lines that the log has of it."""
        faces = sum(line.status == "restored" for line in lines)
        self.faces += faces
        self.restored += bool(faces)
        self.no_face += not faces
        self.identities += [line.identity for line in lines if line.identity is not None and line.status == "restored"]
        self.tried_again += sum(line.tries > 1 for line in lines)
        self.kept += sum(line.reason == "identity" for line in lines)
        for line in lines:
            if line.status == "skipped":
                count, said = self.left_alone.get(line.reason, (0, line.detail))
                self.left_alone[line.reason] = (count + 1, said)
        if faces:
            self.jobs.append(job)

    def count_video(self, job: RestoreJob, line: Line) -> None:
        """Add a video that is done, with its line in the log."""
        self.video_lines[job.target] = line
        if line.status == "restored":
            self.jobs.append(job)


class Session:
    """Model, finder and logs of one run, each made when first needed: a run with nothing to do loads no model."""

    def __init__(self, request: Request, console: Console, load: Load | None = None) -> None:
        """`load` makes the restorer in place of `load_restorer`, such as from weights already in memory."""
        self.console = console
        self.request = request
        self.summary = RestoreSummary()
        if request.settings.upscaler and request.settings.upscale == 1:
            raise UsageError("restore.upscaler does nothing without --upscale 2 or 4")
        self._signer = credentials(request.settings.sign)
        self.lock = Lock()
        """Held by the thread that adds to the summary."""
        self._logs: dict[Path, Log] = {}
        self._load = load or load_restorer
        if request.settings.min_identity and not request.settings.guard:
            raise UsageError(
                f"min_identity={request.settings.min_identity:g} needs the measure that restore.guard=false leaves out"
            )
        if is_network(request.settings.model):
            refuse_unused(request.settings)
        if builtin_is_missing(request.settings.model):
            console.log(
                "the built-in model authface-tiny is not in this installation: faces pass through unchanged "
                "(identity); install authface again, or --model FOLDER takes another"
            )
            self.request = replace(request, settings=request.settings.model_copy(update={"model": IDENTITY}))

    @property
    def settings(self) -> RestoreSettings:
        """The settings, with the model that really runs."""
        return self.request.settings

    @cached_property
    def weights(self) -> RestorerFiles | None:
        """The model's files; None for a restorer that has none, such as the identity."""
        name = self.settings.model
        return None if name in backends.names("restorers") else find_weights(name, self.console)

    @cached_property
    def restorer(self) -> CropRestorer:
        """The model, loaded."""
        if self.weights is None:
            with part("load"):
                kind = backends.load("restorers", self.settings.model)
                restorer: CropRestorer = kind.make(self.settings, self.request.device)
            return restorer
        with part("load"):
            loaded = self._load(self.weights, self.settings, self.request.device)
        if isinstance(loaded, CleanedRestorer) and (idle := loaded.idle(self.settings)):
            self.console.log(
                f"{', '.join(f'restore.{name}' for name in idle)}: no effect, since the preset {self.settings.preset} "
                "of this family adds none of the prior's detail"
            )
        return loaded

    @property
    def engine(self) -> str:
        """What runs the model's networks, `onnxruntime` or `torch`; empty: it is not loaded, or has none."""
        return str(getattr(self.__dict__.get("restorer"), "engine", ""))

    @cached_property
    def finish(self) -> Finish:
        """How results become files."""
        settings = self.settings
        name = self.weights.name if self.weights else settings.model
        weights = self.weights.version if self.weights else ""
        mark = Mark(f"authface with {name}", f"{__version__}, {weights}".rstrip(", "), said=settings.mark)
        told = {
            "authface": __version__,
            "model": name,
            "weights": weights,
            **settings.model_dump(mode="json", include={"preset", "fidelity", "upscale", "grain", "mask"}),
            "aligned": self.request.aligned,
            "seed": self.request.seed,
        }
        return Finish(mark, settings.quality, told if settings.embed_settings else None, self._signer)

    @cached_property
    def finder(self) -> Finder:
        """Finds the faces."""
        with part("load"):
            return whole_photo if self.request.aligned else FaceFinder(self.settings)

    @cached_property
    def guard(self) -> IdentityGuard | None:
        """Measures restored faces; None where the settings do not ask for it."""
        settings = self.settings
        if not settings.guard:
            return None
        with part("load"):
            return IdentityGuard(settings.identity, settings.identity_weights, settings.max_disagreement)

    @cached_property
    def parser(self) -> FaceParser | None:
        """Tells a face from what is around it; None where the whole square is put back."""
        if self.settings.mask == "square":
            return None

        with part("load"):
            return FaceParser(hair=self.settings.mask_hair, device=str(pick_device(self.request.device)))

    @cached_property
    def upscaler(self) -> Upscaler:
        """Enlarges the photo around the faces."""
        file = self.settings.upscaler
        return make_upscaler(file, str(pick_device(self.request.device)) if file else "cpu")

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that the pixels of a result depend on, besides the photo."""
        settings = self.settings
        made_by = {
            "version": VERSION,
            "settings": settings.model_dump(mode="json", exclude=NOT_IN_PIXELS | OF_VIDEOS),
            "weights": self.weights.digest if self.weights else _version_of(self.settings.model),
            "identity": weights_sha256(settings.identity, settings.identity_weights) if settings.guard else "",
            "upscaler": file_sha256(settings.upscaler),
            "parsing": parsing.weights_sha256() if settings.mask == "parsing" else "",
            "aligned": self.request.aligned,
            "seed": self.request.seed,
        }
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()

    def restore(
        self,
        photos: Sequence[tuple[Pixels, Sequence[FaceResult]]],
        alphas: Sequence[Pixels | None] = (),
        *,
        moving: bool = False,
    ) -> Iterator[PhotoResult]:
        """Restore the faces of several photos, of 8 or 16 bits, together; they are put back as results are read.

        `alphas` are those of the photos, where any has one.

        `moving`: they are a video's frames, which get no grain: it would stand still, or cost the encoder its bits.
        """
        faces = restore_faces(self.restorer, [face for _, own in photos for face in own], self.settings, self.guard)
        if self.parser is not None:
            with part("mask"):
                faces = [self._masked(face, self.parser) for face in faces]
        return self._pasted(photos, alphas or [None] * len(photos), faces, 0 if moving else self.settings.grain)

    def _masked(self, face: FaceResult, parser: FaceParser) -> FaceResult:
        return face if face.reason or face.after is None else replace(face, mask=parser.mask(face.after))

    def _pasted(
        self,
        photos: Sequence[tuple[Pixels, Sequence[FaceResult]]],
        alphas: Sequence[Pixels | None],
        restored: Sequence[FaceResult],
        grain: float,
    ) -> Iterator[PhotoResult]:
        faces = iter(restored)
        for (pixels, own), alpha in zip(photos, alphas, strict=True):
            done = list(islice(faces, len(own)))
            with part("paste"):
                result = paste_faces(pixels, done, self.settings.upscale, self.upscaler, grain, alpha)
            yield result

    def log(self, home: Path) -> Log:
        """The log in the folder `home`, where results can be written. Raises AuthfaceError where they cannot."""
        with self.lock:
            if home not in self._logs:
                prove_writable(home)
                self._logs[home] = Log(home / LOG)
            return self._logs[home]

    def line(self, job: RestoreJob, content: str, status: Status, **facts: Any) -> Line:
        """A line for the log, of a source whose bytes hash to `content`; `facts` are further fields of it."""
        common = {"fingerprint": self.fingerprint, "model": self.settings.model, "made": now(), "status": status,
                  "engine": self.engine}  # fmt: skip
        return Line(target=job.name, source=str(job.source.absolute()), content=content, **{**common, **facts})


def _version_of(model: str) -> str:
    """What a restorer that is no family depends on; the identity depends on nothing."""
    return IDENTITY if model == IDENTITY else f"{model} of {backends.version('restorers', model)}"
