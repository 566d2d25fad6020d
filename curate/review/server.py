"""The review page's server: on this machine, behind a random address, every decision on disk before the answer.

Who does not know the token gets 404. A request that names another host (DNS rebinding) or comes from another
page (its `Origin`) gets 403. Nothing on the page comes from outside, and the page may load nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from authface.curate.review.gallery import FaceGallery, FacePictures, GalleryFace, ReviewerDecisions, ViewQuery
from authface.errors import AuthfaceError, ImageError, one_line
from authface.review.reviews import VERDICTS
from authface.web import loopback

PAGE_ROWS = 200
"""Most rows of a view in one answer."""
_FILES = {"review.html": "text/html", "review.css": "text/css"} | dict.fromkeys(
    ("review.js", "faces.js", "grid.js", "single.js"), "text/javascript"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PICTURE = {"Cache-Control": "private, max-age=3600"}


class Asked(BaseModel):
    """A decision as the page sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(max_length=200)
    verdict: Literal["keep", "reject", "retouch"]
    reason: str = Field("", max_length=40)


class Undo(BaseModel):
    """A wish to take the latest decision back; `view` is where the page looks."""

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
    ) -> None:
        self.faces = faces
        self.pictures = pictures
        self.desk = desk
        self.reviewer = reviewer
        self.title = title
        self.reasons = reasons

    def counts(self) -> dict[str, int]:
        """Crops in all, and by what the reviewer decided."""
        found = dict.fromkeys(VERDICTS, 0) | {"crops": self.faces.crops}
        for crop_id, decision in self.desk.decisions.items():
            entry = self.faces.by_id.get(crop_id)
            found[decision.verdict] += entry is not None and entry.crop is not None
        return found

    def row(self, entry: GalleryFace) -> dict[str, Any]:
        """A face as the page shows it; all text is data."""
        decision, crop, face = self.desk.decisions.get(entry.id), entry.crop, entry.face
        return {
            "id": entry.id,
            "crop": crop is not None,
            "verdict": decision.verdict if decision else "",
            "reason": decision.reason if decision else "",
            "measures": {name: float(f"{value:.4g}") for name, value in entry.measures.items()},
            "why": [face.reason, face.value, face.limit] if crop is None else None,
            "size": crop.size if crop else None,
            "enlarged": bool(crop and crop.upscaled),
            "retouched": bool(crop and self.pictures.file(entry) != crop.file),
            "photo": [entry.photo.width, entry.photo.height],
            "name": one_line(entry.photo.source_id, 200),
            "photographer": one_line(entry.photo.photographer, 200),
            "licence": one_line(entry.photo.licence, 200),
        }

    def answer(self, crop_id: str) -> dict[str, Any]:
        """What holds for a crop, and the counts."""
        decision = self.desk.decisions.get(crop_id)
        said = {"verdict": decision.verdict, "reason": decision.reason} if decision else {"verdict": "", "reason": ""}
        return {"id": crop_id, **said, "counts": self.counts()}


def make_app(review: Review, token: str, host: str) -> FastAPI:
    """The server's routes, all below ``/<token>/``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_page_routes(), prefix=f"/{token}")
    app.include_router(_routes(review), prefix=f"/{token}")
    app.include_router(_picture_routes(review), prefix=f"/{token}")

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = (
            await answer(request)
            if loopback.allowed(request.headers, host)
            else PlainTextResponse("not from here", 403)
        )
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"detail": one_line(f"{first['loc'][-1]}: {first['msg']}")}, 422)

    @app.exception_handler(ImageError)
    async def no_picture(request: Request, error: ImageError) -> Response:
        return JSONResponse({"detail": one_line(error)}, 404)

    @app.exception_handler(AuthfaceError)
    async def not_done(request: Request, error: AuthfaceError) -> Response:
        return JSONResponse({"detail": one_line(error)}, 500)

    return app


def _page_routes() -> APIRouter:
    router = APIRouter()
    folder = resources.files("authface.curate.review")

    def add(name: str, kind: str) -> None:
        content = folder.joinpath(name).read_bytes()

        @router.get("/" if name == "review.html" else f"/{name}")
        def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in _FILES.items():
        add(name, kind)
    return router


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
        }

    @router.get("/api/view")
    def view(wanted: Annotated[ViewQuery, Query()]) -> dict[str, Any]:
        number, total = review.faces.open(wanted, review.desk.decisions)
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
    def decide(asked: Asked) -> dict[str, Any]:
        entry = review.faces.by_id.get(asked.id)
        if entry is None:
            raise HTTPException(404, "no such face")
        if entry.crop is None:
            raise HTTPException(409, "the filter rejected this face: it can be looked at only")
        if asked.reason and (asked.verdict != "reject" or asked.reason not in review.reasons):
            raise HTTPException(422, "no such reason to reject")
        review.desk.decide(asked.id, asked.verdict, asked.reason)
        return review.answer(asked.id)

    @router.post("/api/undo")
    def undo(asked: Undo) -> dict[str, Any]:
        crop_id = review.desk.undo()
        if crop_id is None:
            raise HTTPException(409, "nothing to undo")
        found = review.faces.view(asked.view) or []
        index = next((at for at, entry in enumerate(found) if entry.id == crop_id), None)
        return review.answer(crop_id) | {"index": index}

    return router


def _picture_routes(review: Review) -> APIRouter:
    router = APIRouter()

    def known(face_id: str) -> GalleryFace:
        entry = review.faces.by_id.get(face_id)
        if entry is None:
            raise HTTPException(404, "no such face")
        return entry

    @router.get("/thumbnail/{face_id}")
    def thumbnail(face_id: str) -> Response:
        return Response(review.pictures.thumbnail(known(face_id)), media_type="image/jpeg", headers=_PICTURE)

    @router.get("/whole/{face_id}")
    def whole(face_id: str) -> Response:
        data, kind = review.pictures.whole(known(face_id))
        return Response(data, media_type=kind, headers=_PICTURE)

    @router.get("/eyes/{face_id}")
    def eyes(
        face_id: str, width: Annotated[int, Query(ge=16, le=4096)], height: Annotated[int, Query(ge=16, le=4096)]
    ) -> Response:
        data = review.pictures.eyes(known(face_id), width, height)
        return Response(data, media_type="image/png", headers=_PICTURE)

    return router


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for browsers. Raises UsageError where the address cannot be had."""
    instead = "-O curate.review.port=0 (any free one) or -O curate.review.host=127.0.0.1"
    return loopback.listen(host, port, instead)


def serve(app: FastAPI, waiting: socket.socket) -> None:
    """Answer browsers until the command is stopped."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
    )
    uvicorn.Server(config).run(sockets=[waiting])
