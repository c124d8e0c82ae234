import dataclasses
from pathlib import Path

import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import NetworkChoice
from dinomm_train.evaluation.networks import open_network, open_networks
from tests.checkpoint_fixture import TINY_RUN, write_run
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(
        make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1})
    )


@pytest.fixture(scope="module")
def run(dataset: StoredDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), dataset.path)


def choice(checkpoint: str, seed: int = 0) -> NetworkChoice:
    return NetworkChoice(checkpoint=checkpoint, untrained=TINY_RUN, seed=seed)


def test_the_floor_is_the_same_architecture_with_other_weights(
    dataset: StoredDataset, run: Path
) -> None:
    networks = open_networks(choice(str(run)), dataset, floor=True)
    assert list(networks) == ["random", "checkpoint"]
    floor, frozen = networks.values()
    assert floor.expects == frozen.expects
    shapes = [{k: v.shape for k, v in n.network.state_dict().items()} for n in (floor, frozen)]
    assert shapes[0] == shapes[1]
    images = torch.rand(2, 14, 32, 32)
    assert not torch.allclose(floor.network(images), frozen.network(images))


def test_no_floor_leaves_the_checkpoint_alone(dataset: StoredDataset, run: Path) -> None:
    assert list(open_networks(choice(str(run)), dataset, floor=False)) == ["checkpoint"]


def test_random_is_one_network_of_the_given_architecture_and_seed(dataset: StoredDataset) -> None:
    images = torch.rand(2, 14, 32, 32)
    networks = open_networks(choice("random"), dataset, floor=True)
    assert list(networks) == ["random"]
    first, again, other = (
        open_network(choice("random", seed), dataset).network(images) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert networks["random"].expects.fill == -1.5


def test_a_dataset_of_another_normalization_is_refused(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path, samples={"train": 1}, scheme="zscore")
    with pytest.raises(TrainError, match="normalization zscore instead of paper"):
        open_network(choice(str(run)), StoredDataset.open(other))


def test_the_floor_of_a_published_table_resamples_it_the_same_way(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    model = dataclasses.replace(TINY_RUN.model, table_px=64, table_resampling="published")
    run = write_run(tmp_path, dataset.path, config=dataclasses.replace(TINY_RUN, model=model))
    floor, _ = open_networks(choice(str(run)), dataset, floor=True).values()
    assert floor.network.table_resampling == "published"
