"""Native rasters of several pitches onto one square grid."""

from collections.abc import Mapping
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Shaped

from bigearth_prep.bands import Band
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason

# A task has one core, and starting threads for a patch takes longer than the patch.
cv2.setNumThreads(1)

Resampling = Literal["nearest", "bilinear", "cubic"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)

_CV2_FLAGS = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}

_SAME_PITCH = 0.01
"""As a share of the pitch: people round."""


def resample(
    pixels: Shaped[np.ndarray, "height width"], size_px: int, method: Resampling
) -> Shaped[np.ndarray, "size size"]:
    """The raster on a `size_px` x `size_px` grid of the same footprint, in the same dtype.

    Pixel centres lie half a pixel inside the edges, as in GDAL; borders repeat. Cubic is the
    kernel with a = -0.75 (OpenCV's). Integers come out rounded and saturated.
    """
    if pixels.shape == (size_px, size_px):
        return pixels
    return cv2.resize(pixels, (size_px, size_px), interpolation=_CV2_FLAGS[method])


def common_grid(rasters: Mapping[Band, Raster]) -> Grid:
    """The grid of the finest band, once all bands are known to cover the same ground.

    Raises:
        PatchError: a band has not the pitch or size its resolution requires, or another footprint.
    """
    for band, raster in rasters.items():
        check_pitch(band, raster)
        check_size(band, raster)
    finest = min(rasters, key=lambda band: band.resolution_m)
    reference = rasters[finest].ground
    for band, raster in rasters.items():
        if not raster.ground.covers_ground_of(reference):
            raise PatchError(
                RejectReason.GRIDS_DIFFER,
                f"{band.name} lies on {raster.grid}, {finest.name} on {reference}; "
                "--align warp resamples such bands",
            )
    return reference


def trusted_grid(rasters: Mapping[Band, Raster]) -> Grid | None:
    """The grid that the finest band's file states, if it states one; sizes alone are checked.

    Raises:
        PatchError: a band has not the size its resolution requires.
    """
    for band, raster in rasters.items():
        check_size(band, raster)
    return rasters[min(rasters, key=lambda band: band.resolution_m)].grid


def check_pitch(band: Band, raster: Raster) -> None:
    """Nothing, if pixels are as large as the band's resolution says, to a hundredth.

    A grid in degrees does not say how large they are.

    Raises:
        PatchError: they are not.
    """
    grid = raster.ground
    if grid.unit_m is None:
        return
    pitches = (grid.pitch_x_m * grid.unit_m, grid.pitch_y_m * grid.unit_m)
    if any(abs(pitch - band.resolution_m) > _SAME_PITCH * band.resolution_m for pitch in pitches):
        raise PatchError(
            RejectReason.WRONG_PITCH,
            f"{band.name} has a pitch of {pitches[0]:g} x {pitches[1]:g} m in its file, "
            f"its resolution_m requires {band.resolution_m:g} m",
        )


def check_size(band: Band, raster: Raster) -> None:
    """Nothing, if the raster is as large as the band's resolution requires.

    Raises:
        PatchError: it is not.
    """
    expected, (height, width) = band.native_px, raster.pixels.shape
    if (width, height) != (expected, expected):
        raise PatchError(
            RejectReason.WRONG_SIZE,
            f"{band.name} is {width} x {height} px, "
            f"its {band.resolution_m:g} m pitch requires {expected} x {expected}",
        )


def check_values(rasters: Mapping[Band, Raster]) -> None:
    """Nothing, if every pixel is a measurement: finite, and not the band's missing value.

    Raises:
        PatchError: a band holds NaN, infinity, or missing pixels.
    """
    for band, raster in rasters.items():
        pixels = raster.pixels
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            count = int(pixels.size - np.isfinite(pixels).sum())
            raise PatchError(RejectReason.NON_FINITE, f"{band.name}: {count} of {pixels.size} px")
        missing = missing_value(band, raster)
        if missing is not None and (count := _count_equal(pixels, missing)):
            raise PatchError(
                RejectReason.NODATA, f"{band.name}: {count} of {pixels.size} px are {missing:g}"
            )


def _count_equal(pixels: Shaped[np.ndarray, "height width"], value: float) -> int:
    """How many pixels have the value; zeros, which all optical bands are searched for, fast."""
    if value == 0:
        return pixels.size - int(np.count_nonzero(pixels))
    return int(np.count_nonzero(pixels == value))


def missing_pixels(band: Band, raster: Raster) -> Bool[np.ndarray, "height width"]:
    """Which pixels are no measurement, by the same rules."""
    missing = missing_value(band, raster)
    mask: np.ndarray = ~np.isfinite(raster.pixels)
    if missing is not None:
        mask |= raster.pixels == missing
    return mask


def missing_value(band: Band, raster: Raster) -> float | None:
    """What stands for no measurement: what is known of the band, else what the file's tag says."""
    return raster.nodata if band.missing is None else band.missing
