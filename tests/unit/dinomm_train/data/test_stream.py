"""Stored arrays by position."""

import io
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bigearth_prep.bands import SENSORS, Sensor
from bigearth_prep.card import ShardCard
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.shard_file import ShardFile, ShardFolder
from dinomm_train.data.stored_split import StoredSplit
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


def test_a_batch_that_threads_fill_is_the_one_that_is_read_at_once(split: StoredSplit) -> None:
    reader = ShardReader(split)
    expected = reader.read(np.arange(24))
    orders = [np.random.default_rng(seed).permutation(24) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        pending = [reader.begin(order, pool, parts=3) for order in orders]
        for order, one in zip(orders, pending, strict=True):
            assert np.array_equal(one.result().s2, expected.s2[order])
            assert np.array_equal(one.result().s1, expected.s1[order])


def reads_of(split: StoredSplit, positions: list[int]) -> list[tuple[int, int]]:
    """Offset and bytes of each read that a batch takes."""
    reads = []

    class NotedFile(ShardFile):
        def read(self, offset: int, into: Sequence[memoryview]) -> None:
            reads.append((offset, sum(map(len, into))))
            super().read(offset, into)

    class NotedFolder(ShardFolder):
        def open(self, shard: ShardCard) -> ShardFile:
            return NotedFile.open(split.folder / shard.name)

    ShardReader(replace(split, store=NotedFolder(split.folder))).read(np.array(positions))
    return reads


def test_both_sensors_of_a_sample_come_in_one_read(split: StoredSplit) -> None:
    first, last = split.arrays["s2"], split.arrays["s1"]
    begin, end = int(first.offsets[7]), int(last.offsets[7]) + last.sample_bytes
    assert reads_of(split, [7]) == [(begin, end - begin)]


def test_neighbours_in_a_shard_come_in_one_read_and_shards_in_one_each(
    split: StoredSplit,
) -> None:
    # Shards of 5: samples 0 to 4, then 5 to 9, whatever the order in which they are asked for.
    assert len(reads_of(split, [4, 9, 1, 3, 8, 0, 2])) == 2


def test_samples_far_apart_are_not_read_through(tmp_path: Path) -> None:
    split = StoredDataset.open(make_dataset(tmp_path, size_px=40)).split("train")
    assert len(reads_of(split, [0, 2])) == 2


def test_memory_of_a_batch_is_used_again_once_nobody_refers_to_it(split: StoredSplit) -> None:
    reader = ShardReader(split)
    batch = reader.read(np.arange(4))
    kept = batch.s2[1:]
    expected = kept.copy()
    address = batch.s2.ctypes.data
    del batch
    assert reader.read(np.arange(4, 8)).s2.ctypes.data != address
    assert np.array_equal(kept, expected)
    del kept
    addresses = {reader.read(np.arange(4)).s2.ctypes.data for _ in range(3)}
    assert len(addresses) <= 2


def flip_a_byte(split: StoredSplit, position: int, sensor: Sensor) -> None:
    path = split.shard_paths[split.shard_of[position]]
    content = bytearray(path.read_bytes())
    content[split.arrays[sensor].offsets[position] + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sample_that_has_changed_is_named_where_reads_are_verified(
    split: StoredSplit, sensor: Sensor
) -> None:
    ShardReader(split, verify=True).read(np.arange(24))
    flip_a_byte(split, 11, sensor)
    ShardReader(split).read(np.arange(24))
    with pytest.raises(TrainError, match=rf"{split.key(11)} in .*shard-000002\.tar is not what"):
        ShardReader(split, verify=True).read(np.arange(24))


def test_verifying_without_checksums_is_refused(split: StoredSplit) -> None:
    bare = replace(split, table=split.table.drop_columns(["xxh3_64"]))
    with pytest.raises(TrainError, match="lacks the column xxh3_64"):
        ShardReader(bare, verify=True)


def test_a_shard_that_ends_early_is_named(split: StoredSplit) -> None:
    shard = split.shard_paths[1]
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(TrainError, match=r"shard-000001\.tar ends at byte 700"):
        ShardReader(split).read(np.arange(10))


def test_a_shard_that_is_gone_is_named(split: StoredSplit) -> None:
    split.shard_paths[0].unlink()
    with pytest.raises(TrainError, match=r"shard-000000\.tar cannot be opened"):
        ShardReader(split).read(np.arange(1))
