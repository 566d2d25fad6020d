"""What `evaluate prior` found, as text, prior.json, CSV, a sheet of samples and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from authface.evaluate.prior.figures import sample_rgb
from authface.evaluate.prior.run import NOTES, PriorReport, TagShare
from authface.evaluate.report import number
from authface.files import write_file
from authface.imaging.decode import encode_png
from authface.report.pages import Cell, ReportTable, Section, quantity, story
from authface.report.text import render_table, write_csv, write_json

NAME = "prior"
COLUMNS, ROWS = 8, 4
"""Of the sheet; each prompt of the opposites has a row of the page."""
SIDE = 256
"""Of a sample in a sheet, at most, pixels."""


def figures_table(report: PriorReport) -> ReportTable:
    """A row a figure; what is not measured stands below with its reason."""
    rows = []
    for name in NOTES:
        found = report.values.get(name)
        if found is not None:
            digits = 2 if name.startswith("fid") else 4
            ends = "" if found.low is None else f"[{number(found.low, digits)}, {number(found.high, digits)}]"
            rows.append([name, number(found.value, digits), ends, quantity(found.count), NOTES[name]])
    return ReportTable(["", "value", "95 %", "of", ""], rows)


def steering_table(report: PriorReport) -> ReportTable:
    """A row a tag: how often it is found where it was asked for, and where its opposite was."""
    rows = [
        [
            found.tag,
            _share(found.where_asked),
            found.against,
            _share(found.where_not),
            f"{100 * found.difference:+.0f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]",
        ]
        for found in report.steering
    ]
    return ReportTable(["tag", "asked for, found %", "opposite", "its opposite asked for, found %", "difference"], rows)


def _share(share: TagShare) -> str:
    return f"{100 * share.share:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}] of {share.of}"


def as_text(report: PriorReport) -> str:
    """For a terminal."""
    tables = [table for table in (figures_table(report), steering_table(report)) if table.rows]
    said = f"{report.protocol['model']}: {len(report.samples)} samples, {report.drawn} drawn now"
    return "\n\n".join([said, *(render_table(table.header, table.rows) for table in tables)])


def sheet(paths: Sequence[Path], columns: int) -> NDArray[np.uint8]:
    """(rows x side, columns x side, 3): samples side by side, no larger than `SIDE`; empty places are white."""
    first = sample_rgb(paths[0])
    side = min(len(first), SIDE)
    rows = -(-len(paths) // columns)
    made = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for place, path in enumerate(paths):
        y, x = side * (place // columns), side * (place % columns)
        made[y : y + side, x : x + side] = cv2.resize(sample_rgb(path), (side, side), interpolation=cv2.INTER_AREA)
    return made


def write(report: PriorReport, folder: Path) -> Path:
    """prior.json, prior.csv, samples.csv, sheet.png and prior.html, whose path is returned.

    Raises AuthfaceError where the disk refuses or a sample was damaged.
    """
    write_json(folder / f"{NAME}.json", report.as_json())
    write_csv(folder / f"{NAME}.csv", _figure_rows(report))
    write_csv(folder / "samples.csv", _sample_rows(report, folder))
    picture = sheet(report.samples[: COLUMNS * ROWS], COLUMNS)
    write_file(folder / "sheet.png", encode_png(picture))
    path = folder / f"{NAME}.html"
    summary = [
        ("model", str(report.protocol["model"])),
        ("samples", quantity(len(report.samples))),
        ("prompts", str(report.protocol["settings"]["prompts"])),
        ("figures", quantity(len(report.values))),
    ]
    story(path, "Samples of a face prior, judged", list(_sections(report, picture)), summary)
    return path


def _sections(report: PriorReport, picture: NDArray[np.uint8]) -> Iterator[Section]:
    yield Section("Figures", "", table=figures_table(report))
    if report.unmeasured:
        missing = [[name, why.partition(" is not measured: ")[2] or why] for name, why in report.unmeasured.items()]
        yield Section("Not measured", "", table=ReportTable(["", "why"], missing))
    shown = min(len(report.samples), COLUMNS * ROWS)
    yield Section("Samples", f"The first {shown}, in the order of the dataset's rows.", [Cell(picture, "samples")])
    if report.steering:
        rows = [Cell(sheet(paths[:COLUMNS], COLUMNS), prompt) for prompt, paths in report.opposites.items()]
        text = (
            "What the measured annotator finds in samples of two prompts that exclude each other, begun with the same "
            "noise. 0 is a prior that does not listen. Shares have Wilson's intervals, differences Newcombe's."
        )
        yield Section("Does it do what it is asked?", text, table=steering_table(report))
        yield Section("Opposites", "A row a prompt; a column is one noise.", rows)
    protocol = [[name, json.dumps(value, ensure_ascii=False)] for name, value in report.protocol.items()]
    yield Section("Protocol", "", table=ReportTable(["", ""], protocol))


def _figure_rows(report: PriorReport) -> Iterator[list[object]]:
    yield ["figure", "tag", "against", "value", "low", "high", "count"]
    for name, found in report.values.items():
        yield [name, "", "", found.value, found.low, found.high, found.count]
    for one in report.steering:
        for name, share in (("where asked", one.where_asked), ("where not", one.where_not)):
            yield [name, one.tag, one.against, share.share, share.low, share.high, share.of]
        yield ["difference", one.tag, one.against, one.difference, one.low, one.high, one.where_asked.of]


def _sample_rows(report: PriorReport, folder: Path) -> Iterator[list[object]]:
    yield ["file", "prompt", "seed", "judged_by", "hpsv2"]
    scores: Sequence[float | None] = report.preferences or [None] * len(report.samples)
    for path, one, score in zip(report.samples, report.requests, scores, strict=True):
        yield [path.relative_to(folder).as_posix(), one.prompt, one.seed, one.judged_by, score]
