"""Statistics of a dataset against numpy over its arrays, undone to physical values."""

from pathlib import Path

import numpy as np
import pytest

import bigearth_prep
from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.dataset_statistics import DatasetStatistics, dataset_statistics
from tests.archive_fixture import build


def statistics_of(dataset: Path, samples_per_split: int | None = None) -> DatasetStatistics:
    with open_cluster(ClusterConfig(workers=0)) as run:
        return dataset_statistics(dataset, run, samples_per_split=samples_per_split)


@pytest.mark.parametrize(
    ("scheme", "tolerance"),
    [("paper", 1e-9), ("zscore", 0.01), ("percentile", 1e-9), ("none", 0.01)],
)
@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_moments_and_range_are_those_of_the_physical_pixels(
    v2_archive: Path, tmp_path: Path, scheme: str, tolerance: float, shard_format: str
) -> None:
    build(v2_archive, tmp_path / "out", scheme=scheme, shard_format=shard_format)
    found = statistics_of(tmp_path / "out")
    assert not found.is_sampled
    for split, bands in found.splits.items():
        samples = bigearth_prep.open_dataset(tmp_path / "out", split)
        assert found.samples[split] == len(samples)
        for sensor, layout in samples.card.sensors.items():
            stack = np.stack([samples[index][sensor] for index in range(len(samples))])
            for number, name in enumerate(layout.bands):
                physical = stack[:, number].astype(float) * layout.scale[number]
                physical += layout.offset[number]
                band = bands[name]
                assert band.count == physical.size
                assert band.mean == pytest.approx(physical.mean(), rel=1e-9, abs=tolerance)
                assert band.std == pytest.approx(physical.std(), rel=1e-9, abs=tolerance)
                assert band.minimum == pytest.approx(physical.min(), abs=0.015)
                assert band.maximum == pytest.approx(physical.max(), abs=0.015)
                assert band.percentiles is not None
                median = np.percentile(physical, 50, method="inverted_cdf")
                assert band.percentiles["50"] == pytest.approx(median, abs=0.015)


def test_a_sample_counts_so_many_of_each_split_and_says_so(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out")
    found = statistics_of(tmp_path / "out", samples_per_split=2)
    assert found.is_sampled
    assert set(found.samples.values()) == {2}
    assert {band.count for bands in found.splits.values() for band in bands.values()} == {28800}
    assert found == statistics_of(tmp_path / "out", samples_per_split=2)
    assert not statistics_of(tmp_path / "out", samples_per_split=99).is_sampled
