"""Rasters of other grids onto the grid of the finest optical band, by GDAL."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import rasterio
from jaxtyping import Float32, Shaped
from rasterio.crs import CRS
from rasterio.enums import Resampling as GdalResampling
from rasterio.transform import from_origin
from rasterio.warp import reproject

from bigearth_prep.align import (
    Resampling,
    check_pitch,
    check_size,
    missing_pixels,
    missing_value,
)
from bigearth_prep.bands import SENSORS, Band, bands_of
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason

_GDAL_METHODS = {
    "nearest": GdalResampling.nearest,
    "bilinear": GdalResampling.bilinear,
    "cubic": GdalResampling.cubic,
}
_WHOLE_WEIGHT = 1e-3
"""How far from 1 the warped mask of measured pixels may be: rounding, not a missing pixel."""


def warp_bands(
    rasters: Mapping[Band, Raster], method: Resampling
) -> tuple[dict[Band, Raster], Grid]:
    """The rasters on one footprint, and the grid of the reference on which warped ones lie.

    The reference is the ground under the finest Sentinel-2 band, or the finest Sentinel-1 band
    where there is none, at the finest pitch of all bands. A raster that covers just this ground
    in its native size is returned as it is.

    Raises:
        PatchError: the reference has not the pitch or size its resolution requires, or a pixel of
            it has no measurement under it.
    """
    reference = _reference_grid(rasters)
    return {
        band: raster
        if _lies_on(band, raster, reference)
        else _warp(band, raster, reference, method)
        for band, raster in rasters.items()
    }, reference


def _reference_grid(rasters: Mapping[Band, Raster]) -> Grid:
    sensor = next(sensor for sensor in SENSORS if bands_of(sensor, tuple(rasters)))
    finest = min(bands_of(sensor, tuple(rasters)), key=lambda band: band.resolution_m)
    ground = rasters[finest].ground
    check_pitch(finest, rasters[finest])
    check_size(finest, rasters[finest])
    side = max(band.native_px for band in rasters)
    shrink = ground.width / side
    pitches = (ground.pitch_x_m * shrink, ground.pitch_y_m * shrink)
    return Grid(ground.epsg, ground.ulx, ground.uly, *pitches, side, side, ground.unit_m)


def _lies_on(band: Band, raster: Raster, reference: Grid) -> bool:
    is_native = raster.pixels.shape == (band.native_px, band.native_px)
    return is_native and raster.ground.covers_ground_of(reference)


def _warp(band: Band, raster: Raster, reference: Grid, method: Resampling) -> Raster:
    holes = missing_pixels(band, raster)
    values = np.where(holes, 0, raster.pixels)
    warped, measured = _reproject(np.stack([values, ~holes]), raster.ground, reference, method)
    uncovered = np.abs(measured - 1) > _WHOLE_WEIGHT
    if count := int(np.count_nonzero(uncovered)):
        raise PatchError(
            RejectReason.NODATA,
            f"{band.name}: {count} of {uncovered.size} px ({count / uncovered.size:.1%}) of "
            f"{reference} have no measurement under them; {band.name} lies on {raster.grid}",
        )
    missing = missing_value(band, raster)
    return Raster(_in_dtype(warped, raster.pixels.dtype, missing), reference, nodata=None)


def _reproject(
    layers: Shaped[np.ndarray, "layer rows columns"],
    source: Grid,
    target: Grid,
    method: Resampling,
) -> Float32[np.ndarray, "layer height width"]:
    """All layers on the target grid; GDAL places a pixel to an eighth of its size."""
    warped = np.zeros((len(layers), target.height, target.width), np.float32)
    reproject(
        layers.astype(np.float32),
        warped,
        src_transform=_transform_of(source),
        src_crs=_crs_of(source.epsg),
        dst_transform=_transform_of(target),
        dst_crs=_crs_of(target.epsg),
        resampling=_GDAL_METHODS[method],
    )
    return warped


def _in_dtype(
    warped: Float32[np.ndarray, "height width"], dtype: np.dtype, missing: float | None
) -> Shaped[np.ndarray, "height width"]:
    """Rounded where integers, which stay above their lowest value where that means missing."""
    if dtype.kind == "f":
        return warped.astype(dtype)
    limits = np.iinfo(dtype)
    lowest = int(limits.min) + int(missing == limits.min)
    rounded: np.ndarray = np.clip(np.rint(warped), lowest, limits.max).astype(dtype)
    return rounded


def _transform_of(grid: Grid) -> rasterio.Affine:
    return from_origin(grid.ulx, grid.uly, grid.pitch_x_m, grid.pitch_y_m)


@lru_cache
def _crs_of(epsg: int) -> CRS:
    return CRS.from_epsg(epsg)
