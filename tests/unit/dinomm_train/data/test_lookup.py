"""The order told offline is the order that batches come in."""

import pytest

from dinomm_train.config import SamplingConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.loader import TrainingBatches
from dinomm_train.data.lookup import appearances_of_key, samples_of_step
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoredSplit:
    folder = make_dataset(tmp_path_factory.mktemp("dataset"), size_px=4)
    return StoredDataset.open(folder).split("train")


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_steps_and_keys_are_those_that_ranks_read(shuffle: str, split: StoredSplit) -> None:
    sampling = SamplingConfig(seed=5, global_batch=10, shuffle=shuffle, block_shards=2)  # type: ignore[arg-type]
    order = SampleOrder.of(split, sampling)
    came: dict[str, list[tuple[int, int, int]]] = {}
    for rank in range(2):
        batches = TrainingBatches(split, order, rank=rank, world=2)
        for epoch in range(3):
            for number, batch in enumerate(batches.epoch(epoch)):
                step = epoch * 2 + number
                keys = tuple(map(split.key, batch.positions.tolist()))
                told = samples_of_step(split, order, step, world=2)
                assert told.keys_by_rank[rank] == keys
                assert (told.epoch, told.step_in_epoch) == (epoch, number)
                for key in keys:
                    came.setdefault(key, []).append((epoch, step, rank))
    for position in range(len(split)):
        key = split.key(position)
        told_times = appearances_of_key(split, order, key, epochs=3, world=2)
        assert [(one.epoch, one.step, one.rank) for one in told_times] == sorted(came.get(key, []))


def test_a_key_that_is_not_there_or_not_used_is_named(split: StoredSplit) -> None:
    order = SampleOrder.of(split, SamplingConfig(global_batch=4, sample_limit=8))
    with pytest.raises(TrainError, match="split train has no sample 'nowhere'"):
        list(appearances_of_key(split, order, "nowhere", epochs=1, world=1))
    with pytest.raises(TrainError, match=r"number 9 of split train, of which .* the first 8"):
        list(appearances_of_key(split, order, split.key(9), epochs=1, world=1))
