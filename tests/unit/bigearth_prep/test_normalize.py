"""Encodings against the published formulas written out, and undone through the card's numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearth_prep.bands import ALL_BANDS, Band, select_bands
from bigearth_prep.card import BandParameters, NormalizationCard
from bigearth_prep.errors import PrepError
from bigearth_prep.normalize import (
    DTYPES,
    clip_to_quantiles,
    encode,
    encoding_of,
    parameters_of,
    statistics_of,
)
from bigearth_prep.statistics import BandStatistics, published_statistics

(B02, VV) = select_bands(["B02", "VV"])
PUBLISHED = published_statistics("dino-mm").bands
WITH_PERCENTILES = BandStatistics(mean=500.0, std=400.0, percentiles={"1": 40.0, "99": 2590.0})


@pytest.mark.parametrize("band", ALL_BANDS, ids=lambda band: band.name)
def test_the_published_form_is_the_two_sigma_stretch_cut_off_to_bytes(band: Band) -> None:
    statistics = PUBLISHED[band.name]
    rng = np.random.default_rng(0)
    values = rng.normal(statistics.mean, 1.5 * statistics.std, (120, 120))
    stored_type = np.uint16 if band.sensor == "s2" else np.float32
    values = np.clip(values, 1 if band.sensor == "s2" else -60, 20000).astype(stored_type)
    low = statistics.mean - 2 * statistics.std
    high = statistics.mean + 2 * statistics.std
    expected = np.zeros((120, 120), np.uint8)
    for index, value in np.ndenumerate(values):
        expected[index] = int(min(max((float(value) - low) / (high - low) * 255.0, 0.0), 255.0))
    encoding = encoding_of(band, "paper", "uint8", parameters_of("paper", statistics, band="B"))
    assert np.array_equal(encode(values, encoding), expected)


@pytest.mark.parametrize(
    ("scheme", "dtype", "tolerance"),
    [
        ("zscore", "float32", 1e-2),
        ("zscore", "float16", 4.0),
        ("percentile", "uint8", 5.01),
        ("percentile", "uint16", 0.021),
        ("none", "native", 0.0),
    ],
)
def test_the_cards_scale_and_offset_undo_what_was_stored(
    scheme: str, dtype: str, tolerance: float
) -> None:
    values = np.linspace(40, 2590, 14400).astype(np.uint16).reshape(120, 120)
    parameters = parameters_of(scheme, WITH_PERCENTILES, band="B")  # type: ignore[arg-type]
    encoding = encoding_of(B02, scheme, dtype, parameters)  # type: ignore[arg-type]
    stored = encode(values, encoding)
    physical = stored.astype(np.float64) * encoding.scale + encoding.offset
    assert np.abs(physical - values).max() <= tolerance
    assert stored.dtype == ("uint16" if dtype == "native" else dtype)


@pytest.mark.parametrize("scheme", DTYPES)
def test_what_a_card_records_is_computed_again_from_the_card(scheme: str) -> None:
    parameters = {"B02": parameters_of(scheme, WITH_PERCENTILES, band="B02")}  # type: ignore[arg-type]
    card = NormalizationCard(
        scheme=scheme,  # type: ignore[arg-type]
        parameters=parameters,
        source="here",
        resampling="nearest",
        order="",
    )
    table = statistics_of(card)
    assert table.source == "here"
    assert parameters == {
        name: parameters_of(scheme, band, band=name)  # type: ignore[arg-type]
        for name, band in table.bands.items()
    }


def test_percentile_clips_beyond_its_ends_and_rounds_within() -> None:
    encoding = encoding_of(
        B02, "percentile", "uint8", parameters_of("percentile", WITH_PERCENTILES, band="B")
    )
    values = np.array([[0, 40, 44, 46, 2590, 60000]], np.uint16)
    assert encode(values, encoding).tolist() == [[0, 0, 0, 1, 255, 255]]


def test_native_radar_keeps_its_decimals() -> None:
    values = np.array([[-12.345678, 3.25]], np.float32)
    encoding = encoding_of(VV, "none", "native", parameters_of("none", PUBLISHED["VV"], band="B"))
    assert np.array_equal(encode(values, encoding), values)


def test_quantile_clip_is_per_patch_and_between_its_own_percentiles() -> None:
    values = np.arange(14400, dtype=np.float32).reshape(120, 120)
    clipped = clip_to_quantiles(values)
    assert (clipped.min(), clipped.max()) == (np.float32(143.99), np.float32(14255.01))
    assert np.array_equal(clipped[60], values[60])


@settings(max_examples=200, deadline=None)
@given(
    side=st.integers(2, 130),
    seed=st.integers(0, 99),
    steps=st.sampled_from([0, 3, 1000]),
    pattern=st.sampled_from(["noise", "ascending", "stripes"]),
)
def test_quantile_clip_is_numpys_percentiles_to_the_last_bit(
    side: int, seed: int, steps: int, pattern: str
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(-15, 5, side * side).astype(np.float32)
    if steps:
        values = np.round(values * steps / 40).astype(np.float32)
    if pattern == "ascending":
        values = np.sort(values)
    if pattern == "stripes":  # the extremes where the sample does not look, or only there
        values[seed % 16 :: 16] *= 100
    values = values.reshape(side, side)
    lower, upper = (np.float32(limit) for limit in np.percentile(values, (1.0, 99.0)))
    expected = np.minimum(np.maximum(values, lower), upper)
    assert np.array_equal(clip_to_quantiles(values), expected)


@pytest.mark.parametrize("scheme", ["paper", "zscore", "percentile"])
def test_every_integer_is_stored_as_the_same_float_would_be(scheme: str) -> None:
    parameters = parameters_of(scheme, WITH_PERCENTILES, band="B")  # type: ignore[arg-type]
    encoding = encoding_of(B02, scheme, DTYPES[scheme][0], parameters)  # type: ignore[arg-type, index]
    every = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(encode(every, encoding), encode(every.astype(np.float32), encoding))


def test_percentile_of_a_published_table_says_what_to_add() -> None:
    with pytest.raises(PrepError, match="--stats compute"):
        parameters_of("percentile", PUBLISHED["B02"], band="B")


def test_a_band_without_spread_is_refused() -> None:
    with pytest.raises(PrepError, match="B has no range of values"):
        parameters_of("zscore", BandStatistics(mean=3.0, std=0.0), band="B")


def test_a_dtype_that_the_scheme_cannot_take_is_refused() -> None:
    parameters = BandParameters(mean=0.0, std=1.0, lower=0.0, upper=1.0)
    with pytest.raises(PrepError, match="uint8"):
        encoding_of(B02, "paper", "uint16", parameters)


def test_native_signed_integers_are_rounded_and_kept_within_their_range() -> None:
    band = Band("elevation", "s2", 10.0, 4, "int16", "m")
    parameters = BandParameters(mean=0.0, std=1.0, lower=0.0, upper=1.0)
    encoding = encoding_of(band, "none", "native", parameters)
    values = np.array([[-1.6, -0.4, 2.5, 3.5], [4e4, -4e4, 0.6, 7.0]], np.float32)
    expected = np.array([[-2, 0, 2, 4], [32767, -32768, 1, 7]], np.int16)
    assert np.array_equal(encode(values, encoding), expected)
    assert encode(expected, encoding) is expected
