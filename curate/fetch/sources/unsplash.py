"""The official Unsplash API: search, page by page, each page asked for once and kept in the set.

https://unsplash.com/documentation: 50 requests an hour for a new application, 5,000 for one in production; each
photo used is reported to its `download_location`; links back carry `utm_source` and `utm_medium`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from authface.curate.fetch.hosts import Paused, WebError
from authface.curate.fetch.sources import (
    PhotoItem,
    PhotoSource,
    SourceRequest,
    http_url,
    parse_positive,
    reject_premium,
)
from authface.curate.fetch.sources.tables import clean
from authface.curate.fetch.web import Web, WebResponse
from authface.curate.settings import FetchSettings
from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.records import Camera, Photo, now
from authface.store.photoset import PhotoSet

KEY = "UNSPLASH_ACCESS_KEY"
LICENCE = "Unsplash License"
TERMS = "Unsplash API Terms and Guidelines"
RESTRICTION = (
    "Unsplash restricts the use of its API for machine learning (help.unsplash.com/en/articles/2612332) and points to "
    "its data set, unsplash.com/data: authface curate fetch --from unsplash-lite PATH."
)
RATES = (50, 5000)
"""Requests an hour of a new application, and of one in production."""
_UTM = "utm_source=authface&utm_medium=referral"
_ANSWER_BYTES = 10_000_000


class Unsplash(PhotoSource):
    """Photos that the queries find, in the API's order; pages already listed come from the set."""

    @classmethod
    def make(cls, request: SourceRequest) -> Self:
        """The search that the settings ask for."""
        return cls(request.settings, request.web(), request.photoset, request.say)

    def __init__(self, settings: FetchSettings, web: Web, photoset: PhotoSet, say: Callable[[str], None]) -> None:
        super().__init__()
        self.web: Web = web
        self._settings, self._wants, self._photoset, self._say = settings, settings.unsplash, photoset, say
        self._key = os.environ.get(KEY, "").strip()
        self._base = self._wants.api_base.rstrip("/")

    def ready(self, *, accept_terms: bool = False) -> None:
        """Raises UsageError without a key, or where the terms are still to be accepted."""
        if not self._key:
            raise UsageError(f"--from unsplash: set {KEY} to your access key, from unsplash.com/oauth/applications")
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise UsageError(f"{KEY} holds characters that no key has: copy it again")
        if not self._accepted() and not accept_terms:
            raise UsageError(f"{RESTRICTION} If you may use the API all the same, say so once with --accept-terms")

    def items(self) -> Iterator[PhotoItem]:
        """One item a photo and query; the same photo found twice is two equal items."""
        terms = self._agreed()
        for query in self._wants.queries:
            for page in self._pages(query):
                for entry in page["results"]:
                    yield self._item(entry, query, page["as_of"], terms)

    def count(self) -> int | None:
        """What the first pages that the set holds say."""
        firsts = [self._kept_page(query, 1) for query in self._wants.queries]
        return sum(self._size(page) for page in firsts if page) if all(firsts) else None

    def forecast(self, limit: int, *, ask: bool) -> str:
        """Requests of the hourly quota still to be made, and how long they take."""
        photos, pages, known = 0, 0, True
        for query in self._wants.queries:
            page = self._first_page(query) if ask and not limit else self._kept_page(query, 1)
            known = known and page is not None
            found = self._size(page) if page else self._wants.pages * self._wants.per_page
            photos += found
            listed = range(1, math.ceil(found / self._wants.per_page) + 1)
            pages += sum(self._kept_page(query, number) is None for number in listed)
        if limit:
            photos = min(photos or limit, limit)
            pages = min(pages, math.ceil(limit / self._wants.per_page))
        if not photos and not known:
            return "unsplash: how many photos there are is known after the first request of each query"
        requests = pages + photos * (2 if self._wants.details else 1)
        hours = ", ".join(f"{requests / rate:.1f} h at {rate:,} an hour" for rate in RATES)
        details = f", {photos:,} for camera data" if self._wants.details else ""
        return (
            f"unsplash: up to {requests:,} requests of the API's quota: {pages:,} to list, {photos:,} to tell of kept "
            f"photos{details}; {hours}"
        )

    def enrich(self, photo: Photo) -> Photo:
        """The row with the camera's data, where they are asked for."""
        if not self._wants.details or photo.camera or not re.fullmatch(r"[\w-]+", photo.source_id, re.ASCII):
            return photo
        try:
            exif = _mapping(self._json(f"{self._base}/photos/{quote(photo.source_id, safe='')}").get("exif"))
        except ImageError:
            return photo  # the photo does not hang on it
        camera = Camera(
            make=_text(exif.get("make"), 80),
            model=_text(exif.get("model"), 80),
            iso=parse_positive(exif.get("iso")),
            aperture=parse_positive(exif.get("aperture")),
            focal_length=parse_positive(exif.get("focal_length")),
            exposure=parse_positive(exif.get("exposure_time")),
        )
        return replace(photo, camera=camera if camera != Camera() else None)

    def track_download(self, photo: Photo) -> Photo:
        """Request the photo's `download_location`, as the guidelines ask for each photo that is used."""
        if _origin(photo.download_location) != _origin(self._base):
            return replace(photo, detail="not told to Unsplash: its download_location is at another host")
        try:
            self._ask(photo.download_location)
        except ImageError as error:
            return replace(photo, detail=one_line(f"not told to Unsplash: {error}"))
        return photo

    def _item(self, entry: Mapping[str, Any], query: str, as_of: str, terms: str) -> PhotoItem:
        urls, links, user = (_mapping(entry.get(name)) for name in ("urls", "links", "user"))
        url = _text(urls.get(self._wants.file) or urls.get("full") or urls.get("raw"), 2000)
        description = _text(entry.get("description") or entry.get("alt_description"), 1000)
        photo = Photo(
            id="",
            source="unsplash",
            source_id=_text(entry.get("id"), 100),
            file="",
            file_url=url,
            photographer=_name(user.get("name") or user.get("username")),
            photographer_url=_referred(_text(_mapping(user.get("links")).get("html"), 2000)),
            page_url=_referred(_text(links.get("html"), 2000)),
            download_location=_text(links.get("download_location"), 2000),
            licence=LICENCE,
            terms=terms,
            as_of=as_of,
            width=_whole(entry.get("width")),
            height=_whole(entry.get("height")),
            queries=(query,),
            extra=json.dumps({"description": description}) if description else "",
        )
        if not photo.source_id or not url:
            digest = hashlib.sha256(json.dumps(entry, sort_keys=True, default=str).encode()).hexdigest()
            name = photo.source_id or f"entry {digest[:16]}"
            photo = replace(photo, source_id=name, status="failed", reason="bad_entry", detail="no id or no address")
        return PhotoItem(reject_premium(photo), url=url, preview=_text(urls.get("small"), 2000))

    def _pages(self, query: str) -> Iterator[dict[str, Any]]:
        number, last = 1, self._wants.pages or 1 << 30
        while number <= last:
            page = self._page(query, number)
            yield page
            last = min(last, page["total_pages"])
            number += 1

    def _first_page(self, query: str) -> dict[str, Any] | None:
        try:
            return self._page(query, 1)
        except Paused:
            return None  # the listing itself meets it again and ends the run

    def _page(self, query: str, number: int) -> dict[str, Any]:
        if kept := self._kept_page(query, number):
            return kept
        request = self._request(query, number)
        try:
            answer = self._json(f"{self._base}/search/photos?{urlencode(request)}")
        except WebError as error:
            raise AuthfaceError(
                f"{one_line(urlsplit(self._base).netloc)} did not list page {number} of {one_line(query, 60)}: {error}"
                "; what was fetched is kept: run the same command again"
            ) from error
        results = answer.get("results")
        page = {
            "request": request,
            "as_of": now(),
            "total": _whole(answer.get("total")),
            "total_pages": _whole(answer.get("total_pages")),
            "results": [entry for entry in results if isinstance(entry, dict)] if isinstance(results, list) else [],
        }
        self._photoset.save(self._file(request), json.dumps(page).encode())
        return page

    def _kept_page(self, query: str, number: int) -> dict[str, Any] | None:
        """A page that the set holds; one that cannot be read is asked for again."""
        file = self._file(self._request(query, number))
        if not self._photoset.exists(file):
            return None
        try:
            page = json.loads(self._photoset.read(file))
            return page if isinstance(page["results"], list) and isinstance(page["total_pages"], int) else None
        except (ImageError, ValueError, KeyError, TypeError):
            return None

    def _request(self, query: str, number: int) -> dict[str, str]:
        wants = self._wants
        given = {
            "query": query,
            "page": str(number),
            "per_page": str(wants.per_page),
            "order_by": wants.order_by,
            "content_filter": wants.content_filter,
            "orientation": wants.orientation,
        }
        return {name: value for name, value in given.items() if value}

    def _file(self, request: Mapping[str, str]) -> str:
        text = json.dumps([self._base, self._wants.edition, dict(request)], sort_keys=True)
        return f"sources/unsplash/{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def _size(self, page: Mapping[str, Any]) -> int:
        """How many photos of a query will be listed."""
        total = max(int(page["total"]), len(page["results"]))
        return min(total, self._wants.pages * self._wants.per_page) if self._wants.pages else total

    def _json(self, url: str) -> dict[str, Any]:
        """An answer's JSON object, the key taken out. Raises WebError."""
        body = self._ask(url).body.decode("utf-8", "backslashreplace").replace(self._key, "[key]")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise WebError("http_error", "the answer is not JSON") from error
        return _mapping(found)

    def _ask(self, url: str) -> WebResponse:
        """One request with the key. Raises UsageError where the key is refused, WebError, Paused."""
        headers = {"Authorization": f"Client-ID {self._key}", "Accept-Version": "v1"}
        try:
            return self.web.get(url, max_bytes=_ANSWER_BYTES, headers=headers)
        except WebError as error:
            if error.status == 401:
                raise UsageError(f"Unsplash refuses the key in {KEY} (HTTP 401): check it") from error
            raise

    def _accepted(self) -> str:
        """When the terms were accepted for this set; empty if they were not."""
        try:
            return one_line(json.loads(self._photoset.read(_TERMS_FILE))["accepted"], 40)
        except (ImageError, ValueError, KeyError, TypeError):
            return ""

    def _agreed(self) -> str:
        """The terms as rows name them; their acceptance is recorded in the set the first time."""
        accepted = self._accepted()
        if not accepted:
            accepted = now()
            said = {"terms": TERMS, "accepted": accepted, "told": RESTRICTION}
            self._photoset.save(_TERMS_FILE, json.dumps(said, indent=1).encode())
        return f"{TERMS}, accepted {accepted}"


