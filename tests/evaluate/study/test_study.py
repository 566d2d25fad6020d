"""The study without a browser: order and sides, what is kept, who may ask, the report, the command as typed."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from authface.errors import UsageError
from authface.evaluate.images import Method
from authface.evaluate.study import study
from authface.evaluate.study.run import findings, make_app
from authface.evaluate.study.study import Study, StudyAnswer, StudyDesk, StudyPictures, open_study
from authface.imaging import decode as images
from tests.conftest import PATIENCE, heed_ctrl_c

Command = Callable[..., tuple[int, str, str]]
TOKEN = "secret-of-this-test"


def of(names: int = 20, others: tuple[str, ...] = ("theirs",), seed: int = 0) -> Study:
    return Study("ours", others, tuple(f"face{n}" for n in range(names)), seed, "which?", {}, {})


def said(person: str, name: str, choice: Any, other: str = "theirs") -> StudyAnswer:
    return StudyAnswer(person=person, other=other, name=name, choice=choice, left="ours", seconds=2, at="")


def found(answers: list[StudyAnswer], made: Study) -> Any:
    return findings(made, study.latest_answers(made, answers), 0, 500)


@pytest.fixture
def opened(ab_folders: tuple[Path, Path, Path]) -> tuple[Study, StudyPictures]:
    ours, theirs, inputs = ab_folders
    return open_study([Method("theirs", theirs), Method("ours", ours)], None, inputs, 3, 0, "which?")


@pytest.fixture
def client(opened: tuple[Study, StudyPictures], tmp_path: Path) -> TestClient:
    made, pictures = opened
    app = make_app(StudyDesk(made, study.answers_of(tmp_path / "study")), pictures, TOKEN, "127.0.0.1")
    return TestClient(app, base_url=f"http://127.0.0.1:8000/{TOKEN}/")


def join(client: TestClient, name: str = "Anna") -> dict[str, Any]:
    answer = client.post("api/join", json={"name": name})
    assert answer.status_code == 200
    return dict(answer.json())


def test_everyone_has_an_order_and_sides_of_their_own() -> None:
    made = of(21, ("theirs", "third"))
    anna, ben = made.order("anna"), made.order("ben")
    assert anna == made.order("anna") and anna != ben != of(21, ("theirs", "third"), seed=1).order("ben")
    assert sorted(map(repr, (shown.item for shown in anna))) == sorted(map(repr, made.items))
    for person in ("anna", "ben", "cleo"):
        left = Counter(shown.item.other for shown in made.order(person) if shown.ours_left)
        assert all(left[other] in {10, 11} for other in made.others), "ours is left in half of the pairs"
    together = [{s.item: s.ours_left for s in made.order(f"p{n}")}[made.items[0]] for n in range(200)]
    assert 70 < sum(together) < 130, "the side of one pair is another coin for each person"
    first = Counter(made.order(f"p{n}")[0].item for n in range(420))
    assert len(first) > 35 and max(first.values()) < 35


def test_a_click_prefers_whom_it_points_at() -> None:
    for shown in of().order("anna"):
        assert all(shown.place(shown.choice(place)) == place for place in ("left", "same", "right"))
        assert shown.choice("left") == ("ours" if shown.ours_left else "other")


def test_names_of_people() -> None:
    assert study.person_key("  Ännä\tB ") == study.person_key("ännä b") == "ännä b"
    for wrong in ("", "  ", "x" * 41, "a\u202eb", "a\x00"):
        with pytest.raises(UsageError, match="1 to 40 printable"):
            study.person_key(wrong)


def test_what_a_person_said_survives_and_the_last_answer_counts(tmp_path: Path) -> None:
    made = of(4)
    desk = StudyDesk(made, study.answers_of(tmp_path))
    desk.answer("anna", 0, "left", 1.234)
    desk.answer("anna", 0, "right", 2)
    desk.answer("ben", 3, "same", 2)
    with (tmp_path / study.ANSWERS).open("a") as file:
        file.write('{"person": "anna", "na')
    again = StudyDesk(made, study.answers_of(tmp_path))
    assert again.places("anna") == ["right", None, None, None] and again.places("ben")[3] == "same"
    again.answer("anna", 1, "left", 1)
    lines, torn = study.answers_of(tmp_path).read()
    assert (len(lines), torn, again.finished) == (4, 1, 0)
    first, second = lines[:2]
    assert {first.choice, second.choice} == {"ours", "other"} and first.seconds == 1.23
    assert (first.left == "ours") == (first.choice == "ours")


def test_who_has_finished_is_not_counted_while_an_answer_arrives(tmp_path: Path) -> None:
    """A new person grows the table that is counted: iterating it at that moment would fail."""
    desk = StudyDesk(of(1), study.answers_of(tmp_path))
    desk.answer("anna", 0, "left", 1)
    counts: list[int] = []
    counting = threading.Thread(target=lambda: counts.append(desk.finished))
    with desk._lock:
        counting.start()
        counting.join(0.2)
        assert not counts
    counting.join()
    assert counts == [1]


def test_another_study_needs_another_folder(tmp_path: Path) -> None:
    study.write_study(of(), tmp_path)
    study.write_study(of(), tmp_path)
    assert study.read_study(tmp_path) == of()
    for other in (of(seed=1), of(19), of(others=("third",))):
        with pytest.raises(UsageError, match="choose another folder"):
            study.write_study(other, tmp_path)
    (tmp_path / study.FILE).write_text("{}")
    with pytest.raises(UsageError, match="is no study"):
        study.read_study(tmp_path)


def test_the_page_tells_nobody_which_is_which(client: TestClient, opened: tuple[Study, StudyPictures]) -> None:
    made, pictures = opened
    person = join(client)["person"]
    for number, shown in enumerate(made.order("anna")):
        for place in ("left", "right", "input"):
            answer = client.get(f"picture/{person}/{number}/{place}")
            assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
            method = "" if place == "input" else "ours" if (place == "left") == shown.ours_left else "theirs"
            pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
            assert np.array_equal(pixels, images.read(pictures.files[method, shown.item.name]).rgb)
            for word in (b"ours", b"theirs", b"secret method", shown.item.name.encode()):
                assert word not in answer.content and word.decode() not in str(answer.headers)
    told = json.dumps(client.post("api/join", json={"name": "anna"}).json())
    assert "ours" not in told and "theirs" not in told and "face" not in told


def test_who_may_ask_and_what(client: TestClient, tmp_path: Path) -> None:
    person = join(client)["person"]
    said = {"person": person, "number": 0, "place": "left", "seconds": 1}
    assert client.post("api/answer", json=said, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("http://127.0.0.1:8000/").status_code == 404, "without the token there is nothing"
    for wrong in ({"number": -1}, {"number": 6}, {"place": "up"}, {"seconds": -1}, {"person": "nobody"}, {"more": 1}):
        assert client.post("api/answer", json=said | wrong).status_code in {404, 422}, wrong
    assert client.post("api/join", json={"name": "  "}).json()["detail"].startswith("name")
    for path in (f"picture/{person}/6/left", f"picture/{person}/0/up", "picture/nobody/0/left"):
        assert client.get(path).status_code in {404, 422}
    assert study.answers_of(tmp_path / "study").read() == ([], 0)
    assert client.post("api/answer", json=said).json() == {"left": 5}
    assert client.get("").headers["content-security-policy"].startswith("default-src 'none'")


def test_shares_sign_test_and_agreement_of_known_answers() -> None:
    made = of(10, ("theirs", "third"))
    names = made.names
    answers = [said("anna", name, "ours") for name in names[:8]]
    answers += [said("anna", names[8], "same"), said("anna", names[9], "other")]
    answers += [said("ben", name, "ours") for name in names[:7]] + [said("ben", name, "other") for name in names[7:]]
    answers += [said("anna", "gone", "other"), said("ben", names[0], "other", other="third")]
    told = found(answers, made)
    first, second = told.comparisons
    assert [first.shares[c].count for c in study.CHOICES] == [4, 1, 15] and first.answers == 20
    assert first.shares["ours"].share == 0.75 and second.answers == 1 and second.alpha is None
    # Face 7 has one vote for each, face 8 same and other: 7 won, 2 lost; 9 coins, 2 or fewer heads.
    assert (first.faces_won, first.faces_lost) == (7, 2) and first.p == pytest.approx(2 * (1 + 9 + 36) / 512)
    # Both agree on 8 of 10 faces; chance: (4^2 + 1^2 + 15^2) / 20^2.
    assert first.kappa == pytest.approx((0.8 - 242 / 400) / (1 - 242 / 400))
    assert first.alpha == pytest.approx(1 - 19 * 2 * 2 / (20 * 20 - 242))
    interval = first.shares["ours"].interval
    assert interval is not None and interval[0] < 0.75 < interval[1]
    assert told.sides == (15, 5, pytest.approx(2 * sum(map(comb, [20] * 6, range(6))) / 2**20)), (
        "all preferences for ours stood left"
    )
    assert (
        told.as_json()["protocol"]["people"] == {"anna": 10, "ben": 11} and told.as_json()["protocol"]["finished"] == 0
    )


def test_pictures_that_can_be_told_apart_are_refused(
    ab_folders: tuple[Path, Path, Path], portrait: NDArray[np.uint8]
) -> None:
    ours, theirs, _ = ab_folders
    both = [Method("theirs", theirs), Method("ours", ours)]
    for wrong, ours_name in ((both[:1], None), (both, "mine")):
        with pytest.raises(UsageError, match="two or more|are called theirs, ours"):
            open_study(wrong, ours_name, None, 0, 0, "which?")
    (ours / "face2.png").write_bytes(images.encode_png(portrait[:64]))
    with pytest.raises(UsageError, match=r"face2 differs in size \(theirs 128 x 128, ours 128 x 64 px\)"):
        open_study(both, None, None, 0, 0, "which?")
    (ours / "face2.png").rename(ours / "fase2.png")
    with pytest.raises(UsageError, match="lacks 1 images"):
        open_study(both, None, None, 0, 0, "which?")


def test_the_command_serves_until_enough_have_finished_and_reports(
    ab_folders: tuple[Path, Path, Path], authface: Command, tmp_path: Path
) -> None:
    ours, theirs, inputs = ab_folders
    folder = tmp_path / "study"
    words = ["ab", "--outputs", f"theirs={theirs}", "--outputs", f"ours={ours}", "-o", str(folder)]
    code, _, log = authface(*words[:1], "--report", "-o", folder)
    assert code == 2 and "holds no study" in log
    command = [
        sys.executable,
        "-m",
        "authface.cli",
        "evaluate",
        *words,
        "--inputs",
        str(inputs),
        "--people",
        "1",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None and running.stdout is not None
        line = running.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/\S+/", line)
        assert url is not None, line
        assert authface(*words)[0] == 1, "one server a study"
        with httpx.Client(base_url=url[0]) as browser:
            for name, choice in (("anna", "ours"), ("ben", "other")):
                person = browser.post("api/join", json={"name": name}).json()["person"]
                order = study.read_study(folder).order(name)
                for number, shown in enumerate(order if name == "ben" else order[:2]):
                    said = {"person": person, "number": number, "place": shown.place(choice), "seconds": 1.5}
                    assert browser.post("api/answer", json=said).status_code == 200
        told = json.loads(running.communicate(timeout=PATIENCE)[0])
    assert running.returncode == 0 and told["protocol"]["finished"] == 1
    (row,) = told["table"]
    assert row["shares"]["ours"]["count"] == 2 and row["shares"]["other"]["share"] == 0.75
    rows = pq.read_table(folder / "answers.parquet").to_pylist()
    assert len(rows) == 8 and {row["person"] for row in rows} == {"anna", "ben"}
    assert json.loads((folder / "ab.json").read_text())["table"] == told["table"]
    assert (folder / "ab.csv").read_text().count("\n") == 4
    page = (folder / "ab.html").read_text()
    assert page.count("data:image/jpeg") == 3 * row["faces_lost"] > 0 and "http://" not in page
    (folder / "ab.html").unlink()
    assert authface("ab", "--report", "-o", folder, "--dry-run")[0] == 0 and not (folder / "ab.html").exists()
    code, text, _ = authface("ab", "--report", "-o", folder)
    assert code == 0 and "75.00 [" in text and "report:" in text
    shutil.rmtree(theirs)
    assert authface("ab", "--report", "-o", folder)[0] == 0, "answers outlive the pictures"


def test_stopped_before_anybody_answered(ab_folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    ours, theirs, _ = ab_folders
    command = [sys.executable, "-m", "authface.cli", "evaluate", "ab", "--outputs", str(theirs), "--outputs", str(ours)]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        assert "6 pairs: ours beside theirs" in line
        assert httpx.get(line.split("open ")[1].split()[0], timeout=PATIENCE).status_code == 200
        running.send_signal(signal.SIGINT)
        told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0 and "nobody answered" in told[0]
