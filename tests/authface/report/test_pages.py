"""Pages are whole, self-contained, escaped and honest about what they show."""

import base64
import gc
import io
import weakref
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from authface.errors import one_line
from authface.report.pages import (
    Cell,
    Comparison,
    Funnel,
    FunnelRow,
    ReportTable,
    Section,
    SheetGroup,
    before_after,
    contact_sheet,
    quantity,
    share,
    story,
)

NASTY = "a\nb \"'<script>alert(1)</script>&amp; 山田 \udcff \u202egnp.exe"


class Page(HTMLParser):
    """The elements of a page, and the text inside each kind of element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.text = path.read_text("utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, text: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += text

    def values(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


def pictures(page: Page) -> list[Image.Image]:
    sources = page.values("img", "src")
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def photo(side: int = 512) -> NDArray[np.uint8]:
    return np.asarray(data.astronaut()[:side, :side])


def test_contact_sheet_shows_thumbnails_counts_and_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "filter.html"
    kept = SheetGroup("kept", "On to alignment.", 8123, [Cell(photo(), f"{i}.jpg", "sharpness 0.41") for i in range(3)])
    grey = SheetGroup("rejected: too_soft", "Soft.", 1, [Cell(photo()[..., 0], "grey.jpg", "sharpness 0.1, limit 0.2")])
    broken = SheetGroup("failed: truncated", "", 1, [Cell(None, "broken.jpg", "12 bytes missing")])
    funnel = Funnel([FunnelRow("kept", 8123), FunnelRow("rejected: too_soft", 1), FunnelRow("rejected: no_face", 0)])
    contact_sheet(path, "Filter", [("photos", "8,125")], [kept, grey, broken], funnel)
    page = Page(path)
    assert [picture.size for picture in pictures(page)] == [(288, 288)] * 4
    assert "Showing 3 of 8,123, an even sample." in page.text
    assert page.text.count("an even sample") == 1, "groups shown whole say nothing of a sample"
    assert page.text.count("no picture") == 1
    assert {"8,123", ">99.9 %", "<0.1 %", "0 %"} <= {text.strip() for text in page.texts["td"]}
    widths = [float(width) for width in page.values("rect", "width") if width != "1000"]
    assert widths == [4, 0], "a bar of 1 in 8,124 is still seen, a bar of none is not; the first fills the rail"
    ids = set(page.values("section", "id"))
    targets = {href.removeprefix("#") for href in page.values("a", "href")}
    assert targets == ids and len(ids) == 3, "an outcome without a group is not a dead link"


def test_thumbnail_shows_the_photo(tmp_path: Path) -> None:
    cells = [Cell(photo(256), "small"), Cell(photo(), "large")]
    contact_sheet(tmp_path / "a.html", "A", [], [SheetGroup("kept", "", 2, cells)])
    small, large = pictures(Page(tmp_path / "a.html"))
    shrunk = np.asarray(Image.fromarray(photo()).resize((288, 288), Image.Resampling.BOX))
    for picture, expected in ((small, photo(256)), (large, shrunk)):
        assert picture.size == expected.shape[:2], "a small picture is not enlarged"
        assert np.abs(np.asarray(picture).astype(float) - expected).mean() < 5, "upright, and its colours are right"


@given(st.text(st.characters(), max_size=60))
def test_any_text_is_escaped_and_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("page") / "a.html"
    group = SheetGroup(text, text, 2, [Cell(None, text + "!", text)])
    contact_sheet(path, text, [(text, text)], [group], Funnel([FunnelRow(text, 2, text)]))
    page = Page(path)
    assert page.texts["bdi"] == [one_line(text + "!")]
    assert page.texts["title"] == page.texts["h1"] == page.texts["dt"] == [one_line(text)]
    assert [tag for tag, _ in page.elements].count("script") == 1, "the page's own"
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


@pytest.mark.parametrize("link", ["javascript:alert(1)", '../crops/a"b.png', "//host/x", NASTY, "data:text/html,x"])
def test_links_stay_relative_paths(tmp_path: Path, link: str) -> None:
    sheet = [SheetGroup("kept", "", 1, [Cell(photo(64), "a", "", link)])]
    contact_sheet(tmp_path / "a.html", "A", [], sheet)
    (href,) = [h for h in Page(tmp_path / "a.html").values("a", "href") if not h.startswith("#")]
    assert unquote_to_bytes(href) == b"./" + link.encode("utf-8", "surrogateescape")


def test_pages_ask_for_nothing_outside(tmp_path: Path) -> None:
    cell = Cell(photo(), NASTY, NASTY)
    pair = Comparison(NASTY, photo(128), photo(), [(NASTY, NASTY)])
    contact_sheet(tmp_path / "a.html", NASTY, [(NASTY, NASTY)], [SheetGroup(NASTY, NASTY, 1, [cell])])
    before_after(tmp_path / "b.html", NASTY, [pair])
    section = Section(NASTY, NASTY, [cell], ReportTable([NASTY], [[NASTY]]), [pair], Funnel([FunnelRow(NASTY, 1)]))
    story(tmp_path / "c.html", NASTY, [section])
    for name in ("a.html", "b.html", "c.html"):
        page = Page(tmp_path / name)
        urls = [
            u for tag in ("img", "a", "link", "script", "iframe") for a in ("src", "href") for u in page.values(tag, a)
        ]
        assert urls and all(url.startswith(("data:image/jpeg;base64,", "#")) for url in urls)
        assert "alert(1)</script>" not in page.text and "url(" not in page.text and "@import" not in page.text


def test_an_interrupted_page_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.html"

    def groups() -> Iterator[SheetGroup]:
        yield SheetGroup("kept", "", 1, [Cell(photo(64), "a", "")])
        raise KeyboardInterrupt

    def pairs() -> Iterator[Comparison]:
        yield Comparison("a", photo(64), photo(64))
        raise KeyboardInterrupt

    path.write_text("old")
    for write in (lambda: contact_sheet(path, "A", [], groups()), lambda: before_after(path, "A", pairs())):
        with pytest.raises(KeyboardInterrupt):
            write()
        assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_only_one_group_of_photos_is_in_memory(tmp_path: Path) -> None:
    alive: list[weakref.ref[NDArray[np.uint8]]] = []

    def held() -> int:
        gc.collect()
        return sum(ref() is not None for ref in alive)

    def cell() -> Cell:
        image = photo().copy()
        alive.append(weakref.ref(image))
        return Cell(image, "a", "")

    counts = []

    def groups() -> Iterator[SheetGroup]:
        for number in range(5):
            counts.append(held())
            yield SheetGroup(f"group {number}", "", 10, [cell() for _ in range(4)])

    contact_sheet(tmp_path / "a.html", "A", [], groups())
    assert len(alive) == 20 and max(counts) <= 4 and held() == 0


def test_before_after_keeps_both_sizes_and_enlarges_nothing(tmp_path: Path) -> None:
    big = np.asarray(Image.fromarray(photo()).resize((2000, 1500)))
    pair = Comparison("photo.jpg", photo(100), big, [("identity", "0.71")])
    before_after(tmp_path / "a.html", "Restored", [pair], [("faces", "1")])
    page = Page(tmp_path / "a.html")
    assert [picture.size for picture in pictures(page)] == [(100, 100), (1024, 768)] * 2
    captions = page.texts["figcaption"]
    assert captions == ["before, 100 × 100", "after, 2000 × 1500"]
    assert page.values("div", "style") == ["aspect-ratio: 2000 / 1500"]


def test_pictures_beside_the_page_follow_it(tmp_path: Path) -> None:
    path = tmp_path / "run 1.html"
    before_after(path, "A", (Comparison(str(i), photo(64 + i), photo(128 + i)) for i in range(3)), embed=False)
    first = {p.name for p in (tmp_path / "run 1.html.files").iterdir()}
    before_after(path, "A", [Comparison("0", photo(64), photo(128))], embed=False)
    page = Page(path)
    sources = set(page.values("img", "src"))
    assert len(first) == 6 and len(sources) == 2
    for source in sources:
        assert (tmp_path / unquote_to_bytes(source).decode()).is_file()
    assert len(list((tmp_path / "run 1.html.files").iterdir())) == 2, "pictures of the page before are gone"


def test_empty_pages_say_so(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "a.html", "A", [], [], Funnel([]))
    before_after(tmp_path / "b.html", "B", [])
    story(tmp_path / "c.html", "C", [])
    assert "no row has been made yet" in (tmp_path / "a.html").read_text()
    assert "no picture was restored" in (tmp_path / "b.html").read_text()
    assert Page(tmp_path / "c.html").texts["h1"] == ["C"]


def test_story_tells_the_sections_in_order(tmp_path: Path) -> None:
    wide = np.concatenate([photo(128)] * 4, axis=1)
    sections = [
        Section("Curated", "One.\n\nTwo\nlines.", [Cell(photo(), "face"), Cell(wide, "grid")]),
        Section("Tagged", "", table=ReportTable(["photo", "light"], [["a", "soft"], ["b", "hard"]])),
    ]
    story(tmp_path / "a.html", "Story", sections)
    page = Page(tmp_path / "a.html")
    assert page.texts["h2"] == ["Curated", "Tagged"] and page.texts["p"] == ["One.", "Two lines."]
    assert page.texts["td"] == ["a", "soft", "b", "hard"]
    assert [c.split() for c in page.values("figure", "class")] == [["cell"], ["cell", "wide"]]


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_share_never_rounds_to_none_or_all(part: int, whole: int) -> None:
    part = min(part, whole)
    assert (share(part, whole) == "0 %") == (part == 0)
    assert (share(part, whole) in {"100 %", "100.0 %"}) == (part == whole)
    assert share(1, 0) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10235, "10,235"),
        (27.34, "27.3"),
        (0.01234, "0.0123"),
        (-3.0, "-3"),
        (1234.5, "1,234"),
        (None, "n/a"),
        (float("nan"), "n/a"),
    ],
)
def test_quantity(value: float | None, text: str) -> None:
    assert quantity(value) == text


def test_pictures_are_called_what_they_are(tmp_path: Path) -> None:
    pair = Comparison("what changed", photo(64), photo(64), labels=("after", "change <map>"))
    before_after(tmp_path / "page.html", "A", [pair])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("change &lt;map&gt;") == 4 and ">before" not in page and 'alt="before"' not in page
