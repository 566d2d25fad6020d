"""What is said of the time left is near the truth once 2 % are done, for folders that are not alike from end to end."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.faces.detector import MIN_FACE
from authface.faces.geometry import Side
from authface.faces.looks import pixels_looked_at
from authface.restore.pipeline import PhotoFaces, PhotoSample, Videos, Workload
from authface.restore.watch import SAMPLE, Clock, Shares, seconds_left, shares

PARTS = ("read", "detect", "align", "model", "guard", "paste", "encode")
BUILT_IN = Side(256, own=True)
"""How large the crops of the model are by which the costs were measured."""
SECONDS_A_LOOK = 0.002


@dataclass(frozen=True)
class Cost:
    """A photo of a real run, as `benchmarks/restore_eta.py` measured it: the seconds of each part."""

    width: int
    height: int
    crops: tuple[float, ...]
    parts: tuple[float, ...]
    known: bool = False

    @property
    def seconds(self) -> float:
        return SECONDS_A_LOOK if self.known else sum(self.parts)

    @property
    def overlapped(self) -> float:
        """With a core for each of the three threads: the slowest of them."""
        read, detect, align, model, guard, paste, encode = self.parts
        return max(read + detect + align, model + guard, paste + encode)


def costs() -> list[Cost]:
    with Path(__file__).with_name("costs.csv").open(newline="") as file:
        return [
            Cost(
                int(row["width"]), int(row["height"]),
                tuple(map(float, row["faces"].split())),
                tuple(float(row[name]) for name in PARTS),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def folder(count: int, of: Sequence[Cost] = (), known: int = 0, seed: int = 1) -> list[Cost]:
    """So many photos, each like one of a real run; the first `known` are done."""
    rng, every = np.random.default_rng(seed), list(of) or costs()
    drawn = [every[place] for place in rng.integers(0, len(every), count)]
    return [replace(photo, known=number < known) for number, photo in enumerate(drawn)]


def faces_of(photo: Cost) -> PhotoFaces:
    return PhotoFaces(photo.width, photo.height, bool(photo.crops), photo.crops)


def count(work: Workload, photo: PhotoFaces) -> None:
    work.add_opened(photo)
    work.add_done(photo)


def plain() -> list[Cost]:
    """Those in whose texture the detector followed no hints: nothing foretells what takes ten times its looks."""

    def looks(photo: Cost) -> float:
        return pixels_looked_at(photo.width, photo.height, MIN_FACE, found=bool(photo.crops)) / 1e6

    return [photo for photo in costs() if photo.parts[PARTS.index("detect")] < 0.15 * looks(photo)]


def left_after(
    photos: Sequence[Cost], done: int, *, overlapped: bool = False, workers: int = 1, glances: int = 0
) -> tuple[float | None, float]:
    """What is said after so many photos, with so many glances at all, and the truth."""
    planned, work, clock = Workload(), Workload(side=BUILT_IN), Clock()
    parts = {"load": 20.0}
    places = [place for place, photo in enumerate(photos) if not photo.known]
    planned.photos, planned.known = len(places), len(photos) - len(places)
    sampled = places[:: -(-len(places) // SAMPLE)]
    planned.samples = [PhotoSample(at, photos[at].width, photos[at].height) for at in sampled]

    every = -(-len(places) // glances) if glances else len(photos)
    planned.glances = [(at, faces_of(photos[at])) for at in places[: len(places) * bool(glances) : every]]

    def seconds_of(photo: Cost) -> float:
        return (photo.overlapped if overlapped and not photo.known else photo.seconds) / workers

    clock.tick(20, work, parts)
    for photo in photos[:done]:
        if photo.known:
            work.known += 1
        else:
            count(work, faces_of(photo))
            for name, seconds in zip(PARTS, photo.parts, strict=True):
                parts[name] = parts.get(name, 0) + seconds
        clock.tick(seconds_of(photo), work, parts)
    return seconds_left(planned, work, clock), sum(map(seconds_of, photos[done:]))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("how", [{}, {"overlapped": True}, {"workers": 2}])
@pytest.mark.parametrize("faceless", [False, True])
def test_it_holds_within_a_fifth(faceless: bool, how: dict[str, Any], share: float) -> None:
    photos = folder(5000, [photo for photo in costs() if not (faceless and photo.crops)])
    said, truth = left_after(photos, int(share * len(photos)), **how)
    assert said is not None and abs(said / truth - 1) < 0.2


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25, 0.5])
def test_glances_tell_of_a_short_run_what_a_few_photos_cannot(share: float) -> None:
    """After 2 % of 300 photos 6 are done: by these alone a third of what is said is off by more than a fifth."""
    every, off = plain(), dict[int, list[float]]({0: [], 37: []})
    for seed in range(16):
        photos = folder(300, every, seed=seed)
        for glances, found in off.items():
            said, truth = left_after(photos, int(share * len(photos)), glances=glances)
            found += [abs(said / truth - 1)] if said is not None else []
    assert np.mean(off[37]) < 0.15 and np.percentile(off[37], 75) < 0.2
    assert share > 0.02 or np.mean(off[37]) < 0.8 * np.mean(off[0])


@pytest.mark.parametrize("large_first", [False, True])
def test_glances_tell_of_faces_that_come_later(large_first: bool) -> None:
    """Where small photos come first, of which fewer have a face, what is done told a third of the truth."""
    photos = sorted(folder(5000, plain()), key=lambda photo: photo.width * photo.height, reverse=large_first)
    assert any(photo.crops for photo in photos[:100]) == large_first
    for share in (0.02, 0.1, 0.5):
        said, truth = left_after(photos, int(share * len(photos)), glances=300)
        assert abs(said / truth - 1) < 0.3 if said is not None else share == 0.02 and not large_first


def test_nothing_is_said_before_a_face_was_restored_where_glances_see_some() -> None:
    photos = sorted(folder(400), key=lambda photo: bool(photo.crops))
    assert not any(photo.crops for photo in photos[:40])
    assert left_after(photos, 40, glances=40)[0] is None and left_after(photos, 40)[0] is not None
    assert left_after([photo for photo in photos if not photo.crops], 40, glances=10)[0] is not None


def test_what_is_loaded_during_the_run_is_no_pace() -> None:
    """The guard is loaded with the first face, when photos without one may be done."""
    clock = Clock()
    for seconds, done, load in ((3, 1, 2.0), (1, 1, 2.0), (1, 2, 3.5), (1, 3, 10.5)):
        clock.tick(seconds, Workload(done), {"load": load, "guard": done})
    assert (clock.made, clock.all, clock.first.tried) == (0.5, 6, 1)
    assert clock.parts == {"load": 8.5, "guard": 2}


def test_small_photos_without_a_face_first_do_not_make_large_ones_dear() -> None:
    """By its pixels alone the rest of this folder took twice as long."""
    small = [photo for photo in costs() if not photo.crops and photo.width * photo.height < 2e6]
    photos = sorted(folder(5000, small), key=lambda photo: photo.width * photo.height)
    for share in (0.02, 0.1, 0.5, 0.81):
        said, truth = left_after(photos, int(share * len(photos)))
        assert said is not None and abs(said / truth - 1) < 0.2


def test_what_is_done_already_is_passed_over_quickly_and_does_not_count_for_the_rest() -> None:
    photos = folder(4000, known=2000)
    said, _ = left_after(photos, 1000)
    assert said is None, "nothing was made yet by which the rest could be told"
    said, truth = left_after(photos, 2100)
    assert said is not None and abs(said / truth - 1) < 0.2
    mixed = photos[1000:2000] + photos[2000:3000] + photos[:1000] + photos[3000:]
    said, truth = left_after(mixed, 1200)
    assert said is not None and abs(said / truth - 1) < 0.2


def test_a_run_at_its_end_has_nothing_left_and_one_that_began_says_nothing() -> None:
    photos = folder(20)
    assert left_after(photos, 20)[0] == 0 and left_after(photos, 2)[0] is None
    assert seconds_left(Workload(), Workload(), Clock()) == 0


def test_failures_are_done_too_and_videos_go_by_their_bytes() -> None:
    planned, work = Workload(10, videos=Videos(4, 400)), Workload(4, failed=1)
    clock = Clock(made=10)
    assert seconds_left(planned, work, clock) is None, "no video was made yet"
    work.videos.add(100)
    clock.videos = 50
    left = seconds_left(planned, work, clock)
    assert left == pytest.approx(10 / 5 * 5 + 50 / 100 * 300)
    work.failed_videos.add(200)
    assert seconds_left(planned, work, clock) == pytest.approx(10 / 5 * 5 + 50 / 100 * 100)


def test_what_is_left_goes_by_the_photos_that_are_left() -> None:
    sample = [PhotoSample(place, 100, 10 if place < 50 else 90) for place in range(0, 100, 10)]
    planned = Workload(100, samples=sample)
    work, clock = Workload(), Clock()
    for number in range(50):
        count(work, PhotoFaces(100, 10))
        clock.tick(1, work, {"read": float(number)})
    clock.made, clock.parts = 40, {"read": 40}
    clock.first = Workload()
    for _ in range(10):
        count(clock.first, PhotoFaces(100, 10))
    left = seconds_left(planned, work, clock)
    floor = 10_000
    assert left == pytest.approx(50 * (9000 + floor) / (1000 + floor))
    assert seconds_left(Workload(100), work, clock) == pytest.approx(50), "no header could be read"


def test_parts_say_what_takes_the_time() -> None:
    assert shares({}, 10) == shares({}, 0) == Shares() and Shares().photos == 1
    assert shares({"read": 5, "encode": 5}, 10) == shares({"read": 9, "encode": 9}, 10) == Shares(pixels=1)
    assert shares({"guard": 6, "align": 2, "load": 5}, 10) == Shares(faces=0.8)
    assert shares({"read": 1, "detect": 2, "model": 5, "guard": 2}, 9) == Shares(0.1, 0.2, 0.5, 0.2)
    assert shares({"read": 2}, 10) == Shares(0.2), "what no part has is counted by photos"


def test_a_photo_without_a_face_is_looked_at_more_often() -> None:
    """A small one enlarged and at all turns, a large one at turns alone: by its pixels it would be overestimated."""
    small, large = (pixels_looked_at(side, side, MIN_FACE, found=False) / side**2 for side in (500, 1500))
    assert small == 1 + 3 + 4 and large < 3
    assert pixels_looked_at(500, 500, MIN_FACE, found=True) == 500 * 500


def test_larger_photos_have_larger_faces_as_far_as_the_model_sees() -> None:
    """Faces of a quarter of the photo: crops of 256 px at least, or as large as they are."""
    work = Workload(side=Side(256, own=True))
    for _ in range(4):
        count(work, PhotoFaces(400, 400, True, (200.0,)))
    small, large = PhotoSample(0, 200, 200), PhotoSample(0, 2000, 2000)
    assert work.crops(small, work.faces) == work.modelled / 4 == 2 * 256**2
    assert work.crops(large, work.faces) == 1000**2 + 256**2
    work.side = Side(512)
    assert work.crops(small, work.faces) == work.crops(large, work.faces) == 2 * 512**2


def test_photos_that_are_opened_ahead_make_those_that_are_done_no_dearer() -> None:
    """Of a batch that the model has not seen yet the detector's seconds were spent."""
    planned, work, clock = Workload(100), Workload(), Clock()
    planned.samples = [PhotoSample(place, 500, 500) for place in range(100)]
    count(work, PhotoFaces(500, 500, found=True))
    clock.tick(1, work, {"detect": 1})
    for _ in range(9):
        work.add_opened(PhotoFaces(500, 500, found=True))
    for _ in range(3):
        work.add_done(PhotoFaces(500, 500, found=True))
    clock.tick(9, work, {"detect": 10})
    assert seconds_left(planned, work, clock) == pytest.approx(96, rel=0.05)


def test_what_comes_before_the_first_photo_is_no_pace() -> None:
    clock, planned, work = Clock(), Workload(100), Workload()
    clock.tick(500, work, {})
    for _ in range(10):
        count(work, PhotoFaces(1, 1))
        clock.tick(2, work, {"load": 400})
    assert seconds_left(planned, work, clock) == pytest.approx(180) and clock.all == 520
