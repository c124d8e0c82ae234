"""The plain case of a GeoTIFF, decoded without GDAL.

Every file of BigEarthNet's archives has the same shape: one directory, one band, uncompressed
strips that follow each other to the end of the file. Whatever differs from it in any way is left
to rasterio.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bigearth_prep.bands import Band
from bigearth_prep.patch import Grid, Raster

_MAX_HEADER_BYTES = 4096
"""Far more than the headers of the archives, about 400 bytes."""

_REMEMBERED_HEADERS = 256
"""Corners apart, an archive has four headers for each of its seven projections."""

_BYTE_ORDER_AND_VERSION = b"II*\0"
_FORMATS = {2: "s", 3: "H", 4: "I", 12: "d"}
"""Kinds of TIFF values, as `struct` writes them: ASCII, SHORT, LONG, DOUBLE."""

_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_SCALE, _TIE_POINT, _GEO_KEYS, _GEO_TEXT, _NODATA = 33550, 33922, 34735, 34737, 42113

_KINDS = {
    **dict.fromkeys((256, 257, 258, 259, 262, 277, _ROWS_PER_STRIP, 284, 339, _GEO_KEYS), "H"),
    **dict.fromkeys((_STRIP_OFFSETS, _STRIP_BYTES), "HI"),
    **dict.fromkeys((_SCALE, _TIE_POINT), "d"),
    **dict.fromkeys((_GEO_TEXT, _NODATA), "s"),
}
"""All tags that a plain file has, the last one optional, and the kinds of their values."""

_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}

_TIE_POINT_ENTRY = struct.pack("<HHI", _TIE_POINT, 12, 6)
_CORNER = struct.Struct("<dd")
_CORNER_IN_TIE_POINT = 24
"""Bytes before easting and northing in a tie point: column, row and level come first."""

_Tags = Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class _Header:
    """What a checked header says of the pixels behind it, their corner apart."""

    epsg: int
    pitch_x_m: float
    pitch_y_m: float
    nodata: float | None


def decode_strips(content: bytes | memoryview, band: Band) -> Raster | None:
    """The raster in the bytes of a plain GeoTIFF; None where it takes GDAL to tell.

    Pixels, grid and nodata are those that rasterio finds. The pixels are a view of `content`.
    """
    side, dtype = band.native_px, band.dtype
    header_bytes = len(content) - side * side * np.dtype(dtype).itemsize
    if not 0 < header_bytes <= _MAX_HEADER_BYTES:
        return None
    head = bytes(content[:header_bytes])
    place = _find_corner(head)
    if place is None:
        return None
    ulx, uly = _CORNER.unpack_from(head, place)
    header = _parse_header(
        head[:place] + bytes(_CORNER.size) + head[place + _CORNER.size :], place, side, dtype
    )
    if header is None or not (math.isfinite(ulx) and math.isfinite(uly)):
        return None
    grid = Grid(header.epsg, ulx, uly, header.pitch_x_m, header.pitch_y_m, side, side)
    pixels = np.frombuffer(content, dtype, offset=header_bytes).reshape(side, side)
    return Raster(pixels, grid, header.nodata)


def _find_corner(head: bytes) -> int | None:
    """Where easting and northing of the upper left corner seem to be; the parser makes sure."""
    entry = head.find(_TIE_POINT_ENTRY)
    if entry < 0 or entry + 12 > len(head):
        return None
    (value,) = struct.unpack_from("<I", head, entry + 8)
    place = int(value) + _CORNER_IN_TIE_POINT
    return place if place + _CORNER.size <= len(head) else None


@lru_cache(_REMEMBERED_HEADERS)
def _parse_header(head: bytes, corner: int, side: int, dtype: str) -> _Header | None:
    """The checked content of a header whose corner is blanked, so that patches share it.

    Were the blanked bytes those of another value too, it would be refused: none may be zeros.
    """
    tags, places = _read_directory(head)
    is_plain = (
        tags.keys() | {_NODATA} == _KINDS.keys()
        and places[_TIE_POINT] + _CORNER_IN_TIE_POINT == corner
        and _image_is_plain(tags, side, np.dtype(dtype))
        and _strips_are_plain(tags, side * np.dtype(dtype).itemsize, len(head))
        and _grid_is_plain(tags)
    )
    if not is_plain:
        return None
    pitch_x_m, pitch_y_m, _ = tags[_SCALE]
    return _Header(tags[_GEO_KEYS][27], pitch_x_m, pitch_y_m, 0.0 if _NODATA in tags else None)


def _read_directory(head: bytes) -> tuple[_Tags, Mapping[int, int]]:
    """Values and where they begin, by tag; none unless there is one directory, of known tags."""
    (start,) = struct.unpack_from("<I", head, 4)
    end = start + 2 + 12 * int.from_bytes(head[start : start + 2], "little")
    if head[:4] != _BYTE_ORDER_AND_VERSION or head[end : end + 4] != bytes(4):
        return {}, {}
    tags: dict[int, Any] = {}
    places: dict[int, int] = {}
    for entry in range(start + 2, end, 12):
        code, kind, count = struct.unpack_from("<HHI", head, entry)
        form = _FORMATS.get(kind, "x")
        place, values = _read_values(head, entry + 8, f"<{count}{form}")
        if values is None or form not in _KINDS.get(code, "") or code <= max(tags, default=0):
            return {}, {}
        tags[code], places[code] = values, place
    return tags, places


def _read_values(head: bytes, place: int, layout: str) -> tuple[int, Any]:
    """Where the values are, and they, None if beyond the header; the entry itself holds four bytes.

    Numbers come as a tuple, text as bytes.
    """
    size = struct.calcsize(layout)
    if size > 4:
        (place,) = struct.unpack_from("<I", head, place)
    if place + size > len(head):
        return place, None
    values = struct.unpack_from(layout, head, place)
    return place, values[0] if layout.endswith("s") else values


def _image_is_plain(tags: _Tags, side: int, dtype: np.dtype[Any]) -> bool:
    expected = {
        256: side,  # width
        257: side,  # height
        258: 8 * dtype.itemsize,  # bits per sample
        259: 1,  # not compressed
        262: 1,  # black is zero
        277: 1,  # samples per pixel
        284: 1,  # contiguous planes
        339: _SAMPLE_FORMATS[dtype.kind],
    }
    return all(tags[code] == (value,) for code, value in expected.items())


def _strips_are_plain(tags: _Tags, row_bytes: int, pixels_start: int) -> bool:
    """Whether the strips are whole and contiguous from here to the end of the file."""
    rows, (height,) = tags[_ROWS_PER_STRIP], tags[257]
    if len(rows) != 1 or rows[0] == 0:
        return False
    tops = range(0, height, rows[0])
    offsets = tuple(pixels_start + top * row_bytes for top in tops)
    lengths = tuple(min(rows[0], height - top) * row_bytes for top in tops)
    return (tags[_STRIP_OFFSETS], tags[_STRIP_BYTES]) == (offsets, lengths)


def _grid_is_plain(tags: _Tags) -> bool:
    """Whether pixels are areas of a north-up grid in a UTM zone, missing ones 0 if tagged."""
    scale, tie_point, keys = tags[_SCALE], tags[_TIE_POINT], tags[_GEO_KEYS]
    if (len(scale), len(tie_point), len(keys)) != (3, 6, 32):
        return False
    return (
        min(scale[:2]) > 0
        and all(map(math.isfinite, scale))
        and (scale[2], *tie_point[:3], tie_point[5]) == (0, 0, 0, 0, 0)
        and (keys, tags[_GEO_TEXT]) == _utm_keys(keys[27])
        and tags.get(_NODATA, b"0\0") == b"0\0"
    )


def _utm_keys(epsg: int) -> tuple[tuple[int, ...], bytes] | None:
    """Geo keys and their text as GDAL writes them; None unless the code is a UTM zone on WGS 84."""
    series, zone = divmod(epsg, 100)
    if series not in {326, 327} or not 1 <= zone <= 60:
        return None
    citation = f"WGS 84 / UTM zone {zone}{'N' if series == 326 else 'S'}|"
    geographic = "WGS 84|"
    keys = (
        (1, 1, 0, 7),  # GeoTIFF 1.0, seven keys follow
        (1024, 0, 1, 1),  # projected
        (1025, 0, 1, 1),  # a pixel is an area
        (1026, _GEO_TEXT, len(citation), 0),
        (2049, _GEO_TEXT, len(geographic), len(citation)),
        (2054, 0, 1, 9102),  # degrees
        (3072, 0, 1, epsg),
        (3076, 0, 1, 9001),  # metres
    )
    return tuple(number for key in keys for number in key), f"{citation}{geographic}\0".encode()
