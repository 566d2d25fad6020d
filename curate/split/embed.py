"""The first step of `curate split`: every kept crop through an identity network, in the table `embeddings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from authface.curate.settings import SplitSettings
from authface.errors import ImageError
from authface.faces.geometry import crop_points
from authface.faces.identity import Embedder, SeenFace, make_embedder, weights_sha256
from authface.imaging import decode as images
from authface.records import Crop, Embedding
from authface.store.photoset import PhotoSet, Provenance

VERSION = 1


def embedder_provenance(step: str, version: int, settings: SplitSettings) -> Provenance:
    """How a step makes embeddings: the network by name and weights, wherever its file lies."""
    weights: dict[str, str] = {settings.embedder: weights_sha256(settings.embedder, settings.arcface)}
    return Provenance(step, version, {"embedder": settings.embedder}, weights)


@dataclass
class Embed:
    """The step over a photo set's table `crops`. A batch of dlib's costs as much a face as one alone."""

    root: Path
    settings: SplitSettings
    batch_size: int = 8
    _embedder: Embedder | None = field(default=None)

    @property
    def provenance(self) -> Provenance:
        """The network and its weights."""
        return embedder_provenance("embed", VERSION, self.settings)

    def open(self) -> None:
        """Load the network."""
        self._embedder = make_embedder(self.settings.embedder, self.settings.arcface)

    def load(self, crop: Crop) -> SeenFace:
        """The crop and its landmarks in it. Raises ImageError."""
        if crop.landmarks is None or crop.quad is None:
            raise ImageError("landmarks", "the crop has no landmarks: run authface curate align again")
        rgb = images.decode(PhotoSet(self.root).read(crop.file)).rgb
        return SeenFace(rgb, crop_points(crop.landmarks, crop.quad, crop.size))

    def step(self, batch: Sequence[SeenFace]) -> Sequence[NDArray[np.float32]]:
        """The embeddings."""
        assert self._embedder is not None
        return list(self._embedder.embed(batch))

    def save(self, crop: Crop, vector: NDArray[np.float32]) -> list[Embedding]:
        """The row."""
        return [Embedding(id=crop.id, photo_id=crop.photo_id, embedding=tuple(vector.tolist()))]

    def failed(self, crop: Crop, reason: str, detail: str) -> list[Embedding]:
        """The row of a crop that could not be read."""
        return [Embedding(id=crop.id, photo_id=crop.photo_id, status="failed", reason=reason, detail=detail)]
