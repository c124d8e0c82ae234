import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from bigearth_prep.errors import PrepError
from bigearth_prep.synthetic.geotiff import PatchGrid, encode_geotiff

REAL = Path(__file__).parents[5] / "shared" / "real"

needs_real_patches = pytest.mark.skipif(not REAL.is_dir(), reason="no real patches beside the repo")

GRID = PatchGrid(epsg=32635, ulx=601200, uly=6998820)


def _random_pixels(px: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(px)
    if dtype == "float32":
        return rng.normal(-15, 5, (px, px)).astype(np.float32)
    return rng.integers(1, 16000, (px, px), dtype=np.uint16)


@pytest.mark.parametrize(
    ("px", "dtype", "nodata", "file_bytes"),
    [
        (120, "uint16", None, 29_192),
        (60, "uint16", None, 7_560),
        (20, "uint16", None, 1_160),
        (120, "float32", None, 58_024),
        (120, "uint16", 0, 29_196),
        (60, "uint16", 0, 7_572),
        (20, "uint16", 0, 1_172),
    ],
)
def test_rasterio_reads_back_what_was_encoded_and_sizes_are_the_published_ones(
    px: int, dtype: str, nodata: int | None, file_bytes: int
) -> None:
    pixels = _random_pixels(px, dtype)
    encoded = encode_geotiff(pixels, GRID, nodata=nodata)
    pitch_m = 1200 / px
    with MemoryFile(encoded) as memory, memory.open() as raster:
        np.testing.assert_array_equal(raster.read(1), pixels)
        assert raster.dtypes == (dtype,)
        assert raster.crs.to_epsg() == GRID.epsg
        assert raster.transform == rasterio.Affine(pitch_m, 0, GRID.ulx, 0, -pitch_m, GRID.uly)
        assert raster.nodata == nodata
    assert len(encoded) == file_bytes
    assert encoded[-pixels.nbytes :] == pixels.tobytes()


def _real_tiffs() -> list[Path]:
    # The reference map is compressed and no part of a pair.
    return sorted(REAL.glob("v*/BigEarthNet-*/**/*.tif"))


@needs_real_patches
def test_real_files_are_reproduced_byte_for_byte_from_their_pixels_and_grid() -> None:
    paths = _real_tiffs()
    assert len(paths) >= 14
    for path in paths:
        with rasterio.open(path) as raster:
            grid = PatchGrid(raster.crs.to_epsg(), int(raster.transform.c), int(raster.transform.f))
            nodata = None if raster.nodata is None else int(raster.nodata)
            encoded = encode_geotiff(raster.read(1), grid, nodata=nodata)
        assert encoded == path.read_bytes(), path.name


def test_the_image_directory_starts_at_byte_eight_and_no_other_follows() -> None:
    encoded = encode_geotiff(_random_pixels(20, "uint16"), GRID)
    assert struct.unpack_from("<2sHI", encoded) == (b"II", 42, 8)
    (tag_count,) = struct.unpack_from("<H", encoded, 8)
    assert struct.unpack_from("<I", encoded, 10 + 12 * tag_count) == (0,)


def test_a_grid_outside_the_northern_utm_zones_is_refused() -> None:
    with pytest.raises(PrepError, match="EPSG:4326"):
        PatchGrid(epsg=4326, ulx=0, uly=0)
