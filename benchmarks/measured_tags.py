"""Precision and recall of the measured tags on real faces whose truth is known, and images per second.

    python benchmarks/measured_tags.py PHOTOSET [--limit 150] [--seen LABELS.csv] [--half held|tune] [--only WORD]

PHOTOSET holds crops (`authface curate align`). Each is changed by a known amount so that a tag is true of it, and
again so that it is false (`made_faces.py`); what lies between the two is ambiguous, is not asked, and is named in the
table. LABELS.csv (crop,tag,truth: an id, a tag, 1 or 0) says what a person saw: smiles and mouths have no other truth,
and gazes and turned heads start from crops of which it says that they look at, or face, the camera. Limits are set on
the half `tune` of the crops and reported on `held`. Behind precision and recall: Wilson's 95 % intervals.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from made_faces import (
    Change,
    Image,
    before,
    colourful,
    gazing,
    lit,
    plain,
    scene,
    skin_of,
    tinted,
    tone,
    toned,
)
from moved_faces import Face, Move, leaning, moved, turned_head, wider

from authface.annotate.measured.quantities import Regions, find_regions
from authface.annotate.measured.tagger import measure, tags
from authface.annotate.settings import MeasuredSettings
from authface.faces.geometry import crop_points
from authface.imaging import decode as images
from authface.metrics.stats import wilson
from authface.store.photoset import PhotoSet

Labels = Mapping[str, Mapping[str, bool]]
"""What a person saw: by tag and crop."""


@dataclass(frozen=True)
class Trial:
    """A tag, changes that make it true, changes that make it false, what is ambiguous, and the crops it starts from."""

    tag: str
    true: tuple[Move, ...]
    false: tuple[Move, ...]
    ambiguous: str
    start: str = ""
    """A tag of the labels; where there are labels, only crops that have it are changed."""


def trial(tag: str, true: tuple[Change, ...], false: tuple[Change, ...], ambiguous: str, start: str = "") -> Trial:
    """A trial of changes that leave the landmarks where they are."""
    return Trial(tag, tuple(map(moved, true)), tuple(map(moved, false)), ambiguous, start)


COLOURS = {"white": (252, 252, 252), "black": (14, 14, 15), "grey": (125, 125, 125),
           "red": (190, 25, 30), "blue": (60, 130, 215), "green": (30, 150, 60)}  # fmt: skip
_OTHER = {"white": "grey", "black": "white", "grey": "blue", "red": "green", "blue": "red", "green": "black"}

FRONT = (lit(0, 25, 35, 0.35), lit(0, 15, 60, 0.4))
LEFT = (lit(-50, 20, 30, 0.2), lit(-60, 15, 0, 0.12), lit(-45, 25, 20, 0.15))
RIGHT = (lit(50, 20, 30, 0.2), lit(60, 15, 0, 0.12), lit(45, 25, 20, 0.15))
SIDES = "lamp 20 to 45 degrees aside"

# Grain of 3.5 L* gives sharp portraits the skin texture of unretouched ones, a measure of 0.15 to 0.25.
TRIALS = (
    Trial("close-up portrait", (wider(1.0), wider(1.15)), (wider(1.6), wider(2.0)), "crop 1.15 to 1.6 of FFHQ's"),
    Trial("facing the camera", (turned_head(0), turned_head(3)), (turned_head(-24), turned_head(24)),
          "3 to 24 degrees", "facing the camera"),
    Trial("head turned to the left", (turned_head(-24), turned_head(-30)), (turned_head(0), turned_head(24)),
          "0 to 24 degrees", "facing the camera"),
    Trial("head turned to the right", (turned_head(24), turned_head(30)), (turned_head(0), turned_head(-24)),
          "0 to 24 degrees", "facing the camera"),
    Trial("head tilted to the left", (leaning(-18), leaning(-28)), (leaning(-5), leaning(5), leaning(18)),
          "5 to 18 degrees"),
    Trial("head tilted to the right", (leaning(18), leaning(28)), (leaning(-5), leaning(5), leaning(-18)),
          "5 to 18 degrees"),
    trial("looking to the left", (gazing(-0.6),), (gazing(0), gazing(0.6)), "0 to 0.6 of half an eye",
          "looking at the camera"),
    trial("looking to the right", (gazing(0.6),), (gazing(0), gazing(-0.6)), "0 to 0.6 of half an eye",
          "looking at the camera"),
    trial("looking at the camera", (gazing(0),), (gazing(-0.6), gazing(0.6)), "0 to 0.6 of half an eye",
          "looking at the camera"),
    trial("detailed skin texture", (skin_of(3.5),), (skin_of(0),), "grain of 0 to 3.5 L*"),
    trial("smooth skin", (skin_of(0),), (skin_of(3.5),), "grain of 0 to 3.5 L*"),
    trial("light from the left", LEFT, (*FRONT, *RIGHT), SIDES),
    trial("light from the right", RIGHT, (*FRONT, *LEFT), SIDES),
    trial("black and white", (toned(1, 1),), (colourful, toned(1.3, 0.6)), "red 1 to 1.3 of green"),
    trial("toned monochrome", (toned(1.3, 0.6), toned(0.7, 1.3)), (colourful, toned(1, 1)), "red 0.7 to 1.3 of green"),
    trial("low key", (tone(lightness=14),), (tone(lightness=35), tone(lightness=60)), "median L* 14 to 35"),
    trial("high key", (tone(lightness=86),), (tone(lightness=65), tone(lightness=40)), "median L* 65 to 86"),
    trial("high contrast", (tone(lightness=50, contrast=3),), (tone(lightness=50, contrast=0.9),), "0.9 to 3 times"),
    trial("low contrast", (tone(lightness=50, contrast=0.5),), (tone(lightness=50, contrast=1.2),), "0.5 to 1.2 times"),
    trial("warm tones", (tinted(1.6),), (tinted(0), tinted(-1.6)), "0 to 1.6 stops"),
    trial("cool tones", (tinted(-1.6),), (tinted(0), tinted(1.6)), "0 to 1.6 stops"),
    trial("vivid colours", (tone(chroma=42),), (tone(chroma=22),), "chroma 22 to 42"),
    trial("muted colours", (tone(chroma=5.5),), (tone(chroma=13),), "chroma 5.5 to 13"),
    trial("shallow depth of field", (before(scene(5)),), (before(scene(0)), before(plain(COLOURS["grey"]))),
          "blur of 0 to 5 px"),
    trial("background in focus", (before(scene(0)),), (before(scene(5)), before(plain(COLOURS["blue"]))),
          "blur of 0 to 5 px"),
    trial("plain background", tuple(before(plain(c)) for c in COLOURS.values()),
          (before(scene(0)), before(scene(4))), "none: one colour or a photo"),
    *(trial(f"{name} background", (before(plain(rgb)),), (before(plain(COLOURS[_OTHER[name]])), before(scene(0))),
            "shades between") for name, rgb in COLOURS.items()),
)  # fmt: skip


@dataclass
class Tally:
    """How often a tag was said and true, not said and true, said and false, neither."""

    hits: int = 0
    misses: int = 0
    false: int = 0
    silent: int = 0

    def add(self, *, said: bool, truth: bool) -> None:
        """Count one crop."""
        self.hits += said and truth
        self.misses += truth and not said
        self.false += said and not truth
        self.silent += not said and not truth

    def line(self, tag: str, ambiguous: str) -> str:
        """A row of the table."""
        ratios = (interval(self.hits, self.hits + self.false), interval(self.hits, self.hits + self.misses))
        shown = "  ".join(f"{middle:5.3f} [{low:.2f} {high:.2f}]" for low, middle, high in ratios)
        return f"{tag:<26}{self.hits + self.misses:>5}{self.false + self.silent:>5}  {shown}  {ambiguous}"


def interval(part: int, whole: int) -> tuple[float, float, float]:
    """A share with Wilson's 95 % interval (Wilson 1927): low, share, high; 0, 0, 1 of nothing."""
    low, high = wilson(part, whole)
    return low, part / whole if whole else 0.0, high


