"""What a set shares with folders it must not overlap with: the same files, near duplicates, the same people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from authface import images, report
from authface.curate.duplicates import NearIndex, hash_codes
from authface.curate.groups import Faces
from authface.curate.identities import make_index
from authface.errors import ImageError, one_line
from authface.photoset import PhotoSet
from authface.records import Box, Rival

Kind = Literal["same_file", "near_duplicate", "same_person"]
WORDS: Mapping[Kind, str] = {
    "same_file": "the same file",
    "near_duplicate": "nearly the same picture",
    "same_person": "the same person",
}
"""Kinds of leak, the gravest first."""
SHOWN = 200
"""Pairs on the page: one a person of ours, the gravest and likeliest first."""
PICTURE = 320
"""Longer side of the pictures on the page, pixels."""
_MARGIN = 0.35
"""Room around a face's box on the page, of its size."""
_BATCH = 4096


@dataclass(frozen=True)
class Leak:
    """A face of ours and what it shares with a folder: the gravest kind, the nearest of theirs."""

    face: str
    kind: Kind
    value: float
    """Bits in which near duplicates differ, or the dot product of two embeddings; 0 for the same file."""
    limit: float
    folder: str
    file: str
    """Below the folder, printable."""
    rival: str
    """Id of their face."""
    box: Box | None


def find_leaks(ours: Faces, theirs: Sequence[tuple[str, Rival]], *, radius: int, same_person: float) -> dict[str, Leak]:
    """Leaks by the id of our face. `theirs` are rows with the name of their folder, faceless photos too."""
    found: dict[str, Leak] = {}
    for leaks in (_people(ours, theirs, same_person), _duplicates(ours, theirs, radius), _files(ours, theirs)):
        found.update((leak.face, leak) for leak in leaks)  # the graver kind comes later and wins
    return found


def _files(ours: Faces, theirs: Sequence[tuple[str, Rival]]) -> Iterator[Leak]:
    first: dict[str, tuple[str, Rival]] = {}
    for folder, rival in theirs:
        first.setdefault(rival.id[:64], (folder, rival))
    for face, photo in zip(ours.ids, ours.photos, strict=True):
        if photo in first:
            yield _leak(face, "same_file", 0, 0, *first[photo])


def _duplicates(ours: Faces, theirs: Sequence[tuple[str, Rival]], radius: int) -> Iterator[Leak]:
    rivals = [pair for pair in theirs if pair[1].hash]
    index = NearIndex(radius)
    index.add(hash_codes([rival.hash for _, rival in rivals]))
    hashed = [number for number, text in enumerate(ours.hashes) if text]
    for start in range(0, len(hashed), _BATCH):
        batch = hashed[start : start + _BATCH]
        for number, near in zip(batch, index.search(hash_codes([ours.hashes[n] for n in batch])), strict=True):
            if near:
                distance, rival = min(near)
                yield _leak(ours.ids[number], "near_duplicate", distance, radius, *rivals[rival])


def _people(ours: Faces, theirs: Sequence[tuple[str, Rival]], least: float) -> Iterator[Leak]:
    import numpy as np

    rivals = [pair for pair in theirs if pair[1].embedding is not None]
    if not rivals or not len(ours.vectors):
        return
    index = make_index(np.array([rival.embedding for _, rival in rivals], np.float32))
    for start in range(0, len(ours.vectors), _BATCH):
        likeness, nearest = index.search(ours.vectors[start : start + _BATCH], 1)
        for row in np.flatnonzero(likeness[:, 0] >= least).tolist():
            rival = rivals[int(nearest[row, 0])]
            yield _leak(ours.ids[start + row], "same_person", float(likeness[row, 0]), least, *rival)


def _leak(face: str, kind: Kind, value: float, limit: float, folder: str, rival: Rival) -> Leak:
    return Leak(face, kind, value, limit, folder, rival.file, rival.id, rival.box)


def write_page(
    photoset: PhotoSet, leaks: Mapping[str, Leak], identity: Mapping[str, str], paths: Mapping[str, str]
) -> Path:
    """Write ``reports/leaks.html``: counts, and pairs side by side, one a person of ours; returns its path.

    `identity` names the person of each of our faces, `paths` are their files by sha256.
    """
    path = photoset.root / "reports" / "leaks.html"
    gravest = sorted(leaks.values(), key=_gravity)
    people: dict[str, Leak] = {}
    for leak in gravest:
        people.setdefault(identity.get(leak.face) or leak.face, leak)
    chosen = list(people.values())[:SHOWN]
    counts = Counter(leak.kind for leak in gravest)
    summary = [(f"faces of the set: {WORDS[kind]}", f"{counts[kind]:,}") for kind in WORDS]
    summary += [("people of the set concerned", f"{len(people):,}"), ("shown, one a person", f"{len(chosen):,}")]
    summary += [(f"in {name}", f"{n:,} faces of the set") for name, n in Counter(k.folder for k in gravest).items()]
    pairs = (pair for leak in chosen if (pair := _pair(photoset, leak, paths)))
    report.before_after(path, "What the set shares with other folders", pairs, summary)
    return path


def _gravity(leak: Leak) -> tuple[int, float, str]:
    nearness = -leak.value if leak.kind == "same_person" else leak.value
    return (list(WORDS).index(leak.kind), nearness, leak.face)


def _pair(photoset: PhotoSet, leak: Leak, paths: Mapping[str, str]) -> report.Comparison | None:
    """Our crop and their face; None where either cannot be read."""
    try:
        ours = images.preview(photoset.root / photoset.crop_file(leak.face), PICTURE)
        theirs = images.preview(Path(paths[leak.rival[:64]]), PICTURE, _around(leak.box))
    except ImageError:
        return None
    said = {"same_file": "", "near_duplicate": f"{leak.value:.0f} bits apart, limit {leak.limit:.0f}"}
    said["same_person"] = f"likeness {leak.value:.3f}, limit {leak.limit:.3f}"
    notes = [("ours", leak.face[:10] + leak.face[64:]), (f"in {leak.folder}", one_line(leak.file, 80))]
    return report.Comparison(f"{WORDS[leak.kind]} {said[leak.kind]}".strip(), ours, theirs, notes)


def _around(box: Box | None) -> Box | None:
    if box is None:
        return None
    margin = _MARGIN * max(box[2] - box[0], box[3] - box[1])
    return (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
