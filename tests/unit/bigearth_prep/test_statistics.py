"""Histograms and what follows from them, against numpy on the pixels themselves."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearth_prep.bands import ALL_BANDS, Band, select_bands
from bigearth_prep.errors import PrepError
from bigearth_prep.statistics import (
    BandStatistics,
    StatisticsTable,
    count_pixels,
    empty_counts,
    published_statistics,
    read_statistics,
    require_bands,
    summarize,
    write_statistics,
)

(B02, VV) = select_bands(["B02", "VV"])


def test_moments_and_percentiles_of_reflectance_equal_numpys() -> None:
    pixels = np.random.default_rng(0).gamma(2.0, 300.0, (120, 120)).astype(np.uint16)
    found = summarize(B02, count_pixels(B02, pixels))
    assert found.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert found.std == pytest.approx(pixels.std(), rel=1e-12)
    assert (found.minimum, found.maximum) == (float(pixels.min()), float(pixels.max()))
    assert found.count == 14400
    assert found.percentiles is not None
    for share in (1, 50, 99):
        expected = np.percentile(pixels, share, method="inverted_cdf")
        assert found.percentiles[str(share)] == expected


def test_moments_of_backscatter_equal_numpys_to_the_counting_step() -> None:
    pixels = np.random.default_rng(1).normal(-12.6, 5.1, (120, 120)).astype(np.float32)
    found = summarize(VV, count_pixels(VV, pixels))
    assert found.mean == pytest.approx(float(pixels.mean()), abs=2e-4)
    assert found.std == pytest.approx(float(pixels.std()), abs=2e-4)
    assert found.percentiles is not None
    assert found.percentiles["99"] == pytest.approx(np.percentile(pixels, 99), abs=0.02)


@given(cuts=st.lists(st.integers(0, 64), max_size=5), seed=st.integers(0, 9))
def test_any_partition_of_the_patches_gives_the_same_statistics(cuts: list[int], seed: int) -> None:
    pixels = np.random.default_rng(seed).normal(-15, 6, (64, 8)).astype(np.float32)
    edges = sorted({0, 64, *cuts})
    total = empty_counts(VV)
    for start, stop in pairwise(edges):
        total += count_pixels(VV, pixels[start:stop])
    assert summarize(VV, total) == summarize(VV, count_pixels(VV, pixels))


def test_backscatter_out_of_range_lands_in_the_outermost_bins() -> None:
    pixels = np.array([[-250.0, 250.0]], dtype=np.float32)
    found = summarize(VV, count_pixels(VV, pixels))
    assert (found.minimum, found.maximum) == (-100.0, 100.0)


def test_no_pixel_is_an_error_that_names_the_band() -> None:
    with pytest.raises(PrepError, match="B02"):
        summarize(B02, empty_counts(B02))


def test_published_tables_know_every_band_and_the_figures_of_the_paper() -> None:
    table = published_statistics("dino-mm")
    require_bands(table, ALL_BANDS)
    assert table.bands["VV"] == BandStatistics(mean=-12.59, std=5.04)
    assert table.bands["VH"] == BandStatistics(mean=-19.22, std=5.42)
    assert table.bands["B8A"].mean == 2266.46036911
    assert published_statistics("reben").bands["B09"].std == 1316.3933


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    table = StatisticsTable(source="here", bands={"B02": summarize(B02, count_pixels(B02, pixels))})
    path = tmp_path / "statistics.json"
    write_statistics(table, path)
    assert read_statistics(path) == table
    with pytest.raises(PrepError, match="VV"):
        require_bands(read_statistics(path), (B02, VV))


@pytest.mark.parametrize("text", ["", "[]", '{"source": "x", "bands": {"B02": {"men": 1}}}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(PrepError, match=r"other\.json"):
        read_statistics(path)


INT16 = Band("ndvi", "s2", 10.0, 8, "int16", "NDVI x 10^4")
FLOAT = Band("red", "s2", 10.0, 8, "float32", "reflectance")


def test_statistics_of_signed_integers_equal_numpys() -> None:
    pixels = np.random.default_rng(4).integers(-32768, 32768, (64, 64)).astype(np.int16)
    found = summarize(INT16, count_pixels(INT16, pixels))
    assert found.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert found.std == pytest.approx(pixels.std(), rel=1e-12)
    assert (found.minimum, found.maximum) == (pixels.min(), pixels.max())
    assert found.percentiles is not None
    assert found.percentiles["50"] == np.percentile(pixels, 50, method="inverted_cdf")


def test_statistics_of_floats_of_any_range_equal_numpys_to_the_counting_step() -> None:
    rng = np.random.default_rng(5)
    pixels = (rng.gamma(2.0, 0.05, (64, 64)) - 0.02).astype(np.float32)
    found = summarize(FLOAT, count_pixels(FLOAT, pixels))
    assert found.mean == pytest.approx(float(pixels.mean()), rel=1e-4)
    assert found.std == pytest.approx(float(pixels.std()), rel=1e-4)
    assert found.minimum == pytest.approx(float(pixels.min()), rel=1e-3)
    assert found.percentiles is not None
    for share in (1, 50, 99):
        assert found.percentiles[str(share)] == pytest.approx(
            float(np.percentile(pixels, share, method="inverted_cdf")), rel=1e-3
        )


def test_any_partition_of_floats_gives_the_same_statistics() -> None:
    pixels = np.random.default_rng(6).normal(0, 1e-3, (64, 8)).astype(np.float32)
    total = empty_counts(FLOAT)
    for part in np.array_split(pixels, 5):
        total += count_pixels(FLOAT, part)
    assert summarize(FLOAT, total) == summarize(FLOAT, count_pixels(FLOAT, pixels))
