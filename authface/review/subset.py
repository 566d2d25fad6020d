"""The subset that `curate balance` chose, as later stages use it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from authface.engine.runner import PartInput
from authface.errors import AuthfaceError, one_line
from authface.records import Choice, Crop
from authface.store.photoset import PhotoSet, Table, digest


def choice_table(photoset: PhotoSet) -> Table[Choice]:
    """The table `balance`."""
    return Table(photoset.root / "tables" / "balance", Choice)


def balanced(photoset: PhotoSet, parts: Sequence[PartInput[Crop]]) -> list[PartInput[Crop]]:
    """The crops after balancing: those that are too many of their kind have status `rejected`.

    `parts` are the crops as people left them (`reviews.reviewed_crops`), of which the choice was made. Where
    no choice was made they come back as they are. Raises AuthfaceError where crops changed since the choice.
    """
    table = choice_table(photoset)
    numbers = table.parts()
    if not numbers:
        return list(parts)
    for part in parts:
        meta = table.meta(part.number)
        if meta is None or meta.inputs != part.digest:
            here = one_line(photoset.root)
            raise AuthfaceError(
                f"the balance of {here} is stale: its crops changed since it was chosen: "
                f"run authface curate balance {here} again, or with --clear to take all"
            )
    return [_chosen(table, part) for part in parts]


def _chosen(table: Table[Choice], part: PartInput[Crop]) -> PartInput[Crop]:
    out = {choice.id: choice for choice in table.rows(part.number) if choice.status == "rejected"}
    if not out:
        return part
    both = hashlib.sha256(f"{part.digest}\n{digest(list(out.values()))}".encode()).hexdigest()
    return PartInput(part.number, part.count, both, lambda: [_left(crop, out) for crop in part.rows()])


def _left(crop: Crop, out: Mapping[str, Choice]) -> Crop:
    choice = out.get(crop.id)
    if choice is None or crop.status != "kept":
        return crop
    return replace(crop, status="rejected", reason=choice.reason, value=choice.value, limit=choice.limit)
