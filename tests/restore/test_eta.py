"""What is said of the time left is near the truth once 2 % are done, for folders that are not alike from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from authface.restore.pipeline import Amount, Clock, PhotoSample, Workload, pixel_share, seconds_left

SECONDS_A_FACE, SECONDS_A_MEGAPIXEL, SECONDS_A_LOOK = 0.8, 0.2, 0.002


@dataclass
class Made:
    """A photo of a made folder."""

    ending: str
    megapixels: float
    bytes: int
    faces: int
    known: bool = False


def folder(count: int, known: int = 0) -> list[Made]:
    """Photos of a phone, scans and thumbnails, with 0 to 5 faces; the first `known` are done."""
    rng = np.random.default_rng(1)
    kinds = [(".jpg", 0.1, 0.35), (".jpg", 12.0, 0.3), (".png", 3.0, 1.8), (".tif", 24.0, 3.0)]
    photos = []
    for i in range(count):
        ending, megapixels, per_pixel = kinds[rng.choice(4, p=[0.4, 0.4, 0.15, 0.05])]
        size = megapixels * rng.uniform(0.7, 1.3)
        bytes = int(size * 1e6 * per_pixel * rng.uniform(0.6, 1.4))
        photos.append(Made(ending, size, bytes, int(rng.poisson(1.2)), i < known))
    return photos


def left_after(photos: Sequence[Made], done: int) -> tuple[float | None, float]:
    """What is said after so many photos, and the truth."""
    planned, work, clock = Workload(), Workload(), Clock()
    parts = {"load": 20.0}
    for photo in photos:
        if photo.known:
            planned.known += 1
        else:
            planned.photos.setdefault(photo.ending, Amount()).add(photo.bytes)
    for ending, amount in planned.photos.items():
        own = [place for place, photo in enumerate(photos) if photo.ending == ending and not photo.known]
        amount.samples = [PhotoSample(at, photos[at].bytes, int(photos[at].megapixels * 1e6)) for at in own[::17]]
    clock.tick(20, 0, 0, 0, in_videos=False)
    for photo in photos[:done]:
        if photo.known:
            work.known += 1
            clock.tick(SECONDS_A_LOOK, 0, 1, 0, in_videos=False)
            continue
        work.photos.setdefault(photo.ending, Amount()).add(photo.bytes, int(photo.megapixels * 1e6))
        for name, seconds in (
            ("read", 0.1 * photo.megapixels),
            ("detect", 0.06 * photo.megapixels),
            ("encode", 0.04 * photo.megapixels),
            ("model", 0.6 * photo.faces),
            ("guard", 0.2 * photo.faces),
        ):
            parts[name] = parts.get(name, 0) + seconds
        clock.tick(seconds_of(photo), 1, 0, 0, in_videos=False)
    return seconds_left(planned, work, clock, parts), sum(map(seconds_of, photos[done:]))


def seconds_of(photo: Made) -> float:
    if photo.known:
        return SECONDS_A_LOOK
    return SECONDS_A_FACE * photo.faces + SECONDS_A_MEGAPIXEL * photo.megapixels


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("order", ["mixed", "small first", "large first", "by ending"])
def test_it_holds_within_a_fifth(order: str, share: float) -> None:
    photos = folder(5000)
    if order == "by ending":
        photos.sort(key=lambda photo: photo.ending)
    elif order != "mixed":
        photos.sort(key=lambda photo: photo.bytes, reverse=order == "large first")
    said, truth = left_after(photos, int(share * len(photos)))
    assert said is not None and abs(said / truth - 1) < 0.2
    if order == "small first" and share == 0.02:
        by_count = sum(map(seconds_of, photos[:100])) / 100 * 4900
        assert by_count < 0.5 * truth, "the number of photos alone tells half of it or less"


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
    planned = Workload({".jpg": Amount(10, 1000)}, videos=Amount(4, 400))
    work = Workload({".jpg": Amount(4, 400, 4000)})
    clock = Clock(made=10)
    assert seconds_left(planned, work, clock, {}, failed=1) is None, "no video was made yet"
    work.videos.add(100)
    clock.videos = 50
    left = seconds_left(planned, work, clock, {}, failed=1)
    assert left == pytest.approx(10 / 5 * 5 + 50 / 100 * 300)


def test_what_is_left_goes_by_the_photos_that_are_left() -> None:
    """Pixels for a byte change within the folder: sharp ones first, smooth ones of many pixels behind them."""
    samples = [PhotoSample(place, 1000, 1000 if place < 50 else 9000) for place in range(0, 100, 10)]
    planned = Workload({".jpg": Amount(100, 100_000, samples=samples)})
    work, clock = Workload({".jpg": Amount(50, 50_000, 50_000)}), Clock(made=40, first=10)
    left = seconds_left(planned, work, clock, {"read": 40})
    floor = 10_000
    assert left == pytest.approx(50 * (9000 + floor) / (1000 + floor))


def test_parts_say_whether_faces_or_pixels_take_the_time() -> None:
    assert pixel_share({}, 10) == pixel_share({}, 0) == 0
    assert pixel_share({"read": 5, "detect": 5}, 10) == pixel_share({"read": 9, "detect": 9}, 10) == 1
    assert pixel_share({"model": 10, "load": 5}, 10) == 0
    assert pixel_share({"read": 1, "detect": 1, "model": 8}, 9) == 0.2
    assert pixel_share({"read": 2}, 10) == 0.2, "what no part has is counted by photos"


def test_what_comes_before_the_first_photo_is_no_pace() -> None:
    clock, planned, work = Clock(), Workload({".jpg": Amount(100, 100)}), Workload({".jpg": Amount()})
    clock.tick(500, 0, 0, 0, in_videos=False)
    for _ in range(10):
        work.photos[".jpg"].add(1, 1)
        clock.tick(2, 1, 0, 0, in_videos=False)
    assert seconds_left(planned, work, clock, {"load": 400}) == pytest.approx(180) and clock.all == 520
