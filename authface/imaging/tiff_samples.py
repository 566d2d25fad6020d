"""The pixels of a TIFF's first page, as its tags say.

libtiff, by way of Pillow, only unpacks the bytes of strips and tiles: what they mean is read here, in one place, since
neither Pillow nor OpenCV reads all of it right (16 bits in planes come out as noise, min-is-white as a negative).
What is read is a list; all else is refused in words.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from authface.errors import ImageError
from authface.imaging import tiff_directory as tags
from authface.imaging.png import Pixels
from authface.imaging.tiff_directory import Directory, DirectoryEntry, Order, longs, shorts

Space = Literal["grey", "rgb", "cmyk"]
_SPACES: dict[int, Space] = {1: "grey", 3: "rgb", 4: "cmyk"}
"""Colour spaces by number of colours per pixel."""

WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, INKS, YCBCR = 0, 1, 2, 3, 5, 6
NONE, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773
_PLAIN = {NONE: "none", LZW: "LZW", DEFLATE: "deflate", 32946: "deflate", PACKBITS: "PackBits", 50000: "Zstandard",
          34925: "LZMA"}  # fmt: skip
"""Compressions of plain bytes."""
_NOT_READ = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    6: "JPEG of TIFF 6.0",
    34712: "JPEG 2000",
    34887: "LERC",
    50002: "JPEG XL",
}
_DIFFERENCED = frozenset({LZW, DEFLATE, 32946, 50000, 34925})
"""Compressions that may be combined with a predictor."""
_PICTURES = {JPEG: "JPEG", 50001: "WebP"}
"""Compressions that know what a picture is: libtiff gives its pixels. Not faxes (CCITT): of damaged ones it leaves
some pixels to chance."""
_COLOURS = {WHITE_IS_0: 1, BLACK_IS_0: 1, RGB: 3, PALETTE: 1, INKS: 4}
_NAMES = {YCBCR: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "raw sensor",
          34892: "linear raw", 32844: "LogL", 32845: "LogLuv", 4: "mask"}  # fmt: skip
_KEPT = (tags.BITS, tags.COMPRESSION, tags.PHOTOMETRIC, tags.SAMPLES, tags.EXTRA, tags.JPEG_TABLES, 530, 532)
"""Tags that libtiff needs of such a picture."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_END_OF_JPEG = b"\xff\xd9"
MAX_SAMPLES = 8
MAX_BYTES = 1 << 31
"""Largest size of one page's pixels, bytes."""
ASSOCIATED, UNASSOCIATED = 1, 2


@dataclass(frozen=True)
class TiffSamples:
    """Pixels as stored, before any turn."""

    pixels: Pixels
    """(h, w) grey, (h, w, 3) RGB or (h, w, 4) inks (0: none), of 8 or 16 bits."""
    space: Space
    depth: int
    """Bits a channel in the file."""
    alpha: Pixels | None = None
    """(h, w), of the depth of `pixels`, which are not multiplied with it."""
    others: int = 0
    """How many further channels the file has, such as saved selections."""


