"""What `curate learn` learns of a reviewer with a hidden rule, and how many reviews it takes, on real faces.

    python benchmarks/learn.py PHOTOS --faces 1000

Of the photos of a folder those that the filter keeps are taken; near half of them get a made fault (`made_rejects.py`),
which the reviewer rejects by its reason. Printed are, on faces held out: the area under the curve and the precision at
95 % recall, by all columns, by the measures alone, by PIQE and by the filter's limits; the calibration; and the area
after so many reviews in the order of `--next uncertain` and in random order. `--decisions SET` measures a reviewer's
own decisions on a set instead, half of them held out (`learn_reviewed.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from learn_reviewed import PIQE, print_orders, print_reviewed, print_row
from made_rejects import QUALITY, REASONS, faulty
from numpy.typing import NDArray

from authface.console import Console
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.filter.run import filter_photos
from authface.curate.learn import fit
from authface.curate.learn.fit import HeldOutTable, Lesson, grouped
from authface.curate.learn.table import MEASURES, face_parts, take_features, together
from authface.curate.settings import FetchSettings, FilterSettings
from authface.imaging.decode import decode, encode_jpeg
from authface.metrics.stats import ranking_auc
from authface.store.photoset import PhotoSet

SHARE = 0.45
"""Of the photos that get a fault."""
TEST = 350
"""Faces on which the orders are tested, a third of them where there are fewer than thrice as many."""


@dataclass(frozen=True)
class Reviewed:
    """Faces, the reviewer's rule on each, and whether the limits of the filter keep it."""

    lesson: Lesson
    passes: NDArray[np.bool_]


def make_set(photos: Path, root: Path, faces: int, console: Console) -> Reviewed:
    """Filter, damage, measure."""
    settings, clean = FilterSettings(), PhotoSet(root / "clean")
    _fetch(clean, photos, console)
    filter_photos(clean, settings, console)
    rng = np.random.default_rng(0)
    kept = [face for face in clean.faces if face.status == "kept" and face.index == 0]
    (root / "made").mkdir()
    for number, at in enumerate(rng.permutation(len(kept))[:faces]):
        face, fault = kept[at], list(REASONS)[number % len(REASONS)] if rng.random() < SHARE else ""
        assert face.box is not None
        made = faulty(decode(clean.read(face.photo_file)).rgb, face.box, fault, rng)
        (root / "made" / f"{number:05d}-{fault}.jpg").write_bytes(encode_jpeg(made, quality=QUALITY))
    made_set = PhotoSet(root / "set")
    _fetch(made_set, root / "made", console)
    filter_photos(made_set, settings, console)
    begin = time.process_time()
    take_features(made_set, "", console)
    print(f"features: {1000 * (time.process_time() - begin) / faces:.1f} ms of CPU a face")
    return _rule(made_set)


def _fetch(photoset: PhotoSet, folder: Path, console: Console) -> None:
    settings = FetchSettings(source="folder", path=str(folder), licence="unknown")
    with make_source(settings, photoset) as source:
        fetch(photoset, source, settings, console, workers=1, limit=0)


def _rule(photoset: PhotoSet) -> Reviewed:
    fault_of = {photo.id: Path(photo.source_id).stem.partition("-")[2] for photo in photoset.photos}
    whole = together(list(face_parts(photoset)))
    table = whole.take([row for row, face in enumerate(whole.ids) if face.endswith("-0")])
    faults = [fault_of[photo] for photo in table.photo_ids]
    status = {face.id: face.status == "kept" for face in photoset.faces}
    kept = np.array([not fault for fault in faults])
    lesson = Lesson(table, kept, tuple(REASONS.get(fault, "") for fault in faults), grouped(table, {}))
    return Reviewed(lesson, np.array([status[face] for face in table.ids]))


def print_quality(made: Reviewed) -> None:
    """Areas and precision at 95 % recall by cross-validation, of all columns and of less."""
    lesson, ones = made.lesson, np.ones(len(made.lesson.kept))
    print(f"{len(lesson.kept)} faces, {lesson.rejected} to reject")
    print(f"{'':24}{'area':>7}  {'precision at 95 % recall':28}{'lets through':26}")
    for name, columns in (("all columns", slice(None)), ("measures alone", slice(0, 1 + len(MEASURES)))):
        table = replace(lesson.faces, values=lesson.faces.values[:, columns])
        part = replace(lesson, faces=table)
        shares = fit.cross_validated(part, fit.median_of(table.values), 0)
        held = HeldOutTable(fit.held_out_probability(shares, part, 0), lesson.kept, ones)
        print_row(name, held)
        if name == "all columns":
            print(f"{'':24}calibration error {held.calibration_error:.3f}: " + ", ".join(
                f"{one.predicted:.2f} is {one.kept.share:.2f}" for one in held.calibration()))  # fmt: skip
    piqe = lesson.faces.values[:, PIQE]
    print_row("PIQE", HeldOutTable(1 - np.nan_to_num(piqe, nan=100) / 100, lesson.kept, ones))
    limits = HeldOutTable(made.passes.astype(float), lesson.kept, ones)
    at = limits.passing(0.5)
    area = ranking_auc(limits.probability, lesson.kept, ones)
    print(f"{'the limits':24}{area:7.3f}  {at.precision.text:28}{at.let_through.text:26} at recall {at.recall.text}")


def print_curves_of(made: Reviewed, seeds: int) -> None:
    """The area on faces held out, after so many reviews in either order."""
    rows = np.random.default_rng(0).permutation(len(made.lesson.kept))
    test = min(TEST, len(rows) // 3)
    print_orders(made.lesson, rows[test:], rows[:test], seeds)


def main() -> None:
    """As the docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of photos with faces")
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decisions", type=Path, help="a photo set with decisions and features")
    parser.add_argument("--reviewer", default="")
    parser.add_argument("--test", type=int, default=300, help="of the decisions, how many to test on; as many to learn")
    given = parser.parse_args()
    if given.decisions:
        return print_reviewed(given.decisions, given.reviewer, given.test, given.seeds)
    if not given.photos:
        parser.error("PHOTOS, or --decisions SET")
    with tempfile.TemporaryDirectory() as folder, Console() as console:
        made = make_set(given.photos, Path(folder), given.faces, console)
        print_quality(made)
        print_curves_of(made, given.seeds)


if __name__ == "__main__":
    main()
