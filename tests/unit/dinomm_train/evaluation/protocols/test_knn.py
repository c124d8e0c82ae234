import math

import numpy as np
import pytest
import torch

from dinomm_train.evaluation.protocols import knn
from dinomm_train.evaluation.protocols.knn import knn_votes


def votes_of_one(
    bank: np.ndarray, labels: np.ndarray, query: np.ndarray, neighbours: int
) -> list[float]:
    similar = []
    for row, row_labels in zip(bank, labels, strict=True):
        cosine = float(row @ query / math.sqrt(row @ row) / math.sqrt(query @ query))
        similar.append((cosine, row_labels))
    nearest = sorted(similar, key=lambda pair: -pair[0])[:neighbours]
    weight = [math.exp(cosine / 0.07) for cosine, _ in nearest]
    return [
        sum(w for w, (_, row) in zip(weight, nearest, strict=True) if row[column]) / sum(weight)
        for column in range(labels.shape[1])
    ]


@pytest.mark.parametrize("count", [5, 20, 60])
def test_votes_equal_a_plain_loop_over_sorted_cosines(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", 3 * count)
    rng = np.random.default_rng(count)
    bank, queries = rng.normal(size=(count, 6)), rng.normal(size=(10, 6))
    labels = (rng.random((count, 4)) < 0.4).astype(np.uint8)
    found = knn_votes(*(torch.from_numpy(array) for array in (bank, labels, queries)))
    expected = [votes_of_one(bank, labels, query, 20) for query in queries]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_votes_depend_on_direction_and_not_on_length() -> None:
    rng = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(30, 5, generator=rng), torch.randn(8, 5, generator=rng)
    labels = (torch.rand(30, 3, generator=rng) < 0.5).to(torch.uint8)
    lengths = torch.rand(30, 1, generator=rng) + 0.1
    torch.testing.assert_close(
        knn_votes(bank * lengths, labels, queries * 7), knn_votes(bank, labels, queries)
    )


def test_votes_of_unanimous_neighbours_stay_within_zero_and_one() -> None:
    bank = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    votes = knn_votes(bank, torch.ones(50, 2, dtype=torch.uint8), bank)
    assert votes.max() <= 1.0
    torch.testing.assert_close(votes, torch.ones(50, 2))
