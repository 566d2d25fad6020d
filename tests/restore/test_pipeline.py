"""Work in other threads: order, how far ahead, and whose errors come where.

What is said of the time left is near the truth once 2 % are done, for folders that are not alike from end to end.
"""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.faces.detector import MIN_FACE
from authface.faces.geometry import Side
from authface.faces.looks import pixels_looked_at
from authface.restore.pipeline import (
    Clock,
    OpenedSize,
    PhotoSample,
    Shares,
    Videos,
    Workload,
    counted,
    part,
    prefetch,
    seconds_left,
    shares,
    write_behind,
)
from authface.restore.watch import SAMPLE


def test_the_next_item_is_made_while_one_is_used_and_no_more() -> None:
    made: list[int] = []
    asked = threading.Event()

    def items() -> Iterator[int]:
        for i in range(4):
            made.append(i)
            if i == 1:
                asked.set()
            yield i

    got = prefetch(items(), lambda item: item == 2)
    assert next(got) == 0 and asked.wait(10)
    assert next(got) == 1
    assert next(got) == 2
    time.sleep(0.05)
    assert made == [0, 1, 2]  # the third is alone
    assert list(got) == [3] and made == [0, 1, 2, 3]


def test_errors_come_where_their_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    got = prefetch(items(), lambda _: False)
    assert next(got) == 1
    with pytest.raises(ValueError, match="two"):
        next(got)


def test_what_is_left_behind_is_done_in_order_and_its_errors_are_not_lost() -> None:
    done: list[int] = []
    start = threading.Event()

    def slow() -> None:
        start.wait(10)
        done.append(1)

    with write_behind() as hand:
        hand(slow)
        assert done == []
        start.set()
        hand(lambda: done.append(2))
    assert done == [1, 2]

    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), write_behind() as hand:
        hand(fail)
    with pytest.raises(OSError, match="full"), write_behind() as hand:
        hand(fail)
        hand(lambda: done.append(3))
    assert done == [1, 2]


def test_seconds_are_counted_in_every_thread() -> None:
    def items() -> Iterator[int]:
        for i in range(2):
            with part("read"):
                time.sleep(0.02)
            yield i

    with counted() as seconds, write_behind() as hand:
        for _ in prefetch(items(), lambda _: False):
            with part("model"):
                time.sleep(0.01)

            def write() -> None:
                with part("encode"):
                    time.sleep(0.03)

            hand(write)
    assert seconds["read"] >= 0.04 and seconds["model"] >= 0.02 and seconds["encode"] >= 0.06
    before = dict(seconds)
    with part("read"):  # nobody counts
        pass
    assert seconds == before


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


def folder(count: int, of: Sequence[Cost] = (), known: int = 0) -> list[Cost]:
    """So many photos, each like one of a real run; the first `known` are done."""
    rng, every = np.random.default_rng(1), list(of) or costs()
    drawn = [every[place] for place in rng.integers(0, len(every), count)]
    return [replace(photo, known=number < known) for number, photo in enumerate(drawn)]


def left_after(
    photos: Sequence[Cost], done: int, *, overlapped: bool = False, workers: int = 1
) -> tuple[float | None, float]:
    """What is said after so many photos, and the truth."""
    planned, work, clock = Workload(), Workload(side=BUILT_IN), Clock()
    parts = {"load": 20.0}
    places = [place for place, photo in enumerate(photos) if not photo.known]
    planned.photos, planned.known = len(places), len(photos) - len(places)
    sampled = places[:: -(-len(places) // SAMPLE)]
    planned.samples = [PhotoSample(at, photos[at].width, photos[at].height) for at in sampled]

    def seconds_of(photo: Cost) -> float:
        return (photo.overlapped if overlapped and not photo.known else photo.seconds) / workers

    clock.tick(20, 0, 0, 0, in_videos=False)
    for photo in photos[:done]:
        if photo.known:
            work.known += 1
        else:
            size = OpenedSize(photo.width, photo.height, bool(photo.crops), photo.crops)
            work.add_opened(size)
            for name, seconds in zip(PARTS, photo.parts, strict=True):
                parts[name] = parts.get(name, 0) + seconds
        clock.tick(seconds_of(photo), not photo.known, photo.known, 0, in_videos=False)
    return seconds_left(planned, work, clock, parts), sum(map(seconds_of, photos[done:]))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("how", [{}, {"overlapped": True}, {"workers": 2}])
@pytest.mark.parametrize("faceless", [False, True])
def test_it_holds_within_a_fifth(faceless: bool, how: dict[str, Any], share: float) -> None:
    photos = folder(5000, [photo for photo in costs() if not (faceless and photo.crops)])
    said, truth = left_after(photos, int(share * len(photos)), **how)
    assert said is not None and abs(said / truth - 1) < 0.2


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
    assert seconds_left(Workload(), Workload(), Clock(), {}) == 0


def test_failures_are_done_too_and_videos_go_by_their_bytes() -> None:
    planned, work = Workload(10, videos=Videos(4, 400)), Workload(4, failed=1)
    clock = Clock(made=10)
    assert seconds_left(planned, work, clock, {}) is None, "no video was made yet"
    work.videos.add(100)
    clock.videos = 50
    left = seconds_left(planned, work, clock, {})
    assert left == pytest.approx(10 / 5 * 5 + 50 / 100 * 300)
    work.failed_videos.add(200)
    assert seconds_left(planned, work, clock, {}) == pytest.approx(10 / 5 * 5 + 50 / 100 * 100)


def test_what_is_left_goes_by_the_photos_that_are_left() -> None:
    sample = [PhotoSample(place, 100, 10 if place < 50 else 90) for place in range(0, 100, 10)]
    planned = Workload(100, samples=sample)
    work, clock = Workload(), Clock(made=40, first=10)
    for _ in range(50):
        work.add_opened(OpenedSize(100, 10))
    left = seconds_left(planned, work, clock, {"read": 40})
    floor = 10_000
    assert left == pytest.approx(50 * (9000 + floor) / (1000 + floor))
    assert seconds_left(Workload(100), work, clock, {"read": 40}) == pytest.approx(50), "no header could be read"


def test_parts_say_what_takes_the_time() -> None:
    assert shares({}, 10) == shares({}, 0) == Shares() and Shares().photos == 1
    assert shares({"read": 5, "encode": 5}, 10) == shares({"read": 9, "encode": 9}, 10) == Shares(pixels=1)
    assert shares({"guard": 10, "load": 5}, 10) == Shares()
    assert shares({"read": 1, "detect": 2, "model": 5, "guard": 2}, 9) == Shares(0.1, 0.2, 0.5)
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
        work.add_opened(OpenedSize(400, 400, True, (200.0,)))
    assert work.crops(PhotoSample(0, 200, 200)) == work.modelled / 4 == 2 * 256**2
    assert work.crops(PhotoSample(0, 2000, 2000)) == 1000**2 + 256**2
    work.side = Side(512)
    assert work.crops(PhotoSample(0, 200, 200)) == work.crops(PhotoSample(0, 2000, 2000)) == 2 * 512**2


def test_what_comes_before_the_first_photo_is_no_pace() -> None:
    clock, planned, work = Clock(), Workload(100), Workload()
    clock.tick(500, 0, 0, 0, in_videos=False)
    for _ in range(10):
        work.add_opened(OpenedSize(1, 1))
        clock.tick(2, 1, 0, 0, in_videos=False)
    assert seconds_left(planned, work, clock, {"load": 400}) == pytest.approx(180) and clock.all == 520
