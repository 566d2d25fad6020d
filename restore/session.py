"""One run of `authface restore`: its request, model, face finder, logs and counts."""

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

import numpy as np

from authface import __version__
from authface.backends import backend_names, backend_version, load_backend
from authface.console import Console
from authface.devices import pick_device
from authface.errors import UsageError
from authface.faces.geometry import Side, quad_side
from authface.faces.identity import weights_sha256
from authface.faces.paste import FaceParser, parser_sha256
from authface.imaging.png import Pixels
from authface.models.networks import is_network
from authface.records import now
from authface.restore.background import ModelUpscaler, Upscaler, file_sha256, lanczos
from authface.restore.guard import DRIFTED, IdentityGuard
from authface.restore.inputs import RestoreJob
from authface.restore.mark import Mark, credentials
from authface.restore.model.crops import CleanedRestorer
from authface.restore.model.network import refuse_unused
from authface.restore.model.restorer import (
    IDENTITY,
    CropRestorer,
    RestorerFiles,
    builtin_is_missing,
    find_weights,
    load_restorer,
)
from authface.restore.photo import (
    LOW_SCORE,
    FaceFinder,
    FaceResult,
    Finder,
    PhotoResult,
    paste_faces,
    restore_faces,
    whole_photo,
)
from authface.restore.picture import Finish
from authface.restore.pipeline import PhotoFaces, Seconds, Workload, part
from authface.restore.settings import RestoreSettings
from authface.store.restore_line import Line, Status
from authface.store.restore_log import LOG, Log, prove_writable

VERSION = 7
"""Increased when the same settings and weights give other pixels: earlier results are then made again."""


Load = Callable[[RestorerFiles, RestoreSettings, str], CropRestorer]
"""Creates a restorer from a model's files, settings and a device's name."""

NOT_IN_PIXELS = {"batch", "engine", "offload", "compile", "graphs", "report", "model", "identity_weights", "upscaler"}
"""Settings on which no pixel depends, or that the fingerprint includes by content."""
OF_VIDEOS = {"smooth", "crf"}
"""Settings that apply to videos only."""


@dataclass(frozen=True)
class Request:
    """The parameters of a run."""

    settings: RestoreSettings
    aligned: bool = False
    """The photo itself is the crop: no face detection."""
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A restored face that is to be looked at."""

    job: RestoreJob
    face: int | None
    parts: dict[str, float | None]
    """How like the input's each part is that is too little like it, the worst first."""


@dataclass
class RestoreSummary:
    """Counts of a run. They are of photos unless videos are named, and include those `done_before`."""

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
    """Photos without a face, or without one to restore: copied unchanged."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0
    seconds_by_part: Seconds = field(default_factory=dict)
    """Seconds of each part."""
    identities: list[float] = field(default_factory=list)
    """Identities of the restored faces, if measured."""
    suspects: list[Suspect] = field(default_factory=list)
    """Restored faces with an eye or a mouth that is too little like the input's."""
    tried_again: int = 0
    """Faces, restored or not."""
    kept: int = 0
    """Faces for which every restoration drifted from the input, which was therefore kept."""
    left_alone: dict[str, tuple[int, str]] = field(default_factory=dict)
    """For each reason the number of faces that were found and not restored, and what is said of the first."""
    jobs: list[RestoreJob] = field(default_factory=list)
    """Jobs with a restored photo or video, now or before."""
    video_lines: dict[Path, Line] = field(default_factory=dict)
    """The line of each finished video, by its result."""
    work: Workload = field(default_factory=Workload)
    """What is done, as far as it tells what the rest takes."""
    last: str = ""
    """Name of the input that was done last."""

    @property
    def inputs(self) -> int:
        """Number of photos and videos."""
        return self.photos + self.videos

    @property
    def to_look_at(self) -> set[str]:
        """Paths of the results with a face that is to be looked at."""
        videos = {str(path) for path, line in self.video_lines.items() if line.suspects}
        return videos | {suspect.job.target_path for suspect in self.suspects}

    def count_photo(self, job: RestoreJob, lines: Sequence[Line], *, before: bool = False) -> None:
        """Add a photo that is done, with the lines that the log has of it; `before`: by an earlier run."""
        self._count(job, before)
        if not before:
            self.work.add_done(faces_of(lines))
        faces = sum(line.status == "restored" for line in lines)
        self.faces += faces
        self.restored += bool(faces)
        self.no_face += not faces
        self.identities += [line.identity for line in lines if line.identity is not None and line.status == "restored"]
        self.tried_again += sum(line.tries > 1 for line in lines)
        self.suspects += [
            Suspect(job, line.face, {name: getattr(line, name) for name in line.suspect})
            for line in lines
            if line.suspect and line.status == "restored"
        ]
        self.kept += sum(line.reason in DRIFTED for line in lines)
        for line in lines:
            if line.status == "skipped":
                count, said = self.left_alone.get(line.reason, (0, line.detail))
                self.left_alone[line.reason] = (count + 1, said)
        if faces:
            self.jobs.append(job)

    def count_video(self, job: RestoreJob, line: Line, *, before: bool = False) -> None:
        """Add a video that is done, with its line in the log; `before`: by an earlier run."""
        self._count(job, before)
        if not before:
            self.work.videos.add(job.bytes)
        self.video_lines[job.target] = line
        if line.status == "restored":
            self.jobs.append(job)

    def count_failed(self, job: RestoreJob, why: str) -> None:
        """Add a photo or video that cannot be made."""
        self.failed.append((job.source, why))
        if job.is_video:
            self.work.failed_videos.add(job.bytes)
        else:
            self.work.failed += 1

    def _count(self, job: RestoreJob, before: bool) -> None:
        self.last = job.source.name
        self.done_before += before
        self.work.known += before


