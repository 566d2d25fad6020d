"""What was forgotten is nowhere in the set, wherever the run was stopped; the rest is untouched and stays current."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.forget import run as forgetting
from authface.curate.forget.removal import ForgottenNames, pruned
from authface.curate.forget.run import forget
from authface.errors import UsageError
from authface.inspect.why import find_photo
from authface.records import Photo
from authface.store.journal import Forgotten, dataset_use, record_training, record_use, tombstones
from authface.store.photoset import PhotoSet
from tests.conftest import Done, authface

Furnished = Callable[[Path], PhotoSet]


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a set with its name; of Parquet also all values and metadata, unpacked."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            name = path.relative_to(root).as_posix()
            yield name, name.encode() + path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                yield name, (repr(table.to_pylist()) + repr(table.schema.metadata)).encode()


def mentions(root: Path, words: list[str]) -> list[str]:
    """Files of the set, but for the tombstones, that hold one of the words."""
    found = contents(root)
    return sorted(
        {name for name, data in found if name != "forgotten.jsonl" and any(w.encode() in data for w in words)}
    )


def names(photo: Photo) -> list[str]:
    words = [photo.source_id, photo.photographer, photo.photographer_url, photo.page_url, photo.file_url]
    return [*words, *([photo.id] if photo.id else [])]


def photo(photoset: PhotoSet, number: int) -> Photo:
    return list(photoset.photos)[number]


def current(photoset: PhotoSet) -> bool:
    """Whether every part says it was made from the rows its source has."""
    chain = [(photoset.photos, photoset.faces), (photoset.faces, photoset.crops)]
    chain += [(photoset.crops, photoset.tags("measured")), (photoset.crops, photoset.people)]
    metas = [(above.meta(part), below.meta(part)) for above, below in chain for part in above.parts()]
    return all(a is not None and b is not None and b.inputs == a.digest for a, b in metas)


def export(photoset: PhotoSet) -> Path:
    """A dataset as `annotate export` leaves it, reduced to the column that is looked at."""
    import pyarrow as pa

    folder = photoset.root / "dataset"
    (folder / "data").mkdir(parents=True)
    ids = [crop.photo_id for crop in photoset.crops]
    pq.write_table(pa.table({"photo_id": ids}), folder / "data" / "train-00000.parquet")
    (folder / "authface.json").write_text(json.dumps({"made_from": "key", "rows": len(ids)}))
    record_use(photoset, dataset_use(folder, "key", len(ids)))
    return folder


def test_nothing_of_a_photo_is_left_but_its_tombstone(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone, stays = photo(photoset, 0), photo(photoset, 1)
    before = {name: table.counts() for name, table in photoset.tables().items()}
    assert current(photoset) and len(mentions(photoset.root, names(gone))) > 10
    said = forget(photoset, [gone], reason="asked for")
    assert mentions(photoset.root, names(gone)) == []
    stone = tombstones(photoset)[0]
    assert (stone.photo, stone.reason, stone.done) == (gone.id, "asked for", True)
    assert gone.source_id not in (photoset.root / "forgotten.jsonl").read_text()
    assert photo(photoset, 0) == Photo(
        id="", source=gone.source, source_id="", file="", status="rejected", reason="forgotten"
    )
    assert photo(photoset, 1) == stays and stays.id in (photoset.root / "review/anna.jsonl").read_text()
    assert len(json.loads((photoset.root / "sources/unsplash/0123.json").read_text())["photos"]) == 6
    assert said.files == 4 and said.rows == 5
    assert current(photoset), "no step has to begin anew"
    after = {name: table.counts() for name, table in photoset.tables().items()}
    assert after["photos"].total() == before["photos"].total(), "a row never vanishes"
    assert all(after[name].total() == before[name].total() - 1 for name in ("faces", "crops", "people"))
    groups = {person.identity for person in photoset.people}
    assert len(groups) == 1 and groups <= {person.id for person in photoset.people}, "the group has a new name"


def test_parts_without_it_are_not_touched(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    parts = {path: path.stat().st_mtime_ns for path in (photoset.root / "tables").rglob("*.parquet")}
    forget(photoset, [photo(photoset, 1)], reason="")
    changed = {path.relative_to(photoset.root / "tables").as_posix() for path in parts
               if path.stat().st_mtime_ns != parts[path]}  # fmt: skip
    assert changed == {f"{name}/00000.parquet" for name in ("photos", "faces", "crops", "tags/measured", "people")}


def test_a_near_duplicate_stays_and_is_named(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    repeated, repeats = photo(photoset, 1), photo(photoset, 2)
    said = forget(photoset, [repeated], reason="")
    assert said.near == [f"{repeats.id}-0"]
    face = next(face for face in photoset.faces if face.photo_id == repeats.id)
    assert face.duplicate_of == "" and face.reason == "duplicate"


def test_other_photos_of_the_same_person_stay_and_are_named(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone, others = photo(photoset, 1), [person.id for person in photoset.people]
    identity = {person.id: person.identity for person in photoset.people}
    same = [id for id in others if identity[id] == identity[f"{gone.id}-0"] and not id.startswith(gone.id)]
    assert same and identity[same[0]]
    said = forget(photoset, [gone], reason="", dry_run=True)
    assert said.same_people == sorted(same) == said.as_json()["same_people"]
    assert f"as far as curate split tells, that stay: {sorted(same)[0]}" in said.as_text(photoset, "would go")
    assert forget(photoset, [gone], reason="").same_people == sorted(same), "asked before its rows are blank"


def test_the_same_bytes_under_another_name_go_too(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    found = [each.photo for each in find_photo(photoset, "photo-4")]
    same = [each.photo for each in find_photo(photoset, found[0].id)]
    assert [p.source_id for p in same] == ["photo-4", "photo-5"]
    forget(photoset, same, reason="")
    assert mentions(photoset.root, [*names(same[0]), *names(same[1])]) == []


def test_a_photo_without_bytes_goes_by_its_name(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    broken = photo(photoset, 6)
    forget(photoset, [broken], reason="")
    assert mentions(photoset.root, names(broken)) == []
    assert photoset.photos.counts()["rejected: forgotten"] == 1
    assert Forgotten.of(photoset).holds(source=broken.source, source_id=broken.source_id)


def test_it_is_known_again_by_bytes_name_or_maker(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone, stays = photo(photoset, 0), photo(photoset, 1)
    forget(photoset, [gone], reason="", photographer=gone.photographer)
    known = Forgotten.of(photoset)
    assert known.holds(photo_id=gone.id)
    assert known.holds(source=gone.source, source_id=gone.source_id)
    assert known.holds(source=gone.source, source_id="new", photographers=[gone.photographer.upper()])
    assert known.holds(source=gone.source, source_id="new", photographers=["", gone.photographer_url + "?utm=1"])
    assert not known.holds(photo_id=stays.id, source=stays.source, source_id=stays.source_id)
    assert not known.holds(source="folder", source_id="new", photographers=[gone.photographer]), "of another source"
    assert not Forgotten().holds(photo_id="", source="", source_id="")


class Stop(BaseException):
    """A kill at a chosen moment."""


def test_stopped_at_any_write_the_same_command_finishes(
    furnished: Furnished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = furnished(tmp_path / "calm")
    gone = photo(calm, 0)
    export(calm)
    forget(calm, [gone], reason="")
    moments = 0
    for moment in range(100):
        photoset = furnished(tmp_path / f"set{moment}")
        export(photoset)
        writes = 0

        def count(write: Callable[..., Any], *, moment: int = moment) -> Callable[..., Any]:
            def counted(*arguments: Any, **more: Any) -> Any:
                nonlocal writes
                writes += 1
                if writes > moment:
                    raise Stop
                return write(*arguments, **more)

            return counted

        with monkeypatch.context() as patched:
            for owner, name in ((PhotoSet, "save"), (PhotoSet, "delete")):
                patched.setattr(owner, name, count(getattr(owner, name)))
            patched.setattr("authface.store.photoset.Table.put", count(type(photoset.photos).put))
            patched.setattr("authface.store.journal.write_file", count(forgetting.write_file))
            try:
                forget(photoset, [gone], reason="")
            except Stop:
                moments += 1
            else:
                break
        left = [] if tombstones(photoset) else [gone]  # once it is buried the command needs no name
        forget(photoset, left, reason="")
        assert mentions(photoset.root, names(gone)) == [], f"stopped at write {moment}"
        assert all(stone.done for stone in tombstones(photoset)) and current(photoset)
        for name, table in photoset.tables().items():
            assert [table.arrow(part) for part in table.parts()] == [
                calm.tables()[name].arrow(part) for part in table.parts()
            ]
        shutil.rmtree(photoset.root)
    assert moments >= 12


def test_datasets_and_trainings_that_hold_it_are_named(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone, other = photo(photoset, 0), photo(photoset, 2)
    folder = export(photoset)
    elsewhere = Path(shutil.copytree(folder, tmp_path / "copy"))
    record_use(photoset, dataset_use(elsewhere, "key", 5))
    training = tmp_path / "models" / "prior" / "training"
    record_training(training, folder, [gone.id])
    dry = forget(photoset, [gone], reason="", dry_run=True)
    assert folder.exists() and mentions(photoset.root, [gone.id]) and not tombstones(photoset)
    said = forget(photoset, [gone], reason="")
    assert (dry.files, dry.rows, dry.dataset) == (said.files, said.rows, True)
    assert {(use.kind, Path(use.path).name, count) for use, count in said.used_by} == {
        ("dataset", "dataset", 1), ("dataset", "copy", 1), ("training", "prior", 1)
    }  # fmt: skip
    assert not any(folder.rglob("*.parquet")) and (elsewhere / "authface.json").exists()
    assert forget(photoset, [other], reason="").used_by == [], "its face was no crop, the dataset is gone"


def test_a_photographer_goes_with_every_photo(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone = photo(photoset, 3)
    done = command(photoset, "--photographer", "https://EXAMPLE.org/@maker3/?utm_source=x")
    assert done.returncode == 0, done.stderr
    assert "1 photos" in done.stdout and mentions(photoset.root, names(gone)) == []


def command(photoset: PhotoSet, *words: str) -> Done:
    return authface("curate", "forget", photoset.root, *words)


def test_the_command_deletes_says_and_refuses(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone = photo(photoset, 0)
    for words, said in ((["--photographer", "nobody"], "no photo by nobody"), ([], "nothing to forget")):
        done = command(photoset, *words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    dry = command(photoset, gone.id[:8], "--dry-run", "--json")
    assert json.loads(dry.stdout)["photos"] == [gone.id] and photoset.exists(gone.file)
    done = command(photoset, gone.id[:8], "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["files"] == 4
    assert not photoset.exists(gone.file)
    again = command(photoset, gone.id[:8])
    assert again.returncode == 2 and "nothing to forget" in again.stderr


def test_a_beginning_that_fits_two_is_refused(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    with pytest.raises(UsageError, match="fits 6 photos"):
        find_photo_of_many(photoset)
    with pytest.raises(UsageError, match="is called"):
        find_photo(photoset, photo(photoset, 0).id[:5])
    assert find_photo(photoset, f"{photo(photoset, 0).id[:6]}-0")[0].photo == photo(photoset, 0)
    assert find_photo(photoset, "https://example.org/photos/1?a=1")[0].photo == photo(photoset, 1)


def find_photo_of_many(photoset: PhotoSet) -> None:
    from dataclasses import replace

    rows = [replace(row, source_id=f"folder{index}/same.jpg") for index, row in enumerate(photoset.photos)]
    meta = photoset.photos.meta(0)
    assert meta is not None
    photoset.photos.write(0, rows, meta.provenance, "")
    photoset.photos.remove(1)
    photoset.photos.remove(2)
    find_photo(photoset, "same.jpg")


WORDS = st.sampled_from(["secret", "kept", "other"])
JSON = st.recursive(
    WORDS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=20,
)


@given(JSON)
def test_pruned_json_speaks_of_the_rest_only(value: Any) -> None:
    left, gone = pruned(value, ForgottenNames(frozenset(), frozenset({"secret"})))
    assert "secret" not in json.dumps(left)
    assert (gone == 0) == ("secret" not in json.dumps(value))
    if gone == 0:
        assert left == value
    assert pruned(left, ForgottenNames(frozenset(), frozenset({"secret"}))) == (left, 0)


def test_what_was_forgotten_is_not_fetched_again(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    gone = photo(photoset, 1)
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copy(photoset.root / gone.file, folder / "under another name.jpg")
    forget(photoset, [gone], reason="")
    for _ in range(2):
        done = authface("curate", "fetch", photoset.root, "--from", "folder", folder)
        assert done.returncode in {0, 3}, done.stderr  # 3: the set has a failed photo of before
        assert mentions(photoset.root, [gone.id, "under another name"]) == []
        assert photoset.photos.counts()["rejected: forgotten"] == 2, "the second run knows the other name too"
    assert all(stone.done for stone in tombstones(photoset)) and len(tombstones(photoset)) == 2
