"""A blind A/B study: pairs of pictures, who sees them in which order and on which side, and their answers.

A study is a folder: ``study.json`` says what is compared, ``answers.jsonl`` only grows. Order and sides follow from the
study's seed and the person's name alone, so that a person goes on where they stopped, on any day.
"""

from __future__ import annotations

import hashlib
import json
import threading
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from authface.errors import AuthfaceError, ImageError, UsageError, first_line, one_line
from authface.evaluate.images import Method, images_by_name, pair
from authface.evaluate.protocol import set_sha256
from authface.files import write_file
from authface.imaging.decode import decode, encode_png, read, read_bytes
from authface.records import now
from authface.store.journal import Journal

FILE, ANSWERS = "study.json", "answers.jsonl"
MADE_BY = "authface evaluate ab"
NAME_LENGTH = 40
Choice = Literal["other", "same", "ours"]
CHOICES: tuple[Choice, ...] = ("other", "same", "ours")
"""In the order of the paper's table 5."""
Place = Literal["left", "same", "right"]
INPUT = ""
"""The name under which a study keeps the folder of the degraded faces."""
_REMEMBERED = 48


@dataclass(frozen=True, slots=True)
class StudyPair:
    """One pair: the output of ours and of the other method of one face."""

    other: str
    name: str


