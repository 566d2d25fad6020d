"""Which faces are in which of the challenge's sets: by sub-folders, by one name, or by the challenge's own list."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from authface.errors import UsageError, first_line, one_line
from authface.evaluate.challenge.rules import rules
from authface.evaluate.pairs import Method, Pair, images_by_name, pair
from authface.evaluate.sources import images_in
from authface.records import Points5

_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for axis in "xy"
)


@dataclass(frozen=True)
class ListedFace:
    """A line of the challenge's list: the set of a face, and where it is, pixels."""

    set: str
    points5: Points5


@dataclass(frozen=True)
class Faces:
    """The outputs of all methods with their inputs, and the set of each name."""

    pairs: list[Pair]
    sets: dict[str, str]

    def of(self, name: str) -> list[str]:
        """Names of the faces in a set."""
        return [face for face, on in self.sets.items() if on == name]


def read_list(path: Path) -> dict[str, ListedFace]:
    """The challenge's list of faces by name without ending: a CSV of filename, dataset and five points.

    Raises UsageError where it is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return {
            Path(row["filename"]).stem if Path(row["filename"]).suffix in {".png", ".jpg"} else row["filename"]:
            ListedFace(rules().set_of(row["dataset"]).name, tuple(float(row[column]) for column in _COLUMNS))
            for row in rows
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"evaluate.challenge.points={one_line(path)} is no list of filename, dataset and {', '.join(_COLUMNS[:2])} "
            f"... ({first_line(error, 80)}): take the challenge's test_2026_face.csv"
        ) from error


def find_faces(
    methods: Sequence[Method], inputs: Path | None, on: str, listed: Mapping[str, ListedFace], limit: int
) -> Faces:
    """All outputs by set; `on` names the one set of folders without sub-folders, `limit` takes so many of each set.

    Raises UsageError where names do not pair, or it is not known of which set a face is.
    """
    pairs: list[Pair] = []
    sets: dict[str, str] = {}
    folders = {method.name: _set_folders(method.folder) for method in methods}
    names = folders[methods[0].name]
    for method, there in folders.items():
        if there != names:
            apart = one_line(", ".join(sorted(set(there) ^ set(names))) or "no sub-folders", 200)
            raise UsageError(f"--outputs {one_line(method)} has other sets than {one_line(methods[0].name)}: {apart}")
    for name in names:
        known = rules().set_of(name or on).name if name or on else ""
        outputs = {method.name: images_by_name(method.folder / name, "outputs") for method in methods}
        beside = None if inputs is None else images_by_name(inputs / name, "inputs")
        for one in pair(outputs, None, beside, limit):
            line = listed.get(one.name)
            its = known or (line.set if line is not None else "")
            if not its:
                raise UsageError(
                    f"of which set is {one_line(one.name, 80)}? A sub-folder for each set, --set for all faces "
                    f"({', '.join(known.name for known in rules().sets)}), or -O evaluate.challenge.points=FILE.csv"
                )
            sets[f"{its}/{one.name}"] = its
            pairs.append(replace(one, name=f"{its}/{one.name}", points5=None if line is None else line.points5))
    return Faces(pairs, sets)


def _set_folders(folder: Path) -> list[str]:
    """Names of the sub-folders that hold images; one empty name where the folder itself does."""
    if not folder.is_dir():
        raise UsageError(f"--outputs {one_line(folder)}: no such folder")
    below = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(True for _ in images_in(path)))
    if any(True for _ in images_in(folder)) or not below:
        return [""]
    return below
