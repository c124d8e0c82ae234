"""A step's batch and views follow from its number, however many ranks share it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError
from dinomm_train.step_input import StepInput
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CONFIG = replace(TINY_RUN, sampling=replace(TINY_RUN.sampling, global_batch=8, seed=4))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    folder = make_dataset(tmp_path_factory.mktemp("shards"), samples={"train": 28})
    return StoredDataset.open(folder)


def inputs(stored: StoredDataset, world: int) -> list[StepInput]:
    device = torch.device("cpu")
    return [
        StepInput(stored, CONFIG, Ranks(rank=rank, world=world, device=device))
        for rank in range(world)
    ]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("step", [0, 2, 4])
def test_ranks_share_the_batch_of_one_process_in_order(
    world: int, step: int, stored: StoredDataset
) -> None:
    (alone,) = inputs(stored, 1)
    shares = inputs(stored, world)
    positions = [one.batch(step).positions for one in shares]
    assert np.array_equal(np.concatenate(positions), alone.batch(step).positions)
    expected = tuple(map(stored.split("train").key, map(int, np.concatenate(positions))))
    assert all(one.keys(step) == expected for one in (alone, *shares))
    whole = alone.views(alone.batch(step), step).teacher_crops
    parts = [one.views(one.batch(step), step).teacher_crops for one in shares]
    by_view = [part.reshape(2, 8 // world, *part.shape[1:]) for part in parts]
    assert torch.equal(torch.cat(by_view, dim=1).flatten(0, 1), whole)


def test_a_step_read_on_its_own_is_the_one_that_comes_in_turn(stored: StoredDataset) -> None:
    (alone,) = inputs(stored, 1)
    in_turn = [batch.positions for epoch in range(2) for batch in alone.batches.epoch(epoch)]
    for step, positions in enumerate(in_turn):
        assert np.array_equal(alone.batch(step).positions, positions)
    assert alone.values(4).epoch == 1


def in_other_units(stored: StoredDataset) -> StoredDataset:
    """The dataset as if its radar were backscatter in linear power."""
    sensors = stored.card.sensors
    linear = replace(sensors["s1"], unit="sigma0")
    return replace(stored, card=replace(stored.card, sensors={**sensors, "s1": linear}))


def test_radar_that_is_not_in_decibels_is_refused_with_the_settings_that_leave_it(
    stored: StoredDataset,
) -> None:
    alone = Ranks(rank=0, world=1, device=torch.device("cpu"))
    linear = in_other_units(stored)
    with pytest.raises(TrainError, match=r"in 'sigma0'.*s1_gain=0 --set .*s1_speckle=0"):
        StepInput(linear, CONFIG, alone)
    chain = CONFIG.views.radiometry
    for still in (
        replace(CONFIG.views, radiometry=replace(chain, s1_gain=0.0, s1_speckle=0.0)),
        replace(CONFIG.views, radiometry=replace(chain, s1_gain_db=0.0, s1_speckle=0.0)),
        replace(CONFIG.views, chain="published"),
    ):
        StepInput(linear, replace(CONFIG, views=still), alone)
    for one_left in (replace(chain, s1_gain=0.0), replace(chain, s1_speckle=0.0)):
        changed = replace(CONFIG.views, radiometry=one_left)
        with pytest.raises(TrainError, match="sigma0"):
            StepInput(linear, replace(CONFIG, views=changed), alone)


def test_the_published_chain_is_refused_on_standardized_data(tmp_path: Path) -> None:
    standardized = StoredDataset.open(make_dataset(tmp_path, scheme="zscore"))
    alone = Ranks(rank=0, world=1, device=torch.device("cpu"))
    published = replace(CONFIG, views=replace(CONFIG.views, chain="published"))
    with pytest.raises(TrainError, match="this dataset is standardized"):
        StepInput(standardized, published, alone)
