"""Credits name every photographer of what is kept, unknown licences first; nothing in them can act."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.curate.credits import Credits, Format, referred, web_link, write_credits
from authface.store.photoset import PhotoSet
from tests.conftest import authface

Furnished = Callable[[Path], PhotoSet]


class Links(HTMLParser):
    """Addresses of a page's links, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.hrefs += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.words += data


def shown(photoset: PhotoSet) -> set[str]:
    kept = {crop.photo_id for crop in photoset.crops if crop.status == "kept"}
    return {photo.source_id for photo in photoset.photos if photo.status == "kept" and photo.id in kept}


def test_kept_crops_or_all_photos_are_credited_once(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    with Credits(photoset) as found:
        assert {credit.source_id for credit in found} == shown(photoset) != set()
    with Credits(photoset, every=True) as found:
        every = [credit.source_id for credit in found]
        groups = [(group.licence, group.photos) for group in found.groups()]
    assert sorted(every) == [p.source_id for p in photoset.photos if p.status == "kept"] and len(every) == 5
    assert groups == [("unknown", 2), ("CC0", 1), ("Unsplash License", 2)], "unknown ones first"


def test_the_page_names_links_and_warns(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    path, _ = write_credits(photoset, "html", every=True)
    page = Links(path.read_text("utf-8"))
    assert "Nobody stated a licence" in page.words and "Maker Zero <b>" in page.words and "b" in page.tags
    assert "javascript" not in path.read_text("utf-8") and "photo-3" in page.words
    assert "script" not in page.tags
    hosts = {urlsplit(href).hostname for href in page.hrefs}
    assert hosts == {"example.org", "unsplash.com"}
    profile = next(href for href in page.hrefs if "@maker0" in href)
    assert parse_qs(urlsplit(profile).query) == {"utm_source": ["authface"], "utm_medium": ["referral"]}
    assert "https://example.org/@maker1" in page.hrefs, "only Unsplash asks for the referral"
    assert page.words.count("on Unsplash") == 3


@pytest.mark.parametrize("format", ["md", "csv", "txt"])
def test_every_format_names_everybody(furnished: Furnished, tmp_path: Path, format: Format) -> None:
    photoset = furnished(tmp_path / "set")
    path, _ = write_credits(photoset, format, every=True)
    text = path.read_text("utf-8")
    assert path.name == f"credits.{format}" and "javascript" not in text
    for number in range(5):
        assert f"photo-{number}" in text and f"@maker{number}" in text
    if format == "md":
        assert "<b>" not in text and "Maker Zero \\<b\\>" in text and text.count("on [Unsplash]") == 3


def test_no_cell_is_a_formula(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    meta = photoset.photos.meta(0)
    assert meta is not None
    rows = [replace(row, photographer='=HYPERLINK("x")') for row in photoset.photos.rows(0)]
    photoset.photos.write(0, rows, meta.provenance, "")
    path, _ = write_credits(photoset, "csv", every=True)
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 5 and not any(value[:1] in set("=+-@") for row in table for value in row.values() if value)


def test_a_maker_is_read_a_credit_at_a_time(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    names = sorted(photo.source_id for photo in photoset.photos if photo.status == "kept")
    for part in photoset.photos.parts():
        meta = photoset.photos.meta(part)
        assert meta is not None
        rows = [replace(row, photographer="M", source="urls", licence="CC0") for row in photoset.photos.rows(part)]
        links = ["https://e.org/m" if row.source_id == names[3] else "" for row in rows]
        rows = [replace(row, photographer_url=link) for row, link in zip(rows, links, strict=True)]
        photoset.photos.write(part, rows, meta.provenance, "")
    with Credits(photoset, every=True) as found:
        group = next(found.groups())
        maker = next(group.makers)
        assert (group.photos, group.photographers, maker.photos) == (5, 1, 5)
        assert maker.first.profile == "https://e.org/m", "of a photo that is not the first"
        assert [credit.source_id for credit in maker.credits] == names
    md = write_credits(photoset, "md", every=True)[0].read_text("utf-8")
    assert md.count("\n- Photos by [M](https://e.org/m): ") == 1 and md.count(", ") - md.count("5 photos, ") == 4


def test_photos_that_name_nobody_have_no_photographer(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    for part in photoset.photos.parts():
        meta = photoset.photos.meta(part)
        assert meta is not None
        rows = [replace(row, photographer="", licence="") for row in photoset.photos.rows(part)]
        photoset.photos.write(part, rows, meta.provenance, "")
    with Credits(photoset, every=True) as found:
        (group,) = found.groups()
        assert (group.photos, group.photographers, found.counts()["photographers"]) == (5, 0, 0)


def test_a_set_of_before_the_profile_pages_has_credits(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    for part in photoset.photos.parts():
        meta = photoset.photos.meta(part)
        assert meta is not None
        photoset.photos.put(part, photoset.photos.arrow(part).drop_columns(["photographer_url"]), meta)
    assert write_credits(photoset, "txt")[1]["photos"] == len(shown(photoset))


@given(st.text(max_size=40) | st.tuples(st.sampled_from(["javascript:", "http://", "//", "https://u@", "data:"]),
                                          st.text(max_size=20)).map("".join))  # fmt: skip
def test_a_link_leads_to_a_host_or_nowhere(text: str) -> None:
    for link in (web_link(text), referred(text)):
        if link:
            parts = urlsplit(link)
            assert parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
            assert link.isprintable() and " " not in link


@pytest.mark.parametrize(
    "url",
    ["javascript://host/%0aalert(1)", "ftp://host/a", "https://name@host/", "http:///a", "https://ho st/", "//h/a"],
)
def test_what_may_act_or_mislead_is_no_link(url: str) -> None:
    assert web_link(url) == referred(url) == ""
    assert web_link("https://host/a?b=1#c") == "https://host/a?b=1#c"


def test_the_command(furnished: Furnished, tmp_path: Path) -> None:
    photoset = furnished(tmp_path / "set")
    done = authface("curate", "credits", photoset.root, "--all")
    assert done.returncode == 0 and "nobody stated a licence of 2 photos" in done.stderr
    assert "5 photos, 5 photographers, 3 licences, 2 of unknown licence" in done.stdout
    done = authface("curate", "credits", photoset.root, "--format", "pdf")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "html, md, csv, txt" in done.stderr
