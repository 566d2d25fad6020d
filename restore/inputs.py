"""From the command line to jobs: which photos and videos, and the path of each result. No file is opened here.

And which errors concern one of them alone.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from authface.errors import AuthfaceError, ImageError, UsageError, one_line, was_interrupted
from authface.files import TEMPORARY, is_photoset
from authface.store.restore_log import PAGE_FILES

Format = Literal["same", "jpeg", "png", "webp", "tiff"]

ENDINGS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""File extensions that can be written, with Pillow's name of the format."""
READ_ONLY = frozenset({".bmp", ".gif", ".heic", ".heif", ".avif", ".mpo"})
"""Extensions that can only be read; their results are PNG."""
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Extensions of videos that can be written."""
READ_ONLY_VIDEOS = frozenset(
    (".avi", ".divx", ".mpg", ".mpeg", ".m2v", ".vob", ".mod", ".tod", ".ts", ".mts", ".m2ts", ".dv", ".mxf", ".wmv")
    + (".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogm", ".rm", ".rmvb", ".nut", ".ivf", ".mjpeg", ".y4m")
)
"""Extensions of videos that can only be read; their results are Matroska, which holds any audio codec."""
NOT_READ = frozenset(
    (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw", ".eps", ".j2k", ".jp2")
    + (".jpf", ".jpx", ".jxl", ".jxr", ".pbm", ".pcx", ".pdf", ".pgm", ".pnm", ".ppm", ".psb", ".psd", ".tga", ".xcf")
)
"""Extensions of photos and scans that cannot be read; of those in a folder the number is said."""
MAX_NAME = 255
"""Longest file name of a result, bytes: the limit of common file systems."""
MARK = ".restored"
MAP = ".change.png"
_KNOWN = frozenset({*ENDINGS, *READ_ONLY, *VIDEOS, *READ_ONLY_VIDEOS})
NEW_ENDING = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif"}
"""Extension by the setting `format`; `same` has none."""


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """One photo or video to restore. `target` has the format of its ending; `home` holds the log and the page.

    Its paths are kept as text: a run has a job for each of its inputs, and a `Path` takes four times as much memory.
    """

    source_path: str
    target_path: str
    home: Path
    map_path: str = ""
    """Empty without a change map."""

    @classmethod
    def of(cls, source: Path, target: Path, home: Path) -> RestoreJob:
        """A job without a change map."""
        return cls(str(source), str(target), _shared(str(home)))

    @property
    def source(self) -> Path:
        """The input."""
        return Path(self.source_path)

    @property
    def target(self) -> Path:
        """The result."""
        return Path(self.target_path)

    @property
    def change_map(self) -> Path | None:
        """Path of the change map, if one is requested."""
        return Path(self.map_path) if self.map_path else None

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.target.suffix.lower() in VIDEOS

    @property
    def format(self) -> str:
        """Pillow's name of the result's format, if it is a photo."""
        return ENDINGS[self.target.suffix.lower()]

    @property
    def ending(self) -> str:
        """The input's extension, in lower case."""
        return os.path.splitext(self.source_path)[1].lower()  # noqa: PTH122

    @property
    def bytes(self) -> int:
        """Size of the input; 0 where it is not there."""
        try:
            return os.stat(self.source_path).st_size  # noqa: PTH116  of each input, and a Path would take longer
        except OSError:
            return 0

    @property
    def name(self) -> str:
        """The result's path below `home`, its key in the log."""
        return self.target.relative_to(self.home).as_posix()

    @property
    def map_name(self) -> str:
        """The change map's path below `home`; empty without one."""
        return "" if self.change_map is None else self.change_map.relative_to(self.home).as_posix()


@lru_cache(maxsize=1024)
def _shared(folder: str) -> Path:
    return Path(folder)


@dataclass(frozen=True, slots=True)
class Input:
    """An input file."""

    path_text: str
    """As text, like a job's."""
    depth: int = 1
    """How many names at its end are its path within the folder that was named."""
    named: bool = True
    """Named itself, rather than found in a named folder."""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.path_text)

    @property
    def inside(self) -> Path:
        """Its path within the named folder, or its name."""
        return Path(*self.path.parts[-self.depth :])