@dataclass(frozen=True)
class _Layout:
    """Layout of a page's samples."""

    width: int
    height: int
    samples: int
    bits: int
    photometric: int
    compression: int
    predictor: int
    planes: bool
    """Each sample is stored in a plane of its own."""
    tile: tuple[int, int] | None
    """Width and height; None: strips."""
    rows: int
    """Rows of a strip."""

    @property
    def interleaved(self) -> int:
        """TiffSamples that a pixel of a plane has."""
        return 1 if self.planes else self.samples

    def bytes_of(self, pixels: int) -> int:
        """Bytes of `pixels` pixels in a row."""
        return (pixels * self.interleaved * self.bits + 7) // 8

    @property
    def chunks(self) -> int:
        """Strips or tiles of a plane."""
        if self.tile is None:
            return -(-self.height // self.rows)
        return -(-self.width // self.tile[0]) * -(-self.height // self.tile[1])

    def needed(self, chunk: int) -> int:
        """Bytes of a chunk when unpacked."""
        if self.tile is not None:
            return self.bytes_of(self.tile[0]) * self.tile[1]
        return self.bytes_of(self.width) * min(self.rows, self.height - chunk * self.rows)


def size_of(page: Directory) -> tuple[int, int]:
    """Width and height as stored, pixels. Raises ImageError (`truncated`) where the page has none."""
    width, height = page.number(tags.WIDTH), page.number(tags.HEIGHT)
    if width < 1 or height < 1:
        raise ImageError("truncated", f"a TIFF page of {width} x {height} pixels")
    return width, height


def read_samples(data: bytes, page: Directory) -> TiffSamples:
    """The pixels of a page. Raises ImageError (`truncated`, `unsupported_mode`)."""
    layout = _layout(page)
    chunks = _chunks(data, page, layout)
    if layout.compression in _PICTURES and not layout.planes:
        return _pictures(page, layout, chunks)
    parts = [
        _unpacked(layout, chunks[plane * layout.chunks : (plane + 1) * layout.chunks], page.order)
        for plane in range(layout.samples if layout.planes else 1)
    ]
    stored = cast("Pixels", np.concatenate(parts, axis=2)) if len(parts) > 1 else parts[0]
    return _meaning(stored, page, layout)


def _layout(page: Directory) -> _Layout:
    """The page's layout, if it is supported."""
    width, height = size_of(page)
    compression, photometric = page.number(tags.COMPRESSION, NONE), page.number(tags.PHOTOMETRIC, -1)
    samples, depths = page.number(tags.SAMPLES, 1), set(page.numbers(tags.BITS, (1,)))
    tile = (page.number(tags.TILE_WIDTH), page.number(tags.TILE_HEIGHT)) if tags.TILES in page.entries else None
    rows = page.number(tags.ROWS, height)
    layout = _Layout(
        width, height, samples, max(depths), photometric, compression, page.number(tags.PREDICTOR, 1),
        page.number(tags.PLANES, 1) == 2 and samples > 1, tile, height if not 0 < rows < height else rows,
    )  # fmt: skip
    if len(depths) != 1 or layout.bits not in {1, 2, 4, 8, 12, 16} or set(page.numbers(tags.FORMAT, (1,))) != {1}:
        kind = {2: "signed ", 3: "floating-point "}.get(page.number(tags.FORMAT, 1), "")
        raise _unread(f"{'/'.join(map(str, sorted(depths)))}-bit {kind}pixels", "8 or 16 bits")
    if compression not in {*_PLAIN, *_PICTURES}:
        raise _unread(f"compression {_NOT_READ.get(compression, compression)}", "LZW or deflate")
    if photometric not in _COLOURS and (photometric != YCBCR or compression != JPEG):
        raise _unread(f"{_NAMES.get(photometric, f'photometric {photometric}')} pixels", "RGB")
    colours = _COLOURS.get(photometric, 3)
    if not colours <= samples <= MAX_SAMPLES or (photometric == INKS and page.number(tags.INK_SET, 1) != 1):
        raise _unread(f"{samples} channels of photometric {photometric}", "RGB")
    if layout.bits < 8 and (samples > 1 or tile is not None and tile[0] % 16):
        raise _unread(f"{samples} channels of {layout.bits} bits", "8 or 16 bits")
    if photometric == PALETTE and layout.bits > 8:
        raise _unread(f"a palette of {layout.bits} bits", "RGB")
    _check_packing(layout)
    return layout


def _check_packing(layout: _Layout) -> None:
    if layout.compression in _DIFFERENCED and layout.predictor != 1 and not (
        layout.predictor == 2 and layout.bits in {8, 16}
    ):  # fmt: skip
        raise _unread(f"predictor {layout.predictor} of {layout.bits}-bit pixels", "LZW or deflate of 8 or 16 bits")
    if layout.compression in _PICTURES and layout.bits != 8:
        raise _unread(f"{_PICTURES[layout.compression]} of {layout.bits} bits", "LZW or deflate")
    if layout.tile is not None and not all(0 < side <= 1 << 16 for side in layout.tile):
        raise ImageError("truncated", f"tiles of {layout.tile[0]} x {layout.tile[1]} pixels")
    if (size := layout.width * layout.height * layout.samples * layout.bits // 8) > MAX_BYTES:
        limit = f"the limit is {MAX_BYTES / 1e9:.1f}: make it smaller"
        raise ImageError("too_large", f"{size / 1e9:.1f} GB of pixels, {limit}")


def _unread(what: str, instead: str) -> ImageError:
    return ImageError("unsupported_mode", f"a TIFF with {what}, which are not read: save as {instead}")


def _chunks(data: bytes, page: Directory, layout: _Layout) -> list[bytes]:
    """The bytes of each strip or tile, plane after plane."""
    tiled = layout.tile is not None
    places = page.numbers(tags.TILES if tiled else tags.STRIPS)
    sizes = page.numbers(tags.TILE_SIZES if tiled else tags.STRIP_SIZES)
    count = layout.chunks * (layout.samples if layout.planes else 1)
    if len(places) < count or (len(sizes) < count and layout.compression != NONE):
        raise ImageError("truncated", f"{min(len(places), len(sizes))} strips or tiles, the picture has {count}")
    chunks = []
    for i in range(count):
        size = layout.needed(i % layout.chunks) if layout.compression == NONE else sizes[i]
        chunk = data[places[i] : places[i] + size]
        if len(chunk) < size or not chunk or not places[i]:
            raise ImageError("truncated", f"strip or tile {i + 1} of {count} ends after byte {len(data)}, the last")
        if layout.compression == JPEG and not chunk.rstrip(b"\0").endswith(_END_OF_JPEG):
            raise ImageError("truncated", f"strip or tile {i + 1} of {count} is a JPEG without its end")
        chunks.append(chunk.translate(_REVERSED) if page.number(tags.FILL_ORDER, 1) == 2 else chunk)
    return chunks


def _unpacked(layout: _Layout, chunks: list[bytes], order: Order) -> Pixels:
    """(h, w, samples of a plane) of the depth, of 12 bits as 16, of less as 8, from the chunks of a plane."""
    packing = {
        tags.BITS: shorts("<", 8), tags.COMPRESSION: shorts("<", layout.compression),
        tags.PHOTOMETRIC: shorts("<", BLACK_IS_0), tags.SAMPLES: shorts("<", 1),
    }  # fmt: skip
    tile = None if layout.tile is None else (layout.bytes_of(layout.tile[0]), layout.tile[1])
    image = _load(packing, chunks, (layout.bytes_of(layout.width), layout.height), tile, layout.rows)
    rows = np.asarray(image).reshape(layout.height, -1)
    per_row = layout.width * layout.interleaved
    if layout.bits == 8:
        values: Pixels = rows
    elif layout.bits == 16:
        values = rows.view(order + "u2").astype(np.uint16)
    elif layout.bits == 12:
        values = _of_12_bits(rows)[:, :per_row]
    else:
        steps = np.arange(8 // layout.bits)[::-1].astype(np.uint8) * np.uint8(layout.bits)
        values = (rows[..., None] >> steps & np.uint8((1 << layout.bits) - 1)).reshape(layout.height, -1)[:, :per_row]
    pixels = cast("Pixels", values.reshape(layout.height, layout.width, layout.interleaved))
    if layout.compression in _DIFFERENCED and layout.predictor == 2:
        step = layout.width if layout.tile is None else layout.tile[0]
        summed = [
            np.cumsum(pixels[:, left : left + step], axis=1, dtype=pixels.dtype)
            for left in range(0, layout.width, step)
        ]
        pixels = cast("Pixels", np.concatenate(summed, axis=1))
    return pixels


def _of_12_bits(rows: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Pairs of numbers of 12 bits in three bytes each."""
    height, length = rows.shape
    wide = np.pad(rows, ((0, 0), (0, -length % 3))).reshape(height, -1, 3).astype(np.uint16)
    first, second = wide[..., 0] << 4 | wide[..., 1] >> 4, (wide[..., 1] & 15) << 8 | wide[..., 2]
    return np.stack([first, second], axis=-1).reshape(height, -1)


def _load(
    packing: dict[int, DirectoryEntry],
    chunks: list[bytes],
    size: tuple[int, int],
    tile: tuple[int, int] | None,
    rows: int,
) -> TiffImagePlugin.TiffImageFile:
    """The image that libtiff makes of chunks in a TIFF of their own."""
    entries = packing | {tags.WIDTH: longs("<", size[0]), tags.HEIGHT: longs("<", size[1])}
    if tile is None:
        place, sizes, entries[tags.ROWS] = tags.STRIPS, tags.STRIP_SIZES, longs("<", rows)
    else:
        place, sizes = tags.TILES, tags.TILE_SIZES
        entries |= {tags.TILE_WIDTH: longs("<", tile[0]), tags.TILE_HEIGHT: longs("<", tile[1])}
    lengths = [len(chunk) for chunk in chunks]
    entries |= {place: longs("<", *lengths), sizes: longs("<", *lengths)}
    start = 8 + len(tags.write_directory(Directory("<", entries), 8))
    ends = np.cumsum([start, *lengths]).tolist()
    entries[place] = longs("<", *ends[:-1])
    file = b"".join([tags.classic_header("<"), tags.write_directory(Directory("<", entries), 8), *chunks])
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
        image.load()
    except Exception as error:  # on hostile bytes Pillow's readers raise nearly anything
        raise ImageError("truncated", f"its strips or tiles cannot be unpacked: {error}") from error
    return image


def _pictures(page: Directory, layout: _Layout, chunks: list[bytes]) -> TiffSamples:
    """The pixels of JPEG or WebP within a TIFF, which libtiff makes grey, RGB or inks."""
    little = {tag: page.entries[tag] for tag in _KEPT if tag in page.entries}
    if page.order == ">":
        little = {
            tag: entry if entry.type in {1, 2, 7} else shorts("<", *page.numbers(tag))
            if entry.type == 3 else longs("<", *page.numbers(tag)) for tag, entry in little.items() if tag != 532
        }  # fmt: skip
    image = _load(little, chunks, (layout.width, layout.height), layout.tile, layout.rows)
    if image.size != (layout.width, layout.height):
        sizes = f"{image.width} x {image.height} within {layout.width} x {layout.height}"
        raise ImageError("truncated", f"pictures of {sizes}")
    mode = {"L": "L", "CMYK": "CMYK", "RGBA": "RGBA"}.get(image.mode, "RGB")
    pixels = np.asarray(image.convert(mode))
    alpha = pixels[..., 3] if mode == "RGBA" else None
    space: Space = "cmyk" if mode == "CMYK" else "grey" if mode == "L" else "rgb"
    return TiffSamples(pixels[..., :3] if mode == "RGBA" else pixels, space, layout.bits, alpha)


def _meaning(stored: Pixels, page: Directory, layout: _Layout) -> TiffSamples:
    """Colours and alpha of stored values."""
    colours = _COLOURS[layout.photometric]
    extras = page.numbers(tags.EXTRA)[: layout.samples - colours]
    if not extras and layout.photometric == RGB and layout.samples == 4:
        extras = (UNASSOCIATED,)  # older programs leave the tag out
    places = [i for i, kind in enumerate(extras) if kind in {ASSOCIATED, UNASSOCIATED}]
    alpha: Any = stored[..., colours + places[0]] if places else None
    pixels: Any = stored[..., :colours]
    if layout.photometric == PALETTE:
        pixels = _palette(page, layout.bits)[pixels[..., 0]]
    else:
        pixels = _full_range(pixels, layout.bits)
        if layout.photometric == WHITE_IS_0:
            pixels = ~pixels
    if alpha is not None:
        alpha = np.ascontiguousarray(_full_range(alpha, layout.bits))
        if extras[places[0]] == ASSOCIATED and layout.photometric == WHITE_IS_0:
            raise _unread("min-is-white pixels that are multiplied with alpha", "RGB")  # readers do not agree on it
        if extras[places[0]] == ASSOCIATED and layout.photometric != PALETTE:
            pixels = _divided(pixels, alpha)
    space = "rgb" if layout.photometric == PALETTE else _SPACES[colours]
    pixels = np.ascontiguousarray(pixels[..., 0] if space == "grey" else pixels)
    return TiffSamples(pixels, space, layout.bits, alpha, layout.samples - colours - len(places[:1]))


def _full_range(values: Pixels, bits: int) -> Pixels:
    """Values of fewer bits scaled to the full range of 8 or 16."""
    if bits in {8, 16}:
        return values
    most = (1 << bits) - 1
    if bits > 8:
        return np.asarray((values.astype(np.uint32) * 65535 + most // 2) // most, np.uint16)
    return np.asarray(values * np.uint8(255 // most), np.uint8)


def _palette(page: Directory, bits: int) -> NDArray[np.uint8]:
    """(2^bits, 3) its colours; of 8 bits, as some programs write them, where none is above 255 (as libtiff does)."""
    numbers = np.array(page.numbers(tags.PALETTE), np.uint32)
    if numbers.size != 3 << bits:
        raise ImageError("truncated", f"a palette of {numbers.size} numbers, not {3 << bits}")
    colours = numbers.reshape(3, -1).T
    return np.asarray(colours if numbers.max() < 256 else colours >> 8, np.uint8)


def _divided(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Premultiplied colours divided by alpha; where alpha is 0 they stay as they are."""
    most = np.iinfo(pixels.dtype).max
    below = np.where(alpha == 0, most, alpha).astype(np.uint32)[..., None]
    wide = (pixels.astype(np.uint64) * np.uint64(most) + below // 2) // below
    return np.asarray(np.minimum(wide, most).astype(pixels.dtype))