def crops(photoset: PhotoSet) -> Iterator[tuple[str, Image, Face]]:
    """Id, pixels as stored, and the same at 256 px with its landmarks, of every kept crop."""
    for crop in photoset.crops:
        if crop.status == "kept" and crop.quad is not None and crop.landmarks is not None:
            rgb = images.decode(photoset.read(crop.file)).rgb
            tilt = math.degrees(math.atan2(crop.quad[7] - crop.quad[1], crop.quad[6] - crop.quad[0]))
            yield crop.id, rgb, Face(rgb, crop_points(crop.landmarks, crop.quad, rgb.shape[0]), tilt)


def labels(file: Path | None) -> Labels:
    """What a person saw."""
    seen: dict[str, dict[str, bool]] = defaultdict(dict)
    if file is not None:
        with file.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                seen[row["tag"]][row["crop"]] = row["truth"] == "1"
    return seen


def said(face: Face, limits: MeasuredSettings) -> set[str]:
    """The tags a crop earns."""
    return {tag.name for tag in tags(measure(face.rgb, face.points, face.tilt), limits)}


def score(one: Trial, faces: Mapping[str, Regions], seen: Labels, limits: MeasuredSettings, limit: int) -> Tally:
    """A trial over changed crops, each once true and once false."""
    rng = np.random.default_rng(0)
    tally = Tally()
    known = seen.get(one.start, {})
    chosen = [regions for name, regions in faces.items() if not known or known.get(name)]
    for regions in chosen[:: max(1, len(chosen) // limit)][:limit]:
        for moves, truth in ((one.true, True), (one.false, False)):
            if (face := moves[rng.integers(len(moves))](regions, rng)) is not None:
                tally.add(said=one.tag in said(face, limits), truth=truth)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photoset", type=Path)
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--seen", type=Path)
    parser.add_argument("--half", choices=("held", "tune"), default="held")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    limits, seen = MeasuredSettings(), labels(given.seen)
    found = [
        one for index, one in enumerate(crops(PhotoSet.open(given.photoset))) if index % 2 == (given.half == "held")
    ]
    print(f"{'tag':<26} true false precision            recall               ambiguous, not asked")
    for tag, truth in seen.items():
        if given.only in tag:
            tally = Tally()
            for name, _, face in found:
                if name in truth:
                    tally.add(said=tag in said(face, limits), truth=truth[name])
            print(tally.line(tag, "what a person was unsure of"), flush=True)
    faces = {name: find_regions(face.rgb, face.points) for name, _, face in found}
    for one in TRIALS:
        if given.only in one.tag:
            print(score(one, faces, seen, limits, given.limit).line(one.tag, one.ambiguous), flush=True)
    speed([(rgb, face.points) for _, rgb, face in found[: given.limit]])


def speed(found: list[tuple[Image, np.ndarray]]) -> None:
    """Images a second of one thread, and as a share of what decoding the same crops as PNG takes."""
    files = [images.encode_png(rgb) for rgb, _ in found]
    clock = [time.process_time()]
    for data in files:
        images.decode(data)
    clock.append(time.process_time())
    for rgb, points in found:
        tags(measure(rgb, points), MeasuredSettings())
    clock.append(time.process_time())
    decoding, measuring = np.diff(clock) / len(found)
    size = found[0][0].shape[0]
    print(f"{size} px, one thread: {1 / measuring:.0f} images/s measured, {1 / decoding:.0f} decoded, "
          f"{1 / (measuring + decoding):.0f} both; measuring costs {measuring / decoding:.2f} decodes")  # fmt: skip


if __name__ == "__main__":
    main()