def expand(
    named: Sequence[Path], apart_from: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> list[Input]:
    """The files that `named` files, folders and globs stand for, each once, in this order.

    A name that exists is never read as a glob. A folder gives the photos and videos in and below it, by ending, but not
    hidden ones, pictures of a page, those of photo sets below it, nor those under `apart_from`, where results go; `say`
    tells of these sets and of those that are `NOT_READ`. A name that matches nothing stays in the list and is reported
    when it is opened. Raises UsageError for a glob without match, AuthfaceError for a folder without photos.
    """
    inputs: dict[str, Input] = {}
    real = RealPaths()
    for name in named:
        for found in _expand(name, apart_from, say):
            inputs.setdefault(real(found.path_text), found)
    return list(inputs.values())


def _expand(name: Path, apart_from: Path | None, say: Callable[[str], None]) -> Iterator[Input]:
    if name.is_dir():
        results, own = Path(os.path.realpath(apart_from or name)), Path(os.path.realpath(name))
        # Where results go into the folder itself, the log tells them from photos.
        inside = results != own and results in own.parents
        found = [] if inside else _read_below(str(name), "" if results == own else str(results), say)
        if not found:
            raise AuthfaceError(
                f"no photos or videos in {one_line(name)}: name another folder, or the files themselves"
            )
        above = len(name.parts)
        yield from (Input(path, len(Path(path).parts) - above, named=False) for path in found)
    elif not os.path.lexists(name) and glob.has_magic(str(name)):
        matches = [Path(match) for match in sorted(glob.glob(str(name.expanduser()), recursive=True))]  # noqa: PTH207  a whole path, absolute or not
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UsageError(f"no file matches {one_line(name)}")
        yield from map(Input, map(str, files))
    else:
        yield Input(str(name))


def _read_below(folder: str, apart_from: str, say: Callable[[str], None]) -> list[str]:
    """The files in and below a folder that are read, by ending."""
    found, others, sets = [], Counter[str](), list[str]()
    for path in _files_below(folder, apart_from, sets):
        ending = os.path.splitext(path)[1].lower()  # noqa: PTH122  of each file, and a Path would take longer
        if ending in _KNOWN:
            found.append(path)
        elif ending in NOT_READ:
            others[ending] += 1
    if others:
        each = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common())
        say(f"{one_line(folder)}: of photos and scans that are not read it has {each}: save them as TIFF, PNG or JPEG")
    for path in sets:
        say(f"{one_line(path)} is a photo set: passed over; name it, and -o outside of it, to restore its photos")
    return found


def _files_below(folder: str, apart_from: str, sets: list[str]) -> Iterator[str]:
    """Paths in order; `sets` gets the photo sets below the folder, which are not looked into."""
    for root, folders, files in os.walk(folder):
        base = str(Path(root, "x"))[:-1]  # as a path would have it: nothing for "."
        seen = [name for name in sorted(folders) if not name.startswith(".") and name != PAGE_FILES]
        seen = [name for name in seen if os.path.realpath(base + name) != apart_from]
        sets += (own := [base + name for name in seen if is_photoset(Path(base + name))])
        folders[:] = [name for name in seen if base + name not in own]
        for name in sorted(files):
            if not name.startswith((".", TEMPORARY)):
                yield base + name


def outside_sets(jobs: Sequence[RestoreJob]) -> None:
    """Raises UsageError where a result would lie in a photo set: what is made of its photos there is not forgotten."""
    folders = {Path(os.path.realpath(folder)) for folder in {os.path.dirname(job.target_path) for job in jobs}}  # noqa: PTH120  of many
    for above in {above for folder in folders for above in (folder, *folder.parents)}:
        if is_photoset(above):
            raise UsageError(
                f"results would go into folders in the photo set {one_line(above)}, where curate forget would leave "
                "them: name a folder outside of it with -o"
            )


def is_single_file(named: Sequence[Path], out: Path) -> bool:
    """Whether ``-o OUT`` names the one result rather than a folder: of one input, by its ending or an existing file.

    Raises UsageError if several inputs would go into one file, or files of that extension cannot be written.
    """
    if out.is_dir() or str(out).endswith(("/", os.sep)):
        return False
    single = len(named) == 1 and not named[0].is_dir() and (named[0].exists() or not glob.has_magic(str(named[0])))
    if not single and (out.is_file() or out.suffix.lower() in _KNOWN):
        raise UsageError(f"-o {one_line(out)} is a file, by its name at least: several results need a folder")
    written = VIDEOS if single and is_video(named[0]) else tuple(ENDINGS)
    if out.suffix.lower() in written:
        return True
    if out.is_file() or out.suffix.lower() in _KNOWN:
        raise UsageError(f"-o {one_line(out)}: results are written as {', '.join(written)}")
    return False


def plan(inputs: Sequence[Input], out: Path | None, *, single: bool, format: Format) -> list[RestoreJob]:
    """A job for each input. All targets are different files, and none is an input.

    Without `out` a result lies beside its input as NAME.restored.EXT; under a folder it keeps its name and its place
    below the folder that was named. Where names collide, each gets eight digits of where its source lies from there.
    Raises UsageError where the one target is the input itself.
    """
    real = RealPaths()
    originals = {real(entry.path_text) for entry in inputs}
    if single and out is not None:
        if os.path.realpath(out) in originals:
            raise UsageError(f"-o {one_line(out)} is the input itself: originals are not overwritten")
        return [RestoreJob.of(inputs[0].path, out, out.parent)]
    jobs = [_job(entry, out, format) for entry in inputs]
    jobs = [_marked(job) if real(job.target_path) in originals else job for job in jobs]
    del originals
    count = Counter(hash(_key(job.target_path, real)) for job in jobs)
    jobs = [_with_digits(job) if count[hash(_key(job.target_path, real))] > 1 else job for job in jobs]
    for i, job in enumerate(jobs):
        if (fitting := _fitting(job.target)) != job.target:
            jobs[i] = replace(job, target_path=str(fitting))
    return jobs


