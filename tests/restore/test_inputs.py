"""From names on the command line to jobs, on real folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authface.errors import AuthfaceError, UsageError
from authface.restore.inputs import ENDINGS, Input, RestoreJob, expand, homes_of, is_single_file, plan, with_maps
from authface.restore.run import jobs_of


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., list[Path]]:
    def touch(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return [tmp_path / name for name in names]

    return touch


def planned(named: list[Path], out: Path | None = None) -> list[RestoreJob]:
    single = out is not None and is_single_file(named, out)
    return plan(expand(named, out), out, single=single, format="same")


def test_a_folder_gives_its_images_and_nothing_else(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    touch("b.PNG", "a.jpg", "notes.txt", ".hidden.jpg", ".cache/c.jpg", "sub/d.heic", "out/e.png")
    found = [entry.inside.as_posix() for entry in expand([tmp_path], tmp_path / "out")]
    assert found == ["a.jpg", "b.PNG", "sub/d.heic"]


def test_photos_in_a_folder_that_are_not_read_are_counted(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    touch("a.jpg", "b.NEF", "sub/c.nef", "sub/d.pdf", "notes.txt", ".e.nef", "out/f.nef")
    said: list[str] = []
    assert len(expand([tmp_path], tmp_path / "out", said.append)) == 1
    (line,) = said
    assert line.startswith(f"{tmp_path}: ") and "it has 2 .nef, 1 .pdf: save them as TIFF" in line
    with pytest.raises(AuthfaceError, match="no photos or videos"):
        expand([tmp_path / "sub"], None, said.append)
    assert said[1].startswith(f"{tmp_path / 'sub'}: ") and len(said) == 2
    assert len(expand([tmp_path / "a.jpg", tmp_path / "b.NEF"], None, said.append)) == 2 == len(said)


def test_videos_of_camcorders_discs_and_the_web_become_matroska(touch: Callable[..., list[Path]]) -> None:
    jobs = planned(touch("a.VOB", "b.dv", "c.mod", "d.rm", "e.3g2", "f.asf"))
    assert [job.target.name for job in jobs] == [f"{name}.restored.mkv" for name in "abcdef"]
    assert all(job.is_video for job in jobs)


def test_a_quoted_glob_is_expanded_and_a_name_that_exists_is_not(
    touch: Callable[..., list[Path]], tmp_path: Path
) -> None:
    touch("x1.png", "x2.png", "x[1].png", "sub/x3.png")
    names = [entry.path.name for entry in expand([tmp_path / "x?.png"])]
    assert names == ["x1.png", "x2.png"]
    assert [entry.path.name for entry in expand([tmp_path / "x[1].png"])] == ["x[1].png"]
    assert [entry.path.name for entry in expand([tmp_path / "**" / "x3.png"])] == ["x3.png"]
    with pytest.raises(UsageError, match="no file matches"):
        expand([tmp_path / "y*.png"])


def test_a_photo_named_twice_is_one_job(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    (photo,) = touch("a.jpg")
    assert len(expand([photo, tmp_path, tmp_path / "." / "a.jpg", tmp_path / "*.jpg"])) == 1


def test_an_empty_folder_is_said_and_an_absent_file_is_left_to_the_reader(tmp_path: Path) -> None:
    with pytest.raises(AuthfaceError, match="no photos or videos in"):
        expand([tmp_path])
    assert expand([tmp_path / "gone.jpg"]) == [Input(str(tmp_path / "gone.jpg"))]


def test_without_out_results_lie_beside(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    names = ["a b.jpg", "ä\n.PNG", "-x.webp", "no-ending", "c.heic", "d.tar.tif"]
    targets = [job.target for job in planned(touch(*names))]
    expected = ["a b.restored.jpg", "ä\n.restored.PNG", "-x.restored.webp", "no-ending.restored.png"]
    assert targets == [tmp_path / name for name in [*expected, "c.restored.png", "d.tar.restored.tif"]]


def test_a_folder_keeps_the_places_below_it(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    touch("in/a.jpg", "in/deep/a.jpg")
    targets = [job.name for job in planned([tmp_path / "in"], tmp_path / "out")]
    assert targets == ["a.jpg", "deep/a.jpg"]


def test_names_that_collide_are_told_apart_whatever_the_order(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    photos = touch("one/a.jpg", "two/a.jpg", "two/A.JPG", "two/b.jpg", "three/c.png", "three/c.bmp")
    one = {job.source: job.name for job in planned(photos, tmp_path / "out")}
    other = {job.source: job.name for job in planned(photos[::-1], tmp_path / "out")}
    assert one == other
    assert len({name.casefold() for name in one.values()}) == 6
    assert one[photos[3]] == "b.jpg"


def test_an_original_is_never_a_target(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    photos = touch("a.jpg", "b.bmp", "b.png")
    jobs = planned([tmp_path], tmp_path)
    assert not {job.target for job in jobs} & set(photos)
    with pytest.raises(UsageError, match="is the input itself"):
        planned([photos[0]], tmp_path / "sub" / ".." / "a.jpg")


def test_out_is_a_file_or_a_folder(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    a, b, text = touch("a.jpg", "b.jpg", "notes.txt")
    assert [job.target for job in planned([a], tmp_path / "x.webp")] == [tmp_path / "x.webp"]
    assert [job.target for job in planned([a], tmp_path / "x")] == [tmp_path / "x" / "a.jpg"]
    assert [job.target for job in planned([a], tmp_path)] == [tmp_path / "a.restored.jpg"]
    with pytest.raises(UsageError, match="several results need a folder"):
        planned([a, b], text)
    for named in ([a, b], [tmp_path]):
        with pytest.raises(UsageError, match="new.jpg is a file, by its name at least: several results need a folder"):
            planned(named, tmp_path / "new.jpg")
    (tmp_path / "made.jpg").mkdir()
    assert {job.target.parent for job in planned([a, b], tmp_path / "made.jpg")} == {tmp_path / "made.jpg"}
    with pytest.raises(UsageError, match="results are written as"):
        planned([a], text)
    with pytest.raises(UsageError, match="results are written as"):
        planned([a], tmp_path / "x.heic")


def test_logs_are_looked_for_in_all_folders_above(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    touch("in/deep/a.jpg")
    assert homes_of(expand([tmp_path / "in"])) == {tmp_path / "in" / "deep", *(tmp_path / "in" / "deep").parents}


def test_names_that_file_systems_do_not_take_are_cut_and_stay_apart(tmp_path: Path) -> None:
    names = ["x" * 251 + ".jpg", "x" * 250 + "y.jpg", "ä" * 125 + ".jpg", "z" * 242 + ".jpg"]
    jobs = with_maps(planned([tmp_path / name for name in names]))
    written = [path.name for job in jobs for path in (job.target, job.change_map) if path is not None]
    assert len(set(written)) == 8 and all(len(os.fsencode(name)) <= 255 for name in written)
    assert written[6] == "z" * 242 + ".restored.jpg" and written[7].endswith(".change.png")
    assert {job.target.suffix for job in jobs} == {".jpg"}
    assert planned([tmp_path / names[0]])[0].target == jobs[0].target, "whatever else is restored"


def test_digits_are_the_same_after_a_move(touch: Callable[..., list[Path]], tmp_path: Path) -> None:
    touch("one/in/c.png", "one/in/c.bmp")
    before = [job.name for job in planned([tmp_path / "one" / "in"], tmp_path / "one" / "out")]
    (tmp_path / "one").rename(tmp_path / "two")
    assert [job.name for job in planned([tmp_path / "two" / "in"], tmp_path / "two" / "out")] == before
    assert len(set(before)) == 2


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(NAMES, st.sampled_from([*ENDINGS, ".bmp", ".HEIC", ""])), min_size=1, max_size=12), st.booleans()
)
def test_any_names_give_targets_of_their_own(names: list[tuple[str, str]], beside: bool) -> None:
    paths = {
        Path(f"/in/{i % 3}") / (stem + ending) for i, (stem, ending) in enumerate(names) if stem not in {".", ".."}
    }
    inputs = [Input(str(path)) for path in sorted(paths)]
    jobs = plan(inputs, None if beside else Path("/out"), single=False, format="same")
    targets = [str(job.target).casefold() for job in jobs]
    assert len(set(targets)) == len(targets) == len(paths)
    assert not {str(path) for path in paths} & {str(job.target) for job in jobs}
    assert all(job.format in {"JPEG", "PNG", "WEBP", "TIFF"} for job in jobs)
    assert all((job.home / job.name) == job.target for job in jobs)


def test_results_stay_out_of_photo_sets(tmp_path: Path) -> None:
    """`curate forget` would not find what was made of a forgotten photo there."""
    photoset = tmp_path / "album" / "faces"
    for name in ("tables/photos", "photos/ab"):
        (photoset / name).mkdir(parents=True)
    (photoset / "recipe.toml").touch()
    for file in (photoset / "photos" / "ab" / "x.jpg", tmp_path / "album" / "y.jpg"):
        file.touch()
    said: list[str] = []
    jobs = jobs_of([tmp_path / "album"], None, "same", say=said.append)
    assert [job.source.name for job in jobs] == ["y.jpg"]
    assert len(said) == 1 and "faces is a photo set: passed over" in said[0]
    for named, out in (
        (photoset, None),
        (photoset / "photos" / "ab" / "x.jpg", None),
        (photoset, photoset / "restored"),
        (tmp_path / "album" / "y.jpg", photoset / "y.png"),
    ):
        with pytest.raises(UsageError, match="in the photo set .*faces, where curate forget"):
            jobs_of([named], out, "same")
    outside = jobs_of([photoset], tmp_path / "restored", "same")
    assert [job.target for job in outside] == [tmp_path / "restored" / "photos" / "ab" / "x.jpg"]
