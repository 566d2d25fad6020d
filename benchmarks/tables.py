"""Questions to the tables of a large photo set: this repository's code and SQL in DuckDB, each in its own process.

    pip install duckdb
    python benchmarks/tables.py [--rows 1000000] [--set FOLDER]

Makes a set of random rows where FOLDER holds none; prints CPU seconds, wall-clock seconds and peak memory, and whether
the answers agree. CPU seconds and peak MB on two busy cores, 1,000,000 rows in parts of 1,000, pyarrow 26, DuckDB 2.0:

    sample: 2.9 s, 191 MB; DuckDB 1.6 s, 259 MB        histograms: 3.4 s, 174 MB; DuckDB 1.8 s, 410 MB
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from authface.curate import sheet
from authface.curate.filter.measure import LIMITS
from authface.curate.sheet import sample
from authface.records import Face
from authface.report.pages import BINS
from authface.store.photoset import PartMeta, PhotoSet, Provenance, Table
from authface.store.rows import arrow_schema, row_reader

PART_ROWS, SAMPLE = 1000, 36
MEASURES = list(dict.fromkeys(limit.measure for limit in LIMITS))


def make(photoset: PhotoSet, rows: int) -> None:
    """Photos with one measured and one judged face each; a fifth is kept, the rest rejected for three reasons."""
    rng = np.random.default_rng(7)
    for part in range(-(-rows // PART_ROWS)):
        first, count = part * PART_ROWS, min(PART_ROWS, rows - part * PART_ROWS)
        ids = [rng.bytes(32).hex() for _ in range(count)]
        files = [f"photos/{name[:2]}/{name}.jpg" for name in ids]
        kept = np.arange(count) % 5 == 0
        photo = {"id": ids, "file": files, "source_id": [f"trip/{first + n}.jpg" for n in range(count)],
                 "page_url": [f"https://photos.example/{name[:12]}" for name in ids], "status": ["kept"] * count,
                 "width": rng.integers(200, 4000, count), "height": rng.integers(200, 4000, count)}  # fmt: skip
        face: dict[str, Any] = {name: rng.gamma(2.0, 20.0, count) for name in MEASURES}
        face |= {"id": [f"{name}-0" for name in ids], "photo_id": ids, "photo_file": files, "index": [0] * count,
                 "points5": list(rng.random((count, 10))), "status": ["kept"] * count}  # fmt: skip
        put(photoset.photos, part, photo)
        put(photoset.measured, part, face)
        reasons = np.where(kept, "", np.array(["blurred", "noisy", "too_dark"])[np.arange(count) % 3])
        put(photoset.faces, part, face | {"status": np.where(kept, "kept", "rejected"), "reason": reasons})


def put(table: Table[Any], part: int, given: dict[str, Any]) -> None:
    """Write one part with these columns, the others empty."""
    schema, columns = arrow_schema(table.row_type), []
    for field in schema:
        empty: object = "" if pa.types.is_string(field.type) else [] if pa.types.is_list(field.type) else None
        columns.append(pa.array(given.get(field.name, [empty] * len(given["id"])), field.type))
    meta = PartMeta(Provenance("made", 1, {"min_sharpness": 0.2}, {}), "", "", {})
    table.put(part, pa.Table.from_arrays(columns, schema=schema), meta)


def duck(sql: str, table: Table[Any], *values: Any) -> Any:
    """DuckDB's answer to SQL on PARTS: all parts of `table`, some of which may lack columns."""
    import duckdb

    parts = f"read_parquet('{table.folder}/*.parquet', union_by_name=true, filename=true, file_row_number=true)"
    return duckdb.connect().execute(sql.replace("PARTS", parts), values)


def duck_sample(photoset: PhotoSet) -> Any:
    sql = """SELECT name, count(*), min((rank, filename, row), ?) FROM (
        SELECT if(reason = '', status, status || ': ' || reason) AS name, filename, file_row_number AS row,
        if(length(id) >= 64 AND regexp_matches(id, '^[0-9a-f]{15}'), id[:15], sha256(id)[:15]) AS rank FROM PARTS
        ) GROUP BY name"""
    read, table, found = row_reader(Face), photoset.faces, duck(sql, photoset.faces, SAMPLE).fetchall()
    rows = {name: [table.arrow(int(Path(file).stem)).take([row]) for _, file, row in picks] for name, _, picks in found}
    records = {name: [read(some.to_pylist()[0]) for some in chosen] for name, chosen in rows.items()}
    return {name: count for name, count, _ in found}, records


def duck_histograms(photoset: PhotoSet) -> Any:
    table, bars = photoset.faces, []
    settings = sheet._settings(photoset, "faces", table)
    some = [str(table._path(part)) for part in table.parts()[:: max(1, -(-len(table.parts()) // 32))]]
    spread = duck(f"SELECT {', '.join(MEASURES)} FROM PARTS WHERE filename IN {tuple(some)}", table).fetchnumpy()
    for measure in MEASURES:
        limits = [value for _, value in sheet._limits(measure, settings)]
        low, high = sheet._span(np.ma.compressed(spread[measure]), limits)
        place = f"greatest(least(floor(({measure} - {low}) * ({BINS} / ({high} - {low}))), {BINS - 1}), 0)"
        bars += [f"histogram({place}) FILTER (status {sign} 'kept')" for sign in ("=", "<>")]
    row = duck(f"SELECT {', '.join(bars)} FROM PARTS", table).fetchone()
    counts = [[(bar or {}).get(at, 0) for at in range(BINS)] for bar in row]
    return {measure: (counts[2 * n], counts[2 * n + 1]) for n, measure in enumerate(MEASURES)}


def ask(photoset: PhotoSet, question: str, engine: str) -> Any:
    if engine == "DuckDB":
        return duck_sample(photoset) if question == "sample" else duck_histograms(photoset)
    if question == "sample":
        return (found := sample(photoset.faces, SAMPLE)).counts, found.rows
    charts = sheet._of_table(photoset, "faces", photoset.faces)
    return {chart.name.replace(" ", "_"): (chart.kept, chart.rejected) for chart in charts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--set", type=Path, default=Path(tempfile.gettempdir()) / "authface-tables")
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    photoset = PhotoSet(options.set)
    if options.ask:
        start, before = time.perf_counter(), time.process_time()
        answer = ask(photoset, *options.ask)
        cpu, wall = time.process_time() - before, time.perf_counter() - start
        text = json.dumps(answer, sort_keys=True, default=repr)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        return print(json.dumps([cpu, wall, peak, hashlib.sha256(text.encode()).hexdigest()]))
    if not photoset.faces.parts():
        make(photoset, options.rows)
    for question in ("sample", "histograms"):
        for engine in ("ours", "DuckDB"):
            command = [sys.executable, __file__, "--set", str(options.set), "--ask", question, engine]
            cpu, wall, peak, answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(f"{question:<10} {engine:<6} CPU {cpu:5.2f} s, {wall:6.2f} s, {peak:4.0f} MB, answer {answer[:8]}")


if __name__ == "__main__":
    main()
