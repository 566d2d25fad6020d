"""How many broken eyes and mouths the guard names, and how many honest ones; damage made on purpose is the truth.

    python benchmarks/parts.py FOLDER... [--faces 60] [--side 256] [--limit L] [--sheet SHEET.png]

FOLDER holds photos, of one person each. Their largest faces are degraded as `authface.faces.degrade` does, restored by
the built-in model at a fidelity of 0, 0.5 and 1, and by a perfect restorer, which gives the clean face back: those are
the honest ones. Those of 0.5 and the perfect ones are then broken in 14 ways. The limit is chosen on every other person
so that at most `FALSE_ALARMS` of the honest faces are named, and the tables are of the other persons.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface import Restorer
from authface.errors import ImageError
from authface.faces.degrade import degrade, preset
from authface.faces.geometry import Side
from authface.faces.landmarks import Dlib68
from authface.imaging import decode as images
from authface.imaging.png import is_grey
from authface.restore.guard import SUSPECT, IdentityGuard, compare_parts
from authface.restore.photo import FaceFinder
from authface.restore.settings import RestoreSettings

LEVELS = ("mild", "medium", "heavy", "scan")
FIDELITIES = (0.0, 0.5, 1.0)
PERFECT = "perfect"
BROKEN_OF = ("0.5", PERFECT)
"""Which restorations are broken."""
FALSE_ALARMS = 0.02
LEAST_DETAIL = 0.02
"""Standard deviation of a clean face's Laplacian, of values 0..1: a blurred photo is no truth."""
OPEN = 0.06
"""Least distance of the inner lips, of that of the eyes, with which a mouth shows teeth to smear."""
PARTS = {"right eye": slice(36, 42), "left eye": slice(42, 48), "mouth": slice(48, 68)}
"""Of the 68 points."""

Crop = NDArray[np.uint8]
Points = NDArray[np.float64]
Random = np.random.Generator


@dataclass
class Person:
    """A clean (side, side, 3) face, its (68, 2) points, and by level what became of it."""

    clean: Crop
    points: Points
    damaged: dict[str, Crop] = field(default_factory=dict)
    restored: dict[str, dict[str, Crop]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A restored face, and how like its photo's the worst of its parts is."""

    person: int
    level: str
    restorer: str
    breakage: str
    """Empty: it is honest."""
    likeness: float


@dataclass(frozen=True)
class Broken:
    """What a breakage works on: a face, and another person's, restored in the same way."""

    face: Crop
    points: Points
    other: Crop
    other_points: Points
    random: Random

    @property
    def eyes(self) -> float:
        """Their distance, pixels."""
        return float(np.hypot(*(self.points[42:48].mean(axis=0) - self.points[36:42].mean(axis=0))))

    @property
    def upright(self) -> NDArray[np.float64]:
        """(2, 2) whose columns run along the eyes and down the face."""
        across = self.points[42:48].mean(axis=0) - self.points[36:42].mean(axis=0)
        x, y = across / np.hypot(*across)
        return np.array([[x, -y], [y, x]])

    def of(self, part: str) -> Points:
        """The part's points."""
        return self.points[PARTS[part]]

    def mask(self, points: Points, wider: float, softness: float) -> NDArray[np.float32]:
        """(h, w, 1) 0..1 the hull of points, grown and blurred by parts of the eyes' distance."""
        mask = np.zeros(self.face.shape[:2], np.float32)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points * 16).astype(np.int32)), 1.0, cv2.LINE_AA, 4)
        around = 2 * max(1, round(wider * self.eyes)) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (around, around)))
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), softness * self.eyes)[..., None], np.float32)


def blend(under: Crop, over: NDArray[np.uint8] | NDArray[np.floating], mask: NDArray[np.float32]) -> Crop:
    return np.asarray(np.clip(np.rint(under * (1 - mask) + over * mask), 0, 255), np.uint8)


