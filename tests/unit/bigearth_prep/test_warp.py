"""Warping against rasterio called directly, against a field known everywhere, and its refusals."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling as GdalResampling
from rasterio.io import MemoryFile
from rasterio.warp import reproject, transform

from bigearth_prep.align import Resampling, common_grid
from bigearth_prep.bands import Band, select_bands
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason
from bigearth_prep.warp import warp_bands

(B02, B03, B05, VV) = select_bands(["B02", "B03", "B05", "VV"])
WEST, NORTH = 725_160.0, 5_300_640.0
"""Upper left corner of the optical patch, in zone 32 near its border with zone 33."""

OPTICAL = Grid(32632, WEST, NORTH, 10.0, 10.0, 120, 120)


def ramp(easting: np.ndarray, northing: np.ndarray) -> np.ndarray:
    """A smooth field over the ground, in dB: it varies by some 7 dB over a patch."""
    east, north = (easting - WEST) / 1200, (northing - NORTH) / 1200
    return np.asarray(-12 + 4 * east + 2 * np.sin(3 * north))


def ramp_on(grid: Grid) -> np.ndarray:
    """The field at the centres of a grid's pixels, wherever its projection puts them."""
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    easting = (grid.ulx + columns * grid.pitch_x_m).ravel()
    northing = (grid.uly - rows * grid.pitch_y_m).ravel()
    if grid.epsg != OPTICAL.epsg:
        places = transform(f"EPSG:{grid.epsg}", f"EPSG:{OPTICAL.epsg}", easting, northing)
        easting, northing = (np.array(axis) for axis in places)
    return ramp(easting, northing).reshape(grid.height, grid.width)


def optics(value: int = 500) -> Raster:
    return Raster(np.full((120, 120), value, np.uint16), OPTICAL, nodata=0.0)


def radar(grid: Grid) -> Raster:
    return Raster(ramp_on(grid).astype(np.float32), grid, nodata=None)


def zone_33(margin_m: float = 300.0, pitch_m: float = 10.0) -> Grid:
    """A grid of the next zone that covers the optical patch with a margin."""
    (easting,), (northing,) = transform("EPSG:32632", "EPSG:32633", [WEST + 600], [NORTH - 600])
    half = 600 + margin_m
    side = round(2 * half / pitch_m)
    return Grid(32633, easting - half, northing + half, pitch_m, pitch_m, side, side)


OTHER_GRIDS = {
    "another zone": zone_33(),
    "half a pixel away": Grid(32632, WEST - 105, NORTH + 105, 10.0, 10.0, 141, 141),
    "20 m, the same ground": Grid(32632, WEST, NORTH, 20.0, 20.0, 60, 60),
    "another zone, 20 m": zone_33(pitch_m=20.0),
}


def by_gdal_from_a_file(raster: Raster, method: str) -> np.ndarray:
    """The radar on the optical grid, warped from a file to an array by rasterio alone."""
    grid = raster.ground
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": 1,
        "dtype": raster.pixels.dtype,
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(grid.pitch_x_m, 0, grid.ulx, 0, -grid.pitch_y_m, grid.uly),
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(raster.pixels, 1)
        with memory.open() as source:
            warped, _ = reproject(
                rasterio.band(source, 1),
                np.full((120, 120), np.nan, np.float32),
                dst_crs="EPSG:32632",
                dst_transform=rasterio.Affine(10, 0, WEST, 0, -10, NORTH),
                resampling=GdalResampling[method],
            )
            return np.asarray(warped)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("where", OTHER_GRIDS)
def test_radar_of_another_grid_is_what_gdal_makes_of_its_file(
    where: str, method: Resampling
) -> None:
    raster = radar(OTHER_GRIDS[where])
    rasters, grid = warp_bands({B02: optics(), VV: raster}, method)
    assert grid == rasters[VV].grid == OPTICAL
    assert rasters[VV].pixels == pytest.approx(by_gdal_from_a_file(raster, method), abs=1e-4)


@pytest.mark.parametrize("where", OTHER_GRIDS)
def test_a_smooth_field_is_where_it_was_on_the_ground(where: str) -> None:
    rasters, _ = warp_bands({B02: optics(), VV: radar(OTHER_GRIDS[where])}, "bilinear")
    # A hundredth of a dB is a quarter of a pixel along the steepest slope.
    inner = (slice(2, -2), slice(2, -2))
    assert rasters[VV].pixels[inner] == pytest.approx(ramp_on(OPTICAL)[inner], abs=0.015)
    assert rasters[VV].pixels == pytest.approx(ramp_on(OPTICAL), abs=0.06)


def test_bands_that_share_the_ground_are_left_as_they_were_read() -> None:
    coarse = Raster(
        np.full((60, 60), 7, np.uint16), Grid(32632, WEST, NORTH, 20.0, 20.0, 60, 60), nodata=0.0
    )
    rasters = {B02: optics(), B05: coarse, VV: radar(OPTICAL)}
    aligned, grid = warp_bands(rasters, "bilinear")
    assert all(aligned[band] is rasters[band] for band in rasters)
    assert grid == common_grid(rasters)


