"""Stored arrays by position."""

import gc
import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dinomm_train.data.index import StoredDataset, StoredSplit
from dinomm_train.data.stream import ShardReader
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset


@pytest.fixture(params=["paper", "none"])
def split(tmp_path: Path, request: pytest.FixtureRequest) -> StoredSplit:
    dataset = make_dataset(tmp_path, scheme=request.param, size_px=6, per_shard=5)
    return StoredDataset.open(dataset).split("train")


def array_in_tar(split: StoredSplit, position: int, sensor: str) -> np.ndarray:
    with tarfile.open(split.shard_paths[split.shard_of[position]]) as tar:
        member = tar.extractfile(f"{split.key(position)}.{sensor}.npy")
        assert member is not None
        array: np.ndarray = np.load(io.BytesIO(member.read()))
        return array


def test_samples_are_read_as_tarfile_and_numpy_read_them(split: StoredSplit) -> None:
    positions = np.array([23, 0, 7, 7, 12])
    batch = ShardReader(split).read(positions)
    assert np.array_equal(batch.positions, positions)
    assert np.array_equal(batch.sample_ids, split.sample_ids[positions])
    for row, position in enumerate(positions):
        for sensor, read in (("s2", batch.s2[row]), ("s1", batch.s1[row])):
            stored = array_in_tar(split, int(position), sensor)
            assert read.dtype == stored.dtype
            assert np.array_equal(read, stored)


def test_few_open_shards_serve_many_threads(split: StoredSplit) -> None:
    reader = ShardReader(split, max_open_shards=1)
    expected = ShardReader(split).read(np.arange(24)).s2
    orders = [np.random.default_rng(seed).permutation(24) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(reader.read, orders), strict=True):
            assert np.array_equal(batch.s2, expected[order])


def test_the_shards_read_last_stay_open_and_no_more_than_allowed(split: StoredSplit) -> None:
    def open_shards() -> set[Path]:
        gc.collect()
        files = {link.resolve() for link in Path("/proc/self/fd").iterdir()}
        return files & set(split.shard_paths)

    reader = ShardReader(split, max_open_shards=2)
    reader.read(np.arange(24))
    assert open_shards() == set(split.shard_paths[-2:])
    del reader
    assert not open_shards()


def test_a_pickled_reader_reads_the_same(split: StoredSplit) -> None:
    reader = ShardReader(split)
    read = reader.read(np.arange(5))
    again = pickle.loads(pickle.dumps(reader)).read(np.arange(5))
    assert np.array_equal(read.s1, again.s1)


def test_a_shard_that_ends_early_is_named(split: StoredSplit) -> None:
    shard = split.shard_paths[1]
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(TrainError, match=r"shard-000001\.tar ends at byte 700"):
        ShardReader(split).read(np.arange(10))


def test_a_shard_that_is_gone_is_named(split: StoredSplit) -> None:
    split.shard_paths[0].unlink()
    with pytest.raises(TrainError, match=r"shard-000000\.tar cannot be opened"):
        ShardReader(split).read(np.arange(1))