def moved(face: Crop, turn: NDArray[np.float64]) -> Crop:
    size = face.shape[1::-1]
    return np.asarray(
        cv2.warpAffine(face, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def applied(turn: NDArray[np.float64], points: Points) -> Points:
    return points @ turn[:, :2].T + turn[:, 2]


def erased(at: Broken, part: str) -> Crop:
    mask = at.mask(at.of(part), 0.1 if part == "mouth" else 0.12, 0.03)
    return blend(at.face, cv2.inpaint(at.face, (mask[..., 0] > 0.05).astype(np.uint8), 3, cv2.INPAINT_TELEA), mask)


def stretched(at: Broken, part: str, across: float = 1, down: float = 1, shift: float = 0) -> Crop:
    """The part scaled about its middle and shifted along the eyes, on skin where it was."""
    turn, middle = at.upright @ np.diag([across, down]) @ at.upright.T, at.of(part).mean(axis=0)
    matrix = np.column_stack([turn, middle - turn @ middle + at.upright[:, 0] * shift * at.eyes])
    return blend(erased(at, part), moved(at.face, matrix), at.mask(applied(matrix, at.of(part)), 0.07, 0.04))


def doubled(at: Broken) -> Crop:
    height = np.ptp(at.of("mouth") @ at.upright[:, 1])
    turn, middle = at.upright @ np.diag([0.8, 0.7]) @ at.upright.T, at.of("mouth").mean(axis=0)
    shift = at.upright @ [at.random.choice([-0.3, 0.3]) * at.eyes, 0.6 * height]
    matrix = np.column_stack([turn, middle - turn @ middle + shift])
    return blend(at.face, moved(at.face, matrix), at.mask(applied(matrix, at.of("mouth")), 0.03, 0.03))


def anothers(at: Broken, part: str, other: Crop, theirs: Points) -> Crop:
    """The part of another face, turned and scaled onto this one's and in its colours."""
    here, there = at.of(part) @ [1, 1j], theirs @ [1, 1j]
    spread = there - there.mean()
    turn = complex(spread.conj() @ (here - here.mean()) / (spread.conj() @ spread).real)
    shift = complex(here.mean() - turn * there.mean())
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    source = moved(other, matrix).astype(np.float32)
    if is_grey(at.face):
        source = np.repeat(source.mean(axis=2, keepdims=True), 3, axis=2)
    mask = at.mask(at.of(part), 0.12, 0.05)
    ring = np.clip(at.mask(at.of(part), 0.25, 0.05) - mask, 0, 1)
    source += ((at.face - source) * ring).sum(axis=(0, 1)) / ring.sum()
    return blend(at.face if part == "mouth" else erased(at, part), np.clip(source, 0, 255), mask)


def warped(at: Broken, part: str) -> Crop:
    """Moved here and there by a tenth of the eyes' distance."""
    height, width = at.face.shape[:2]
    noise = at.random.standard_normal((2, height, width)).astype(np.float32)
    shifts = np.stack([cv2.GaussianBlur(one, (0, 0), 0.14 * at.eyes) for one in noise])
    shifts *= 0.12 * at.eyes / np.sqrt((shifts**2).sum(axis=0).mean()) * at.mask(at.of(part), 0.1, 0.05)[..., 0]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(
        cv2.remap(at.face, x + shifts[0], y + shifts[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )


def smeared(at: Broken, points: Points) -> Crop:
    """Drawn out along the eyes by 0.3 of their distance."""
    half = max(1, int(0.15 * at.eyes))
    kernel, along = np.zeros((2 * half + 1, 2 * half + 1), np.float32), at.upright[:, 0] * half
    ends = [tuple(np.rint(half + sign * along).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    drawn = cv2.GaussianBlur(cv2.filter2D(at.face, -1, kernel / kernel.sum()), (0, 0), 0.03 * at.eyes)
    return blend(at.face, drawn, at.mask(points, 0.03, 0.02))


def teeth_smeared(at: Broken) -> Crop | None:
    inner = at.points[61:64].mean(axis=0) - at.points[65:68].mean(axis=0)
    return smeared(at, at.points[60:68]) if np.hypot(*inner) > OPEN * at.eyes else None


def eyes_swapped(at: Broken) -> Crop:
    one = anothers(at, "left eye", at.face, at.of("right eye"))
    both = Broken(one, at.points, at.other, at.other_points, at.random)
    return anothers(both, "right eye", at.face, at.of("left eye"))


def _eye(work: Callable[[Broken, str], Crop]) -> Callable[[Broken], Crop]:
    return lambda at: work(at, str(at.random.choice(["left eye", "right eye"])))


BREAKAGES: dict[str, Callable[[Broken], Crop | None]] = {
    "mouth of another person": lambda at: anothers(at, "mouth", at.other, at.other_points[PARTS["mouth"]]),
    "mouth warped": lambda at: warped(at, "mouth"),
    "mouth shifted by 0.15": lambda at: stretched(at, "mouth", shift=at.random.choice([-0.15, 0.15])),
    "mouth pressed shut": lambda at: stretched(at, "mouth", down=0.45),
    "mouth, left for right": lambda at: stretched(at, "mouth", across=-1),
    "mouth doubled": doubled,
    "teeth smeared": teeth_smeared,
    "eye of another person": _eye(lambda at, part: anothers(at, part, at.other, at.other_points[PARTS[part]])),
    "eye warped": _eye(warped),
    "eye shifted by 0.12": _eye(lambda at, part: stretched(at, part, shift=at.random.choice([-0.12, 0.12]))),
    "eye closed": _eye(lambda at, part: stretched(at, part, down=0.3)),
    "eye erased": _eye(erased),
    "eye smeared": _eye(lambda at, part: smeared(at, at.of(part))),
    "eyes, left for right": eyes_swapped,
}
"""Each gives the face broken, or None where it has nothing to break; lengths are of the eyes' distance."""


def people(folders: Sequence[Path], count: int, side: int) -> list[Person]:
    """Sharp faces, as many of each folder."""
    finder, landmarker = FaceFinder(RestoreSettings(faces="largest")), Dlib68()
    found: list[Person] = []
    for number, folder in enumerate(folders, 1):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        np.random.default_rng(0).shuffle(paths)
        for path in paths:
            if len(found) >= count * number // len(folders):
                break
            try:
                seen = finder(images.read(path).rgb, Side(side), path.name, 0)
            except ImageError:
                continue
            face = next((one for one in seen if one.aligned is not None and one.placed_by == "dlib68"), None)
            if face is None or face.aligned is None or face.in_crop is None:
                continue
            grey = cv2.cvtColor(face.aligned.rgb, cv2.COLOR_RGB2GRAY)
            if cv2.Laplacian(grey, cv2.CV_32F).std() / 255 >= LEAST_DETAIL and face.aligned.pad_fraction < 0.15:
                found.append(Person(face.aligned.rgb, landmarker.landmarks(face.aligned.rgb, face.in_crop)))
    return found


def restore(faces: Sequence[Person], levels: Sequence[str]) -> None:
    """Damage and restore all faces at all levels."""
    for number, face in enumerate(faces):
        face.damaged = {level: degrade(face.clean, number, preset(level)) for level in levels}
        face.restored = {level: {PERFECT: face.clean} for level in levels}
    for fidelity in FIDELITIES:
        with Restorer(fidelity=fidelity, guard=False, device="cpu") as restorer:
            for face, level in itertools.product(faces, levels):
                (made,) = restorer.restore_aligned([face.damaged[level]])
                after = made.faces[0].after
                assert after is not None
                face.restored[level][f"{fidelity:g}"] = after


def broken(faces: Sequence[Person], number: int, level: str, restorer: str) -> Iterator[tuple[str, Crop]]:
    """A restored face, broken in each way."""
    face, other = faces[number], faces[(number + 2) % len(faces)]
    random = np.random.default_rng(number)
    both = [one.restored[level][restorer] for one in (face, other)]
    for name, work in BREAKAGES.items():
        made = work(Broken(both[0], face.points, both[1], other.points, random))
        if made is not None:
            yield name, made


def sheet(faces: Sequence[Person], levels: Sequence[str]) -> Crop:
    """A row a face and a level: clean, damaged, restored, and broken in each way."""
    rows = []
    for (number, face), level in itertools.product(enumerate(faces), levels):
        made = dict(broken(faces, number, level, BROKEN_OF[0]))
        row = [face.clean, face.damaged[level], face.restored[level][BROKEN_OF[0]]]
        row += [made.get(name, np.zeros_like(face.clean)) for name in BREAKAGES]
        rows.append(np.hstack([cv2.resize(one, (128, 128), interpolation=cv2.INTER_AREA) for one in row]))
    return np.vstack(rows)


def judge(faces: Sequence[Person], levels: Sequence[str]) -> Iterator[Judged]:
    """All honest and all broken faces, each against its damaged photo as the guard sees it."""
    guard = IdentityGuard()
    for (number, face), level in itertools.product(enumerate(faces), levels):
        before = face.damaged[level]
        if (found := guard._find(before)) is None:
            continue
        for restorer, after in face.restored[level].items():
            made = [("", after), *(broken(faces, number, level, restorer) if restorer in BROKEN_OF else [])]
            for name, crop in made:
                parts = compare_parts(before, crop, found.points5)
                if parts is not None:
                    yield Judged(number, level, restorer, name, parts.least)


def print_table(title: str, rows: Sequence[Judged], key: Callable[[Judged], str], limit: float) -> None:
    """Percent of the faces that are named, a row a key and a column a level."""
    groups: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[key(row)][row.level].append(row.likeness < limit)
    levels = list(dict.fromkeys(row.level for row in rows))
    print(f"| {title} | {' | '.join(levels)} | faces |\n|---|{'---|' * (len(levels) + 1)}")
    for name, by_level in groups.items():
        shares = " | ".join(f"{100 * np.mean(by_level[level]):.0f} %" if by_level[level] else "" for level in levels)
        print(f"| {name} | {shares} | {sum(map(len, by_level.values()))} |")
    print()


def main() -> None:
    """Choose the limit on half of the persons and print what it does for the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--faces", type=int, default=60)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--levels", nargs="+", default=LEVELS)
    parser.add_argument("--limit", type=float, default=SUSPECT, help="of the tables")
    parser.add_argument("--sheet", type=Path, help="a picture of the first persons' breakages")
    asked = parser.parse_args()
    start = time.monotonic()
    faces = people(asked.folders, asked.faces, asked.side)
    restore(faces, asked.levels)
    if asked.sheet:
        cv2.imwrite(str(asked.sheet), sheet(faces[:6], asked.levels)[..., ::-1])
    rows = list(judge(faces, asked.levels))
    chosen = [row.likeness for row in rows if row.person % 2 == 0 and not row.breakage]
    told = [row for row in rows if row.person % 2]
    print(f"{len(faces)} persons, {len(rows):,} faces, {time.monotonic() - start:.0f} s")
    print(f"limit chosen on half of them: {np.quantile(chosen, FALSE_ALARMS):.3f}; the others at {asked.limit}:\n")
    honest, bad = [row for row in told if not row.breakage], [row for row in told if row.breakage]
    print_table("honest, named", honest, lambda row: f"fidelity {row.restorer}", asked.limit)
    print_table("all honest", honest, lambda _: "named", asked.limit)
    print_table("broken, named", bad, lambda row: row.breakage, asked.limit)
    print_table("all broken", bad, lambda row: f"of {row.restorer}", asked.limit)


if __name__ == "__main__":
    main()