@dataclass(frozen=True, slots=True)
class PairView:
    """A pair as one person sees it."""

    item: StudyPair
    ours_left: bool

    def choice(self, place: Place) -> Choice:
        """Whom a click prefers."""
        if place == "same":
            return "same"
        return "ours" if (place == "left") == self.ours_left else "other"

    def place(self, choice: Choice) -> Place:
        """The inverse of `choice`."""
        if choice == "same":
            return "same"
        return "left" if (choice == "ours") == self.ours_left else "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAnswer:
    """One line of ``answers.jsonl``; a later one of the same person on the same pair takes its place."""

    person: str
    """As `person_key` has it."""
    other: str
    """The method beside ours."""
    name: str
    """The face: a file name without its ending."""
    choice: Choice
    left: Literal["ours", "other"]
    """Which of the two stood left."""
    seconds: float
    """From both pictures on the screen to the answer."""
    at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class Study:
    """What is compared with what; `seed` gives every person their order and sides."""

    ours: str
    others: tuple[str, ...]
    names: tuple[str, ...]
    seed: int
    question: str
    folders: Mapping[str, str]
    """Of each method's outputs, and of the inputs under the empty name, as they were given."""
    sets: Mapping[str, str]
    """sha256 of what each of them holds, by name: see `authface.evaluate.protocol.set_sha256`."""

    @property
    def items(self) -> list[StudyPair]:
        """Every pair: each other method on each face."""
        return [StudyPair(other, name) for other in self.others for name in self.names]

    @property
    def inputs(self) -> bool:
        """Whether the degraded faces are shown between the two."""
        return INPUT in self.folders

    def order(self, person: str) -> list[PairView]:
        """All pairs as this person sees them; ours stands left in half of the pairs with each other method."""
        left = set[StudyPair]()
        for other in self.others:
            items = sorted(
                (StudyPair(other, name) for name in self.names), key=lambda item: self._draw("side", person, item)
            )
            odd = self._draw("odd", person, StudyPair(other, "")) < "8"  # of an odd number the middle one by a coin
            left.update(items[: (len(items) + odd) // 2])
        items = sorted(self.items, key=lambda item: self._draw("order", person, item))
        return [PairView(item, item in left) for item in items]

    def _draw(self, what: str, person: str, item: StudyPair) -> str:
        """A random number of 256 bits that is the same on every machine."""
        text = json.dumps([what, self.seed, person, item.other, item.name])
        return hashlib.sha256(text.encode()).hexdigest()


def person_key(name: str) -> str:
    """A name as answers hold it: without case, double spaces and look-alike spellings of one letter.

    Raises UsageError where nothing is left, or more than 40 characters are.
    """
    key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if not key or len(key) > NAME_LENGTH or not key.isprintable():
        raise UsageError(f"name {one_line(name, 60)!r}: 1 to {NAME_LENGTH} printable characters are needed")
    return key


def person_id(name: str, seed: int) -> str:
    """What addresses call a person: no name in them, and the same after a restart."""
    return hashlib.sha256(f"person {seed} {name}".encode()).hexdigest()[:24]


def write_study(study: Study, folder: Path) -> None:
    """Write ``study.json``, or make sure that it is of the same study. Raises UsageError where it is of another."""
    path = folder / FILE
    if not path.exists():
        write_file(path, (json.dumps({"made_by": MADE_BY, **asdict(study)}, indent=1) + "\n").encode())
        return
    before = read_study(folder)
    for what in ("ours", "others", "names", "seed", "question", "sets"):
        if getattr(before, what) != getattr(study, what):
            raise UsageError(
                f"{one_line(folder)} holds a study with other {'pictures' if what == 'sets' else what}: its answers "
                "are not of this one; choose another folder with -o"
            )


def read_study(folder: Path) -> Study:
    """The study of a folder. Raises UsageError where there is none."""
    path = folder / FILE
    try:
        held = json.loads(path.read_text("utf-8"))
        if held.pop("made_by") != MADE_BY:
            raise ValueError("made by another program")
        return Study(**held | {"others": tuple(held["others"]), "names": tuple(held["names"])})
    except FileNotFoundError as error:
        raise UsageError(
            f"{one_line(folder)} holds no study: begin one with --outputs A=DIR --outputs B=DIR -o {one_line(folder)}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{one_line(path)} is no study ({first_line(error, 100)}): choose another folder") from error


def answers_of(folder: Path) -> Journal[StudyAnswer]:
    """The answers of a study, oldest first."""
    return Journal(folder / ANSWERS, StudyAnswer)


def latest_answers(study: Study, answers: Iterable[StudyAnswer]) -> dict[str, dict[StudyPair, StudyAnswer]]:
    """What holds, by person and pair: the last answer; those on pairs that the study has not are left out."""
    known = set(study.items)
    held: dict[str, dict[StudyPair, StudyAnswer]] = {}
    for answer in answers:
        item = StudyPair(answer.other, answer.name)
        if item in known:
            held.setdefault(answer.person, {})[item] = answer
    return held


@dataclass
class StudyDesk:
    """Where answers arrive; safe for several threads. Each is on the disk before it is confirmed."""

    study: Study
    journal: Journal[StudyAnswer]
    _held: dict[str, dict[StudyPair, StudyAnswer]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        lines, _ = self.journal.read()
        self._held = latest_answers(self.study, lines)
        self.order = cache(self.study.order)

    def places(self, person: str) -> list[Place | None]:
        """This person's answers in their order, None where there is none yet."""
        held = self._held.get(person, {})
        return [shown.place(held[shown.item].choice) if shown.item in held else None for shown in self.order(person)]

    def answer(self, person: str, number: int, place: Place, seconds: float) -> None:
        """Keep what a person answers to pair `number` of their order. Raises AuthfaceError where the disk refuses."""
        shown = self.order(person)[number]
        answer = StudyAnswer(
            person=person,
            other=shown.item.other,
            name=shown.item.name,
            choice=shown.choice(place),
            left="ours" if shown.ours_left else "other",
            seconds=round(seconds, 2),
            at=now("milliseconds"),
        )
        with self._lock:
            self.journal.append(answer)
            self._held.setdefault(person, {})[shown.item] = answer

    @property
    def finished(self) -> int:
        """People who answered every pair."""
        with self._lock:
            return sum(len(held) == len(self.study.items) for held in self._held.values())


def check_names(methods: Sequence[str], ours: str | None) -> tuple[str, tuple[str, ...]]:
    """Ours, the last unless it is named, and the others. Raises UsageError."""
    if len(methods) < 2:
        raise UsageError("a study compares two or more: --outputs A=DIR --outputs B=DIR; the last is ours")
    chosen = methods[-1] if ours is None else ours
    if chosen not in methods:
        raise UsageError(f"--ours {one_line(chosen)}: the outputs are called {', '.join(map(one_line, methods))}")
    return chosen, tuple(method for method in methods if method != chosen)


def no_answers(folder: Path) -> AuthfaceError:
    """What to raise where there is nothing to report."""
    return AuthfaceError(
        f"{one_line(folder)} holds no answers yet: run the same command without --report, open its page"
    )


@dataclass(frozen=True)
class StudyPictures:
    """Files by method and face; those of the degraded faces under `INPUT`."""

    files: Mapping[tuple[str, str], Path]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_png", lru_cache(_REMEMBERED)(_png))

    def of(self, study: Study, shown: PairView, place: str) -> bytes:
        """What stands `left`, `right` or as the `input`: PNG of upright 8-bit sRGB, without the file's name or data.

        Raises ImageError.
        """
        method = INPUT if place == "input" else study.ours if (place == "left") == shown.ours_left else shown.item.other
        data: bytes = self._png(self.files[method, shown.item.name])  # type: ignore[attr-defined]  # made above
        return data


def _png(path: Path) -> bytes:
    return encode_png(read(path).rgb)


def open_study(
    methods: Sequence[Method], ours: str | None, inputs: Path | None, seed: int, limit: int, question: str
) -> tuple[Study, StudyPictures]:
    """The study of these folders, paired by name.

    Raises UsageError where names do not pair or two pictures of one face differ in size, by which they could be told
    apart, AuthfaceError where one cannot be read.
    """
    chosen, others = check_names([method.name for method in methods], ours)
    outputs = {method.name: images_by_name(method.folder, "outputs") for method in methods}
    beside = images_by_name(inputs, "inputs") if inputs is not None else None
    pairs = pair(outputs, None, beside, limit)
    files = {(found.method, found.name): found.output for found in pairs}
    files |= {(INPUT, found.name): found.input for found in pairs if found.input is not None}
    names = tuple(dict.fromkeys(found.name for found in pairs))
    for name in (*names, *outputs):
        if not name.isprintable():
            raise UsageError(f"{one_line(name, 80)!r}: a study needs names of printable characters; rename the files")
    contents = {key: _checked(path) for key, path in files.items()}
    for name in names:
        sizes = {method.name: contents[method.name, name][1] for method in methods}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{one_line(method, 40)} {width} x {height}" for method, (width, height) in sizes.items())
            raise UsageError(f"{one_line(name, 80)} differs in size ({said} px): a study is blind at one size only")
    folders = {method.name: str(method.folder) for method in methods}
    if inputs is not None:
        folders[INPUT] = str(inputs)
    sets = {method: set_sha256((name, contents[method, name][0]) for name in names) for method in folders}
    return Study(chosen, others, names, seed, question, folders, sets), StudyPictures(files)


def pictures_of(study: Study) -> StudyPictures:
    """The pictures where the study says they lie, as far as they are still there."""
    files = {}
    for method, folder in study.folders.items():
        try:
            there = images_by_name(Path(folder), "outputs")
        except UsageError:
            continue
        files.update({(method, name): there[name] for name in study.names if name in there})
    return StudyPictures(files)


def _checked(path: Path) -> tuple[str, tuple[int, int]]:
    """sha256 of a file, and width and height as it will be shown. Raises AuthfaceError where it is no image."""
    try:
        data = read_bytes(path)
        height, width = decode(data).rgb.shape[:2]
    except ImageError as error:
        raise AuthfaceError(
            f"{one_line(path)} cannot be shown ({error.reason}: {one_line(error)}): make it again"
        ) from error
    return hashlib.sha256(data).hexdigest(), (width, height)
