"""What docs/builtin.md reports beside `authface evaluate`: the classical baseline and the sheet of triples.

python benchmarks/builtin.py sharpen sets/medium/degraded out/sharpened
python benchmarks/builtin.py sheet sets/medium out/default sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

TRIPLES = 24


def sharpen(source: Path, out: Path) -> None:
    """The classical baseline: the degraded faces, bicubic to 256 px where they are smaller, and an unsharp mask."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.png")):
        image = cv2.imread(str(path))
        image = cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC) if len(image) < 256 else image
        soft = cv2.GaussianBlur(image, (0, 0), 2).astype(np.float32)
        sharp = np.clip(np.rint(image + 0.8 * (image - soft)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(out / path.name), sharp)


def sheet(pairs: Path, restored: Path, out: Path) -> None:
    """Degraded, restored, clean of every so many-th face, three triples a row: chosen by place alone."""
    names = [path.name for path in sorted((pairs / "clean").glob("*.png"))]
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, TRIPLES).astype(int)]
    triples = [
        np.hstack([cv2.imread(str(folder / name)) for folder in (pairs / "degraded", restored, pairs / "clean")])
        for name in chosen
    ]
    gap = np.full((triples[0].shape[0], 16, 3), 255, np.uint8)
    rows = [np.hstack([triples[i], gap, triples[i + 1], gap, triples[i + 2]]) for i in range(0, TRIPLES, 3)]
    cv2.imwrite(str(out), np.vstack(rows))


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sharpen", "sheet"))
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args()
    {"sharpen": sharpen, "sheet": sheet}[given.what](*given.paths)


if __name__ == "__main__":
    main()
