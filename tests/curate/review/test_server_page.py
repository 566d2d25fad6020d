"""The page in a real browser: keys, undo, reload, zoom, two reviewers, thousands of faces, hostile names."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from playwright.sync_api import expect

from authface.review.reviews import decision_log
from authface.store.photoset import PhotoSet

Serve = Callable[..., AbstractContextManager[str]]
Open = Callable[..., Any]
Ids = Callable[[int], str]


def said(photoset: PhotoSet, reviewer: str = "anna") -> list[tuple[str, str]]:
    return [(line.verdict, line.reason) for line in decision_log(photoset, reviewer).read()[0]]


def wait_for(page: Any, text: str) -> None:
    """Until the server has answered: the counts say so."""
    expect(page.locator("#counts")).to_contain_text(text)


def badges(page: Any) -> list[str]:
    return [page.locator(f"#cell-{number} b").inner_text() for number in range(6)]


def test_keys_decide_undo_and_survive_a_reload(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        for key in "kr3t":
            page.keyboard.press(key)
        wait_for(page, "4 of 6 decided")
        assert badges(page) == ["keep", "reject", "over-smoothed skin", "retouch", "", ""]
        assert page.locator(".cell.active").get_attribute("id") == "cell-4"
        page.keyboard.press("u")
        wait_for(page, "3 of 6 decided")
        assert page.locator(".cell.active").get_attribute("id") == "cell-3"
        assert "face 4 is undecided again" in page.locator("#say").inner_text()
        page.reload()
        page.wait_for_selector(".cell.seen")
        wait_for(page, "3 of 6 decided")
        assert badges(page) == ["keep", "reject", "over-smoothed skin", "", "", ""]
        assert page.locator(".cell.active").get_attribute("id") == "cell-3", "the place is kept too"
    expected = [("keep", ""), ("reject", ""), ("reject", "over-smoothed skin"), ("retouch", ""), ("undo", "")]
    assert said(photoset) == expected


def test_one_by_one_with_zoom_by_keys_and_by_mouse(photoset: PhotoSet, serve: Serve, open_page: Open, ids: Ids) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 64)
        assert ids(1) in page.locator("#picture").get_attribute("src")
        page.keyboard.press("z")
        page.wait_for_selector("#stage.zoomed")
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 400)
        assert "eyes/" in page.locator("#picture").get_attribute("src")
        shown = page.locator("#picture").bounding_box()
        assert (shown["width"], shown["height"]) == (400, 300), "one pixel of the photo is one of the screen"
        page.keyboard.press("Escape")
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 64)
        page.get_by_role("button", name="Retouch").click()
        wait_for(page, "1 of 6 decided")
        assert "3 of 6" in page.locator("#place").inner_text()
        page.get_by_role("button", name="bad light").click()
        wait_for(page, "2 of 6 decided")
        page.get_by_role("button", name="Undo").click()
        wait_for(page, "1 of 6 decided")
        page.keyboard.press("Escape")
        page.wait_for_selector("#grid:visible")
        page.locator("#cell-5").dblclick()
        page.wait_for_selector("#single:visible")
        assert "6 of 6" in page.locator("#place").inner_text()
    assert said(photoset) == [("retouch", ""), ("reject", "bad light"), ("undo", "")]


def test_screen_readers_and_help(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        grid = page.get_by_role("listbox", name="Faces")
        assert grid.get_attribute("aria-activedescendant") == "cell-0"
        assert page.get_by_role("option", name="Face 2: undecided").count() == 1
        page.keyboard.press("ArrowRight")
        assert grid.get_attribute("aria-activedescendant") == "cell-1"
        assert page.locator("#say").inner_text() == "Face 2 of 6: undecided"
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible()
        page.keyboard.press("k")
        page.keyboard.press("Escape")
        assert not page.get_by_role("dialog").is_visible()
        unnamed = page.locator("button, select, input").evaluate_all(
            "all => all.filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
        )
        assert unnamed == 0
    assert said(photoset) == [], "keys do nothing behind the help"


def test_filters_and_faces_that_can_only_be_looked_at(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        page.get_by_label("Sort by").select_option("noise")
        page.get_by_label("high first").check()
        page.get_by_label("From").fill("3")
        page.keyboard.press("Tab")
        expect(page.locator("#place")).to_have_text(re.compile("of 3$"))
        page.wait_for_selector("#cell-0 >> text=noise 5")
        page.get_by_label("From").fill("")
        page.get_by_label("Show").select_option("rejected")
        expect(page.locator("#place")).to_have_text(re.compile("of 2$"))
        page.wait_for_selector("#cell-0 >> text=blurred")
        page.keyboard.press("Escape")
        page.keyboard.press("k")
        assert page.get_by_role("button", name="Keep").is_disabled()
        page.locator("[name=reason]").select_option("blurred")
        page.get_by_label("Show").select_option("crops")
        page.get_by_label("Decision").select_option("retouch")
        page.wait_for_selector("#empty:visible")
    assert said(photoset) == []


def test_two_reviewers_do_not_see_each_other(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset, "anna") as first, serve(photoset, "ben") as second:
        anna, ben = open_page(first), open_page(second)
        anna.keyboard.press("k")
        wait_for(anna, "anna: 1 of 6 decided")
        ben.keyboard.press("r")
        wait_for(ben, "ben: 1 of 6 decided")
        assert (badges(anna)[0], badges(ben)[0]) == ("keep", "reject")
    assert (said(photoset, "anna"), said(photoset, "ben")) == ([("keep", "")], [("reject", "")])


def test_thousands_of_faces_stay_few_in_the_document(
    new_set: Callable[..., PhotoSet], serve: Serve, open_page: Open
) -> None:
    with serve(new_set(crops=3000, own_files=False)) as url:
        page = open_page(url)
        most = 0
        height = page.locator("#canvas").evaluate("e => e.clientHeight")
        assert height > 3000 / 10 * 100
        for top in [*range(0, 4000, 400), height // 3, height // 2, height]:
            page.locator("#grid").evaluate("(grid, top) => { grid.scrollTop = top }", top)
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            most = max(most, page.locator("body *").count())
        assert most < 700
        page.keyboard.press("End")
        page.wait_for_selector("#cell-2999.seen")
        page.keyboard.press("k")
        wait_for(page, "1 of 3,000 decided")
        page.keyboard.press("Home")
        page.wait_for_selector("#cell-0.seen")
        assert page.locator("#cell-2999").count() == 0


def test_names_from_outside_are_text(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts .origin dd")
        shown = page.locator("#facts .origin").inner_text()
        assert shown.count("<img src=x onerror=") == 2 and "\\u202e" in shown
        assert page.locator("#facts img").count() == 0 and page.title() == "Review of set"


def test_a_lost_server_is_said_and_nothing_is_believed(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        page.keyboard.press("k")
        wait_for(page, "1 of 6 decided")
        page.route("**/api/decide", lambda route: route.abort())
        page.keyboard.press("r")
        page.wait_for_selector("#problem:visible")
        assert page.locator("#problem").inner_text().startswith("Not saved: the server does not answer")
        expect(page.locator(".cell.active")).to_have_id("cell-1")
        expect(page.locator("#cell-1 b")).to_have_text("")
        page.unroute("**/api/decide")
        page.keyboard.press("t")
        wait_for(page, "2 of 6 decided")
        assert not page.locator("#problem").is_visible()
    assert said(photoset) == [("keep", ""), ("retouch", "")]


def test_rows_that_do_not_come_are_asked_for_with_patience(photoset: PhotoSet, serve: Serve, open_page: Open) -> None:
    """Of a view that the server gave up for later ones, as of a server that has ended."""
    with serve(photoset) as url:
        page = open_page(url)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.route("**/api/rows*", lambda route: route.fulfill(status=404, json={"detail": "no longer open"}))
        page.locator("[name=measure]").select_option(index=1)
        expect(page.locator("#problem")).to_have_text("no longer open")
        page.wait_for_timeout(1500)
        assert 1 <= sum("api/rows" in one for one in asked) <= 3
        page.unroute("**/api/rows*")
        page.wait_for_selector(".cell.seen")


def test_a_late_answer_does_not_take_the_place_of_a_later_one(
    photoset: PhotoSet, serve: Serve, open_page: Open
) -> None:
    with serve(photoset) as url:
        page = open_page(url)
        page.get_by_label("Sort by").select_option("noise")
        held: list[Any] = []
        page.route("**/api/view?*low=3*", lambda route: held.append(route))
        page.get_by_label("From").fill("3")
        page.keyboard.press("Tab")
        page.get_by_label("From").fill("5")
        page.keyboard.press("Tab")
        expect(page.locator("#place")).to_have_text("1 of 1")
        with page.expect_response("**/api/view?*low=3*"):
            held[0].continue_()
        page.evaluate("() => new Promise(done => setTimeout(done, 100))")
        assert page.locator("#place").inner_text() == "1 of 1"
