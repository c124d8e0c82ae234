import dataclasses
from pathlib import Path

import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import (
    EvaluationConfig,
    ExtractionConfig,
    Floor,
    NetworkChoice,
)
from dinomm_train.evaluation.contestants import Contestant, open_contestants, open_network
from dinomm_train.models.frozen import FrozenBackbone
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


def contestants(
    dataset: StoredDataset,
    checkpoint: str,
    *,
    floors: tuple[Floor, ...] = (),
    beside: dict[str, str] | None = None,
    supervised: bool = False,
) -> dict[str, Contestant]:
    config = EvaluationConfig(
        network=choice(checkpoint),
        dataset=dataset.path,
        cache=dataset.path / "cache",
        floors=floors,
        beside=beside or {},
        supervised=supervised,
        extraction=ExtractionConfig(),
    )
    return open_contestants(config, dataset, torch.device("cpu"))


def network_of(contestant: Contestant) -> FrozenBackbone:
    assert contestant.frozen is not None
    return contestant.frozen


def test_the_untrained_floor_is_the_same_architecture_with_other_weights(
    dataset: StoredDataset, run: Path
) -> None:
    found = contestants(dataset, str(run), floors=("random",))
    assert list(found) == ["random", "checkpoint"]
    floor, frozen = map(network_of, found.values())
    assert floor.expects == frozen.expects
    shapes = [{k: v.shape for k, v in n.network.state_dict().items()} for n in (floor, frozen)]
    assert shapes[0] == shapes[1]
    images = torch.rand(2, 14, 32, 32)
    assert not torch.allclose(floor.network(images), frozen.network(images))


def test_floors_come_first_then_networks_then_the_ceiling(
    dataset: StoredDataset, run: Path
) -> None:
    found = contestants(
        dataset,
        str(run),
        floors=("random", "statistics", "rcf"),
        beside={"other": str(run)},
        supervised=True,
    )
    names = ["random", "statistics", "rcf", "checkpoint", "other", "supervised"]
    assert list(found) == names
    assert [name for name in names if found[name].encoder is None] == ["supervised"]
    assert [name for name in names if found[name].frozen is None] == ["statistics", "rcf"]
    assert found["other"].checksum == found["checkpoint"].checksum != found["random"].checksum


@pytest.mark.parametrize("name", ["random", "supervised"])
def test_an_untrained_network_is_alone_in_its_table(dataset: StoredDataset, name: str) -> None:
    found = contestants(dataset, name)
    assert list(found) == [name]
    images = torch.rand(2, 14, 32, 32)
    first, again, other = (
        open_network(choice(name, seed), dataset).network(images) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert network_of(found[name]).expects.fill == -1.5


def test_a_dataset_of_another_normalization_is_refused(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path, samples={"train": 1}, scheme="zscore")
    with pytest.raises(TrainError, match="normalization zscore instead of paper"):
        open_network(choice(str(run)), StoredDataset.open(other))


def test_the_floor_of_a_published_table_resamples_it_the_same_way(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    model = dataclasses.replace(TINY_RUN.model, table_px=64, table_resampling="published")
    run = write_run(tmp_path, dataset.path, config=dataclasses.replace(TINY_RUN, model=model))
    floor = contestants(dataset, str(run), floors=("random",))["random"]
    assert network_of(floor).network.table_resampling == "published"
