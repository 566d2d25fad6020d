"""Faces from a Hugging Face dataset folder, in an order that a step number alone determines."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from authface.errors import AuthfaceError, ImageError, UsageError, one_line
from authface.imaging.decode import decode
from authface.train.distributed import barrier, shard
from authface.train.rows import NoRowsError, open_rows


@dataclass(frozen=True)
class Draw:
    """One face of one batch: its row, the pass over the dataset it belongs to, and whether it is mirrored."""

    index: int
    epoch: int
    flip: bool


@dataclass(frozen=True)
class Batch:
    """Tensors of n faces with their ids; what the tensors are, each objective's own batch says."""

    ids: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


B = TypeVar("B", bound=Batch)

REGIONS = ("left_eye", "right_eye", "mouth")
"""What the facial loss looks at, in the order of boxes: the picture's left and right."""

_MIRRORED = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}


def mirrored(prompt: str) -> str:
    """The prompt of the mirrored picture: left and right change places, as words of their own, however they begin."""
    return re.sub(rf"\b({'|'.join(_MIRRORED)})\b", lambda found: _MIRRORED[found.group()], prompt)


class FaceDataset:
    """The rows of a dataset folder as square RGB images.

    `split` is one of the dataset's. Raises UsageError where `folder` holds no such dataset; a row that cannot be
    decoded raises AuthfaceError with its id when it is read.
    """

    def __init__(self, folder: Path, size: int, limit: int = 0, split: str = "train") -> None:
        self.folder = folder
        self.size = size
        self._rows = open_rows(folder, split)
        self._count = min(limit, len(self._rows)) if limit else len(self._rows)

    def __len__(self) -> int:
        return self._count

    def id(self, index: int) -> str:
        """The id of a row; its number where the dataset has no such column."""
        return str(self._rows.column("id")[index].as_py() if "id" in self._rows.names else index)

    def prepare(self, device: torch.device) -> None:
        """Read shards through that no run has read, each process its share; all processes of the launch call it."""
        for one in shard(self._rows.unindexed()):
            one.index()
        barrier(device)
        for one in self._rows.unindexed():  # written on another machine's disk
            one.index()

    @functools.cached_property
    def content(self) -> str:
        """Digest in hex of what is trained on: ids, prompts and length of every image. A folder that moved keeps it."""
        names = [name for name in ("id", "prompt", "prompt_semantic") if name in self._rows.names]
        columns, lengths = [self._rows.column(name) for name in names], self._rows.lengths(self._count)
        digest = hashlib.sha256()
        for start in range(0, self._count, 1000):
            part = lengths[start : start + 1000]
            told = [column.slice(start, len(part)).to_pylist() for column in columns]
            digest.update(json.dumps([*told, part]).encode())
        return digest.hexdigest()

    def photo_ids(self) -> list[str]:
        """The id of every row's photo; the rows' own ids where the dataset names no photos."""
        for name in ("photo_id", "id"):
            if name in self._rows.names:
                return [str(found) for found in self._values(name)]
        return []

    def value_counts(self, column: str) -> Counter[str]:
        """How often each value of a column of texts is there; empty where the dataset has no such column."""
        if column not in self._rows.names:
            return Counter()
        return Counter(str(found or "") for found in self._values(column))

    def prompts(self, column: str = "prompt") -> tuple[str, ...]:
        """What every row shows, by `prompt` or `prompt_semantic`; empty where the dataset has no prompts at all.

        Raises UsageError where it has others, but not these.
        """
        if column not in self._rows.names:
            if column != "prompt":
                raise UsageError(
                    f"{one_line(self.folder)} has no column {column}: export it anew with authface annotate export"
                )
            return ("",) * self._count
        return tuple(prompt or "" for prompt in self._values(column))

    @functools.cached_property
    def regions(self) -> NDArray[np.float32]:
        """(n, 3, 3): of every row the left eye, right eye and mouth of the picture as centre x, centre y, half side.

        In pixels of the square of `size`, where the first pixel's middle is at 0.5, 0.5. From the dataset's column
        `roi`, never found anew. Raises UsageError where that is missing.
        """
        if missing := [name for name in ("roi", "size") if name not in self._rows.names]:
            raise UsageError(
                f"{one_line(self.folder)} has no column {' and no column '.join(missing)}, which tell where eyes and"
                " mouth are: export it with authface annotate export, or train without,"
                " -O train.controlnet.facial.weight=off or -O train.cleaner.face_parts=1"
            )
        rois = [None if roi is None else [roi[name] for name in REGIONS] for roi in self._values("roi")]
        boxes = self._numbers("roi", rois, (3, 3))
        boxes[..., :2] += 0.5
        boxes *= (self.size / self._numbers("size", self._values("size"), ()))[:, None, None]
        return boxes.astype(np.float32)

    @functools.cached_property
    def sides(self) -> NDArray[np.float32]:
        """(n,): how many pixels of its photo the side of each row's square covers, at most `size`.

        A face whose crop was enlarged has fewer than its image. `size` where the dataset does not say.
        """
        if "quad" not in self._rows.names:
            return np.full(self._count, self.size, np.float32)
        whole = [[0, 0], [0, self.size], [self.size, self.size], [self.size, 0]]
        quads = self._numbers("quad", [quad or whole for quad in self._values("quad")], (4, 2))
        sides: NDArray[np.float32] = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1).astype(np.float32)
        return np.minimum(sides, np.float32(self.size))

    def landmarks(self, index: int) -> NDArray[np.float64] | None:
        """(68, 2) points of a row in pixels of the square of `size`; None where the dataset has none of it."""
        if not {"landmarks", "size"} <= set(self._rows.names):
            return None
        found, size = (self._rows.column(name)[index].as_py() for name in ("landmarks", "size"))
        if found is None:
            return None
        (points,), (side,) = (
            self._numbers("landmarks", [found], (68, 2), index),
            self._numbers("size", [size], (), index),
        )
        return np.asarray(points * (self.size / side))

    def boxes(self, index: int, flip: bool) -> NDArray[np.float32]:
        """(3, 3): a row's `regions`; mirrored, the eyes change places."""
        boxes: NDArray[np.float32] = self.regions[index].copy()
        if flip:
            boxes[:, 0] = self.size - boxes[:, 0]
            boxes = boxes[[1, 0, 2]]
        return boxes

    def _numbers(
        self, column: str, values: Sequence[Any], shape: tuple[int, ...], first: int = 0
    ) -> NDArray[np.float64]:
        """(n, *shape) the values of a column from row `first` on; of () they are above 0.

        Raises UsageError that names the row of another: torchvision's ROI-align reads beyond its memory where a box is
        not finite.
        """
        numbers = _array(values, (len(values), *shape))
        if _are_fine(numbers, shape):
            return numbers
        rows = [_array(value, shape) for value in values]
        for index, row in enumerate(rows):
            if not _are_fine(row, shape):
                wanted = f"{' x '.join(map(str, shape))} finite numbers" if shape else "a number above 0"
                raise UsageError(
                    f"{one_line(self.folder)}: {column} of {one_line(self.id(first + index), 80)} is"
                    f" {one_line(values[index], 60)}, not {wanted}: export it anew with authface annotate export"
                )
        return np.stack(rows)

    def data(self, index: int) -> bytes:
        """The encoded image of a row. Raises OSError."""
        return self._rows.image(index)

    def rgb(self, index: int, flip: bool = False) -> NDArray[np.uint8]:
        """(size, size, 3) uint8: the middle square of a row's image, resized, mirrored if `flip`."""
        with self._image_errors(index):
            image = decode(self.data(index)).rgb
        side = min(image.shape[:2])
        if side < SMALLEST:
            raise AuthfaceError(
                f"image {one_line(self.id(index))} of the dataset is {image.shape[1]} x {image.shape[0]} pixels, less "
                f"than {SMALLEST}: no face is seen in it; take it out and export again"
            )
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        if side != self.size:
            how = cv2.INTER_AREA if side > self.size else cv2.INTER_CUBIC
            square = cv2.resize(square, (self.size, self.size), interpolation=how)
        return np.ascontiguousarray(square[:, ::-1] if flip else square).astype(np.uint8, copy=False)

    def key(self, index: int) -> str:
        """The size, and sha256 of the encoded image in hex: what latents of a row are cached under."""
        with self._image_errors(index):
            return f"{self.size} {self._rows.digest(index).hex()}"

    @contextmanager
    def _image_errors(self, index: int) -> Iterator[None]:
        try:
            yield
        except (ImageError, OSError) as error:
            raise AuthfaceError(f"image {one_line(self.id(index))} of the dataset: {one_line(error)}") from error

    def _values(self, column: str) -> list[Any]:
        found: list[Any] = self._rows.column(column).slice(0, self._count).to_pylist()
        return found


