"""Rasters of a pair to the stored arrays of one sample, in the order of operations of a scheme."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Shaped

from bigearth_prep.align import Resampling, resample
from bigearth_prep.bands import SENSORS, Band, Sensor, bands_of
from bigearth_prep.card import BandParameters, Scheme
from bigearth_prep.normalize import BandEncoding, clip_to_quantiles, encode, encoding_of
from bigearth_prep.patch import Raster

ORDERS: Mapping[Scheme, str] = {
    "paper": (
        "s2: mean +- 2 std to 0..255, clip, truncate, then cubic; "
        "s1: cubic, clip to the patch's 1st and 99th percentile, mean +- 2 std to 0..255, truncate"
    ),
    "zscore": "resample, subtract mean, divide by std",
    "percentile": "resample, 1st..99th percentile to the code range, clip, round",
    "none": "resample, round where stored as integers",
}
"""The order of operations of each scheme, as the card states it."""


@dataclass(frozen=True, kw_only=True)
class SampleRecipe:
    """How rasters become stored arrays: everything a shard task needs to know about values."""

    bands: tuple[Band, ...]
    scheme: Scheme
    dtype: str
    size_px: int
    resampling: Resampling
    parameters: dict[str, BandParameters]
    """By band name."""

    warp: Resampling | None = None
    """How bands of another grid come onto that of the pair; by default such pairs are refused."""

    trusts_grids: bool = False
    """Bands are taken to share a grid, whatever their files say of it."""

    @property
    def order(self) -> str:
        """What is done to values, in words: the card's `normalization.order`."""
        if self.trusts_grids:
            return f"grids trusted, not compared; {ORDERS[self.scheme]}"
        if self.warp is None:
            return ORDERS[self.scheme]
        return f"where grids differ, warp ({self.warp}) onto the reference; {ORDERS[self.scheme]}"

    @cached_property
    def encodings(self) -> dict[Band, BandEncoding]:
        """The linear map of each band."""
        return {
            band: encoding_of(band, self.scheme, self.dtype, self.parameters[band.name])
            for band in self.bands
        }

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The sensors with at least one band, in the network's order."""
        return tuple(sensor for sensor in SENSORS if bands_of(sensor, self.bands))

    def sample_bytes(self, sensor: Sensor) -> int:
        """Size of one sample's stored array of a sensor."""
        bands = bands_of(sensor, self.bands)
        itemsize = np.dtype(self.encodings[bands[0]].dtype).itemsize
        return len(bands) * self.size_px * self.size_px * itemsize


def make_arrays(
    rasters: Mapping[Band, Raster], recipe: SampleRecipe
) -> dict[Sensor, Shaped[np.ndarray, "band height width"]]:
    """Stored arrays of one pair, per sensor."""
    return {sensor: _stack(rasters, sensor, recipe) for sensor in recipe.sensors}


def _stack(
    rasters: Mapping[Band, Raster], sensor: Sensor, recipe: SampleRecipe
) -> Shaped[np.ndarray, "band height width"]:
    bands = bands_of(sensor, recipe.bands)
    dtype = recipe.encodings[bands[0]].dtype
    array = np.empty((len(bands), recipe.size_px, recipe.size_px), dtype)
    for index, band in enumerate(bands):
        array[index] = _stored(rasters[band], band, recipe)
    return array


def _stored(raster: Raster, band: Band, recipe: SampleRecipe) -> Shaped[np.ndarray, "height width"]:
    encoding = recipe.encodings[band]
    if recipe.scheme != "paper":
        return encode(_on_grid(raster, recipe), encoding)
    if band.sensor == "s2":
        return resample(encode(raster.pixels, encoding), recipe.size_px, recipe.resampling)
    on_grid = _on_grid(raster, recipe).astype(np.float32, copy=False)
    return encode(clip_to_quantiles(on_grid), encoding)


def _on_grid(raster: Raster, recipe: SampleRecipe) -> Shaped[np.ndarray, "height width"]:
    """Interpolated in float32, so that nothing is rounded before the scheme rounds."""
    pixels = raster.pixels
    if pixels.shape != (recipe.size_px, recipe.size_px) and recipe.resampling != "nearest":
        pixels = pixels.astype(np.float32)
    return resample(pixels, recipe.size_px, recipe.resampling)