def test_a_coarse_optical_band_of_another_grid_comes_onto_the_finest() -> None:
    grid = Grid(32632, WEST - 210, NORTH + 210, 20.0, 20.0, 81, 81)
    pixels = np.rint(3000 + 100 * ramp_on(grid)).astype(np.uint16)
    aligned, _ = warp_bands({B02: optics(), B05: Raster(pixels, grid, nodata=0.0)}, "cubic")
    assert aligned[B05].pixels.dtype == np.uint16
    assert aligned[B05].pixels == pytest.approx(3000 + 100 * ramp_on(OPTICAL), abs=1.5)


def test_coarse_optics_and_fine_radar_meet_at_the_fine_pitch() -> None:
    coarse = Raster(
        np.full((60, 60), 7, np.uint16), Grid(32632, WEST, NORTH, 20.0, 20.0, 60, 60), nodata=0.0
    )
    aligned, grid = warp_bands({B05: coarse, VV: radar(OTHER_GRIDS["another zone"])}, "bilinear")
    assert grid == OPTICAL
    assert aligned[VV].pixels.shape == (120, 120)


def test_dark_water_stays_a_measurement_where_cubic_undershoots() -> None:
    grid = Grid(32632, WEST - 205, NORTH + 205, 10.0, 10.0, 161, 161)
    pixels = np.ones((161, 161), np.uint16)
    pixels[80:, :] = 9000
    band = Raster(pixels, grid, nodata=0.0)
    aligned, _ = warp_bands({B02: optics(), B03: band}, "cubic")
    assert aligned[B03].pixels.min() == 1


def test_ground_that_the_radar_does_not_cover_is_refused_with_its_share() -> None:
    grid = Grid(32632, WEST + 300, NORTH, 10.0, 10.0, 120, 120)
    with pytest.raises(
        PatchError, match=r"VV: 3600 of 14400 px \(25\.0%\) of EPSG:32632"
    ) as caught:
        warp_bands({B02: optics(), VV: radar(grid)}, "bilinear")
    assert caught.value.reason is RejectReason.NODATA


@pytest.mark.parametrize(("bad", "nodata"), [(np.nan, None), (np.inf, None), (-9999.0, -9999.0)])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_a_missing_pixel_is_not_filled_from_its_neighbours(
    bad: float, nodata: float | None, method: Resampling
) -> None:
    whole = radar(OTHER_GRIDS["another zone"])
    pixels = whole.pixels.copy()
    pixels[90, 90] = bad
    with pytest.raises(PatchError, match=r"VV: \d+ of 14400 px") as caught:
        warp_bands({B02: optics(), VV: Raster(pixels, whole.grid, nodata)}, method)
    assert caught.value.reason is RejectReason.NODATA


def test_a_missing_pixel_outside_the_patch_does_no_harm() -> None:
    whole = radar(OTHER_GRIDS["another zone"])
    pixels = whole.pixels.copy()
    pixels[0, :] = np.nan
    rasters, _ = warp_bands({B02: optics(), VV: Raster(pixels, whole.grid, None)}, "cubic")
    assert np.isfinite(rasters[VV].pixels).all()


def test_a_reference_of_another_size_is_refused() -> None:
    odd: dict[Band, Raster] = {
        B02: Raster(
            np.ones((119, 120), np.uint16), Grid(32632, WEST, NORTH, 10.0, 10.0, 120, 119), None
        )
    }
    with pytest.raises(PatchError, match="B02 is 120 x 119 px") as caught:
        warp_bands(odd, "bilinear")
    assert caught.value.reason is RejectReason.WRONG_SIZE


def test_the_reference_is_held_to_its_pitch_and_the_others_are_not() -> None:
    twice = Grid(32632, WEST, NORTH, 20.0, 20.0, 120, 120)
    rasters = {B02: Raster(np.full((120, 120), 500, np.uint16), twice, None)}
    with pytest.raises(PatchError, match="B02 has a pitch of 20 x 20 m") as caught:
        warp_bands(rasters, "bilinear")
    assert caught.value.reason is RejectReason.WRONG_PITCH
    _, grid = warp_bands({B02: optics(), VV: radar(zone_33(pitch_m=20.0))}, "bilinear")
    assert grid == OPTICAL


@pytest.mark.parametrize(("missing", "lowest"), [(None, 0), (0.0, 1)])
def test_zeros_stay_zeros_only_where_they_are_measurements(
    missing: float | None, lowest: int
) -> None:
    colour = Band("red", "s2", 10.0, 120, "uint8", "DN", missing=missing)
    pixels = np.full((160, 160), 200, np.uint8)
    pixels[40:120, 40:120] = lowest  # beside the bright ring, cubic undershoots
    wide = Grid(32632, WEST - 205, NORTH + 205, 10.0, 10.0, 160, 160)
    fine = Band("pan", "s2", 5.0, 240, "uint16", "DN", missing=0.0)
    fine_grid = Grid(32632, WEST, NORTH, 5.0, 5.0, 240, 240)
    ground = Raster(np.ones((240, 240), np.uint16), fine_grid, None)
    warped, _ = warp_bands({fine: ground, colour: Raster(pixels, wide, None)}, "cubic")
    assert warped[colour].pixels.min() == lowest
