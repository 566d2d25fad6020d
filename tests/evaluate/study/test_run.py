"""The study's page in a real browser: clicks and keys, going on, going back, zoom, two people, what is not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from authface.evaluate.images import Method
from authface.evaluate.study import study
from authface.evaluate.study.run import make_app
from authface.evaluate.study.study import StudyDesk, open_study
from authface.web import local
from tests.pages import served, windows

TOKEN = "secret-of-this-test"
MIDDLE = """pane => {
  const box = pane.getBoundingClientRect();
  const image = pane.firstElementChild.getBoundingClientRect();
  const side = Math.min(image.width, image.height);
  const at = (middle, from, whole) => (middle - from - (whole - side) / 2) / side;
  return [
    image.width / box.width,
    at(box.x + box.width / 2, image.x, image.width),
    at(box.y + box.height / 2, image.y, image.height),
  ];
}"""


@contextmanager
def serving(folders: tuple[Path, Path, Path], folder: Path, *, inputs: bool = True) -> Iterator[str]:
    ours, theirs, before = folders
    methods = [Method("theirs", theirs), Method("ours", ours)]
    made, pictures = open_study(methods, None, before if inputs else None, 3, 0, "Which is <b>better</b>?")
    app = make_app(StudyDesk(made, study.answers_of(folder)), pictures, TOKEN, "127.0.0.1")
    with local.listen("127.0.0.1", 0, "another") as waiting, served(app, waiting, TOKEN) as url:
        yield url


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a window of its own; an error on the page fails the test."""
    with windows(browser, 1200, 760) as (opened, _):

        def visit(url: str, name: str = "", **options: Any) -> Any:
            page = opened(**options)
            page.goto(url)
            if name:
                page.get_by_label("Your name").fill(name)
                page.get_by_role("button", name="Begin").click()
                seen(page)
            return page

        yield visit


def seen(page: Any, place: str = "pair 1 of 6") -> None:
    """Until the pictures of a pair stand on the screen."""
    expect(page.locator("#place")).to_contain_text(place)
    expect(page.locator("#choices button").first).to_be_enabled()


def green(page: Any, place: str) -> bool:
    """Whether the picture on this side is one of ours, which are green."""
    return bool(
        page.locator(f"#pane-{place} img").evaluate(
            """image => {
              const canvas = Object.assign(document.createElement("canvas"), { width: 128, height: 128 });
              const context = canvas.getContext("2d");
              context.drawImage(image, 0, 0);
              const pixels = context.getImageData(0, 0, 128, 128).data;
              let [red, green] = [0, 0];
              for (let at = 0; at < pixels.length; at += 4) [red, green] = [red + pixels[at], green + pixels[at + 1]];
              return green > red;
            }"""
        )
    )


def lines(folder: Path) -> list[study.StudyAnswer]:
    read, torn = study.answers_of(folder).read()
    assert torn == 0
    return read


