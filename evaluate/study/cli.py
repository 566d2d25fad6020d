"""What `authface evaluate ab` does: serve a study's page until it is stopped, then say what people said."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from authface.errors import UsageError, one_line
from authface.evaluate.pairs import methods_of
from authface.evaluate.settings import AbSettings
from authface.evaluate.study import report as study_report
from authface.evaluate.study import server as study_server
from authface.evaluate.study import study
from authface.evaluate.study.study import Study, StudyDesk, StudyPictures, open_study, pictures_of
from authface.options import Run
from authface.store.lock import write_lock
from authface.web import local

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

    server = local.make_server(study_server.make_app(desk, pictures, token, settings.host, answered))
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
