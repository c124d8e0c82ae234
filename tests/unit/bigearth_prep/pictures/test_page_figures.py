"""Places against known points on the Earth, histogram bins against their promises."""

import numpy as np
import pyarrow as pa
import pytest

from bigearth_prep.pictures.page_figures import bin_edges, lon_lat


def test_a_patch_on_the_central_meridian_of_its_zone_lies_there() -> None:
    manifest = pa.table(
        {
            "epsg": pa.array([32633, None, 32635], pa.int32()),
            "ulx": [500_000.0 - 600, 0.0, 500_000.0 - 600],
            "uly": [0.0 + 600, 0.0, 0.9996 * 5_540_847.04 + 600],
        }
    )
    lon, lat = lon_lat(manifest, 1200.0)
    assert lon[[0, 2]] == pytest.approx([15, 27], abs=1e-9)
    # 50 degrees north is 5,540,847.04 m from the equator; UTM shortens that by 0.9996.
    assert lat[[0, 2]] == pytest.approx([0, 50], abs=1e-6)
    assert np.isnan(lon[1])


@pytest.mark.parametrize("values", [np.array([3], np.uint8), np.arange(200, dtype=np.uint16)])
def test_every_bin_of_integers_covers_equally_many(values: np.ndarray) -> None:
    counts, edges = np.histogram(values, bin_edges(values))
    assert counts.sum() == len(values)
    assert np.unique(np.diff(edges)).tolist() == [np.ceil(len(values) / 64)]


def test_a_constant_band_has_bins() -> None:
    values = np.ones(2, np.float32)
    counts, _ = np.histogram(values, bin_edges(values))
    assert counts.sum() == 2