def test_clicks_and_keys_are_kept_as_what_was_seen(
    ab_folders: tuple[Path, Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with serving(ab_folders, tmp_path / "s") as url:
        page = open_page(url, "Anna")
        assert page.locator("#question").inner_text() == "Which is <b>better</b>?"
        wanted = []
        for number in range(6):
            seen(page, f"pair {number + 1} of 6")
            left = green(page, "left")
            assert left != green(page, "right")
            wanted.append(["ours" if left else "other", "same", "other" if left else "ours"][number % 3])
            if number < 3:
                page.get_by_role("button", name=["Left", "Same", "Right"][number], exact=False).first.click()
            else:
                page.keyboard.press(str(number % 3 + 1))
        expect(page.locator("#end")).to_contain_text("All 6 pairs are answered")
    answers = lines(tmp_path / "s")
    assert [answer.choice for answer in answers] == wanted and len({answer.name for answer in answers}) == 6
    assert {answer.person for answer in answers} == {"anna"} and all(0 < answer.seconds < 60 for answer in answers)
    assert {"ours", "other"} == {answer.left for answer in answers}


def test_a_person_goes_on_and_another_begins_anew(
    ab_folders: tuple[Path, Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with serving(ab_folders, tmp_path / "s") as url:
        page = open_page(url, "Anna")
        page.keyboard.press("1")
        seen(page, "pair 2 of 6, 1 answered")
        page.reload()
        seen(page, "pair 2 of 6, 1 answered")
        page.get_by_role("button", name="Someone else").click()
        page.get_by_label("Your name").fill("   ")
        page.get_by_role("button", name="Begin").click()
        expect(page.locator("#refused")).to_contain_text("1 to 40 printable characters")
        page.get_by_label("Your name").fill("ben")
        page.keyboard.press("Enter")
        seen(page, "pair 1 of 6, 0 answered")
        page.keyboard.press("3")
        seen(page, "pair 2 of 6")
    with serving(ab_folders, tmp_path / "s") as url:
        anna = open_page(url)
        anna.get_by_label("Your name").fill("ANNA ")
        anna.keyboard.press("Enter")
        seen(anna, "pair 2 of 6, 1 answered")
    assert [answer.person for answer in lines(tmp_path / "s")] == ["anna", "ben"]


def test_an_answer_can_be_changed_and_none_skipped(
    ab_folders: tuple[Path, Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with serving(ab_folders, tmp_path / "s") as url:
        page = open_page(url, "anna")
        page.keyboard.press("ArrowRight")
        seen(page, "pair 1 of 6")
        assert page.get_by_role("button", name="Next pair").is_disabled()
        page.keyboard.press("2")
        seen(page, "pair 2 of 6")
        page.keyboard.press("ArrowLeft")
        seen(page, "pair 1 of 6, 1 answered")
        assert page.locator("[data-place=same]").get_attribute("aria-pressed") == "true"
        page.keyboard.press("3")
        seen(page, "pair 2 of 6, 1 answered")
        page.keyboard.press("?")
        page.keyboard.press("1")
        page.keyboard.press("Escape")
    first, second = lines(tmp_path / "s")
    assert first.name == second.name and (first.choice, second.choice != "same") == ("same", True)


def test_pictures_zoom_and_move_together(
    ab_folders: tuple[Path, Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with serving(ab_folders, tmp_path / "s") as url:
        page = open_page(url, "anna")

        def middles() -> list[tuple[float, ...]]:
            """Of each pane how much larger the picture is, and which point of it stands in the middle, 0..1."""
            found = [page.locator(f"#pane-{place}").evaluate(MIDDLE) for place in ("left", "input", "right")]
            return [tuple(round(value, 2) for value in values) for values in found]

        assert middles() == [(1, 0.5, 0.5)] * 3
        page.keyboard.press("z")
        assert middles()[0] == middles()[2] and middles()[0][0] == 3 and middles()[0][1:] == (0.5, 0.42)
        assert middles()[1] == middles()[0], "the narrower pane shows the same place"
        box = page.locator("#pane-right").bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 100, box["y"] + 160)
        page.mouse.up()
        moved = middles()
        assert moved[0] == moved[1] == moved[2] and moved[0][1] > 0.5 and moved[0][2] > 0.42
        page.mouse.wheel(0, -200)
        assert middles()[0][0] > 3
        page.keyboard.press("0")
        assert middles() == [(1, 0.5, 0.5)] * 3
        page.keyboard.press("+")
        assert middles()[0][0] == 1.5
        page.keyboard.press("1")
        seen(page, "pair 2 of 6")
        assert middles() == [(1, 0.5, 0.5)] * 3


def test_without_inputs_and_by_name_for_screen_readers(
    ab_folders: tuple[Path, Path, Path], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with serving(ab_folders, tmp_path / "s", inputs=False) as url:
        page = open_page(url, "anna")
        assert not page.locator("#between").is_visible()
        assert page.get_by_role("img", name="left version").count() == 1
        page.keyboard.press("2")
        seen(page, "pair 2 of 6")
        assert page.locator("#say").inner_text() == "pair 1: same"
        document = page.content()
        assert "theirs" not in document and "ours" not in document and "face" not in document.lower().split("<main")[1]
