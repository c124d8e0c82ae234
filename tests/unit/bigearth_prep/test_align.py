"""Resampling against GDAL, a plain bicubic loop and block repetition; checks against faults."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from rasterio.enums import Resampling as GdalResampling
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from bigearth_prep.align import check_pitch, check_values, common_grid, resample, trusted_grid
from bigearth_prep.bands import Band, select_bands
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason

(B01, B02, B05, VV) = select_bands(["B01", "B02", "B05", "VV"])


def raster_of(band: Band, *, shift_m: float = 0.0, epsg: int = 32633) -> Raster:
    side, pitch_m = band.native_px, float(band.resolution_m)
    grid = Grid(epsg, 600000.0 + shift_m, 5300040.0, pitch_m, pitch_m, side, side)
    kind = np.uint16 if band.sensor == "s2" else np.float32
    return Raster(np.full((side, side), 7, kind), grid, nodata=None)


def gdal_resample(pixels: np.ndarray, size_px: int, method: GdalResampling) -> np.ndarray:
    side = pixels.shape[0]
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": 1,
        "dtype": pixels.dtype,
        "transform": from_origin(600000, 5300040, 1200 / side, 1200 / side),
        "crs": "EPSG:32633",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(pixels, 1)
        with memory.open() as source:
            return np.asarray(source.read(1, out_shape=(size_px, size_px), resampling=method))


@pytest.mark.parametrize("side", [20, 60])
def test_nearest_repeats_every_native_pixel_as_a_block(side: int) -> None:
    pixels = np.random.default_rng(0).integers(1, 9000, (side, side)).astype(np.uint16)
    block = 120 // side
    expected = pixels.repeat(block, axis=0).repeat(block, axis=1)
    assert np.array_equal(resample(pixels, 120, "nearest"), expected)


@pytest.mark.parametrize("side", [20, 60, 120])
@pytest.mark.parametrize("size_px", [120, 128])
def test_bilinear_equals_gdal_to_one_part_in_ten_thousand(side: int, size_px: int) -> None:
    pixels = np.random.default_rng(1).uniform(1, 9000, (side, side)).astype(np.float32)
    expected = gdal_resample(pixels, size_px, GdalResampling.bilinear)
    assert resample(pixels, size_px, "bilinear") == pytest.approx(expected, rel=1e-3)


def cubic_loop(row: np.ndarray, size_px: int) -> np.ndarray:
    """One row by the cubic convolution kernel with a = -0.75 and repeated borders."""
    out = np.zeros(size_px)
    for target in range(size_px):
        place = (target + 0.5) * len(row) / size_px - 0.5
        for source in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            x = abs(place - source)
            a = -0.75
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            out[target] += (near if x <= 1 else far) * row[np.clip(source, 0, len(row) - 1)]
    return out


@pytest.mark.parametrize("side", [20, 60, 120])
def test_cubic_equals_the_convolution_kernel_as_a_loop(side: int) -> None:
    pixels = np.random.default_rng(2).uniform(1, 9000, (side, side)).astype(np.float32)
    rows = np.stack([cubic_loop(row, 128) for row in pixels])
    expected = np.stack([cubic_loop(column, 128) for column in rows.T]).T
    assert resample(pixels, 128, "cubic") == pytest.approx(expected, rel=1e-4, abs=0.5)


def test_the_target_size_leaves_pixels_untouched() -> None:
    pixels = np.random.default_rng(3).normal(-12, 5, (120, 120)).astype(np.float32)
    assert np.array_equal(resample(pixels, 120, "cubic"), pixels)


def test_bands_of_one_footprint_share_the_finest_grid() -> None:
    rasters = {band: raster_of(band) for band in (B01, B05, B02, VV)}
    assert common_grid(rasters) == rasters[B02].grid


@pytest.mark.parametrize(("shift_m", "epsg"), [(10.0, 32633), (0.0, 32634)])
def test_a_band_on_another_grid_is_rejected_with_both_grids(shift_m: float, epsg: int) -> None:
    rasters = {B02: raster_of(B02), VV: raster_of(VV, shift_m=shift_m, epsg=epsg)}
    with pytest.raises(PatchError, match=r"VV .*EPSG:\d+.* B02 ") as caught:
        common_grid(rasters)
    assert caught.value.reason is RejectReason.GRIDS_DIFFER


def test_a_band_of_another_size_is_rejected_with_both_sizes() -> None:
    grid = Grid(32633, 600000.0, 5300040.0, 20.0, 20.0, 61, 60)
    odd = Raster(np.ones((60, 61), np.uint16), grid, nodata=None)
    with pytest.raises(PatchError, match=r"B05 is 61 x 60 px.*60 x 60") as caught:
        common_grid({B02: raster_of(B02), B05: odd})
    assert caught.value.reason is RejectReason.WRONG_SIZE


def test_bands_of_twice_the_pitch_are_rejected_with_both_pitches_though_they_agree() -> None:
    rasters = {
        band: Raster(
            np.ones((side, side), np.uint16), Grid(32633, 0.0, 0.0, pitch, pitch, side, side), None
        )
        for band, side, pitch in ((B02, 120, 20.0), (B05, 60, 40.0))
    }
    message = r"^wrong pitch: B02 has a pitch of 20 x 20 m in its file, .* requires 10 m$"
    with pytest.raises(PatchError, match=message) as caught:
        common_grid(rasters)
    assert caught.value.reason is RejectReason.WRONG_PITCH


@pytest.mark.parametrize(
    ("pitch_x", "pitch_y", "unit_m", "passes"),
    [
        (10.09, 9.91, 1.0, True),
        (10.11, 10.0, 1.0, False),
        (10.0, 9.89, 1.0, False),
        (32.8084, 32.8084, 0.3048, True),
        (10.0, 10.0, 0.3048, False),
        (9e-5, 9e-5, None, True),
    ],
)
def test_a_pitch_is_compared_in_metres_to_a_hundredth_and_in_degrees_not_at_all(
    pitch_x: float, pitch_y: float, unit_m: float | None, *, passes: bool
) -> None:
    grid = Grid(32633, 0.0, 0.0, pitch_x, pitch_y, 120, 120, unit_m)
    outcome = nullcontext() if passes else pytest.raises(PatchError, match="B02 has a pitch of")
    with outcome:
        check_pitch(B02, Raster(np.ones((120, 120), np.uint16), grid, None))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_radar_that_is_not_finite_is_rejected(bad: float) -> None:
    raster = raster_of(VV)
    raster.pixels[3, 4] = bad
    with pytest.raises(PatchError, match="VV: 1 of 14400 px") as caught:
        check_values({VV: raster})
    assert caught.value.reason is RejectReason.NON_FINITE


def test_optical_zeros_are_missing_with_and_without_a_tag() -> None:
    raster = raster_of(B05)
    check_values({B05: raster})
    raster.pixels[0, :2] = 0
    with pytest.raises(PatchError, match="B05: 2 of 3600 px are 0") as caught:
        check_values({B05: raster})
    assert caught.value.reason is RejectReason.NODATA


def test_radar_may_hold_zero_decibels() -> None:
    raster = raster_of(VV)
    raster.pixels[:] = 0.0
    check_values({VV: raster})


def test_equal_edges_may_lie_a_rounding_apart_but_not_a_hundredth_of_a_pixel() -> None:
    near = {B02: raster_of(B02), VV: raster_of(VV, shift_m=0.0099)}
    assert common_grid(near) == near[B02].grid
    with pytest.raises(PatchError):
        common_grid({B02: raster_of(B02), VV: raster_of(VV, shift_m=0.1)})


def test_trusted_grids_may_differ_or_be_absent_but_sizes_may_not() -> None:
    rasters = {B05: raster_of(B05), VV: raster_of(VV, shift_m=500.0)}
    assert trusted_grid(rasters) == rasters[VV].grid
    placeless = {band: Raster(one.pixels, None, None) for band, one in rasters.items()}
    assert trusted_grid(placeless) is None
    cut = {VV: Raster(rasters[VV].pixels[1:], None, None)}
    with pytest.raises(PatchError, match=r"VV is 120 x 119 px"):
        trusted_grid(cut)


def test_what_is_missing_is_what_the_band_says_or_else_the_file() -> None:
    raster = raster_of(VV)
    raster.pixels[0, 0] = -9999.0
    tagged = Raster(raster.pixels, raster.grid, nodata=-9999.0)
    check_values({VV: raster})
    for band, one in ((VV, tagged), (replace(VV, missing=-9999.0), raster)):
        with pytest.raises(PatchError, match="VV: 1 of 14400 px are -9999"):
            check_values({band: one})
    check_values({replace(VV, missing=0.0): tagged})
