"""Cards for the hub: Markdown templates, and text from outside made fit for them."""

from __future__ import annotations

from typing import Any

import jinja2

from authface.errors import one_line


def render(template: str, /, **values: Any) -> str:
    """The Markdown of a template of `authface.report.templates`; its filter `cell` is for text from outside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("authface.report", "templates"),
        autoescape=False,  # Markdown, not HTML: `cell` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    return environment.get_template(template).render(**values)


def cell(value: object) -> str:
    """Text from outside as it may stand in a Markdown table: one line, no markup that could act."""
    text = one_line(value, 200)
    for sign in "\\|`*_[]<>#":
        text = text.replace(sign, "\\" + sign)
    return text
