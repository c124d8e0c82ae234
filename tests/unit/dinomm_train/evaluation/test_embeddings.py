from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.embeddings import write_embeddings
from dinomm_train.evaluation.features import embed_split
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset

SENSORS: tuple[SensorSet, ...] = ("s2", "s1+s2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(
        make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 10, "test": 5})
    )


def test_every_patch_has_a_row_per_sensor_set_with_its_own_features(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    expects = expected_input(dataset.card, TINY_RUN.views)
    frozen = untrained(TINY_MODEL, expects, seed=0, origin="a network")
    config = ExtractionConfig(sensor_sets=SENSORS, batch_size=4, device="cpu")
    path = tmp_path / "features.parquet"
    assert write_embeddings(frozen, dataset, path, config) == 2 * 15
    rows = {(row["key"], row["sensors"]): row for row in pq.read_table(path).to_pylist()}
    assert len(rows) == 2 * 15
    whole = ExtractionConfig(sensor_sets=SENSORS, device="cpu")
    for name in ("train", "test"):
        split = dataset.split(name)
        (features,) = embed_split(frozen, dataset, split, whole)
        for position in range(len(split)):
            for sensors in SENSORS:
                row = rows[split.key(position), sensors]
                assert row["split"] == name
                np.testing.assert_allclose(row["features"], features[sensors][position], atol=1e-5)
    metadata = pq.read_schema(path).metadata
    assert metadata[b"dataset_checksum"].decode() == dataset.checksum
    assert metadata[b"network"] == b"a network"
