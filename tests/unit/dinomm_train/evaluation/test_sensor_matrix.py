import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import PROTOCOLS, EvaluationConfig, ExtractionConfig
from dinomm_train.evaluation.config import NetworkChoice as Choice
from dinomm_train.evaluation.features import LabelledFeatures
from dinomm_train.evaluation.knn import knn_votes
from dinomm_train.evaluation.sensor_matrix import (
    describe_protocol,
    hold_out,
    open_splits,
    predict,
    score_matrix,
)
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset


def labelled(count: int, seed: int) -> LabelledFeatures:
    """Two classes that two of four features tell apart."""
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return LabelledFeatures(features=features, labels=(features[:, :2] > 0).to(torch.uint8))


def test_neighbours_are_train_samples_and_queries_test_samples() -> None:
    features = {"train": labelled(60, 0), "validation": labelled(9, 1), "test": labelled(20, 2)}
    found, l2 = predict("knn", features, seed=0)
    train, test = features["train"], features["test"]
    assert torch.equal(found, knn_votes(train.features, train.labels, test.features))
    assert l2 is None


def test_the_probe_learns_on_train_and_answers_for_test() -> None:
    features = {"train": labelled(200, 0), "validation": labelled(50, 1), "test": labelled(80, 2)}
    found, l2 = predict("linear", features, seed=0)
    assert ((found > 0.5) == features["test"].labels).float().mean() > 0.95
    assert l2 is not None


def test_the_probe_is_fitted_to_train_samples_alone() -> None:
    train, validation, test = labelled(60, 0), labelled(50, 1), labelled(20, 2)
    doubled = LabelledFeatures(
        features=validation.features.repeat(2, 1), labels=validation.labels.repeat(2, 1)
    )
    once, again = (
        predict("linear", {"train": train, "validation": one, "test": test}, seed=0)
        for one in (validation, doubled)
    )
    assert torch.equal(once[0], again[0])


def test_held_out_samples_are_a_fifth_drawn_by_the_seed_alone() -> None:
    train = labelled(50, 0)
    kept, held = hold_out(train, seed=3)
    assert (len(kept), len(held)) == (40, 10)
    joined = torch.cat([kept.features, held.features])
    assert {tuple(row) for row in joined.tolist()} == {
        tuple(row) for row in train.features.tolist()
    }
    assert torch.equal(hold_out(train, seed=3)[1].features, held.features)
    assert not torch.equal(hold_out(train, seed=4)[1].features, held.features)


def test_without_validation_the_probe_holds_out_train_samples() -> None:
    features = {"train": labelled(200, 0), "test": labelled(80, 2)}
    found, l2 = predict("linear", features, seed=0)
    assert ((found > 0.5) == features["test"].labels).float().mean() > 0.95
    assert l2 is not None
    assert "20% of train, left out" in describe_protocol("linear", held_out=True)
    assert "on validation" in describe_protocol("linear", held_out=False)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_dataset_without_train_or_test_is_refused(tmp_path: Path, missing: str) -> None:
    samples = {"train": 2, "validation": 1, "test": 2} | {missing: 0}
    dataset = StoredDataset.open(make_dataset(tmp_path, samples=samples))
    with pytest.raises(TrainError, match=f"no samples in split {missing}: evaluation learns on"):
        open_splits(dataset)


def test_a_missing_validation_split_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = StoredDataset.open(make_dataset(tmp_path, samples={"train": 3, "test": 2}))
    with caplog.at_level(logging.WARNING):
        assert list(open_splits(dataset)) == ["train", "test"]
    assert "has no validation samples; 20 % of train" in caplog.text


def test_rows_go_by_sensors_then_protocol_then_network_and_repeat_exactly(tmp_path: Path) -> None:
    dataset = StoredDataset.open(make_dataset(tmp_path, samples={"train": 30, "test": 12}))
    expects = expected_input(dataset.card, TINY_RUN.views)
    networks = {
        name: untrained(TINY_MODEL, expects, seed=seed, origin=name)
        for name, seed in (("random", 0), ("checkpoint", 1))
    }
    config = EvaluationConfig(
        network=Choice(checkpoint="random", untrained=TINY_RUN),
        dataset=tmp_path,
        extraction=ExtractionConfig(sensor_sets=("s2", "s1"), device="cpu"),
    )
    splits = open_splits(dataset)
    rows = score_matrix(networks, dataset, splits, config)
    assert [(row.sensors, row.protocol, row.network) for row in rows] == [
        (sensors, protocol, network)
        for sensors in ("s2", "s1")
        for protocol in PROTOCOLS
        for network in ("random", "checkpoint")
    ]
    assert rows == score_matrix(networks, dataset, splits, config)
    assert len({row.scores.micro_ap for row in rows}) == len(rows)
    positives = [one.positives for one in rows[0].scores.classes]
    assert positives == np.sum(splits["test"].labels, axis=0).tolist()