def _array(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The value as an array of that shape; one that is not a number where it is none."""
    try:
        return np.array(value, np.float64).reshape(shape)
    except (TypeError, ValueError):
        return np.array(np.nan)


def _are_fine(numbers: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    return bool(np.isfinite(numbers).all() and (shape or (numbers > 0).all()))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch draws the same numbers for the same seed; outside nothing is changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block autocast is off on `device`; torch's meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def draw(seed: int, count: int, position: int, flip: bool) -> Draw:
    """The face at `position` of an endless stream: each pass over `count` faces in an order of its own.

    A function of its arguments alone, so that a resumed run goes on where it stopped.
    """
    epoch, place = divmod(position, count)
    coin = np.random.default_rng(np.random.SeedSequence((seed, epoch, place, 1))).random()
    return Draw(int(_order(seed, count, epoch)[place]), epoch, flip and coin < 0.5)


@functools.lru_cache(maxsize=2)
def _order(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(count)


@dataclass(frozen=True)
class Stream(Generic[B]):
    """Batch `k` of one process: `batch` faces of the stream, `processes` sharing it. A torch map-style dataset."""

    make: Callable[[Sequence[Draw]], B]
    count: int
    batch: int
    seed: int
    flip: bool
    process: int = 0
    processes: int = 1

    def __getitem__(self, k: int) -> B:
        return self.make(self.draws(k))

    def positions(self, k: int) -> range:
        """Where the faces of batch `k` stand in the endless stream: however many processes share a batch of all."""
        start = (k * self.processes + self.process) * self.batch
        return range(start, start + self.batch)

    def draws(self, k: int) -> list[Draw]:
        """The faces of batch `k`."""
        return [draw(self.seed, self.count, position, self.flip) for position in self.positions(k)]


def prefetch(make: Callable[[int], B], order: Iterable[int]) -> Generator[B]:
    """make(k) for each k of `order`; a thread makes the next one while the caller works with this one."""
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting: Future[B] | None = None
        for k in order:
            made, waiting = waiting, thread.submit(make, k)
            if made is not None:
                yield made.result()
        if waiting is not None:
            yield waiting.result()


@dataclass(frozen=True)
class _Made(Generic[B]):
    """A torch map-style dataset of what `make` makes; an error with a line for people comes as a value.

    Raised in another process it would come as torch's text of the whole trace.
    """

    make: Callable[[int], B]

    def __getitem__(self, k: int) -> B | AuthfaceError:
        try:
            return self.make(k)
        except AuthfaceError as error:
            return error


def _leave_signals_to_parent(worker: int) -> None:
    """In a new process that loads: what stops a whole job, as Slurm and systemd do, ends it when the run was saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def loaded(make: Callable[[int], B], order: Sequence[int], workers: int) -> Generator[B]:
    """`prefetch` by so many processes. Close it: else an error leaves them, and they let nobody end them but itself."""
    loader: torch.utils.data.DataLoader[B | AuthfaceError] = torch.utils.data.DataLoader(
        _Made(make),  # type: ignore[arg-type]  # by its method
        batch_size=None, sampler=order, num_workers=workers, worker_init_fn=_leave_signals_to_parent,
    )  # fmt: skip
    made = iter(loader)
    try:
        for one in made:
            if isinstance(one, AuthfaceError):
                raise one
            yield one
    finally:
        made._shutdown_workers()  # type: ignore[attr-defined]  # its __del__ does, but a trace keeps it alive


def validation_faces(folder: Path, size: int, count: int) -> FaceDataset:
    """Up to `count` faces to draw pictures of: of the dataset's split `validation`, of `train` where that has none."""
    with suppress(NoRowsError):
        if "validation" in _splits(folder):
            return FaceDataset(folder, size, count, "validation")
    return FaceDataset(folder, size, count)


def _splits(folder: Path) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_split_names(str(folder)))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
        return []


SMALLEST = 16
"""Least side of an image to train on, pixels."""
