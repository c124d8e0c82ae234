"""GeoTIFF bytes laid out as BigEarthNet lays them out: one IFD at byte 8, strips, pixels last."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt16

from bigearth_prep.bands import PATCH_M
from bigearth_prep.errors import PrepError

STRIP_BYTES = 8192
"""GDAL fills a strip with as many whole rows as fit into this many bytes."""

_IFD_OFFSET = 8
_ASCII, _SHORT, _LONG, _DOUBLE = 2, 3, 4, 12
_FORMATS = {_ASCII: "s", _SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_STRIP_OFFSETS, _STRIP_BYTE_COUNTS = 273, 279
_UTM_NORTH_EPSG = range(32601, 32661)

_UTM_WKT = (
    'PROJCS["WGS 84 / UTM zone {zone}N",GEOGCS["WGS 84",DATUM["WGS_1984",'
    'SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],'
    'AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],'
    'UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    'AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]],'
    'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
    'PARAMETER["central_meridian",{meridian}],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],'
    'UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH],'
    'AUTHORITY["EPSG","{epsg}"]]'
)

_Pixels = UInt16[np.ndarray, "height width"] | Float32[np.ndarray, "height width"]


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where a patch lies: its UTM zone and upper left corner."""

    epsg: int
    """Code of a northern UTM zone on WGS 84, 32601 to 32660."""

    ulx: int
    """Easting of the left edge, in metres."""

    uly: int
    """Northing of the upper edge, in metres."""

    def __post_init__(self) -> None:
        if self.epsg not in _UTM_NORTH_EPSG:
            raise PrepError(f"EPSG:{self.epsg} is no northern UTM zone; expected 32601 to 32660")

    @property
    def zone(self) -> int:
        """UTM zone, 1 to 60."""
        return self.epsg - 32600

    @property
    def wkt(self) -> str:
        """The projection in OGC's WKT 1, as GDAL 2 spells it."""
        return _UTM_WKT.format(zone=self.zone, meridian=6 * self.zone - 183, epsg=self.epsg)


@dataclass(frozen=True, slots=True)
class _Tag:
    """One entry of the image file directory."""

    code: int
    kind: int
    values: Sequence[int] | Sequence[float] | bytes

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def payload(self) -> bytes:
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f"<{self.count}{_FORMATS[self.kind]}", *self.values)


def encode_geotiff(pixels: _Pixels, grid: PatchGrid, *, nodata: int | None = None) -> bytes:
    """The bytes of a single-band GeoTIFF that spans one whole patch.

    Tags, their order and every offset equal those of the original files, so that pixels are the
    last `height * width * itemsize` bytes. Versions differ in the nodata tag: absent in v1, and
    with it v2 counts the bytes of the 10 m strips in 16 bits.
    """
    tags = _image_tags(pixels, nodata=nodata) + _geo_tags(grid, PATCH_M / pixels.shape[1])
    if nodata is not None:
        tags.append(_Tag(42113, _ASCII, f"{nodata}\0".encode()))
    header = _encode_directory(tags)
    return header + np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()


def _image_tags(pixels: _Pixels, *, nodata: int | None) -> list[_Tag]:
    height, width = pixels.shape
    row_bytes = width * pixels.dtype.itemsize
    rows_per_strip = min(height, STRIP_BYTES // row_bytes)
    strip_rows = [min(rows_per_strip, height - top) for top in range(0, height, rows_per_strip)]
    byte_counts = [rows * row_bytes for rows in strip_rows]
    offsets = [row * row_bytes for row in range(0, height, rows_per_strip)]
    short_counts = nodata is not None and len(byte_counts) > 1
    return [
        _Tag(256, _SHORT, [width]),
        _Tag(257, _SHORT, [height]),
        _Tag(258, _SHORT, [8 * pixels.dtype.itemsize]),
        _Tag(259, _SHORT, [1]),  # not compressed
        _Tag(262, _SHORT, [1]),  # black is zero
        # Relative to the first pixel until the length of the header is known.
        _Tag(_STRIP_OFFSETS, _LONG, offsets),
        _Tag(277, _SHORT, [1]),  # samples per pixel
        _Tag(278, _SHORT, [rows_per_strip]),
        _Tag(_STRIP_BYTE_COUNTS, _SHORT if short_counts else _LONG, byte_counts),
        _Tag(284, _SHORT, [1]),  # contiguous planes
        _Tag(339, _SHORT, [3 if pixels.dtype.kind == "f" else 1]),
    ]


def _geo_tags(grid: PatchGrid, pitch_m: float) -> list[_Tag]:
    citation = f"WGS 84 / UTM zone {grid.zone}N|"
    geographic = "WGS 84|"
    keys = (
        (1, 1, 0, 7),  # GeoTIFF 1.0, seven keys follow
        (1024, 0, 1, 1),  # projected
        (1025, 0, 1, 1),  # pixel is area
        (1026, 34737, len(citation), 0),
        (2049, 34737, len(geographic), len(citation)),
        (2054, 0, 1, 9102),  # degrees
        (3072, 0, 1, grid.epsg),
        (3076, 0, 1, 9001),  # metres
    )
    return [
        _Tag(33550, _DOUBLE, [pitch_m, pitch_m, 0.0]),
        _Tag(33922, _DOUBLE, [0.0, 0.0, 0.0, grid.ulx, grid.uly, 0.0]),
        _Tag(34735, _SHORT, [number for key in keys for number in key]),
        _Tag(34737, _ASCII, f"{citation}{geographic}\0".encode()),
    ]


def _encode_directory(tags: Sequence[_Tag]) -> bytes:
    """Everything before the pixels: the file header, the directory, and values too long for it."""
    start = _IFD_OFFSET + 2 + 12 * len(tags) + 4
    # libtiff wrote the byte counts before the offsets, and the rest in the order of the tags.
    order = sorted(tags, key=lambda tag: (tag.code != _STRIP_BYTE_COUNTS, tag.code))
    positions: dict[int, int] = {}
    end = start
    for tag in order:
        if len(tag.payload) > 4:
            positions[tag.code] = end
            end += len(tag.payload)
    entries = {tag.code: _place_strips(tag, end) for tag in tags}
    directory = b"".join(_encode_entry(tag, positions.get(tag.code)) for tag in entries.values())
    extras = b"".join(entries[tag.code].payload for tag in order if tag.code in positions)
    head = struct.pack("<2sHI", b"II", 42, _IFD_OFFSET) + struct.pack("<H", len(tags))
    return head + directory + struct.pack("<I", 0) + extras


def _place_strips(tag: _Tag, first_pixel: int) -> _Tag:
    if tag.code != _STRIP_OFFSETS:
        return tag
    return _Tag(tag.code, tag.kind, [first_pixel + int(offset) for offset in tag.values])


def _encode_entry(tag: _Tag, position: int | None) -> bytes:
    value = tag.payload.ljust(4, b"\0") if position is None else struct.pack("<I", position)
    return struct.pack("<HHI", tag.code, tag.kind, tag.count) + value
