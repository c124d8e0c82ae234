"""Plain strips against rasterio: the same raster to the last bit, or left to it."""

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from bigearth_prep.bands import ALL_BANDS, Band, select_bands
from bigearth_prep.geotiff import decode_strips
from bigearth_prep.patch import PatchError, Raster
from bigearth_prep.raster import decode_with_rasterio
from bigearth_prep.synthetic.geotiff import PatchGrid, encode_geotiff

REAL = Path(__file__).parents[4] / "shared" / "real"
BY_NAME = {band.name: band for band in ALL_BANDS}
(B02, B05, B01, VV) = select_bands(["B02", "B05", "B01", "VV"])


def pixels_of(band: Band, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (band.native_px, band.native_px)
    if band.sensor == "s1":
        return rng.normal(-15, 5, shape).astype(np.float32)
    return rng.integers(1, 16000, shape, dtype=np.uint16)


def plain_file(band: Band, *, nodata: int | None = None, epsg: int = 32633) -> bytes:
    return encode_geotiff(pixels_of(band), PatchGrid(epsg, 399_960, 5_300_040), nodata=nodata)


FILES = {
    (band, nodata): plain_file(band, nodata=nodata)
    for band in (B02, B01, VV)
    for nodata in (None, 0)
}


def assert_same(found: Raster, expected: Raster) -> None:
    assert found.grid == expected.grid
    assert found.nodata == expected.nodata
    assert found.pixels.dtype == expected.pixels.dtype
    assert found.pixels.tobytes() == expected.pixels.tobytes()


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("band", [B02, B05, B01, VV], ids=lambda band: band.name)
def test_files_of_both_versions_are_decoded_as_rasterio_does(
    band: Band, nodata: int | None
) -> None:
    content = plain_file(band, nodata=nodata, epsg=32629)
    found = decode_strips(content, band)
    assert found is not None
    assert_same(found, decode_with_rasterio(content, "x.tif", band))
    assert np.array_equal(found.pixels, pixels_of(band))
    view = decode_strips(memoryview(b"before" + content)[6:], band)
    assert view is not None
    assert_same(view, found)


@pytest.mark.skipif(not REAL.exists(), reason="real patches are not at hand")
def test_every_real_file_is_plain_and_decoded_as_rasterio_does() -> None:
    paths = sorted(REAL.glob("v*/BigEarthNet-*/**/*.tif"))
    assert len(paths) > 60
    for path in paths:
        band = BY_NAME[path.stem.rpartition("_")[2]]
        content = path.read_bytes()
        found = decode_strips(content, band)
        assert found is not None, path.name
        assert_same(found, decode_with_rasterio(content, path.name, band))


def test_patches_that_differ_in_their_corner_only_keep_their_own() -> None:
    corners = [(600_000, 4_999_980), (601_200, 4_998_780), (600_000, 4_999_980)]
    for ulx, uly in corners:
        content = encode_geotiff(pixels_of(B02), PatchGrid(32633, ulx, uly), nodata=0)
        found = decode_strips(content, B02)
        assert found is not None
        assert (found.ground.ulx, found.ground.uly) == (ulx, uly)


def write_with_rasterio(**profile: object) -> bytes:
    fields: dict[str, object] = {
        "driver": "GTiff",
        "width": 120,
        "height": 120,
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32733",
        "transform": rasterio.Affine(10, 0, 399_960, 0, -10, 5_300_040),
    }
    with MemoryFile() as memory:
        with memory.open(**(fields | profile)) as target:
            for index in range(target.count):
                pixels = pixels_of(B02)[: target.height].astype(target.dtypes[index])
                target.write(pixels, index + 1)
        content: bytes = memory.read()
    return content


def test_what_rasterio_writes_plainly_is_plain_in_the_southern_zones_too() -> None:
    content = write_with_rasterio()
    found = decode_strips(content, B02)
    assert found is not None
    assert found.ground.epsg == 32733
    assert_same(found, decode_with_rasterio(content, "x.tif", B02))


@pytest.mark.parametrize(
    "profile",
    [
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2},
        {"tiled": True, "blockxsize": 64, "blockysize": 64},
        {"count": 2},
        {"dtype": "int16"},
        {"dtype": "float32"},
        {"height": 60},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"crs": "EPSG:3035"},
        {"crs": None},
        {"nodata": 7},
        {"photometric": "RGB", "count": 3},
        {"photometric": "miniswhite"},
        {"transform": rasterio.Affine(10, 1, 399_960, 1, -10, 5_300_040)},
        {"transform": rasterio.Affine(10, 0, 399_960, 0, 10, 5_300_040)},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_whatever_is_not_plain_is_left_to_rasterio(profile: dict[str, object]) -> None:
    assert decode_strips(write_with_rasterio(**profile), B02) is None


def entry_place(content: bytearray, tag: int) -> int:
    """Where the directory's entry of a tag begins."""
    return content.index(struct.pack("<H", tag), 10)


def with_bytes_before_the_directory(content: bytes, inserted: bytes) -> bytes:
    """The same file of 20 m, its directory and all behind it moved back."""
    moved = bytearray(content[:8] + inserted + content[8:])
    step = len(inserted)
    struct.pack_into("<I", moved, 4, 8 + step)
    for tag in (273, 33550, 33922, 34735, 34737):
        place = moved.index(struct.pack("<H", tag), 10 + step) + 8
        (offset,) = struct.unpack_from("<I", moved, place)
        struct.pack_into("<I", moved, place, offset + step)
    return bytes(moved)


def test_a_directory_may_lie_elsewhere_but_nothing_else_passes_for_its_tie_point() -> None:
    content = plain_file(B05)
    moved = with_bytes_before_the_directory(content, bytes(12))
    found = decode_strips(moved, B05)
    assert found is not None
    assert_same(found, decode_with_rasterio(moved, "x.tif", B05))
    decoy = struct.pack("<HHII", 33922, 12, 6, 200)
    assert decode_strips(with_bytes_before_the_directory(content, decoy), B05) is None


def test_values_that_share_the_corners_bytes_are_left_to_rasterio() -> None:
    content = bytearray(FILES[B02, None])
    scale, tie_point = (entry_place(content, tag) + 8 for tag in (33550, 33922))
    (place,) = struct.unpack_from("<I", content, tie_point)
    for overlap in (16, 24, 32):
        struct.pack_into("<I", content, scale, place + overlap)
        assert decode_strips(bytes(content), B02) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tag", [33550, 33922])
def test_a_corner_or_pitch_that_is_no_number_is_left_to_rasterio(tag: int, value: float) -> None:
    content = bytearray(FILES[B02, None])
    (place,) = struct.unpack_from("<I", content, entry_place(content, tag) + 8)
    struct.pack_into("<d", content, place + (24 if tag == 33922 else 0), value)
    assert decode_strips(bytes(content), B02) is None


def test_a_tie_point_off_the_corner_is_left_to_rasterio() -> None:
    content = bytearray(FILES[B02, None])
    (place,) = struct.unpack_from("<I", content, entry_place(content, 33922) + 8)
    for number in (0, 1, 2, 5):
        damaged = bytearray(content)
        struct.pack_into("<d", damaged, place + 8 * number, 1.0)
        assert decode_strips(bytes(damaged), B02) is None


def test_a_second_directory_is_left_to_rasterio() -> None:
    content = bytearray(FILES[B02, None])
    struct.pack_into("<I", content, 10 + 12 * 15, 8)
    assert decode_strips(bytes(content), B02) is None


def test_entries_out_of_order_or_repeated_are_left_to_rasterio() -> None:
    content = FILES[B02, 0]
    first, second = content[10:22], content[22:34]
    for start in (second + first, first + first):
        assert decode_strips(content[:10] + start + content[34:], B02) is None


def test_an_unknown_tag_behind_the_known_ones_is_left_to_rasterio() -> None:
    content = bytearray(FILES[B02, 0])
    struct.pack_into("<H", content, entry_place(content, 42113), 42114)
    assert decode_strips(bytes(content), B02) is None


def test_values_beyond_the_header_are_left_to_rasterio() -> None:
    for tag in (273, 279, 33550, 34735, 34737):
        content = bytearray(FILES[B02, None])
        struct.pack_into("<I", content, entry_place(content, tag) + 8, 29_192)
        assert decode_strips(bytes(content), B02) is None


def test_values_inside_the_directory_are_left_to_rasterio() -> None:
    content = bytearray(FILES[B02, None])
    struct.pack_into("<I", content, entry_place(content, 34737) + 8, 10)
    assert decode_strips(bytes(content), B02) is None


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100, 391, 9_000, 29_191])
def test_a_truncated_file_is_left_to_rasterio(cut: int) -> None:
    assert decode_strips(plain_file(B02)[:cut], B02) is None


