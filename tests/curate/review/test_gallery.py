"""The order in which faces are asked, on the page; and reviewers who disagree, shown to each other and not led."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient

from authface.curate.learn.order import AGAIN, Asking, Certainty, NextFaces
from authface.curate.review.gallery import ASKED, Judgements, ViewQuery, load_gallery
from authface.records import Score
from authface.review.reviews import Decision, decision_log
from authface.store.photoset import PhotoSet, Provenance
from tests.conftest import PATIENCE

Ids = Callable[[int], str]
Caller = Callable[..., TestClient]


def rows(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    view = client.get("api/view", params=query).json()["view"]
    found: list[dict[str, Any]] = client.get("api/rows", params={"view": view}).json()["rows"]
    return found


def backwards(order: list[str], may: Event | None = None) -> Callable[[Mapping[str, Decision]], NextFaces]:
    """An order that turns round with every decision, and says how many there were; not before `may` is set."""

    def learn(decisions: Mapping[str, Decision]) -> NextFaces:
        if may and decisions:
            may.wait(PATIENCE)
        left = [face for face in order if face not in decisions]
        return NextFaces(tuple(left if len(decisions) % 2 else reversed(left)), Certainty(len(decisions), 0, (30, 30)))

    return learn


def test_the_order_is_what_was_learned_and_is_made_anew(new_set: Any, ids: Ids, caller: Caller) -> None:
    photoset = new_set(crops=AGAIN + 6, own_files=False)
    order = [ids(number) for number in range(AGAIN + 6)]
    may = Event()
    asking = Asking(backwards(order, may), {})
    client = caller(photoset, asking=asking)
    assert client.get("api/start").json()["asking"]["turn"] == 1
    assert [row["id"] for row in rows(client, measure="asked")] == order[::-1]
    for number in range(AGAIN):
        answer = client.post("api/decide", json={"id": ids(number), "verdict": "keep"}).json()
    may.set()
    asking.wait()
    assert answer["asking"]["text"].startswith("0 reviewed")
    again = client.get("api/asking").json()
    assert (again["turn"], again["text"][:11]) == (2, f"{AGAIN} reviewed")
    assert {row["id"] for row in rows(client, measure="asked")} == set(order[AGAIN:])


def test_a_new_order_begins_behind_what_is_in_sight(photoset: PhotoSet, ids: Ids) -> None:
    faces = load_gallery(photoset)
    order = [ids(number) for number in range(6)]
    before = Judgements({}, asking={face: at for at, face in enumerate(order)})
    first, _ = faces.open(ViewQuery(measure=ASKED), before)
    said = Decision(id=ids(0), verdict="keep")
    after = Judgements({ids(0): said}, asking={face: at for at, face in enumerate(reversed(order[1:]))})
    second, total = faces.open(ViewQuery(measure=ASKED, after=first, head=3), after)
    shown = [entry.id for entry in faces.view(second) or []]
    assert (shown, total) == ([*order[:3], ids(5), ids(4), ids(3)], 6)


def test_what_a_model_rejected_may_be_judged_and_its_guess_leads_nobody(
    photoset: PhotoSet, ids: Ids, caller: Caller
) -> None:
    faces = photoset.faces.rows(0)
    guess = {
        "reason": "unlikely_kept",
        "value": 0.1,
        "limit": 0.5,
        "scores": (Score(metric="keep_probability", value=0.1),),
    }
    faces = [replace(face, **guess) if face.id == ids(6) else face for face in faces]
    photoset.faces.write(0, faces, Provenance("test", 1, {}, {}), "")
    plain = caller(photoset)
    assert next(row for row in rows(plain, show="rejected") if row["id"] == ids(6))["why"] == [
        "unlikely_kept",
        0.1,
        0.5,
    ]
    asked = caller(photoset, asking=Asking(backwards([ids(6), ids(0), ids(7)]), {}))
    shown = rows(asked, measure="asked")
    assert [row["id"] for row in shown] == [ids(0), ids(6)], "a face that a limit rejected is not asked"
    assert (shown[1]["why"], "keep_probability" in shown[1]["measures"]) == (None, False)
    assert asked.post("api/decide", json={"id": ids(6), "verdict": "keep"}).status_code == 200
    assert asked.post("api/decide", json={"id": ids(7), "verdict": "keep"}).status_code == 409
    assert decision_log(photoset, "anna").read()[0][0].id == ids(6)


def test_who_disagrees_is_shown_once_one_has_decided(photoset: PhotoSet, ids: Ids, caller: Caller) -> None:
    log = decision_log(photoset, "ben")
    log.append(Decision(id=ids(0), verdict="keep", at="2026"))
    log.append(Decision(id=ids(1), verdict="reject", reason="blurred", at="2026"))
    client = caller(photoset)
    assert client.get("api/start").json()["others"] == ["ben"]
    assert [row["others"] for row in rows(client)][:3] == [[], [], []]
    assert rows(client, decision="disputed") == []
    agreed = client.post("api/decide", json={"id": ids(0), "verdict": "keep"}).json()
    disputed = client.post("api/decide", json={"id": ids(1), "verdict": "keep"}).json()
    assert (agreed["others"], disputed["others"]) == ([["ben", "keep", ""]], [["ben", "reject", "blurred"]])
    assert [row["id"] for row in rows(client, decision="disputed")] == [ids(1)]


def test_the_page_shows_the_order_how_sure_it_is_and_who_disagrees(
    new_set: Any, ids: Ids, serve: Callable[..., AbstractContextManager[str]], open_page: Callable[[str], Any]
) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    photoset = new_set(crops=AGAIN + 4, own_files=False)
    decision_log(photoset, "ben").append(Decision(id=ids(AGAIN + 3), verdict="reject", reason="blurred", at="2026"))
    may = Event()
    asking = Asking(backwards([ids(number) for number in range(AGAIN + 4)], may), {})
    with serve(photoset, "anna", asking) as url:
        page = open_page(url)
        expect(page.locator("#certainty")).to_contain_text("0 reviewed: nothing can be said before 30 more to keep")
        expect(page.locator("#place")).to_have_text(f"1 of {AGAIN + 4}")
        page.wait_for_selector(f'#cell-0[data-id="{ids(AGAIN + 3)}"]')
        for number in range(AGAIN):
            page.keyboard.press("k")
            expect(page.locator("#counts")).to_contain_text(f"{number + 1} of {AGAIN + 4} decided")
        may.set()
        asking.wait()
        seen = page.locator(".cell.active").get_attribute("data-id")
        page.keyboard.press("k")
        expect(page.locator("#certainty")).to_contain_text(f"{AGAIN} reviewed")
        expect(page.locator("#place")).to_have_text(f"{AGAIN + 2} of {AGAIN + 4}")
        assert page.locator(f"#cell-{AGAIN}").get_attribute("data-id") == seen, "nothing moved under the hand"
        page.reload()
        expect(page.locator("#place")).to_have_text("1 of 3")
        page.get_by_label("Sort by").select_option("")
        page.get_by_label("Decision").select_option("disputed")
        expect(page.locator("#place")).to_have_text("1 of 1")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        expect(page.locator("#facts .other")).to_have_text("ben: reject, blurred")
