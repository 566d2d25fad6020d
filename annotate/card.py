"""The dataset's card: what is in it, how it was made, whose work it is, and what it must not be used for."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from authface import __version__
from authface.annotate.rows import Sample
from authface.annotate.settings import ExportSettings
from authface.annotate.vocabulary import VOCABULARY
from authface.errors import one_line
from authface.photoset import PhotoSet

_MOST_NAMES = 200
"""Photographers named in the card; every row names its own."""
_PRIVATE = {"path"}
"""Settings that say where things lie on one machine."""


@dataclass
class Composition:
    """What the dataset holds, counted while it is written."""

    faces: int = 0
    photos: set[str] = field(default_factory=set)
    licences: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Faces by (licence, terms)."""
    photographers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Faces by (photographer, source)."""
    sizes: Counter[int] = field(default_factory=Counter)
    tags: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Faces by (group, tag)."""
    annotators: Counter[str] = field(default_factory=Counter)
    upscaled: int = 0

    def add(self, sample: Sample) -> None:
        """Count one row."""
        photo, crop = sample.photo, sample.crop
        self.faces += 1
        self.photos.add(photo.id)
        self.licences[photo.licence or "unknown", photo.terms] += 1
        self.photographers[photo.photographer or "unknown", photo.source] += 1
        self.sizes[crop.size] += 1
        self.tags.update((tag.group, tag.name) for tag in sample.tags)
        self.annotators[sample.annotator] += 1
        self.upscaled += crop.upscaled


def card(photoset: PhotoSet, settings: ExportSettings, composition: Composition) -> str:
    """README.md of the dataset, with the hub's YAML on top."""
    parts = [
        _front_matter(composition),
        "# Aligned faces with photographic tags\n\n"
        f"{composition.faces:,} face crops from {len(composition.photos):,} photos, made with authface {__version__}. "
        "Each row holds the crop (`image`, lossless), its prompt and tags, dlib's 68 landmarks and the squares of "
        "eyes and mouth (`roi`: cx, cy, half side) in pixels of the crop, the quality that was measured, and the "
        "photographer, licence and page of the photo. Left and right are those of the picture.",
        '```python\nimport datasets\n\nfaces = datasets.load_dataset("path/to/dataset", split="train")\n'
        'faces[0]["image"], faces[0]["prompt"]\n```',
        _composition(composition),
        _process(photoset, settings),
        _licences(composition),
        _LIMITS,
        _credits(composition),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(composition: Composition) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    size = next((name for bound, name in bounds if composition.faces < bound), "1M<n<10M")
    return f"""---
pretty_name: Aligned faces with photographic tags
license: other
license_name: mixed-see-column-licence
task_categories:
- text-to-image
- image-to-image
tags:
- faces
- face-restoration
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---"""


def _composition(composition: Composition) -> str:
    sizes = ", ".join(f"{count:,} of {size} px" for size, count in sorted(composition.sizes.items()))
    order = {group: index for index, group in enumerate(VOCABULARY)}
    tags = sorted(composition.tags.items(), key=lambda item: (order.get(item[0][0], 99), -item[1], item[0][1]))
    rows = [(group, tag, f"{count:,}", f"{count / composition.faces:.1%}") for (group, tag), count in tags]
    by = ", ".join(f"{one_line(name)} ({count:,})" for name, count in composition.annotators.most_common())
    return (
        f"## Composition\n\nCrops: {sizes}; {composition.upscaled:,} were enlarged from smaller faces "
        f"(`quality.upscaled`). Tags by {by}:\n\n" + _table(("group", "tag", "faces", "share"), rows)
    )


def _process(photoset: PhotoSet, settings: ExportSettings) -> str:
    import tomli_w

    outcomes = [
        (step, name.replace("_", " "), f"{count:,}")
        for step, table in (("fetch", photoset.photos), ("filter", photoset.faces), ("align", photoset.crops))
        for name, count in table.counts().most_common()
    ]
    try:
        asked = tomllib.loads((photoset.root / "recipe.toml").read_text("utf-8"))
    except (OSError, ValueError):
        asked = {}
    shown: dict[str, Any] = {name: _public(asked[name]) for name in ("curate", "annotate") if name in asked}
    return (
        "## Process\n\nPhotos were fetched with their licence; RetinaFace found the faces; each was measured on its "
        "own pixels and kept or refused; dlib's 68 points, confirmed by RetinaFace's five, placed it in FFHQ's "
        "square. Tags come from a closed vocabulary; those of the annotator `measured` are computed from pixels and "
        f"landmarks, without a model. Tags less sure than {settings.least_confidence:g} were left out.\n\n"
        + _table(("step", "outcome", "rows"), outcomes)
        + f"\n\nSettings:\n\n```toml\n{tomli_w.dumps(shown).strip()}\n```"
    )


def _licences(composition: Composition) -> str:
    rows = [(licence, terms or "-", f"{count:,}") for (licence, terms), count in composition.licences.most_common()]
    return (
        "## Licences\n\nThe photos keep the licences of their makers: the columns `licence`, `terms` and `page_url` "
        "hold for each row, and this card grants nothing beyond them. Where a licence forbids handing photos on, "
        "neither may this dataset be.\n\n" + _table(("licence", "terms", "faces"), rows)
    )


_LIMITS = """## Limits

Faces are biometric data. A photo's licence is its maker's; whether the person shown agreed to this use is not known \
from it. Do not use this dataset to recognise, identify, track or judge people, and remove a photo when its maker or \
the person shown asks. Detectors, landmarks and quality measures favour well-lit frontal faces, so what they kept \
is no fair sample of people. dlib's landmark model was trained on data that excludes commercial use. Measured tags \
are thresholds on physical quantities: a tag that is missing says nothing, and left and right, light and colour \
are the picture's, not the person's."""


def _credits(composition: Composition) -> str:
    named = composition.photographers.most_common(_MOST_NAMES)
    rows = [(name, source, f"{count:,}") for (name, source), count in named]
    more = len(composition.photographers) - len(named)
    rest = f"\n\n{more:,} more are named in the column `photographer`." if more else ""
    return "## Credits\n\n" + _table(("photographer", "source", "faces"), rows) + rest


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items() if key not in _PRIVATE}
    return value


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """`text` as one cell of a Markdown table: nothing in it is markup."""
    plain = one_line(text, 200).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|[]*_`" else c for c in plain)