_TERMS_FILE = "sources/unsplash/terms.json"


def unlisted(photoset: PhotoSet) -> dict[str, int]:
    """How many photos each query that was asked has beyond those on the pages that the set keeps of it."""
    totals: dict[str, tuple[str, int]] = {}
    listed: dict[str, set[str]] = {}
    for path in sorted((photoset.root / "sources" / "unsplash").glob("*.json")):
        try:
            page = json.loads(path.read_bytes())
            query, as_of, total = str(page["request"]["query"]), str(page["as_of"]), _whole(page["total"])
            ids = {str(entry["id"]) for entry in page["results"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the terms, or a page that will be asked for again
        totals[query] = max(totals.get(query, ("", 0)), (as_of, total))
        listed.setdefault(query, set()).update(ids)
    return {query: max(0, total - len(listed[query])) for query, (_, total) in totals.items()}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object, limit: int) -> str:
    return one_line(value, limit).strip() if isinstance(value, str | int | float) else ""


def _name(value: object) -> str:
    return clean(value, 200) if isinstance(value, str | int | float) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _referred(url: str) -> str:
    """A link back with what Unsplash asks it to carry."""
    return f"{url}{'&' if '?' in url else '?'}{_UTM}" if http_url(url) else ""


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", url
    return parts.scheme, parts.netloc
