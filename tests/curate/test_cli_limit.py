"""`--limit` tries the first rows; what was finished of the others stays."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from authface.cli import app
from authface.store.photoset import PhotoSet

SMALL = ("-O", "curate.fetch.part_rows=2", "-O", "curate.align.size=128", "-O", "curate.filter.min_size=64")
STEPS = (["curate", "filter"], ["curate", "align"], ["annotate", "tags", "--with", "measured"])


def command(root: Path, stage: str, name: str, *more: object) -> None:
    done = CliRunner().invoke(app, [stage, name, str(root), *map(str, more), *SMALL])
    assert done.exit_code == 0, done.output


def held(photoset: PhotoSet) -> dict[str, bytes]:
    """The parts of all tables by their paths."""
    top = photoset.root / "tables"
    return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*.parquet"))}


def test_a_limit_takes_nothing_of_a_finished_set_away(tmp_path: Path) -> None:
    photoset = PhotoSet(tmp_path / "set")
    command(photoset.root, "curate", "fetch", "--from", "samples")
    for stage, name, *more in STEPS:
        command(photoset.root, stage, name, *more)
    before = held(photoset)
    assert {f"measured/0000{part}.parquet" for part in range(3)} < set(before)
    command(photoset.root, "curate", "filter", "--limit", 3)
    for stage, name, *more in STEPS:
        command(photoset.root, stage, name, *more, "--limit", 1)
        assert held(photoset) == before, name
    second = [crop.id for crop in photoset.crops if crop.status == "kept"][1]
    photoset.save("review/anna.jsonl", f"{json.dumps({'id': second, 'verdict': 'reject'})}\n".encode())
    command(photoset.root, "annotate", "tags", "--with", "measured")
    before = held(photoset)
    command(photoset.root, "annotate", "tags", "--with", "measured", "--limit", 1)
    assert held(photoset) == before, "where people decided on crops beyond the limit"
    command(photoset.root, "curate", "split")
    embedded = len(list(photoset.embeddings))
    before = held(photoset)
    done = CliRunner().invoke(app, ["curate", "split", str(photoset.root), "--limit", "1", *SMALL])
    assert "would take their split from 1 faces" in str(done.exception) and held(photoset) == before
    assert len(list(photoset.embeddings)) == embedded == 2
