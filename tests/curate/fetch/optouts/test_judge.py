"""A host of ours that says each opt-out in each form, and its opposite: what comes of a photo, at each level."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from authface.console import Console
from authface.curate.credits import write_credits
from authface.curate.fetch import run as fetching
from authface.curate.fetch.optouts.judge import judge
from authface.curate.fetch.run import fetch
from authface.curate.fetch.sources import make_source
from authface.curate.settings import FetchSettings
from authface.records import Photo
from authface.store.photoset import PhotoSet
from tests.conftest import authface
from tests.curate.conftest import SITE_FILES, Server

WEB = {"allow_private_hosts": True, "host_rate": 500, "backoff_seconds": 0.01, "attempts": 2}
PLUS = "http://ns.useplus.org/ldf/vocab/DMI-"
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
KEPT, STRICT = "", "only strict"


def packet(value: str, form: str = "element") -> bytes:
    inside = {
        "element": f"><plus:DataMining>{value}</plus:DataMining></rdf:Description>",
        "attribute": f' plus:DataMining="{value}"/>',
        "resource": f'><plus:DataMining rdf:resource="{value}"/></rdf:Description>',
        "broken": f"><plus:DataMining>{value}</plus:Data",
    }[form]
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"{inside}</rdf:RDF></x:xmpmeta>'
    ).encode()


def picture(seed: int = 0, format: str = "JPEG", xmp: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    options: dict[str, Any] = {}
    if xmp and format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp and format == "TIFF":
        options["tiffinfo"] = {700: xmp}
    elif xmp:
        options["xmp"] = xmp
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def signed(*assertions: tuple[str, dict[str, Any]]) -> bytes:
    c2pa = pytest.importorskip("c2pa", reason="the extra authface[c2pa]")
    from authface.restore.mark import credentials

    by = credentials("test")
    assert by is not None
    manifest = {
        "claim_generator_info": [{"name": "a camera", "version": "1"}],
        "format": "image/jpeg",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": CAPTURE}]},
            },
            *({"label": label, "data": {"entries": entries}} for label, entries in assertions),
        ],
    }
    out = io.BytesIO()
    info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.certificates.encode(), by.key.encode(), None)
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
        builder.sign(signer, "image/jpeg", io.BytesIO(picture()), out)
    return out.getvalue()


def uses(prefix: str, **entries: str) -> tuple[str, dict[str, Any]]:
    return f"{prefix}.training-mining", {f"{prefix}.{name}": {"use": use} for name, use in entries.items()}


@dataclass
class Case:
    """What a host says, and the reason it refuses its photo for."""

    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    robots: str = ""
    tdm: Any = None
    """Of tdmrep.json; text as it is."""
    ai: str = ""
    page: str = ""
    page_headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[], bytes] = picture
    strict: str = ""
    """The reason under `strict`, where it is another."""


def tdm(value: object, location: str = "/") -> Any:
    return [{"location": location, "tdm-reservation": value}]


def meta(name: str, content: str) -> str:
    return f'<!doctype html><html><head><META content="{content}" Name={name}></head><body>a photo</body></html>'


CASES = {
    "nothing said": Case(KEPT),
    "X-Robots-Tag noai": Case("opt_out_robots_tag", {"X_Robots_Tag": "noindex, NoAI"}),
    "X-Robots-Tag noimageai": Case("opt_out_robots_tag", {"X_Robots_Tag": "noimageai"}),
    "X-Robots-Tag noml": Case("opt_out_robots_tag", {"X_Robots_Tag": "noml"}),
    "X-Robots-Tag to authface": Case("opt_out_robots_tag", {"X_Robots_Tag": "authface: noai"}),
    "X-Robots-Tag to others": Case(KEPT, {"X_Robots_Tag": "googlebot: noai"}),
    "X-Robots-Tag of search": Case(KEPT, {"X_Robots_Tag": "noindex, nofollow, noarchive"}),
    "TDM header 1": Case("opt_out_tdmrep", {"tdm_reservation": "1"}),
    "TDM header 1 and policy": Case("opt_out_tdmrep", {"tdm_reservation": "1", "tdm_policy": "https://a.test/p"}),
    "TDM header 0": Case(KEPT, {"tdm_reservation": "0"}),
    "TDM header odd": Case(STRICT, {"tdm_reservation": "maybe"}),
    "TDM file 1": Case("opt_out_tdmrep", tdm=tdm(1)),
    "TDM file 1 as text": Case("opt_out_tdmrep", tdm=tdm("1")),
    "TDM file 0": Case(KEPT, tdm=tdm(0)),
    "TDM file of elsewhere": Case(KEPT, tdm=tdm(1, "/other/")),
    "TDM file by pattern": Case("opt_out_tdmrep", tdm=tdm(1, "/img/*.jpg$")),
    "TDM file, first counts": Case(KEPT, tdm=[*tdm(0, "/img/"), *tdm(1)]),
    "TDM file 1, header 0": Case(KEPT, {"tdm_reservation": "0"}, tdm=tdm(1)),
    "TDM file 0, header 1": Case("opt_out_tdmrep", {"tdm_reservation": "1"}, tdm=tdm(0)),
    "TDM file odd": Case(STRICT, tdm=tdm(7)),
    "TDM file no JSON": Case(STRICT, tdm='[{"location": "/"'),
    "TDM file is a page": Case(KEPT, tdm="<!doctype html><p>not found, says the site in a 200"),
    "robots.txt for all": Case("opt_out_robots_txt", robots="User-agent: *\nDisallow: /img/"),
    "robots.txt for authface": Case(
        "opt_out_robots_txt", robots="User-agent: *\nAllow: /\n\nUser-agent: AuthFace\nDisallow: /"
    ),
    "robots.txt lets authface": Case(KEPT, robots="User-agent: *\nDisallow: /\n\nUser-agent: authface\nAllow: /"),
    "robots.txt of others": Case(KEPT, robots="User-agent: *\nDisallow: /my/\n\nUser-agent: GPTBot\nDisallow: /"),
    "robots.txt longest match": Case(KEPT, robots="User-agent: *\nDisallow: /\nAllow: /img/*.jpg$"),
    "ai.txt": Case("opt_out_ai_txt", ai="User-Agent: *\nDisallow: *.jpg"),
    "ai.txt of others": Case(KEPT, ai="User-Agent: *\nAllow: *.jpg\nDisallow: *.mp3"),
    "Content-Usage header n": Case("opt_out_content_usage", {"Content_Usage": "search=y, train-ai=n"}),
    "Content-Usage header y": Case(KEPT, {"Content_Usage": "train-ai=y"}),
    "Content-Usage header odd": Case(STRICT, {"Content_Usage": "train-ai=maybe"}),
    "Content-Usage rule n": Case("opt_out_content_usage", robots="User-agent: *\nContent-Usage: / train-ai=n"),
    "Content-Usage rule y": Case(
        KEPT, robots="User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /img/ train-ai=y\nAllow: /"
    ),
    "Content-Signal no": Case("opt_out_content_signal", robots="User-agent: *\nContent-Signal: ai-train=no\nAllow: /"),
    "Content-Signal yes": Case(KEPT, robots="User-agent: *\nContent-Signal: ai-train=yes\nAllow: /"),
    "page TDM 1": Case("opt_out_tdmrep", page=meta("tdm-reservation", "1")),
    "page TDM 0": Case(KEPT, page=meta("tdm-reservation", "0")),
    "page noimageai": Case("opt_out_robots_tag", page=meta("robots", "noai, noimageai")),
    "page of search": Case(KEPT, page=meta("robots", "noindex")),
    "page in a comment": Case(KEPT, page=f"<!-- {meta('tdm-reservation', '1')} -->"),
    "page header": Case("opt_out_robots_tag", page="<p>", page_headers={"X_Robots_Tag": "noai"}),
    "page reserved, photo not": Case(KEPT, tdm=[*tdm(1, "/page"), *tdm(0, "/img/*.jpg")], page="<p>"),
    "page not to be asked": Case(STRICT, page="<p>", robots="User-agent: *\nDisallow: /page"),
    "file allowed": Case(KEPT, body=lambda: picture(xmp=packet(PLUS + "ALLOWED"))),
    "file unspecified": Case(KEPT, body=lambda: picture(xmp=packet(PLUS + "UNSPECIFIED"))),
    **{
        f"file {term.lower() or 'prohibited'}": Case(
            "opt_out_data_mining", body=lambda term=term: picture(xmp=packet(f"{PLUS}PROHIBITED{term}"))
        )
        for term in (
            "", "-AIMLTRAINING", "-GENAIMLTRAINING", "-EXCEPTSEARCHENGINEINDEXING", "-SEECONSTRAINT",
            "-SEEEMBEDDEDRIGHTSEXPR", "-SEELINKEDRIGHTSEXPR",
        )
    },
    "file of an unknown term": Case(STRICT, body=lambda: picture(xmp=packet(PLUS + "WHATEVER"))),
    "file's XMP broken": Case(STRICT, body=lambda: picture(xmp=packet(PLUS + "PROHIBITED", "broken"))),
    **{
        f"file by {form}": Case(
            "opt_out_data_mining", body=lambda form=form: picture(xmp=packet(PLUS + "PROHIBITED", form))
        )
        for form in ("attribute", "resource")
    },
    **{
        f"file in {format}": Case(
            "opt_out_data_mining", body=lambda format=format: picture(format=format, xmp=packet(PLUS + "PROHIBITED"))
        )
        for format in ("PNG", "WEBP", "TIFF", "AVIF")
    },
    "C2PA notAllowed": Case("opt_out_c2pa", body=lambda: signed(uses("c2pa", ai_training="notAllowed"))),
    "CAWG notAllowed": Case(
        "opt_out_c2pa", body=lambda: signed(uses("cawg", ai_training="allowed", ai_generative_training="notAllowed"))
    ),
    "CAWG constrained": Case("opt_out_c2pa", body=lambda: signed(uses("cawg", data_mining="constrained"))),
    "CAWG allowed": Case(
        KEPT, body=lambda: signed(uses("cawg", data_mining="allowed", ai_training="allowed", ai_inference="notAllowed"))
    ),
    "CAWG odd": Case(STRICT, body=lambda: signed(uses("cawg", ai_training="perhaps"))),
    "C2PA without it": Case(KEPT, body=lambda: signed()),
}  # fmt: skip


def set_up(server: Server, case: Case, tmp_path: Path) -> Path:
    """Let the host say all that; the list that names its photo."""
    address = server.serve("/img/a.jpg", case.body(), **case.headers)
    for path, text in (("/robots.txt", case.robots), ("/ai.txt", case.ai)):
        if text:
            server.serve(path, text.encode())
    if case.tdm is not None:
        text = case.tdm if isinstance(case.tdm, str) else json.dumps(case.tdm)
        server.serve("/.well-known/tdmrep.json", text.encode(), Content_Type="application/json")
    page = server.serve("/page", case.page.encode(), Content_Type="text/html", **case.page_headers) if case.page else ""
    path = tmp_path / "list.csv"
    path.write_text(f"url,page_url\n{address},{page}\n")
    return path


def bring(root: Path, path: Path, level: str, kind: str = "urls", **settings: Any) -> list[Photo]:
    wanted = FetchSettings(**{"source": kind, "path": str(path), "web": WEB, "opt_outs": level} | settings)
    photoset = PhotoSet(root)
    with make_source(wanted, photoset) as origin:
        fetch(photoset, origin, wanted, Console(), workers=1, limit=0)
    return list(photoset.photos)


@pytest.mark.parametrize("name", CASES)
def test_what_a_host_says_decides_and_is_kept(name: str, server: Server, tmp_path: Path) -> None:
    case = CASES[name]
    path = set_up(server, case, tmp_path)
    (strict,) = bring(tmp_path / "strict", path, "strict")
    (stated,) = bring(tmp_path / "stated", path, "stated")
    (recorded,) = bring(tmp_path / "recorded", path, "recorded")
    clear = "" if case.reason == STRICT else case.reason
    assert strict.reason == ("opt_out_unclear" if case.reason == STRICT else case.reason)
    assert (stated.reason, recorded.status, recorded.reason) == (clear, "kept", "")
    for row in (strict, stated, recorded):
        assert (row.status == "kept") is (row.reason == "") and row.asked_at
        assert bool(row.file) is (row.status == "kept") is (tmp_path / row.file).is_file() or row.status == "kept"
    for level, row in (("strict", strict), ("stated", stated)):
        told = judge(recorded.signals, level)  # type: ignore[arg-type]
        assert (told.reason if told else "") == row.reason, "the evidence alone says the same"
        if told:
            assert row.signals[-1].where and row.signals[-1].said and row.signals[-1].at
    assert set(server.site_asked) == SITE_FILES and set(server.site_asked.values()) == {3}, "once a host and set"
    if case.reason.startswith("opt_out_robots_txt"):
        assert server.asked["/img/a.jpg"] == 1, "asked for where it is only recorded"


def test_a_refusal_is_not_asked_again_until_the_level_changes(server: Server, tmp_path: Path) -> None:
    path = set_up(server, CASES["TDM header 1"], tmp_path)
    for _ in range(2):
        (row,) = bring(tmp_path / "set", path, "strict")
    assert (row.status, row.reason, server.asked["/img/a.jpg"]) == ("rejected", "opt_out_tdmrep", 1)
    assert set(server.site_asked.values()) == {1}
    (row,) = bring(tmp_path / "set", path, "recorded")
    assert (row.status, row.reason, server.asked["/img/a.jpg"]) == ("kept", "", 2)
    (row,) = bring(tmp_path / "set", path, "stated")
    assert (row.status, row.reason, server.asked["/img/a.jpg"]) == ("rejected", "opt_out_tdmrep", 2)
    assert (tmp_path / "set" / row.file).is_file(), "nothing that was fetched is lost by a level"
    (row,) = bring(tmp_path / "set", path, "recorded")
    assert (row.status, server.asked["/img/a.jpg"]) == ("kept", 2), "it lies there: nothing is asked"


@pytest.mark.parametrize("listed", [True, False], ids=["listed again", "no longer listed"])
def test_a_photo_that_a_killed_run_left_is_judged_at_the_present_level(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    path = set_up(server, CASES["X-Robots-Tag noai"], tmp_path)
    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(fetching._KnownPhotos, "settle", lambda *_: exec("raise SystemError"))
        bring(tmp_path / "set", path, "recorded")
    if not listed:
        path.write_text(f"url,page_url\n{server.serve('/img/b.jpg', picture(1))},\n")
    rows = {row.file_url: (row.status, row.reason) for row in bring(tmp_path / "set", path, "strict")}
    assert rows[server.url("/img/a.jpg")] == ("rejected", "opt_out_robots_tag")
    assert server.asked["/img/a.jpg"] == 1 and len(rows) == 2 - listed


def test_bytes_that_came_under_two_names_are_taken_back_once(server: Server, tmp_path: Path) -> None:
    """One of the names is refused at `stated`, the other at `strict` alone."""
    clear = server.serve("/img/a.jpg", picture(), X_Robots_Tag="noai")
    unclear = server.serve("/img/b.jpg", picture(), tdm_reservation="maybe")
    path = tmp_path / "list.txt"
    path.write_text(f"{clear}\n{unclear}\n")
    for level in ("recorded", "stated", "strict", "recorded"):
        rows = bring(tmp_path / "set", path, level)
    assert sorted((row.status, row.reason) for row in rows) == [("kept", ""), ("rejected", "duplicate")]


def test_a_redirect_leads_to_a_host_that_is_heeded_too(server: Server, tmp_path: Path) -> None:
    with Server() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        away = other.serve("/b.jpg", picture())
        other.serve("/robots.txt", b"User-agent: *\nDisallow: /b")
        server.routes["/a.jpg"] = lambda request: request.reply(302, Location=away)
        path = tmp_path / "list.txt"
        path.write_text(server.url("/a.jpg"))
        (row,) = bring(tmp_path / "set", path, "stated")
        other.shutdown()
    assert row.reason == "opt_out_robots_txt" and other.url("/robots.txt") in row.detail
    assert other.asked["/b.jpg"] == 0 and server.asked["/a.jpg"] == 1


def test_a_folder_is_asked_for_what_its_files_say_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "free.jpg").write_bytes(picture(1))
    (folder / "not.jpg").write_bytes(picture(2, xmp=packet(PLUS + "PROHIBITED")))
    rows = {row.source_id: row for row in bring(tmp_path / "set", folder, "strict", "folder")}
    assert [(name, row.status, row.reason) for name, row in sorted(rows.items())] == [
        ("free.jpg", "kept", ""), ("not.jpg", "rejected", "opt_out_data_mining"),
    ]  # fmt: skip
    assert rows["not.jpg"].signals[0].where == "the file" and not (tmp_path / "set" / "photos" / "x").exists()
    assert len(list((tmp_path / "set" / "photos").rglob("*.jpg"))) == 1
    again = {row.source_id: row.status for row in bring(tmp_path / "set", folder, "recorded", "folder")}
    assert again == {"free.jpg": "kept", "not.jpg": "kept"}


@pytest.mark.parametrize("level", ["strict", "stated"])
def test_a_manifest_that_cannot_be_read_without_the_extra_says_so(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(signed(uses("cawg", ai_training="notAllowed")))
    (folder / "b.jpg").write_bytes(signed())
    monkeypatch.setattr("authface.curate.fetch.optouts.statements.installed", lambda module: False)
    monkeypatch.setattr("authface.extras.installed", lambda module: False)
    rows = {row.source_id: row for row in bring(tmp_path / "set", folder, level, "folder")}
    assert (rows["a.jpg"].status, rows["a.jpg"].reason) == ("failed", "opt_out_needs_c2pa")
    assert "pip install 'authface[c2pa]'" in rows["a.jpg"].detail and rows["b.jpg"].status == "kept"
    monkeypatch.undo()
    rows = {row.source_id: row for row in bring(tmp_path / "set", folder, level, "folder", retry="failed")}
    assert rows["a.jpg"].reason == "opt_out_c2pa" and len(rows) == 2


def test_the_evidence_is_told_by_why_and_credits(server: Server, tmp_path: Path) -> None:
    path = set_up(server, CASES["TDM header 0"], tmp_path)
    bring(tmp_path / "set", path, "strict")
    said = authface("why", tmp_path / "set", server.url("/img/a.jpg")).stdout
    assert f"allowed by tdm-reservation at {server.url('/img/a.jpg')}" in said
    file, _ = write_credits(PhotoSet(tmp_path / "set"), "csv", every=True)
    assert "allowed by tdm-reservation at" in file.read_text()
