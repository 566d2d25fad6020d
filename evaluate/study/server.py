"""What `authface evaluate ab` does: serve a study's page until it is stopped, then say what people said.

The page: who joins, what they are shown, and their answers; nothing it sends says which method is which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from authface.errors import ImageError, UsageError, one_line
from authface.evaluate.images import methods_of
from authface.evaluate.settings import AbSettings
from authface.evaluate.study import report as study_report
from authface.evaluate.study import study
from authface.evaluate.study.study import Study, StudyDesk, StudyPictures, open_study, person_key, pictures_of
from authface.options import Run
from authface.store.photoset import write_lock
from authface.web import local
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


_INSTEAD = "-O evaluate.ab.port=0 (any free one) or --host 127.0.0.1"


def serve_study(
    run: Run, outputs: Sequence[str], ours: str | None, inputs: Path | None, settings: AbSettings, folder: Path
) -> None:
    """Check the pictures, serve the page until Ctrl-C or until enough people have finished, report.

    Raises UsageError where the study cannot be made of these folders, AuthfaceError where another run serves it.
    """
    if run.seed < 0:
        raise UsageError(f"--seed {run.seed}: seeds are 0 and more")
    made, pictures = open_study(methods_of(outputs), ours, inputs, run.seed, run.limit, settings.question)
    said = f"{len(made.items)} pairs: {one_line(made.ours)} beside {', '.join(map(one_line, made.others))}"
    if run.dry_run:
        return run.console.result(f"{said} -> {one_line(folder)}", pairs=len(made.items), ours=made.ours)
    with write_lock(folder):
        study.write_study(made, folder)
        desk = StudyDesk(made, study.answers_of(folder))
        _serve(run, desk, pictures, settings, said)
        if any(study.latest_answers(made, desk.journal.read()[0]).values()):
            conclude(run, made, pictures, settings, folder)
        else:
            run.console.result(f"nobody answered; the study is in {one_line(folder)}", answers=0, out=str(folder))


def _serve(run: Run, desk: StudyDesk, pictures: StudyPictures, settings: AbSettings, said: str) -> None:
    token = local.new_token()

    def answered() -> None:
        if settings.people and desk.finished >= settings.people:
            server.should_exit = True

    server = local.make_server(make_app(desk, pictures, token, settings.host, answered))
    with local.listen(settings.host, settings.port, _INSTEAD) as waiting:
        url = local.address(settings.host, waiting.getsockname()[1], token)
        with suppress(KeyboardInterrupt):
            run.console.log(f"ab: {said}; {desk.finished} people have finished; open {url} and end with Ctrl-C")
            server.run(sockets=[waiting])


def report_study(run: Run, settings: AbSettings, folder: Path) -> None:
    """What people have said so far; the page may be up meanwhile. Raises UsageError where there is no study."""
    made = study.read_study(folder)
    conclude(run, made, pictures_of(made), settings, folder)


def conclude(run: Run, made: Study, pictures: StudyPictures, settings: AbSettings, folder: Path) -> None:
    """Write the files and say the table. Raises AuthfaceError where there are no answers."""
    lines, torn = study.answers_of(folder).read()
    held = study.latest_answers(made, lines)
    if not held:
        raise study.no_answers(folder)
    if torn:
        run.console.log(f"ab: {torn} lines of {study.ANSWERS} are not whole and count for nothing")
    found = study_report.findings(made, held, run.seed, settings.resamples)
    page = study_report.write_files(found, held, pictures, folder)
    run.console.result(
        f"{study_report.as_text(found)}\n\nreport: {one_line(page)}",
        **found.as_json(),
        report=str(page),
        out=str(folder),
    )
