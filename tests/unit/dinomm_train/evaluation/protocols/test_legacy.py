import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.protocol_config import LegacyConfig
from dinomm_train.evaluation.protocols.legacy import (
    LegacyTask,
    draw_with_replacement,
    mean_batch_micro_ap,
    run_legacy,
)
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset


def test_the_score_is_the_mean_of_batch_scores_by_their_size() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((150, 4)) < 0.3).astype(np.uint8)
    found = rng.random((150, 4))
    parts = [slice(0, 64), slice(64, 128), slice(128, 150)]
    scores = [average_precision_score(labels[at].ravel(), found[at].ravel()) for at in parts]
    expected = (64 * scores[0] + 64 * scores[1] + 22 * scores[2]) / 150
    assert mean_batch_micro_ap(labels, found, 64) == pytest.approx(expected, abs=1e-12)
    assert expected != pytest.approx(average_precision_score(labels.ravel(), found.ravel()))


def test_few_labels_are_drawn_with_replacement_as_published() -> None:
    drawn = draw_with_replacement(300_000, 0.01, 42)
    assert len(drawn) == 3_000
    assert len(set(drawn.tolist())) == 2_986, "the published 1 % holds so many samples"
    assert np.array_equal(draw_with_replacement(5, 1.0, 42), np.arange(5))


def test_the_best_epoch_on_the_validation_list_is_reported(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dataset = StoredDataset.open(
        make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 40, "validation": 20})
    )
    frozen = untrained(TINY_MODEL, expected_input(dataset.card, TINY_RUN.views), seed=0, origin="")
    task = LegacyTask(
        frozen=frozen,
        dataset=dataset,
        train=dataset.split("train"),
        validation=dataset.split("validation"),
        fraction=1.0,
        sensors="s1+s2",
        seed=0,
        device=torch.device("cpu"),
    )
    config = LegacyConfig(
        epochs=6, batch_size=16, learning_rate=0.5, resized_px=32, centre_px=24, score_batch=8
    )
    went_through: list[int] = []
    score = run_legacy(task, config, went_through.append)
    assert sum(went_through) == 20 + 6 * 40
    labels = task.validation.labels
    assert score.batch_micro_ap == pytest.approx(
        mean_batch_micro_ap(labels, score.probabilities, 8)
    )
    assert 1 <= score.epoch <= 6
    guessing = labels.mean()
    assert score.batch_micro_ap > guessing
