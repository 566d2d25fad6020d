"""The pages of a large run: each photo on one of them, every link leads to a file, and small runs keep one page."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from skimage import data

from authface.console import Console
from authface.restore import page as pages
from authface.restore.page import write_page
from authface.restore.run import jobs_of, restore_jobs
from authface.restore.session import Request, RestoreSummary, Session, Suspect
from authface.restore.settings import RestoreSettings
from authface.store.restore_log import PAGE
from tests.restore.conftest import Brighter

NAMES = ["a <b>.png", "b ä#%.jpg", "c.png", "d.tif", "e.png"]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    face = Image.fromarray(data.astronaut()[:300, 80:380])
    for i, name in enumerate(NAMES):
        face.rotate(i).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"none")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_ON_ONE_PAGE", 3)
    monkeypatch.setattr(pages, "PAGE_PHOTOS", 2)


def restore(album: Path, out: Path, **chosen: object) -> RestoreSummary:
    given = {"model": "identity", "colour": "none", "guard": False, **chosen}
    session = Session(Request(RestoreSettings(**given)), Console())  # type: ignore[arg-type]
    session.__dict__["restorer"] = Brighter()
    summary = restore_jobs(jobs_of([album], out, "same", maps=session.settings.change_map), session)
    write_page(session, summary, out)
    return summary


def links(page: Path) -> list[Path]:
    """The files that a page names; all of them are on the disk."""
    text = page.read_text()
    assert "fetch(" not in text and "<script" not in text and "http:" not in text
    names = [unquote(html.unescape(found)) for found in re.findall(r'(?:href|src)="([^"]*)"', text)]
    paths = [(page.parent / name).resolve() for name in names]
    assert all(path.is_file() for path in paths), paths
    return paths


def shown(out: Path, kind: str) -> list[str]:
    """The names of photos on the pages of a kind."""
    found = []
    for page in sorted((out / f"{PAGE}.files").glob(f"{kind}-*.html")):
        links(page)
        found += [html.unescape(name) for name in re.findall(r"<h3><a [^>]*><bdi>(.*?)</bdi>", page.read_text())]
    return found


def test_each_photo_is_on_a_page_that_the_index_links(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    restore(album, out)
    assert shown(out, "all") == NAMES and shown(out, "look") == []
    index = links(out / PAGE)
    assert [path.name for path in index] == ["all-0001.html", "all-0002.html", "all-0003.html", "failed-0001.html"]
    assert "broken.jpg" in index[-1].read_text() and "a &lt;b&gt;.png" in (out / PAGE).read_text()
    middle = [path.name for path in links(index[1]) if path.suffix == ".html"]
    assert middle == [PAGE, "all-0001.html", "all-0003.html"] * 2
    halves = [path for path in links(index[0]) if path.name.endswith("-photo.jpg")]
    picture = np.asarray(Image.open(halves[0])).astype(int)
    assert picture.shape == (300, 600, 3), "before and after in one file"
    assert (picture[:, 300:] - picture[:, :300]).max() > 40, "faces are brighter"
    assert len([path for path in links(index[0]) if path.name.endswith("-face0.jpg")]) == 4
    assert 'loading="lazy"' in index[0].read_text()


def test_a_rerun_shows_what_was_done_before_and_clears_what_is_no_more(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    restore(album, out, change_map=True)
    (out / f"{PAGE}.files" / "all-0009.html").write_text("of a larger run")
    Image.open(album / "c.png").rotate(30).save(album / "f.png")
    for name in ("c.png", "d.tif"):  # as where there was no album when they were restored
        pages._picture(pages.RestoreJob.of(out / name, out / name, out), "photo").unlink()
    assert restore(album, out, change_map=True).done_before == 5
    assert shown(out, "all") == [*NAMES, "f.png"]
    second = links(out / f"{PAGE}.files" / "all-0002.html")
    assert album / "c.png" in second and out / "c.change.png" in second and second.count(out / "c.png") == 2
    assert "no picture" in (out / f"{PAGE}.files" / "all-0002.html").read_text(), "no browser shows a TIFF"
    assert not (out / f"{PAGE}.files" / "all-0009.html").exists()


def test_those_to_look_at_have_pages_of_their_own(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    session = Session(Request(RestoreSettings(model="identity", colour="none", guard=False)), Console())
    session.__dict__["restorer"] = Brighter()
    summary = restore_jobs(jobs_of([album], out, "same"), session)
    summary.suspects = [Suspect(summary.jobs[1], face, {"mouth": 0.3}) for face in (0, 1)]
    write_page(session, summary, out)
    assert shown(out, "look") == NAMES[1:2] and shown(out, "all") == NAMES
    assert [path.name for path in links(out / PAGE)][0] == "look-0001.html"


def test_a_small_run_and_one_without_report_make_no_album(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_ON_ONE_PAGE", 60)
    restore(album, tmp_path / "one")
    assert not (tmp_path / "one" / f"{PAGE}.files").exists() and "data:image" in (tmp_path / "one" / PAGE).read_text()
    monkeypatch.setattr(pages, "MAX_ON_ONE_PAGE", 3)
    session = Session(Request(RestoreSettings(model="identity", guard=False, report=False)), Console())
    restore_jobs(jobs_of([album], tmp_path / "none", "same"), session)
    assert not (tmp_path / "none" / f"{PAGE}.files").exists()


def test_a_film_among_photos_has_its_frames_on_a_page(album: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.restore.video.films import film, scene

    film(album / "b1 <film>#.mp4", [scene(i) for i in range(6)])
    out = tmp_path / "out"
    names = [*NAMES, "b1 <film>#.mp4"]  # videos come last
    restore(album, out)
    assert shown(out, "all") == names
    page = out / f"{PAGE}.files" / "all-0003.html"
    frames = [path for path in links(page) if "-frame" in path.name]
    assert len(set(frames)) == 8 and {album / names[-1], out / names[-1]} <= set(links(page))
    picture = np.asarray(Image.open(frames[0])).astype(int)
    assert picture.shape == (160, 384, 3) and (picture[:, 192:] - picture[:, :192]).max() > 40
    assert restore(album, out).done_before == 6 and shown(out, "all") == names


def test_films_to_look_at_and_those_of_other_folders_are_linked(tmp_path: Path) -> None:
    """Results beside their inputs: one page lists those of all folders."""
    pytest.importorskip("av")
    from tests.restore.video.films import film, scene

    for number in range(4):
        (tmp_path / str(number)).mkdir()
        film(tmp_path / str(number) / "film.mp4", [scene(i) for i in range(2)])
    session = Session(Request(RestoreSettings(model="identity", colour="none", guard=False)), Console())
    session.__dict__["restorer"] = Brighter()
    jobs = jobs_of([tmp_path / str(number) for number in range(4)], None, "same")
    summary = restore_jobs(jobs, session)
    last = jobs[-1].target
    summary.video_lines[last] = replace(summary.video_lines[last], suspects=3)
    home = jobs[0].home
    index = links(write_page(session, summary, home))
    assert [path.name for path in index] == ["look-0001.html", "all-0001.html", "all-0002.html"]
    assert last in links(index[0]) and ">3<" in (home / PAGE).read_text()
    assert sum("-frame" in path.name for page in index[1:] for path in set(links(page))) == 4 * 4
