"""`curate learn`, and the step of `curate filter` that asks what it learned, by the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from authface.records import Face
from authface.review.reviews import Decision, decision_log
from authface.store.photoset import PhotoSet, Provenance
from tests.conftest import authface
from tests.curate.learn.conftest import Taught, make_taught


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Taught, dict[str, Any]]:
    """A set of 300 faces, 220 judged by anna, from which was learned; and what the command said."""
    found = make_taught(tmp_path_factory.mktemp("learned"))
    found.decide("anna", range(220))
    done = authface("curate", "learn", found.photoset.root, "--json")
    assert done.returncode == 0, done.stderr
    return found, json.loads(done.stdout)


def judged(photoset: PhotoSet) -> dict[str, Face]:
    return {face.id: face for face in photoset.faces}


def test_it_learns_the_rule_and_says_how_well(learned: tuple[Taught, dict[str, Any]]) -> None:
    taught, said = learned
    assert (said["decisions"], said["kept"]) == (220, sum(not why for why in taught.reasons[:220]))
    assert said["auc"][0] > 0.93
    assert said["auc"][1] < said["auc"][0] < said["auc"][2]
    assert said["calibration_error"] < 0.12
    assert 0.95 <= said["at_limit"]["recall"]["share"] < 0.97
    assert said["reasons"] == ["blurred", "noise or artefacts"]
    page = Path(said["report"]).read_text("utf-8")
    assert "calibration" in page and "more skin noise" in page


def test_the_filter_rejects_with_value_limit_and_reason_and_overrules_nobody(
    learned: tuple[Taught, dict[str, Any]],
) -> None:
    taught, said = learned
    root = taught.photoset.root
    done = authface("curate", "filter", root, "-O", "curate.filter.reviewer=anna", "--json")
    assert done.returncode == 0, done.stderr
    faces, limit = judged(taught.photoset), said["at_limit"]["limit"]
    assert all(faces[face].status == "kept" and not faces[face].scores for face in taught.ids[:220]), "a person judged"
    right = 0
    for face, why in zip(taught.ids[220:], taught.reasons[220:], strict=True):
        row = faces[face]
        score = next(one.value for one in row.scores if one.metric == "keep_probability")
        if row.status == "rejected":
            assert (row.reason, row.value, row.limit) == ("unlikely_kept", score, limit)
            assert score < limit
        right += (row.status == "rejected") == bool(why)
    assert right >= 62, "of the 80 that nobody judged"
    named = [
        (faces[face].detail, why) for face, why in zip(taught.ids, taught.reasons, strict=True) if faces[face].detail
    ]
    assert named and sum(detail == f"would say: {why}" for detail, why in named) > len(named) / 2
    again = authface("curate", "filter", root, "-O", "curate.filter.reviewer=anna")
    assert "nothing to do" in again.stdout


def test_a_decision_made_later_is_not_overruled(learned: tuple[Taught, dict[str, Any]]) -> None:
    taught, _ = learned
    asking = ("curate", "filter", taught.photoset.root, "-O", "curate.filter.reviewer=anna")
    assert authface(*asking).returncode == 0
    lost = next(face for face in judged(taught.photoset).values() if face.reason == "unlikely_kept")
    log = decision_log(taught.photoset, "ben")
    log.append(Decision(id=lost.id, verdict="keep", at="2026"))
    assert authface(*asking).returncode == 0
    assert judged(taught.photoset)[lost.id].status == "kept"
    log.path.unlink()
    assert authface(*asking).returncode == 0
    assert judged(taught.photoset)[lost.id].status == "rejected"


def test_a_limit_of_ones_own_and_none_at_all(learned: tuple[Taught, dict[str, Any]]) -> None:
    taught, _ = learned
    root, named = taught.photoset.root, ("-O", "curate.filter.reviewer=anna")
    assert authface("curate", "filter", root, *named, "-O", "curate.filter.min_keep_probability=0").returncode == 0
    assert {face.status for face in taught.photoset.faces} == {"kept"}
    done = authface("curate", "filter", root)
    assert done.returncode == 0 and not any(face.scores for face in taught.photoset.faces)


def test_the_sweep_shows_precision_against_recall(learned: tuple[Taught, dict[str, Any]]) -> None:
    taught, said = learned
    done = authface("curate", "filter", taught.photoset.root, "-O", "curate.filter.reviewer=anna", "--sweep", "--json")
    rows = json.loads(done.stdout)["reviewer"]["thresholds"]
    recalls = [row["passing"]["recall"]["share"] for row in rows]
    assert recalls == sorted(recalls, reverse=True)
    assert [row["passing"]["limit"] for row in rows if row["current"]] == [said["at_limit"]["limit"]]
    assert all(row["passing"]["precision"]["low"] <= row["passing"]["precision"]["share"] for row in rows)
    assert min(row["faces"] for row in rows) >= 220, "whom a person judged is counted"
    text = authface("curate", "filter", taught.photoset.root, "-O", "curate.filter.reviewer=anna", "--sweep").stdout
    assert "what anna keeps, by 220 held-out decisions" in text


def test_the_same_seed_learns_the_same(learned: tuple[Taught, dict[str, Any]]) -> None:
    taught, said = learned
    again = json.loads(authface("curate", "learn", taught.photoset.root, "--json").stdout)
    assert again["auc"] == said["auc"] and again["at_limit"] == said["at_limit"]


def test_too_few_is_one_line_that_says_how_many_more(tmp_path: Path) -> None:
    taught = make_taught(tmp_path, faces=60)
    nobody = authface("curate", "learn", tmp_path)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    assert f"nobody, so run authface curate review {tmp_path} first" in nobody.stderr
    taught.decide("anna", range(20))
    kept = sum(not why for why in taught.reasons[:20])
    few = authface("curate", "learn", tmp_path)
    assert (few.returncode, few.stderr.count("\n")) == (2, 1)
    assert f"anna kept {kept} and rejected {20 - kept} faces, and learning needs 30 of each: " in few.stderr
    assert f"{30 - kept} more to keep and {10 + kept} more to reject" in few.stderr
    other = authface("curate", "learn", tmp_path, "--reviewer", "eve")
    assert "eve has decided on no face; there are decisions of anna" in other.stderr


def test_each_reviewer_is_learned_alone_and_told_of_the_others(taught: Taught) -> None:
    root = taught.photoset.root
    whose = authface("curate", "learn", root)
    assert whose.returncode == 2 and "--reviewer: whose decisions? There are decisions of anna, ben" in whose.stderr
    done = authface("curate", "learn", root, "--reviewer", "anna", "--json")
    said = json.loads(done.stdout)
    assert (said["disagreed"], said["decisions"]) == ({"ben": [1, 40]}, 220)


def test_a_model_of_another_set_and_none(
    tmp_path: Path, taught: Taught, learned: tuple[Taught, dict[str, Any]]
) -> None:
    root, model = taught.photoset.root, learned[1]["model"]
    done = authface("curate", "filter", root, "-O", f"curate.filter.reviewer={model}")
    assert done.returncode == 0, done.stderr
    assert any(face.reason == "unlikely_kept" for face in taught.photoset.faces)
    make_taught(tmp_path, faces=8)
    shutil.rmtree(tmp_path / "tables" / "features")
    bare = authface("curate", "filter", tmp_path, "-O", f"curate.filter.reviewer={model}", "--sweep")
    assert bare.returncode == 2 and "has no features yet: authface curate filter" in bare.stderr, "no column of zeros"
    none = authface("curate", "filter", root, "-O", "curate.filter.reviewer=eve")
    assert none.returncode == 2 and "curate.filter.reviewer: no model at" in none.stderr
    assert none.stderr.count("\n") == 1


def test_filter_asks_without_scikit_learn(
    learned: tuple[Taught, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    done = authface("curate", "filter", learned[0].photoset.root, "-O", "curate.filter.reviewer=anna")
    assert done.returncode == 0, done.stderr


def test_faces_that_another_version_measured_teach_nothing(tmp_path: Path) -> None:
    taught = make_taught(tmp_path, faces=80)
    taught.decide("anna", range(80))
    table = taught.photoset.measured
    above = taught.photoset.photos.meta(0)
    assert above is not None
    table.write(0, table.rows(0), Provenance("measure", 1, {}, {}), above.digest)
    done = authface("curate", "learn", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "were measured by another version: run authface curate filter" in done.stderr
