import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dinomm_train.evaluation.protocols.logistic_probe import (
    LogisticProbes,
    choose_l2,
    fit_logistic_probes,
)


def labelled(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of unlike scale and offset, one of them constant, and three classes."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 5, generator=rng, dtype=torch.float64)
    logits = features[:, :3] * 2 + 0.5 * torch.randn(count, 3, generator=rng) - 1
    features = features * torch.tensor([1.0, 30.0, 0.01, 5.0, 0.0]) + 7
    return features, (logits > 0).to(torch.uint8)


def test_probabilities_equal_scikit_learns_on_standardized_features() -> None:
    features, labels = labelled(150, 0)
    unseen, _ = labelled(40, 1)
    l2_values = (1e-3, 1e-1)
    probes = fit_logistic_probes(features, labels, l2_values=l2_values, tolerance=1e-10)
    for index, l2 in enumerate(l2_values):
        for column in range(3):
            reference = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=1 / (150 * l2), tol=1e-12, solver="newton-cholesky"),
            ).fit(features.numpy(), labels[:, column].numpy())
            expected = reference.predict_proba(unseen.numpy())[:, 1]
            found = probes.probabilities(unseen, index)[:, column].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_single_precision_is_close_enough_to_double() -> None:
    features, labels = labelled(200, 2)
    unseen, _ = labelled(50, 3)
    double = fit_logistic_probes(features, labels, tolerance=1e-9)
    single = fit_logistic_probes(features.float(), labels)
    for index in range(1, 6):
        found = single.probabilities(unseen.float(), index).double()
        torch.testing.assert_close(found, double.probabilities(unseen, index), atol=2e-3, rtol=0)


def test_the_strength_with_the_best_validation_score_is_chosen() -> None:
    features = torch.eye(4, dtype=torch.float64)
    labels = torch.tensor([[1], [0], [1], [0]], dtype=torch.uint8)
    right, wrong = labels.double() * 2 - 1, 1 - labels.double() * 2
    probes = LogisticProbes(
        mean=torch.zeros(4, dtype=torch.float64),
        std=torch.ones(4, dtype=torch.float64),
        weights=torch.stack([wrong, right, right * 0.1, right * 0]),
        bias=torch.zeros(4, 1, dtype=torch.float64),
    )
    choice = choose_l2(probes, features, labels, l2_values=(1e-4, 1e-3, 1e-2, 1e-1))
    assert choice.l2 == 1e-2, "of equals, the strongest"
    assert choice.index == 2
    assert choice.validation_micro_ap[1:] == pytest.approx([1.0, 1.0, 0.5])
