"""The review page's server: every decision is on disk before it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from authface.curate.learn.order import Asking
from authface.curate.learn.run import SCORE
from authface.curate.review.gallery import (
    ASKED,
    FaceGallery,
    FacePictures,
    GalleryFace,
    Judgements,
    ReviewerDecisions,
    ViewQuery,
)
from authface.errors import one_line
from authface.review.reviews import VERDICTS, Decision
from authface.web.local import PRIVATE_HOUR, local_app, static_files

PAGE_ROWS = 200
"""Most rows of a view in one answer."""
_FILES = {"review.html": "text/html", "review.css": "text/css"} | dict.fromkeys(
    ("review.js", "faces.js", "grid.js", "single.js"), "text/javascript"
)
INSTEAD = "-O curate.review.port=0 (any free one) or -O curate.review.host=127.0.0.1"
"""How to choose another address."""


class DecisionRequest(BaseModel):
    """A decision sent by the page."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(max_length=200)
    verdict: Literal["keep", "reject", "retouch"]
    reason: str = Field("", max_length=40)


class UndoRequest(BaseModel):
    """Undo the latest decision; `view` is the view that the page shows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    view: int = 0


class Review:
    """What the routes need: the faces, their pictures and one reviewer's desk."""

    def __init__(
        self,
        faces: FaceGallery,
        pictures: FacePictures,
        desk: ReviewerDecisions,
        reviewer: str,
        title: str,
        reasons: tuple[str, ...],
        others: Mapping[str, Mapping[str, Decision]] = MappingProxyType({}),
        asking: Asking | None = None,
    ) -> None:
        self.faces = faces
        self.pictures = pictures
        self.desk = desk
        self.reviewer = reviewer
        self.title = title
        self.reasons = reasons
        self.others = others
        """Decisions of other reviewers, by reviewer and face."""
        self.asking = asking
        """Makes the order of `--next`; None where it was not asked for."""

    @property
    def judgements(self) -> Judgements:
        """What views are filtered and sorted by now."""
        return Judgements(self.desk.decisions, self.others, self.asking.places if self.asking else {})

    def is_there(self, face_id: str) -> bool:
        """Whether the set still has a face's photo."""
        entry = self.faces.by_id.get(face_id)
        return entry is not None and self.pictures.is_there(entry)

    def counts(self) -> dict[str, int]:
        """Number of crops in all, and by the reviewer's decision."""
        found = dict.fromkeys(VERDICTS, 0) | {"crops": self.faces.crops}
        for crop_id, decision in self.desk.decisions.items():
            entry = self.faces.by_id.get(crop_id)
            found[decision.verdict] += entry is not None and entry.judgeable
        return found

    def row(self, entry: GalleryFace) -> dict[str, Any]:
        """A face as data for the page; text is never markup."""
        decision, crop, face = self.desk.decisions.get(entry.id), entry.crop, entry.face
        measures = {name: float(f"{value:.4g}") for name, value in entry.measures.items()}
        why: list[Any] | None = [face.reason, face.value, face.limit] if crop is None else None
        if self.asking and decision is None and entry.judgeable:  # what a model guesses would lead the reviewer
            why = None
            measures.pop(SCORE, None)
        return {
            "id": entry.id,
            "crop": crop is not None,
            "judgeable": entry.judgeable,
            "verdict": decision.verdict if decision else "",
            "reason": decision.reason if decision else "",
            "others": self.said_by_others(entry.id),
            "measures": measures,
            "why": why,
            "size": crop.size if crop else None,
            "enlarged": bool(crop and crop.upscaled),
            "retouched": bool(crop and self.pictures.file(entry) != crop.file),
            "photo": [entry.photo.width, entry.photo.height],
            "name": one_line(entry.photo.source_id, 200),
            "photographer": one_line(entry.photo.photographer, 200),
            "licence": one_line(entry.photo.licence, 200),
        }

    def said_by_others(self, face_id: str) -> list[list[str]]:
        """Reviewer, verdict and reason of each other one; nothing before this one decided, so that nobody is led."""
        if face_id not in self.desk.decisions:
            return []
        found = [(who, said[face_id]) for who, said in sorted(self.others.items()) if face_id in said]
        return [[who, one.verdict, one.reason] for who, one in found]

    def answer(self, crop_id: str) -> dict[str, Any]:
        """The decision that holds for a crop, what others said, and the counts."""
        decision = self.desk.decisions.get(crop_id)
        said = {"verdict": decision.verdict, "reason": decision.reason} if decision else {"verdict": "", "reason": ""}
        more = {"others": self.said_by_others(crop_id), "counts": self.counts()}
        return {"id": crop_id, **said, **more, "asking": self.asking.state if self.asking else None}