def is_video(path: Path) -> bool:
    """Whether a file has a video's extension."""
    return path.suffix.lower() in VIDEOS or path.suffix.lower() in READ_ONLY_VIDEOS


def _job(entry: Input, out: Path | None, format: Format) -> RestoreJob:
    own = entry.inside.suffix
    if is_video(entry.inside):
        ending = own if own.lower() in VIDEOS else ".mkv"
    else:
        ending = NEW_ENDING.get(format, own if own.lower() in ENDINGS else ".png")
    stem = entry.inside.stem if own.lower() in _KNOWN else entry.inside.name
    if out is None:
        return RestoreJob.of(entry.path, entry.path.with_name(f"{stem}{MARK}{ending}"), entry.path.parent)
    return RestoreJob.of(entry.path, out / entry.inside.with_name(f"{stem}{ending}"), out)


def _marked(job: RestoreJob) -> RestoreJob:
    return replace(job, target_path=str(job.target.with_name(f"{job.target.stem}{MARK}{job.target.suffix}")))


def with_maps(jobs: Sequence[RestoreJob]) -> list[RestoreJob]:
    """The jobs with paths for photos' change maps: NAME.change.png beside the result, unlike all other files."""
    real = RealPaths()
    taken = {_key(path, real) for job in jobs for path in (job.source_path, job.target_path)}
    every = []
    for job in jobs:
        if job.is_video:
            every.append(job)
            continue
        names = (job.target.stem, job.target.name, f"{job.target.stem}-{_digits(job.name)}")
        places = (_fitting(job.target.with_name(f"{name}{MAP}")) for name in names)
        free = next(place for place in places if _key(place, real) not in taken)
        taken.add(_key(free, real))
        every.append(replace(job, map_path=str(free)))
    return every


def _with_digits(job: RestoreJob) -> RestoreJob:
    place = os.path.realpath(job.source)
    with suppress(ValueError):  # on another drive
        place = os.path.relpath(place, os.path.realpath(job.home))  # the same after a move of both
    target = job.target.with_name(f"{job.target.stem}-{_digits(place)}{job.target.suffix}")
    return replace(job, target_path=str(target))


def _digits(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _fitting(path: Path) -> Path:
    """The path with a name that file systems accept: the end of a long one is replaced by digits of its hash."""
    if len(os.fsencode(path.name)) <= MAX_NAME:
        return path
    ending = "".join(path.suffixes[-2:]) if path.name.endswith(MAP) else path.suffix
    end = f"-{_digits(path.name)}{ending}"
    stem = path.name
    while len(os.fsencode(stem + end)) > MAX_NAME:
        stem = stem[:-1]
    return path.with_name(stem + end)


class RealPaths:
    """`os.path.realpath` of many files: of each folder it is asked once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: Path | str) -> str:
        """The path without links, whether the file is there or not."""
        folder, name = os.path.split(path)
        if os.path.islink(path) or name in ("", ".", ".."):  # noqa: PTH114  a path raises where a name is too long
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        found = os.path.join(self._folders[folder], name)  # noqa: PTH118
        return path if isinstance(path, str) and path == found else found  # one text in memory, where it is the same


def _key(path: Path | str, real: RealPaths) -> str:
    """A key that is equal for paths of the same file on systems that ignore case, such as Windows and macOS."""
    return real(path).casefold()


def homes_of(inputs: Sequence[Input]) -> set[Path]:
    """The folders that may hold the log of a run that made one of the inputs: all its parents."""
    folders = {Path(folder).absolute() for folder in {os.path.dirname(entry.path_text) for entry in inputs}}  # noqa: PTH120
    return {home for folder in folders for home in (folder, *folder.parents)}


_ALONE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP})
"""Errors of a disk that concern one name; all others end the run."""


@contextmanager
def input_errors() -> Iterator[None]:
    """Raise errors that concern one input only as ImageError: an invalid name, a reader's exception.

    Errors that end the run are unchanged: our others, such as a full disk or an unavailable model.
    """
    try:
        yield
    except ImageError:
        raise
    except AuthfaceError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ALONE:
            raise ImageError("name", one_line(error)) from error
        raise
    except Exception as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise ImageError("error", one_line(f"unexpected {type(error).__name__}: {error}")) from error
