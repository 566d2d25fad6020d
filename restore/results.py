"""Which files are results of this command: by the logs around them and by their bytes, never by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from authface.errors import AuthfaceError, ImageError, one_line
from authface.restore.inputs import Input, RestoreJob, homes_of
from authface.store.restore_line import Line
from authface.store.restore_log import Log
from authface.store.results import Results, digest_of
from authface.store.unchanged import is_as_made

NOT_OURS = "target_exists"
"""The reason of a failure: where the result should go there is a file that this command did not make."""


def without_results(inputs: Sequence[Input], say: Callable[[str], None]) -> list[Input]:
    """The inputs but for results of earlier runs: those found in a folder, and those named beside their source.

    A file that lies where a result was put, and is another by now, is somebody's work on it: it is left out too, and
    `say` is told. Raises AuthfaceError where nothing else is left.
    """
    known = Results(homes_of(inputs))
    results = {entry.path_text: made for entry in inputs if (made := known.find(entry.path)) is not None}
    if not results:
        return list(inputs)
    left = [entry for entry in inputs if entry.path_text not in results]
    sources = [entry.path for entry in left] if any(entry.named for entry in inputs) else []
    left = []
    for entry in inputs:
        made = results.get(entry.path_text)
        if made is None or (entry.named and not known.has_source(made, sources)):
            left.append(entry)
        elif made.digest and known.digest(entry.path) != made.digest:
            say(f"{one_line(entry.path)} was changed since it was made here: left out; name it alone to restore it")
    if inputs and not left:
        raise AuthfaceError(
            f"{one_line(inputs[0].path)}{' and all others' if inputs[1:] else ''}: made by earlier runs; name the "
            "files themselves to restore them again"
        )
    return left


def lines_done(job: RestoreJob, log: Log, content: str, fingerprint: str, say: Callable[[str], None]) -> list[Line]:
    """The lines of a photo whose result is there, made from this content with these settings; none: it is to be made.

    A result that somebody changed since is left as it is, and `say` is told.
    """
    log.refresh()
    lines = log.lines_of(job.name, content, fingerprint)
    if not lines:
        return []
    first = lines[0]
    files = [(job.target, job.name, first.result, first.result_bytes)]
    if first.change_map:
        files.append((job.change_map or job.target, job.map_name, first.map, first.map_bytes))
    changed = []
    for path, name, digest, size in files:
        if not path.is_file():
            return []
        if digest and not is_as_made(path, first.made, size) and (found := digest_of(path)) != digest:
            if any(made.digest == found for made in log.made_at(name)):
                return []  # of other settings: a kill came before the new one took its place
            changed.append(path)
    for path in changed:
        say(f"{one_line(path)} was changed since it was made: kept as it is; delete it to have it made again")
    return lines


def check_target(job: RestoreJob, log: Log) -> None:
    """Raise ImageError where a file that is not from this command lies where a result goes."""
    log.refresh()
    places = {job.target: job.name} | ({} if job.change_map is None else {job.change_map: job.map_name})
    for path, name in places.items():
        made = log.made_at(name)
        if not os.path.lexists(path) or any(not one.digest for one in made):
            continue
        if not made:
            raise ImageError(NOT_OURS, f"{one_line(path)} is there and not from this command: move it, or choose -o")
        if digest_of(path) not in {one.digest for one in made}:
            raise ImageError(NOT_OURS, f"{one_line(path)} was changed since it was made: move it, or choose -o")
