"""Measures of assignments and features, against plain loops, scipy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from dinomm_train.health.measures import (
    AssignmentMeasures,
    AssignmentTally,
    mean_cosine,
    rank_me,
    retrieval_top1,
)


def made_up(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tally_of(
    target: Tensor, teacher: Tensor, student_log: Tensor, chunk: int = 100
) -> AssignmentMeasures:
    tally = AssignmentTally()
    for first in range(0, len(target), chunk):
        part = slice(first, first + chunk)
        tally.add(target=target[part], teacher=teacher[part], student_log=student_log[part])
    return tally.measures()


TARGET = (3 * made_up(11, 7)).softmax(dim=1)
TEACHER = (3 * made_up(11, 7, seed=1)).softmax(dim=1)
STUDENT_LOG = (2 * made_up(11, 7, seed=2)).log_softmax(dim=1)


def test_loss_and_kl_are_those_of_a_plain_loop() -> None:
    found = tally_of(TARGET, TEACHER, STUDENT_LOG)
    loss = kl = 0.0
    for row, log_row in zip(TARGET.tolist(), STUDENT_LOG.tolist(), strict=True):
        for q, log_p in zip(row, log_row, strict=True):
            loss -= q * log_p / len(TARGET)
            kl += q * (math.log(q) - log_p) / len(TARGET)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.kl == pytest.approx(kl, rel=1e-5)


def test_entropies_are_those_of_scipy() -> None:
    found = tally_of(TARGET, TEACHER, STUDENT_LOG)
    assert found.teacher_entropy == pytest.approx(entropy(TEACHER, axis=1).mean(), rel=1e-5)
    expected = math.exp(entropy(TEACHER.mean(dim=0)))
    assert found.prototype_perplexity == pytest.approx(expected, rel=1e-5)
    assert found.prototypes_in_use == len(set(TEACHER.argmax(dim=1).tolist()))


def test_chunks_add_up_to_the_whole() -> None:
    whole, chunked = (tally_of(TARGET, TEACHER, STUDENT_LOG, size) for size in (100, 3))
    assert whole.prototypes_in_use == chunked.prototypes_in_use
    for name in ("loss", "kl", "teacher_entropy", "prototype_perplexity"):
        assert getattr(whole, name) == pytest.approx(getattr(chunked, name), rel=1e-5)


def test_an_assignment_to_one_prototype_has_no_entropy() -> None:
    one = torch.eye(5)[[2, 2, 2]]
    found = tally_of(one, one, torch.full((3, 5), math.log(0.2)))
    assert found.teacher_entropy == 0.0
    assert (found.prototypes_in_use, found.prototype_perplexity) == (1, 1.0)
    assert found.kl == pytest.approx(math.log(5))


def test_rank_me_is_the_paper_s_equation_as_a_loop() -> None:
    features = made_up(20, 6) * torch.tensor([5.0, 3, 1, 0.5, 0.1, 0.01]) + 0.3
    singular = np.linalg.svd(features.double().numpy(), compute_uv=False)
    total = 0.0
    for value in singular:
        share = value / np.abs(singular).sum() + 1e-7
        total -= share * math.log(share)
    assert rank_me(features) == pytest.approx(math.exp(total), rel=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_me_counts_directions_of_equal_strength(rank: int) -> None:
    directions = torch.linalg.qr(made_up(32, 8))[0][:, :rank]
    assert rank_me(directions @ torch.eye(8)[:rank]) == pytest.approx(rank, rel=1e-3)


def test_rank_me_of_features_that_are_not_finite_is_not_a_number() -> None:
    assert math.isnan(rank_me(torch.full((4, 3), math.inf)))


def test_the_mean_cosine_is_that_of_all_pairs_but_with_oneself() -> None:
    features = made_up(9, 5) + 0.5
    pairs = cosine_similarity(features.numpy().astype(np.float64))
    expected = pairs[~np.eye(9, dtype=bool)].mean()
    assert mean_cosine(features) == pytest.approx(expected, rel=1e-6)
    assert mean_cosine(torch.ones(9, 5)) == pytest.approx(1.0)


def test_retrieval_is_that_of_scikit_learn_s_neighbours() -> None:
    gallery = made_up(40, 6)
    queries = gallery + 0.8 * made_up(40, 6, seed=1)
    index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(gallery.numpy())
    nearest = index.kneighbors(queries.numpy(), return_distance=False)[:, 0]
    expected = float((nearest == np.arange(40)).mean())
    assert 0.2 < expected < 0.9
    assert retrieval_top1(queries, gallery) == pytest.approx(expected)


def test_features_that_are_all_alike_are_retrieved_as_by_chance() -> None:
    assert retrieval_top1(torch.ones(8, 4), torch.ones(8, 4)) == pytest.approx(1 / 8)
    assert retrieval_top1(made_up(8, 4), made_up(8, 4)) == 1.0
