from pathlib import Path

import numpy as np
import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import (
    EvaluationConfig,
    ExtractionConfig,
    NetworkChoice,
    Protocol,
    SensorSet,
)
from dinomm_train.evaluation.contestants import open_contestants
from dinomm_train.evaluation.features import FeatureStore, Share
from dinomm_train.evaluation.jobs import Job
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.evaluation.protocols.knn import knn_votes
from dinomm_train.evaluation.workbench import Workbench, choose_labelled
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CPU = torch.device("cpu")


def splits_of(folder: Path, **samples: int) -> dict[str, StoredSplit]:
    dataset = StoredDataset.open(make_dataset(folder, samples=samples, size_px=8))
    return {name: dataset.split(name) for name in samples}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    samples = {"train": 60, "validation": 20, "test": 15}
    path = make_dataset(tmp_path_factory.mktemp("dataset"), samples=samples)
    dataset = StoredDataset.open(path)
    extraction = ExtractionConfig(sensor_sets=("s1", "s2"), device="cpu")
    config = EvaluationConfig(
        network=NetworkChoice(checkpoint="random", untrained=TINY_RUN),
        dataset=path,
        cache=path / "cache",
        floors=(),
        extraction=extraction,
        linear=LinearConfig(epochs=20),
    )
    splits = {name: dataset.split(name) for name in samples}
    contestants = open_contestants(config, dataset, CPU)
    encoder = contestants["random"].encoder
    assert encoder is not None
    store = FeatureStore(config.cache, encoder, dataset)
    store.compute("random", splits, extraction, device=CPU, share=Share())
    return Workbench(
        config=config,
        dataset=dataset,
        splits=splits,
        contestants=contestants,
        stores={"random": store},
        device=CPU,
    )


def job(
    protocol: Protocol, *, tests: tuple[SensorSet, ...] = ("s2",), fraction: float = 1.0
) -> Job:
    return Job(
        network="random",
        protocol=protocol,
        train_sensors="s2",
        test_sensors=tests,
        fraction=fraction,
        seed=0,
    )


def last_class_token(bench: Workbench, split: str, sensors: SensorSet) -> torch.Tensor:
    rows = bench.stores["random"].read(bench.splits[split], sensors)
    return torch.from_numpy(rows[:, 24:48])


def test_neighbours_are_labelled_samples_and_queries_test_samples(bench: Workbench) -> None:
    found = bench.run(job("knn", tests=("s2", "s1"), fraction=0.5))
    chosen = bench.labelled(0.5, 0).train
    bank = last_class_token(bench, "train", "s2")[chosen]
    labels = torch.from_numpy(bench.splits["train"].labels[chosen])
    for sensors in ("s2", "s1"):
        expected = knn_votes(bank, labels, last_class_token(bench, "test", sensors))
        np.testing.assert_allclose(found[sensors].probabilities, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("protocol", ["linear", "logistic"])
def test_probes_answer_for_test_samples_under_each_sensor_set(
    bench: Workbench, protocol: Protocol
) -> None:
    found = bench.run(job(protocol, tests=("s2", "s1")))
    assert found["s2"].probabilities.shape == (15, 19)
    assert not np.allclose(found["s2"].probabilities, found["s1"].probabilities)
    assert found["s2"].details == found["s1"].details
    assert set(found["s2"].details) & {"l2", "learning_rate"}


def test_validation_chooses_where_there_is_one_and_train_keeps_all_its_labels(
    tmp_path: Path,
) -> None:
    splits = splits_of(tmp_path, train=50, validation=6, test=1)
    found = choose_labelled(splits, 0.2, seed=3)
    assert (found.chooser, found.chosen.tolist()) == ("validation", list(range(6)))
    assert len(found.train) == 10
    assert np.array_equal(found.train, found.drawn)


def test_without_validation_a_fifth_of_the_labels_chooses_and_is_not_learnt(
    tmp_path: Path,
) -> None:
    splits = splits_of(tmp_path, train=100, test=1)
    found = choose_labelled(splits, 0.5, seed=3)
    assert found.chooser == "train"
    assert (len(found.drawn), len(found.train), len(found.chosen)) == (50, 40, 10)
    assert sorted([*found.train, *found.chosen]) == found.drawn.tolist()
    other = choose_labelled(splits, 1.0, seed=4)
    assert not np.array_equal(choose_labelled(splits, 1.0, seed=3).chosen, other.chosen)


def test_without_validation_one_label_is_too_few(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, train=20, test=1)
    assert len(choose_labelled(splits, 0.1, seed=0).train) == 1
    with pytest.raises(TrainError, match="of 20 train samples is 1, and"):
        choose_labelled(splits, 0.01, seed=0)
