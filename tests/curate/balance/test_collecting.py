"""What to collect next: gaps beyond chance, queries by what past ones gave, command lines that fetch."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.balance.margins import FEWEST, MARGINS, MarginWords, marginal
from authface.curate.balance.proposals import (
    TRIAL,
    UNIFORM,
    Gap,
    QueryYield,
    Yields,
    gaps_of,
    propose,
    read_yields,
    wanted_shares,
    words_for,
)
from authface.curate.fetch.sources.unsplash import unlisted
from authface.errors import UsageError
from authface.records import Crop, Face, Photo, Tag, Tags
from authface.store.photoset import PhotoSet, Provenance
from tests.conftest import authface

COUNTS = st.lists(st.integers(0, 400), min_size=6, max_size=6)
POSES = MARGINS["pose"]


def pose_gaps(counts: Sequence[int], given_: dict[str, float] | None = None) -> dict[str, Gap]:
    found, _ = gaps_of("pose", marginal(POSES, counts), given_ or {}, POSES)
    return {gap.value: gap for gap in found}


@given(st.dictionaries(st.sampled_from(UNIFORM["light"][:3]), st.floats(0, 0.33)), COUNTS)
def test_wanted_shares_add_up_to_one(given_: dict[str, float], counts: list[int]) -> None:
    wanted = wanted_shares("light", given_, dict(zip(MARGINS["light"], counts, strict=False)), MARGINS["light"])
    assert sum(wanted.values()) == pytest.approx(1) and min(wanted.values()) >= 0
    assert all(wanted[value] == share for value, share in given_.items()) and "unknown" not in wanted


@given(COUNTS)
def test_what_is_added_closes_every_gap_and_is_never_negative(counts: list[int]) -> None:
    shares = marginal(POSES, counts)
    found = pose_gaps(counts)
    assert all(
        gap.needed > 0 and gap.interval[1] < gap.wanted and 0 <= gap.share < gap.wanted for gap in found.values()
    )
    shown = {word: share.count / len(share.words) for share in shares for word in share.words}
    after = {value: shown.get(value, 0) + (found[value].needed if value in found else 0) for value in UNIFORM["pose"]}
    for gap in found.values():
        assert after[gap.value] >= max(after.values()) - 1, "as many as the most frequent one has"


@given(COUNTS, st.integers(0, 4), st.integers(0, 4), st.integers(0, 400))
def test_a_larger_gap_never_needs_fewer_faces_or_photos(counts: list[int], less: int, more: int, moved: int) -> None:
    counts = [max(count, FEWEST) for count in counts]  # what is shown together is shared out, and moves by jumps
    moved = min(moved, counts[less] - FEWEST)
    other = list(counts)
    other[less] -= moved
    other[more] += moved
    before, after = pose_gaps(counts), pose_gaps(other)
    value = POSES[less]
    if value not in before or less == more:
        return
    assert value in after and after[value].needed >= before[value].needed
    yields = yields_of({"three quarter view portrait": (200, 40), "side profile portrait": (50, 2), "any": (900, 300)})
    words = words_for("unsplash", {})
    photos = []
    for gaps in (before, after):
        (proposal,), _ = propose([gaps[value]], words, yields, "unsplash", {})
        photos.append((proposal.photos or 0, proposal.fewest))
        assert proposal.photos is None or proposal.photos >= proposal.fewest >= 1
    assert photos[1] >= photos[0]


def yields_of(given_: dict[str, tuple[int, int]], source: str = "unsplash") -> Yields:
    """Photos fetched by each query, and those of them that give each value."""
    yields = Yields()
    for query, (fetched, hits) in given_.items():
        giving = Counter({f"{name}={value}": hits for name, values in UNIFORM.items() for value in values})
        yields.queries[source, query] = QueryYield(fetched, giving)
        yields.together.fetched += fetched
        yields.together.giving += giving
    yields.all = yields.together
    return yields


def gap(name: str, needed: int = 50) -> Gap:
    attribute, _, value = name.partition("=")
    return Gap(attribute, value, 10, 500, True, 0.2, needed)


def test_a_gap_that_chance_explains_is_none_and_what_nobody_measured_neither() -> None:
    assert set(pose_gaps([20, 90, 200, 90, 100, 7])) == {"far-left"}
    assert pose_gaps([1, 2, 3, 2, 2, 0]) == {} and pose_gaps([0, 0, 0, 0, 0, 50]) == {}
    assert not pose_gaps([0, 100, 800, 100, 0, 0], {"far-left": 0, "far-right": 0, "left": 0.1, "right": 0.1})


def test_a_query_is_judged_by_what_it_gave_itself_once_it_found_enough() -> None:
    words = words_for("unsplash", {})
    yields = yields_of({"portrait": (1000, 20), "elderly portrait": (100, 50)})
    for one in yields.queries.values():
        one.giving = Counter({"age=elderly": one.giving["age=elderly"]})
    (tried,), _ = propose([gap("age=elderly")], words, yields, "unsplash", {})
    rate = tried.fills[0].rate
    assert (tried.query, tried.photos, rate.basis) == ("elderly portrait", 100, "this query")
    assert rate.expected == 0.5 and rate.interval == pytest.approx((0.404, 0.596), abs=0.001)
    assert shlex.split(tried.command("a set", "")) == [
        "authface", "curate", "fetch", "a set", "--from", "unsplash", "-O",
        'curate.fetch.unsplash.queries=["elderly portrait"]', "--limit", "100",
    ]  # fmt: skip
    (new,), _ = propose([gap("glasses=glasses", 500)], words, yields, "unsplash", {})
    assert new.fills[0].rate.basis == "all queries" and new.command("s", "").endswith(f"--limit {TRIAL}")
    few = yields_of({"elderly portrait": (29, 20)})
    few.all = QueryYield(fetched=1000)
    assert few.rate("unsplash", "elderly portrait", "age=elderly").basis == "all photos", "29 are too few"


def test_a_query_that_gave_nothing_gives_way_and_one_without_photos_left_is_not_asked_again() -> None:
    words = words_for("unsplash", {})
    bad = yields_of({"elderly portrait": (200, 0)})
    (next_,), _ = propose([gap("age=elderly")], words, bad, "unsplash", {})
    assert next_.query == "senior person face" and next_.photos is None and next_.fewest > 50
    left = {"elderly portrait": 0, "senior person face": 0}
    assert propose([gap("age=elderly")], words, yields_of({}), "unsplash", left) == ([], [gap("age=elderly")])
    good = yields_of({"portrait": (1000, 20), "old town faces": (100, 50)})
    (found,), _ = propose([gap("age=elderly")], words, good, "unsplash", {"old town faces": 60})
    assert (found.query, found.left) == ("old town faces", 60), "it gave more than all did, whatever its words"


def test_words_of_ones_own_replace_those_that_ship() -> None:
    assert "elderly" in words_for("unsplash-lite", {})
    own = words_for("unsplash-lite", {"Reading Glasses": ("glasses=glasses",), "elderly": ()})
    assert own["reading glasses"] == ("glasses=glasses",) and "elderly" not in own
    for wrong in ("glasses", "glasses=monocle", "origin=any", "pose=unknown"):
        with pytest.raises(UsageError, match="is no value"):
            words_for("unsplash", {"x": (wrong,)})
    for source in ("unsplash", "unsplash-lite"):
        named = {value for values in words_for(source, {}).values() for value in values}
        assert named >= {f"{name}={value}" for name, values in UNIFORM.items() for value in values} - {"glasses=none"}
        assert not named & {"age=child", "age=teenager"}


def photographed(root: Path) -> PhotoSet:
    """300 photos of two queries in two parts: half of those of `side profile portrait` show a left profile,
    those of `portrait` look ahead. Crops have no files, so skin tone is unknown."""
    photoset = PhotoSet(root)
    made = Provenance("test", 1, {}, {})
    for part in range(2):
        photos, faces, crops, tags = [], [], [], []
        for number in range(part * 150, part * 150 + 150):
            profile = number % 3 == 0
            query = "side profile portrait" if profile else "portrait"
            extra = json.dumps({"query": query}) if part == 0 else ""
            kept = number % 5 != 0
            photo = Photo(
                id=f"{number:064x}", source="unsplash", source_id=str(number), file=f"photos/{number}.jpg",
                queries=(query,) if part else (), extra=extra, status="kept" if kept else "rejected",
            )  # fmt: skip
            photos.append(photo)
            if not kept:
                continue
            yaw = -45.0 if profile and number % 10 < 7 else 0.0
            for index in range(2 if number == 1 else 1):
                face = Face(id=f"{photo.id}-{index}", photo_id=photo.id, photo_file=photo.file, index=index, yaw=yaw)
                faces.append(face)
                crops.append(Crop(id=face.id, photo_id=photo.id, file="crops/none.png", size=64))
                worn = (Tag(name="glasses", group="accessories", confidence=1.0),) if number % 4 == 0 else ()
                said = (Tag(name="elderly", group="age", confidence=1.0), *worn)
                tags.append(Tags(id=face.id, annotator="llava", tags=said))
        for table, rows in ((photoset.photos, photos), (photoset.faces, faces), (photoset.crops, crops)):
            table.write(part, rows, made, "")  # type: ignore[attr-defined]
        photoset.tags("llava").write(part, tags, made, "")
    return photoset


def test_yields_are_counted_by_photo_and_sets_of_before_remember_their_query(tmp_path: Path) -> None:
    photoset = photographed(tmp_path)
    words = MarginWords()
    for part in (0, 1):
        faces = ((face.id, "far-left" if face.yaw else "frontal") for face in photoset.faces.rows(part))
        words.add(part, ((name, dict.fromkeys(MARGINS, "unknown") | {"pose": pose}) for name, pose in faces))
    yields = read_yields(photoset, [0, 1], words)
    profile, plain = (yields.queries["unsplash", query] for query in ("side profile portrait", "portrait"))
    assert (profile.fetched, plain.fetched, yields.together.fetched) == (100, 200, 300)
    assert profile.giving["pose=far-left"] == 50 and plain.giving["pose=far-left"] == 0
    assert read_yields(photoset, [1], words).together.fetched == 150, "the other part was not aligned yet"
    fresh = replace(photoset.photos.rows(1)[-1], id="f" * 64, source_id="fresh", status="kept")
    photoset.photos.write(1, [*photoset.photos.rows(1), fresh], Provenance("test", 1, {}, {}), "")
    assert read_yields(photoset, [1], words).together.fetched == 150, "nobody looked for its face yet"


def test_the_command_proposes_and_says_what_nobody_measured(tmp_path: Path) -> None:
    photoset = photographed(tmp_path / "set")
    done = authface("curate", "balance", photoset.root, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["collect"]
    assert said["not_measured"] == ["skin", "light"]
    (profile,) = (one for one in said["proposals"] if one["query"] == "side profile portrait")
    (fill,) = (fill for fill in profile["fills"] if fill["for"] == "pose=far-right")
    assert fill["fetched"] == 100 and fill["as_gave"] == "this query" and fill["per_100"] is None
    glasses = next(one for one in said["gaps"] if one["attribute"] == "glasses")
    assert (glasses["count"], glasses["known"], glasses["wanted"]) == (60, 241, 0.5)
    options = ["-O", "curate.balance.wanted={glasses={glasses=0.2}, pose={far-left=0.2, frontal=0.8}}"]
    done = authface("curate", "balance", photoset.root, *options)
    assert "glasses=glasses" not in done.stdout and "pose=" not in done.stdout and "age=middle-aged" in done.stdout
    assert "not measured, so no gap is known: skin, light" in done.stdout
    page = (photoset.root / "reports" / "balance.html").read_text("utf-8")
    assert "To collect next" in page and "middle aged portrait" in page
    assert "curate fetch" in page and "\\n" not in page
    for wrong in ("wanted={shoes={red=1}}", "wanted={pose={up=1}}", "wanted={pose={left=0.7,right=0.6}}",
                  "wanted={pose={left=2}}", 'queries={"x"=["origin=any"]}'):  # fmt: skip
        for more in ((), ("--dry-run",)):
            done = authface("curate", "balance", photoset.root, "-O", f"curate.balance.{wrong}", *more)
            assert done.returncode == 2 and done.stderr.count("\n") == 1, (wrong, done.stderr)


def test_the_command_line_that_is_proposed_is_one(tmp_path: Path) -> None:
    photoset = photographed(tmp_path / "set")
    options = ["--json", "-O", "curate.balance.collect_from=unsplash-lite"]
    said = json.loads(authface("curate", "balance", photoset.root, *options).stdout)["collect"]
    photoset.remember("curate.fetch", {"source": "unsplash-lite", "path": str(tmp_path)})
    again = json.loads(authface("curate", "balance", photoset.root, *options).stdout)["collect"]
    assert "unsplash-lite PATH" in said["proposals"][0]["command"]
    (tmp_path / "photos.tsv000").write_text("photo_id\tphoto_image_url\n")
    (tmp_path / "keywords.tsv000").write_text("photo_id\tkeyword\n")
    for proposal in again["proposals"]:
        words = shlex.split(proposal["command"])
        done = authface(*words[1:], "--dry-run", "--json")
        shown = json.loads(done.stdout)
        assert done.returncode == 0 and json.dumps(proposal["query"]) in json.dumps(shown), done.stderr


def test_what_a_query_has_beyond_its_listed_pages(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path)
    for number, (query, total, ids) in enumerate(
        [("portrait", 70, range(30)), ("portrait", 71, range(25, 60)), ("face", 2, range(2))]
    ):
        page = {
            "request": {"query": query}, "as_of": f"2026-0{number + 1}", "total": total,
            "results": [{"id": f"p{n}"} for n in ids],
        }  # fmt: skip
        photoset.save(f"sources/unsplash/{number}.json", json.dumps(page).encode())
    photoset.save("sources/unsplash/terms.json", b"{}")
    photoset.save("sources/unsplash/broken.json", b"{")
    assert unlisted(photoset) == {"portrait": 11, "face": 0}


def test_faces_are_told_by_their_part_and_a_part_without_any_has_none() -> None:
    words = MarginWords()
    for part, names in {4: ["a-0"], 2: [], 7: ["b-0", "b-1"], 1: []}.items():
        words.add(part, ((name, dict.fromkeys(MARGINS, "unknown")) for name in names))
    told = {part: [name for name, _ in words.of_part(part)] for part in (4, 2, 7, 1, 3)}
    assert told == {4: ["a-0"], 2: [], 7: ["b-0", "b-1"], 1: [], 3: []}