def test_a_file_with_bytes_behind_the_pixels_is_left_to_rasterio() -> None:
    assert decode_strips(plain_file(B02) + b"\0\0", B02) is None


def rasterio_reads(content: bytes, band: Band) -> Raster | None:
    try:
        return decode_with_rasterio(content, "x.tif", band)
    except PatchError:
        return None


ENTRY_FIELDS = st.builds(
    lambda entry, field: 10 + 12 * entry + field, st.integers(0, 15), st.sampled_from([0, 2, 4, 8])
)


@st.composite
def damaged_files(draw: st.DrawFn) -> tuple[bytes, Band]:
    """A plain file, a few bytes of whose header are others: whole values where it matters most."""
    band, nodata = draw(st.sampled_from(sorted(FILES, key=str)))
    content = bytearray(FILES[band, nodata])
    header_bytes = len(content) - band.native_px**2 * np.dtype(band.dtype).itemsize
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.integers(0, header_bytes - 1), ENTRY_FIELDS))
        value = draw(
            st.one_of(
                st.binary(min_size=1, max_size=2),
                st.integers(0, 400).map(lambda number: struct.pack("<H", number)),
                st.integers(0, 30_000).map(lambda number: struct.pack("<I", number)),
                st.floats().map(lambda number: struct.pack("<d", number)),
            )
        )
        end = min(place + len(value), header_bytes)
        content[place:end] = value[: end - place]
    return bytes(content), band


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@given(damaged_files())
@settings(max_examples=300, deadline=None)
def test_a_damaged_header_never_gives_another_raster_than_rasterios(
    file: tuple[bytes, Band],
) -> None:
    content, band = file
    found = decode_strips(content, band)
    expected = rasterio_reads(content, band) if found is not None else None
    if found is not None and expected is not None:
        assert_same(found, expected)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("nodata", [None, 0])
def test_every_bit_of_a_header_is_checked_or_means_to_rasterio_what_it_means_here(
    nodata: int | None,
) -> None:
    content = FILES[B01, nodata]
    header_bytes = len(content) - 800
    for place in range(header_bytes):
        for flip in (0x01, 0x04, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= flip
            found = decode_strips(bytes(damaged), B01)
            if found is not None:
                expected = rasterio_reads(bytes(damaged), B01)
                assert expected is not None
                assert_same(found, expected)
