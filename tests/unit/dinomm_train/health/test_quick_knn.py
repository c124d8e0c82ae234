"""The small score of nearest neighbours is the one of the evaluation, on fewer patches."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks
from dinomm_train.evaluation.protocols.knn import knn_votes
from dinomm_train.health.patches import FixedPatches
from dinomm_train.health.quick_knn import score_neighbours
from dinomm_train.learner import Learner
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CPU = Ranks(rank=0, world=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    folder = tmp_path_factory.mktemp("dataset")
    samples = {"train": 30, "validation": 12}
    return StoredDataset.open(make_dataset(folder, size_px=32, samples=samples))


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner(TINY_RUN, CPU, channels=14)


def patches_of(dataset: StoredDataset, split: str, count: int) -> FixedPatches:
    return FixedPatches.of(dataset.split(split), np.arange(count), dataset, TINY_RUN)


def test_scores_are_scikit_learn_s_of_the_evaluation_s_votes(
    dataset: StoredDataset, learner: Learner
) -> None:
    bank, queries = patches_of(dataset, "train", 30), patches_of(dataset, "validation", 12)
    row = score_neighbours(learner, bank, queries, lambda: False)
    assert set(row) == {
        f"knn/{state}/{score}_ap" for state in ("both", "s1", "s2") for score in ("micro", "macro")
    }
    with torch.no_grad():
        features = [
            torch.cat(
                [learner.networks.teacher.backbone(one["s2"]) for one in some.chunks(CPU.device)]
            )
            for some in (bank, queries)
        ]
    votes = knn_votes(features[0], torch.from_numpy(bank.labels), features[1]).numpy()
    expected = average_precision_score(queries.labels.ravel(), votes.ravel())
    assert row["knn/s2/micro_ap"] == pytest.approx(expected, abs=1e-6)


def test_a_stop_among_the_queries_leaves_no_row(dataset: StoredDataset, learner: Learner) -> None:
    bank, queries = patches_of(dataset, "train", 30), patches_of(dataset, "validation", 12)
    answers = iter([False, True])
    assert score_neighbours(learner, bank, queries, lambda: next(answers)) == {}


def test_a_stop_in_the_bank_asks_no_further(dataset: StoredDataset, learner: Learner) -> None:
    bank, queries = patches_of(dataset, "train", 30), patches_of(dataset, "validation", 12)
    answers = iter([True])
    assert score_neighbours(learner, bank, queries, lambda: next(answers)) == {}