def make_app(review: Review, token: str, host: str) -> FastAPI:
    """The server's routes, all below ``/<token>/``."""
    files = static_files("authface.curate.review", _FILES, "review.html")
    return local_app(token, host, (files, _routes(review), _picture_routes(review)))


def _routes(review: Review) -> APIRouter:
    router = APIRouter()

    @router.get("/api/start")
    def start() -> dict[str, Any]:
        return {
            "title": review.title,
            "reviewer": review.reviewer,
            "reasons": review.reasons,
            "measures": review.faces.measures,
            "filter_reasons": review.faces.filter_reasons.most_common(),
            "counts": review.counts(),
            "others": sorted(review.others),
            "asked": [ASKED, review.asking.title if review.asking else ""],
            "asking": review.asking.state if review.asking else None,
        }

    @router.get("/api/asking")
    def asking() -> dict[str, Any] | None:
        return review.asking.state if review.asking else None

    @router.get("/api/view")
    def view(wanted: Annotated[ViewQuery, Query()]) -> dict[str, Any]:
        number, total = review.faces.open(wanted, review.judgements)
        return {"view": number, "total": total}

    @router.get("/api/rows")
    def rows(
        view: int, start: Annotated[int, Query(ge=0)] = 0, count: Annotated[int, Query(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    ) -> dict[str, Any]:
        found = review.faces.view(view)
        if found is None:
            raise HTTPException(404, "this view is no longer open: open it again")
        return {"rows": [review.row(entry) for entry in found[start : start + count]]}

    @router.post("/api/decide")
    def decide(asked: DecisionRequest) -> dict[str, Any]:
        _check_judgeable(review, asked.id)
        if asked.reason and (asked.verdict != "reject" or asked.reason not in review.reasons):
            raise HTTPException(422, "no such reason to reject")
        review.desk.decide(asked.id, asked.verdict, asked.reason)
        if review.asking:
            review.asking.decided(review.desk.decisions)
        return review.answer(asked.id)

    @router.post("/api/undo")
    def undo(asked: UndoRequest) -> dict[str, Any]:
        crop_id = review.desk.undo(review.is_there)
        if crop_id is None:
            raise HTTPException(409, "nothing to undo")
        found = review.faces.view(asked.view) or []
        index = next((at for at, entry in enumerate(found) if entry.id == crop_id), None)
        return review.answer(crop_id) | {"index": index}

    return router


def _check_judgeable(review: Review, face_id: str) -> None:
    entry = review.faces.by_id.get(face_id)
    if entry is None:
        raise HTTPException(404, "no such face")
    if not entry.judgeable:
        raise HTTPException(409, "the filter rejected this face: it can be looked at only")
    if not review.pictures.is_there(entry):
        raise HTTPException(410, "the set has this face no more: start the review again")


def _picture_routes(review: Review) -> APIRouter:
    router = APIRouter()

    def known(face_id: str) -> GalleryFace:
        entry = review.faces.by_id.get(face_id)
        if entry is None:
            raise HTTPException(404, "no such face")
        return entry

    @router.get("/thumbnail/{face_id}")
    def thumbnail(face_id: str) -> Response:
        return Response(review.pictures.thumbnail(known(face_id)), media_type="image/jpeg", headers=PRIVATE_HOUR)

    @router.get("/whole/{face_id}")
    def whole(face_id: str) -> Response:
        data, kind = review.pictures.whole(known(face_id))
        return Response(data, media_type=kind, headers=PRIVATE_HOUR)

    @router.get("/eyes/{face_id}")
    def eyes(
        face_id: str, width: Annotated[int, Query(ge=16, le=4096)], height: Annotated[int, Query(ge=16, le=4096)]
    ) -> Response:
        data = review.pictures.eyes(known(face_id), width, height)
        return Response(data, media_type="image/png", headers=PRIVATE_HOUR)

    return router
