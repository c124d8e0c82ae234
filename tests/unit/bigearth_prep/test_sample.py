"""The order of operations of each scheme, against OpenCV and numpy called in that order."""

import cv2
import numpy as np
import pytest

from bigearth_prep.bands import ALL_BANDS, Band, select_bands
from bigearth_prep.normalize import parameters_of
from bigearth_prep.patch import Grid, Raster
from bigearth_prep.sample import SampleRecipe, make_arrays
from bigearth_prep.statistics import published_statistics

STATISTICS = published_statistics("dino-mm").bands


def rasters_of(bands: tuple[Band, ...], seed: int = 0) -> dict[Band, Raster]:
    rng = np.random.default_rng(seed)
    rasters = {}
    for band in bands:
        side = band.native_px
        moments = STATISTICS[band.name]
        values = rng.normal(moments.mean, moments.std, (side, side))
        pixels = values.astype(np.float32)
        if band.sensor == "s2":
            pixels = np.clip(values, 1, 20000).astype(np.uint16)
        pitch = float(band.resolution_m)
        rasters[band] = Raster(pixels, Grid(32633, 0.0, 0.0, pitch, pitch, side, side), None)
    return rasters


def recipe_of(scheme: str, bands: tuple[Band, ...] = ALL_BANDS, **changes: object) -> SampleRecipe:
    dtypes = {"paper": "uint8", "zscore": "float32", "none": "native"}
    fields = {"dtype": dtypes[scheme], "size_px": 128, "resampling": "cubic"} | changes
    parameters = {
        band.name: parameters_of(scheme, STATISTICS[band.name], band=band.name)  # type: ignore[arg-type]
        for band in bands
    }
    return SampleRecipe(bands=bands, scheme=scheme, parameters=parameters, **fields)  # type: ignore[arg-type]


def stretch(values: np.ndarray, name: str) -> np.ndarray:
    low = STATISTICS[name].mean - 2 * STATISTICS[name].std
    high = STATISTICS[name].mean + 2 * STATISTICS[name].std
    scaled = (values.astype(np.float64) - low) / (high - low) * 255.0
    return np.clip(scaled, 0, 255).astype(np.uint8)


def test_the_published_form_makes_bytes_of_optical_bands_before_it_resizes_them() -> None:
    rasters = rasters_of(ALL_BANDS)
    stored = make_arrays(rasters, recipe_of("paper"))["s2"]
    for band, found in zip(ALL_BANDS, stored, strict=False):
        eight_bit = stretch(rasters[band].pixels, band.name)
        expected = cv2.resize(eight_bit, (128, 128), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(found, expected)


def test_the_published_form_resizes_and_clips_radar_before_it_makes_bytes() -> None:
    rasters = rasters_of(ALL_BANDS)
    stored = make_arrays(rasters, recipe_of("paper"))["s1"]
    for band, found in zip(select_bands(["VH", "VV"]), stored, strict=True):
        resized = cv2.resize(rasters[band].pixels, (128, 128), interpolation=cv2.INTER_CUBIC)
        low, high = np.percentile(resized, 1), np.percentile(resized, 99)
        expected = stretch(np.clip(resized, np.float32(low), np.float32(high)), band.name)
        assert np.array_equal(found, expected)


def test_other_schemes_resize_physical_values_and_scale_after() -> None:
    bands = select_bands(["B05", "B09", "VV"])
    rasters = rasters_of(bands)
    stored = make_arrays(rasters, recipe_of("zscore", bands, resampling="bilinear"))
    for band, found in zip(bands, [*stored["s2"], *stored["s1"]], strict=True):
        values = rasters[band].pixels.astype(np.float32)
        resized = cv2.resize(values, (128, 128), interpolation=cv2.INTER_LINEAR)
        expected = (resized - STATISTICS[band.name].mean) / STATISTICS[band.name].std
        assert found == pytest.approx(expected, abs=1e-5)


def test_native_values_keep_their_types_and_saturate_nowhere_below_zero() -> None:
    bands = select_bands(["B01", "VV"])
    rasters = rasters_of(bands)
    rasters[bands[0]].pixels[:, ::2] = 1
    stored = make_arrays(rasters, recipe_of("none", bands))
    assert [str(array.dtype) for array in stored.values()] == ["uint16", "float32"]
    assert stored["s2"].max() < 20000


def test_bands_come_in_the_order_asked_for_and_absent_sensors_stay_out() -> None:
    bands = select_bands(["B04", "B03", "B02"])
    rasters = rasters_of(bands)
    stored = make_arrays(rasters, recipe_of("none", bands, size_px=120))
    assert list(stored) == ["s2"]
    for band, found in zip(bands, stored["s2"], strict=True):
        assert np.array_equal(found, rasters[band].pixels)