def faces_of(lines: Sequence[Line]) -> PhotoFaces:
    """What the lines of a photo say of what it took."""
    first = lines[0]
    found = any(line.face is not None and line.reason != LOW_SCORE for line in lines)
    crops = [quad_side(np.reshape(line.quad, (4, 2))) for line in lines if line.quad is not None]
    return PhotoFaces(first.width, first.height, found, crops)


class Session:
    """Model, finder and logs of one run, each created on first use: a run with nothing to do loads no model."""

    def __init__(self, request: Request, console: Console, load: Load | None = None) -> None:
        """`load` replaces `load_restorer`, for example to use weights already in memory."""
        self.console = console
        self.request = request
        self.summary = RestoreSummary()
        self.engine_of_workers = ""
        """Engine of the networks where other processes have them."""
        self.side_of_workers: Side | None = None
        """How large crops are, likewise."""
        if request.settings.upscaler and request.settings.upscale == 1:
            raise UsageError("restore.upscaler does nothing without --upscale 2 or 4")
        self._signer = credentials(request.settings.sign)
        self.lock = Lock()
        """Held by the thread that adds to the summary."""
        self.left: Callable[[], float | None] = lambda: None
        """The seconds that the run still takes, for who watches it; None where nobody does, or it cannot be told."""
        self._logs: dict[Path, Log] = {}
        self._load = load or load_restorer
        for name in ("min_identity", "min_parts"):
            if (limit := getattr(request.settings, name)) and not request.settings.guard:
                raise UsageError(f"{name}={limit:g} needs the measure that restore.guard=false leaves out")
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
        """The settings, with the model in use."""
        return self.request.settings

    @cached_property
    def weights(self) -> RestorerFiles | None:
        """The model's files; None for a restorer without any, such as the identity."""
        name = self.settings.model
        return None if name in backend_names("restorers") else find_weights(name, self.console)

    @cached_property
    def restorer(self) -> CropRestorer:
        """The model, loaded."""
        if self.weights is None:
            with part("load"):
                kind = load_backend("restorers", self.settings.model)
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
        """The engine of the model's networks, `onnxruntime` or `torch`; empty if it is not loaded or has none."""
        return str(getattr(self.__dict__.get("restorer"), "engine", "")) or self.engine_of_workers

    @property
    def side(self) -> Side | None:
        """How large the model's crops are; None where it is not loaded yet."""
        return self.restorer.side if "restorer" in self.__dict__ else self.side_of_workers

    @cached_property
    def finish(self) -> Finish:
        """How results are written as files."""
        settings = self.settings
        name = self.weights.name if self.weights else settings.model
        weights = self.weights.version if self.weights else ""
        mark = Mark(f"authface with {name}", f"{__version__}, {weights}".rstrip(", "), generated=settings.mark)
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
        """The face finder."""
        with part("load"):
            return whole_photo if self.request.aligned else FaceFinder(self.settings)

    @cached_property
    def guard(self) -> IdentityGuard | None:
        """The guard that measures restored faces; None if the settings disable it."""
        settings = self.settings
        if not settings.guard:
            return None
        with part("load"):
            return IdentityGuard(settings.identity, settings.identity_weights, settings.max_disagreement)

    @cached_property
    def parser(self) -> FaceParser | None:
        """The network that segments faces; None if the whole square is pasted back."""
        if self.settings.mask == "square":
            return None

        with part("load"):
            return FaceParser(hair=self.settings.mask_hair, device=str(pick_device(self.request.device)))

    @cached_property
    def upscaler(self) -> Upscaler:
        """The upscaler of the photo around the faces."""
        file = self.settings.upscaler
        return ModelUpscaler(Path(file), str(pick_device(self.request.device))) if file else lanczos

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything but the photo on which the pixels of a result depend."""
        settings = self.settings
        made_by = {
            "version": VERSION,
            "settings": settings.model_dump(mode="json", exclude=NOT_IN_PIXELS | OF_VIDEOS),
            "weights": self.weights.digest if self.weights else _version_of(self.settings.model),
            "identity": weights_sha256(settings.identity, settings.identity_weights) if settings.guard else "",
            "upscaler": file_sha256(settings.upscaler) if settings.upscaler else "",
            "parsing": parser_sha256() if settings.mask == "parsing" else "",
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
        """Restore the faces of several photos, of 8 or 16 bits, together; they are pasted back as results are read.

        `alphas` are those of the photos that have one. `moving`: they are a video's frames, which get no grain: it
        would stand still, or take bits from the encoder.
        """
        faces = self.restore_faces([face for _, own in photos for face in own])
        return self.paste(photos, faces, alphas, moving=moving)

    def restore_faces(self, faces: Sequence[FaceResult]) -> list[FaceResult]:
        """Restore faces, which may be of several photos, together, with their masks where the settings ask for them."""
        faces = restore_faces(self.restorer, faces, self.settings, self.guard)
        if self.parser is None:
            return faces
        return [self._masked(face, self.parser) for face in faces]

    def paste(
        self,
        photos: Sequence[tuple[Pixels, Sequence[FaceResult]]],
        restored: Sequence[FaceResult],
        alphas: Sequence[Pixels | None] = (),
        *,
        moving: bool = False,
    ) -> Iterator[PhotoResult]:
        """Paste what `restore_faces` made of the faces of all photos back, as results are read; else as `restore`."""
        return self._pasted(photos, alphas or [None] * len(photos), restored, 0 if moving else self.settings.grain)

    def _masked(self, face: FaceResult, parser: FaceParser) -> FaceResult:
        if face.reason or face.after is None:
            return face
        with part("mask"):
            return replace(face, mask=parser.mask(face.after))

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
        """The log in the folder `home`. Raises AuthfaceError if results cannot be written there."""
        with self.lock:
            if home not in self._logs:
                prove_writable(home)
                self._logs[home] = Log(home / LOG)
            return self._logs[home]

    def line(self, job: RestoreJob, content: str, status: Status, **facts: Any) -> Line:
        """A line for the log, of a source whose bytes hash to `content`; `facts` are further fields of it."""
        common = {"fingerprint": self.fingerprint, "model": self.settings.model, "made": now("microseconds"),
                  "status": status, "engine": self.engine}  # fmt: skip
        return Line(target=job.name, source=str(job.source.absolute()), content=content, **{**common, **facts})


def _version_of(model: str) -> str:
    """The version of a registered restorer; that of the identity is empty."""
    return IDENTITY if model == IDENTITY else f"{model} of {backend_version('restorers', model)}"
