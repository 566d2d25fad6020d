"""The retouching round: out and back, each way a file can be wrong, and never over the original."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from authface.curate.review.retouch import MANIFEST, RetouchResult, export_retouch, import_retouch
from authface.errors import UsageError
from authface.imaging import decode as images
from authface.records import Crop, now
from authface.review.reviews import Decision, ReviewSettings, decision_log, retouch_log, reviewed
from authface.store.photoset import PhotoSet
from tests.conftest import authface

Ids = Callable[[int], str]


def ask(photoset: PhotoSet, crop_id: str, who: str = "anna") -> None:
    decision_log(photoset, who).append(Decision(id=crop_id, verdict="retouch", at=now("microseconds")))


def out(photoset: PhotoSet, folder: Path) -> list[RetouchResult]:
    return list(export_retouch(photoset, reviewed(photoset, ReviewSettings()), folder))


def back(photoset: PhotoSet, folder: Path) -> dict[str, tuple[str, str]]:
    found = import_retouch(photoset, reviewed(photoset, ReviewSettings()), folder)
    return {outcome.name: (outcome.outcome, outcome.detail) for outcome in found}


def edit(path: Path, value: int = 9) -> None:
    rgb = images.read(path).rgb.copy()
    rgb[10:20, 10:20] = value
    path.write_bytes(images.encode_png(rgb))


def crop_of(photoset: PhotoSet, crop_id: str) -> Crop:
    return next(crop for crop in photoset.crops if crop.id == crop_id)


@pytest.fixture
def given_out(photoset: PhotoSet, tmp_path: Path, ids: Ids) -> Path:
    """All six crops, asked for and given out."""
    for number in range(6):
        ask(photoset, ids(number))
    assert [outcome.outcome for outcome in out(photoset, tmp_path / "out")] == ["written"] * 6
    return tmp_path / "out"


def test_a_round_keeps_the_original_and_the_provenance(photoset: PhotoSet, given_out: Path, ids: Ids) -> None:
    crop = crop_of(photoset, ids(1))
    original = photoset.read(crop.file)
    assert (given_out / f"{crop.id}.png").read_bytes() == original
    edit(given_out / f"{crop.id}.png")
    outcome, detail = back(photoset, given_out)[f"{crop.id}.png"]
    assert outcome == "imported" and detail.startswith("2.4% of the pixels changed, by ")
    people = reviewed(photoset, ReviewSettings())
    (done,) = people.retouches[crop.id]
    assert photoset.read(crop.file) == original
    assert (done.before, done.after) == (
        hashlib.sha256(original).hexdigest(),
        hashlib.sha256(photoset.read(done.file)).hexdigest(),
    )
    assert people.file(crop) == done.file and people.judged(crop).status == "kept"
    assert done.asked_by == "anna" and done.changed == pytest.approx(100 / 64**2, rel=0.01)
    assert np.array_equal(images.decode(photoset.read(done.file)).rgb, images.read(given_out / f"{crop.id}.png").rgb)


def test_every_wrong_file_has_its_line_and_nothing_is_stored(photoset: PhotoSet, given_out: Path, ids: Ids) -> None:
    path = [given_out / f"{ids(number)}.png" for number in range(6)]
    path[0].unlink()
    path[1].write_bytes(path[1].read_bytes()[:200])
    Image.open(path[2]).resize((64, 60)).save(path[2])
    Image.open(path[3]).save(path[3], "JPEG")
    transparent = Image.open(path[4]).convert("RGBA")
    transparent.putalpha(7)
    transparent.save(path[4])
    Image.open(path[5]).save(path[5], compress_level=0)
    shutil.copy(path[5], given_out / f"{ids(2)} (copy).png")
    (given_out / "ev\nil.png").write_bytes(b"")
    before = sorted(photoset.root.rglob("*.png"))
    found = back(photoset, given_out)
    assert found[path[0].name] == ("missing", "")
    assert found[path[1].name][0] == "wrong"
    assert found[path[2].name] == ("wrong", "64 x 60 px, the crop has 64 x 64")
    assert found[path[3].name] == ("wrong", "is a JPEG: save it as an opaque PNG")
    assert found[path[4].name] == ("wrong", "is transparent: save it as an opaque PNG")
    assert found[path[5].name] == ("unchanged", "saved again with the same pixels")
    assert found[f"{ids(2)} (copy).png"][0] == found["ev\nil.png"][0] == "wrong"
    assert all("\n" not in RetouchResult(name, "wrong", detail).line for name, (_, detail) in found.items())
    assert sorted(photoset.root.rglob("*.png")) == before and retouch_log(photoset).read() == ([], 0)


def test_what_came_back_is_not_taken_twice_and_a_second_round_builds_on_it(
    photoset: PhotoSet, given_out: Path, ids: Ids, tmp_path: Path
) -> None:
    name = f"{ids(0)}.png"
    edit(given_out / name)
    assert [back(photoset, given_out)[name][0] for _ in range(2)] == ["imported", "unchanged"]
    with pytest.raises(UsageError, match="no manifest|no such file"):
        back(photoset, tmp_path)
    ask(photoset, ids(0), "ben")
    assert {outcome.name: outcome.outcome for outcome in out(photoset, given_out)}[name] == "wrong"
    second = tmp_path / "second"
    out(photoset, second)
    assert (second / name).read_bytes() != photoset.read(crop_of(photoset, ids(0)).file)
    edit(second / name, 200)
    assert back(photoset, second)[name][0] == "imported"
    first, latest = reviewed(photoset, ReviewSettings()).retouches[ids(0)]
    assert latest.before == first.after and latest.asked_by == "anna, ben"


def test_an_edited_file_is_not_overwritten_by_a_second_export(photoset: PhotoSet, given_out: Path, ids: Ids) -> None:
    edit(given_out / f"{ids(0)}.png")
    edited = (given_out / f"{ids(0)}.png").read_bytes()
    assert {outcome.outcome for outcome in out(photoset, given_out)} == {"there"}
    assert (given_out / f"{ids(0)}.png").read_bytes() == edited


def test_a_crop_that_was_aligned_anew_is_not_replaced(photoset: PhotoSet, given_out: Path, ids: Ids) -> None:
    photoset.save(photoset.crop_file(ids(0)), images.encode_png(np.zeros((64, 64, 3), np.uint8)))
    edit(given_out / f"{ids(0)}.png")
    assert back(photoset, given_out)[f"{ids(0)}.png"] == ("wrong", "the crop was aligned anew since: give it out again")


@pytest.mark.parametrize(
    "manifest",
    [
        "[]x",
        "{}",
        '[{"id": "../../x-0"}]',
        '[{"id": "../x-0", "sha256": "%s", "size": 1, "asked_by": "", "asked_at": ""}]' % ("a" * 64),
    ],
)
def test_a_manifest_is_checked(photoset: PhotoSet, tmp_path: Path, manifest: str) -> None:
    (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(UsageError, match="is no manifest: [^:]") as caught:
        back(photoset, tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_commands_say_every_file_and_end_with_3_where_one_is_wrong(
    photoset: PhotoSet, tmp_path: Path, ids: Ids
) -> None:
    for number in (0, 1):
        ask(photoset, ids(number))
    command = ["curate", "review", photoset.root]
    given = authface(*command, "--export-retouch", "out", cwd=tmp_path)
    assert given.returncode == 0 and "2 written" in given.stdout, given.stderr
    edit(tmp_path / "out" / f"{ids(0)}.png")
    (tmp_path / "out" / f"{ids(1)}.png").write_bytes(b"no picture")
    taken = authface(*command, "--import-retouch", "out", "--json", cwd=tmp_path)
    assert taken.returncode == 3 and "1 files need another look" in taken.stderr
    assert json.loads(taken.stdout)["counts"] == {"imported": 1, "wrong": 1}
