"""The dataset card: what the export holds, how it was made, under which licences, and what to mind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from authface import __version__
from authface.annotate.settings import ExportSettings
from authface.errors import one_line
from authface.photoset import PhotoSet, Table

if TYPE_CHECKING:
    from authface.annotate.export import Counts


def card(photoset: PhotoSet, annotators: list[str], settings: ExportSettings, counts: Counts, key: str) -> str:
    """The text of README.md, with the hub's metadata on top; `key` is in the shards' names."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("authface", "templates"),
        autoescape=False,  # Markdown, not HTML: `cell` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("dataset_card.md.jinja").render(
        name=one_line(photoset.root.resolve().name),
        version=__version__,
        size=next(iter(photoset.crops)).size,
        size_category=_size_category(counts.rows),
        counts=counts,
        key=key,
        annotators=annotators,
        settings=settings,
        composition=[
            ("faces", counts.rows),
            *((f"from {_cell(name)}", count) for name, count in counts.sources.most_common()),
            *([("retouched by hand", counts.retouched)] if counts.retouched else []),
            ("enlarged: less detail in the photo than pixels in the crop", counts.upscaled),
        ],
        process=[
            _process("photos fetched", photoset.photos),
            _process("faces filtered", photoset.faces),
            _process("faces aligned", photoset.crops),
            *(_process(f"crops tagged, {name}", photoset.tags(name)) for name in annotators),
        ],
    )


def _process(step: str, table: Table[Any]) -> tuple[str, str, list[tuple[str, Any]]]:
    """A step's name, its outcomes in words, its settings."""
    counts: Counter[str] = table.counts()
    metas = [meta for part in table.parts() if (meta := table.meta(part))]
    settings = metas[0].provenance.settings if metas else {}
    outcomes = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
    return step, outcomes, sorted(settings.items())


def _size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    steps = [(1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in steps if rows < limit), "n>1M")


def _cell(value: object) -> str:
    """Text from outside as it may stand in a Markdown table: one line, no markup that could act."""
    text = one_line(value, 200)
    for sign in "\\|`*_[]<>#":
        text = text.replace(sign, "\\" + sign)
    return text
