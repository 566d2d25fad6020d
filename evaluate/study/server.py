"""The study's page: who joins, what they are shown, and their answers; nothing it sends says which method is which."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from authface.errors import ImageError, one_line
from authface.evaluate.study.study import StudyDesk, StudyPictures, person_key
from authface.web.local import PRIVATE_HOUR, local_app, static_files

PAGE = "ab.html"
_FILES = {PAGE: "text/html", "ab.css": "text/css", "ab.js": "text/javascript", "ab_view.js": "text/javascript"}


class JoinRequest(BaseModel):
    """Who wants to answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=200)


class AnswerRequest(BaseModel):
    """An answer as the page sends it; `number` counts from 0 in the person's own order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    person: str = Field(max_length=64)
    number: int = Field(ge=0)
    place: Literal["left", "same", "right"]
    seconds: float = Field(ge=0, le=1e6, strict=False)


def make_app(
    desk: StudyDesk, pictures: StudyPictures, token: str, host: str, answered: Callable[[], None] = lambda: None
) -> FastAPI:
    """The page and its routes; `answered` is called after each answer that is on the disk."""
    files = static_files("authface.evaluate.study", _FILES, PAGE)
    return local_app(token, host, (files, _routes(desk, pictures, answered)))


def person_id(name: str, seed: int) -> str:
    """What addresses call a person: no name in them, and the same after a restart."""
    return hashlib.sha256(f"person {seed} {name}".encode()).hexdigest()[:24]


def _routes(desk: StudyDesk, pictures: StudyPictures, answered: Callable[[], None]) -> APIRouter:
    router = APIRouter()
    joined: dict[str, str] = {}
    total = len(desk.study.items)

    def known(person: str) -> str:
        if person not in joined:
            raise HTTPException(404, "join again: the study was started anew")
        return joined[person]

    def within(number: int) -> int:
        if number >= total:
            raise HTTPException(404, f"there are {total} pairs")
        return number

    @router.post("/api/join")
    def join(request: JoinRequest) -> dict[str, Any]:
        key = person_key(request.name)
        person = person_id(key, desk.study.seed)
        joined[person] = key
        return {
            "person": person,
            "question": desk.study.question,
            "inputs": desk.study.inputs,
            "said": desk.places(key),
        }

    @router.post("/api/answer")
    def answer(request: AnswerRequest) -> dict[str, Any]:
        key = known(request.person)
        desk.answer(key, within(request.number), request.place, request.seconds)
        left = desk.places(key).count(None)
        answered()
        return {"left": left}

    @router.get("/picture/{person}/{number}/{place}")
    def picture(person: str, number: int, place: Literal["left", "right", "input"]) -> Response:
        shown = desk.order(known(person))[within(max(number, 0))]
        if place == "input" and not desk.study.inputs:
            raise HTTPException(404, "this study shows no inputs")
        try:
            data = pictures.of(desk.study, shown, place)
        except ImageError as error:
            raise HTTPException(404, one_line(f"{error.reason}: the picture cannot be read any more")) from error
        return Response(data, media_type="image/png", headers=PRIVATE_HOUR)

    return router
