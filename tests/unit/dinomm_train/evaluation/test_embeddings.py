from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xarray

import dinomm_train
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation import embedding_files
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.embeddings import embed_dataset, write_embeddings
from dinomm_train.evaluation.encoders import NetworkEncoder
from dinomm_train.evaluation.images import blank_missing, read_images
from dinomm_train.models.frozen import FrozenBackbone, expected_input, untrained
from dinomm_train.pretrained import read_frozen_backbone
from dinomm_train.transfer import to_host
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN, write_run
from tests.shard_fixture import make_dataset

COUNTS = {"train": 10, "test": 5}
SENSORS: tuple[SensorSet, ...] = ("s2", "s1+s2")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset"), samples=COUNTS))


@pytest.fixture
def frozen(dataset: StoredDataset) -> FrozenBackbone:
    expects = expected_input(dataset.card, TINY_RUN.views)
    return untrained(TINY_MODEL, expects, seed=0, origin="a network")


def features_of(
    frozen: FrozenBackbone, dataset: StoredDataset, split: str, sensors: SensorSet
) -> np.ndarray:
    """The network's own output for whole patches."""
    stored = dataset.split(split)
    (images,) = read_images(dataset, stored, [np.arange(len(stored))], torch.device("cpu"))
    features: np.ndarray = frozen.network(blank_missing(images, frozen.expects, sensors)).numpy()
    return features


def test_every_patch_has_a_row_per_sensor_set_with_its_own_features(
    dataset: StoredDataset, frozen: FrozenBackbone, tmp_path: Path
) -> None:
    config = ExtractionConfig(sensor_sets=SENSORS, batch_size=4, device="cpu")
    path = tmp_path / "features.parquet"
    assert write_embeddings(frozen, dataset, path, config) == 2 * 15
    rows = {(row["key"], row["sensors"]): row for row in pq.read_table(path).to_pylist()}
    assert len(rows) == 2 * 15
    for name in ("train", "test"):
        split = dataset.split(name)
        for sensors in SENSORS:
            expected = features_of(frozen, dataset, name, sensors)
            for position in range(len(split)):
                row = rows[split.key(position), sensors]
                assert row["split"] == name
                np.testing.assert_allclose(row["features"], expected[position], atol=1e-5)
    metadata = pq.read_schema(path).metadata
    assert metadata[b"dataset_checksum"].decode() == dataset.checksum
    assert metadata[b"network"] == b"a network"


def test_a_parquet_file_is_of_large_row_groups_without_dictionaries_of_floats(
    dataset: StoredDataset,
    frozen: FrozenBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding_files, "_ROWS_PER_CHUNK", 4)
    config = ExtractionConfig(sensor_sets=SENSORS, batch_size=2, device="cpu")
    path = tmp_path / "features.parquet"
    write_embeddings(frozen, dataset, path, config)
    found = pq.read_metadata(path)
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    assert [group.num_rows for group in groups] == [4, 4, 4, 4, 2, 2, 4, 4, 1, 1]
    assert "PLAIN" in groups[0].column(3).encodings
    assert not any("DICTIONARY" in one for one in groups[0].column(3).encodings)
    keys = pq.read_table(path).column("key").to_pylist()
    first = [dataset.split("train").key(row) for row in range(10)]
    assert keys[:20] == [*first[:4] * 2, *first[4:8] * 2, *first[8:] * 2]


def test_a_zarr_group_holds_an_array_per_sensor_set_in_the_order_of_its_keys(
    dataset: StoredDataset,
    frozen: FrozenBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedding_files, "_ROWS_PER_CHUNK", 6)
    config = ExtractionConfig(sensor_sets=SENSORS, batch_size=4, device="cpu")
    path = tmp_path / "features.zarr"
    assert write_embeddings(frozen, dataset, path, config) == 2 * 15
    assert write_embeddings(frozen, dataset, path, config) == 2 * 15, "a group is replaced"
    found = xarray.open_zarr(path, consolidated=False)
    keys = [dataset.split(name).key(row) for name, n in COUNTS.items() for row in range(n)]
    assert found["key"].values.tolist() == keys
    assert found["split"].values.tolist() == ["train"] * 10 + ["test"] * 5
    assert found.attrs["dataset_checksum"] == dataset.checksum
    for sensors in SENSORS:
        expected = [features_of(frozen, dataset, name, sensors) for name in COUNTS]
        np.testing.assert_allclose(found[sensors].values, np.concatenate(expected), atol=1e-5)


def test_features_come_batch_by_batch_of_the_splits_named(
    dataset: StoredDataset, frozen: FrozenBackbone
) -> None:
    config = ExtractionConfig(batch_size=2, device="cpu")
    batches = list(embed_dataset(frozen, dataset, ("test",), config))
    assert [len(batch.keys) for batch in batches] == [2, 2, 1]
    assert list(batches[0].features) == ["s1", "s2", "s1+s2"]


def test_the_python_call_gives_keys_and_features_of_one_split(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    run = write_run(tmp_path, dataset.path)
    keys, found = dinomm_train.embed(run, dataset.path, split="test", sensors="s2")
    split = dataset.split("test")
    assert keys == [split.key(position) for position in range(5)]
    expected = features_of(read_frozen_backbone(run), dataset, "test", "s2")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for_between_batches(frozen: FrozenBackbone) -> None:
    config = ExtractionConfig(device="cuda")
    device = torch.device("cuda")
    encoder = NetworkEncoder(frozen, patch_px=32, config=config, device=device)
    images = torch.rand(4, 14, 32, 32, device=device)
    expected = [encoder.encode(images, sensors) for sensors in SENSORS]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        waits = [to_host(encoder.encode(images, sensors)) for sensors in SENSORS]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for wait, one in zip(waits, expected, strict=True):
        assert torch.equal(wait(), one.cpu())
