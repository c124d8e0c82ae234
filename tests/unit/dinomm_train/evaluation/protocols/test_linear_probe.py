import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dinomm_train.evaluation.encoders import Columns
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.evaluation.protocols.linear_probe import (
    LinearProbes,
    Standardization,
    choose_probe,
    fit_linear_probes,
)

ALL = Columns(name="all", start=0, stop=5)
TWO = Columns(name="two", start=1, stop=3)


def labelled(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of unlike scale and offset, one of them constant, and three noisy classes."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 5, generator=rng)
    logits = features[:, :3] * 2 + torch.randn(count, 3, generator=rng) - 1
    features = features * torch.tensor([1.0, 30.0, 0.01, 5.0, 0.0]) + 7
    return features, (logits > 0).to(torch.uint8)


def reference(
    features: np.ndarray, labels: np.ndarray, unseen: np.ndarray, l2: float
) -> np.ndarray:
    """scikit-learn's probabilities, class by class, on standardized features."""
    scaler = StandardScaler().fit(features)
    c = 1 / (len(features) * l2) if l2 else np.inf
    return np.stack(
        [
            LogisticRegression(C=c, tol=1e-10, max_iter=2000)
            .fit(scaler.transform(features), column)
            .predict_proba(scaler.transform(unseen))[:, 1]
            for column in labels.T
        ],
        axis=1,
    )


@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("columns", [ALL, TWO])
def test_a_probe_trained_to_the_end_is_scikit_learns_logistic_regression(
    l2: float, columns: Columns
) -> None:
    features, labels = labelled(300, 0)
    unseen, _ = labelled(60, 1)
    config = LinearConfig(learning_rates=(0.01, 0.3), epochs=800, batch_size=300, weight_decay=l2)
    probes = fit_linear_probes(features, labels, (TWO, ALL), config, seed=0)
    found = probes.probabilities(unseen, (TWO, ALL).index(columns), 1)
    seen = columns.slice
    expected = reference(features.numpy()[:, seen], labels.numpy(), unseen.numpy()[:, seen], l2)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_probes_trained_together_equal_each_trained_alone_by_torch() -> None:
    features, labels = labelled(50, 2)
    config = LinearConfig(learning_rates=(0.001, 0.05), epochs=3, batch_size=16)
    probes = fit_linear_probes(features, labels, (TWO, ALL), config, seed=4)
    seen = Standardization.of(features).apply(features)
    for choice, columns in enumerate((TWO, ALL)):
        for rate, lr in enumerate(config.learning_rates):
            layer = torch.nn.Linear(columns.stop - columns.start, 3)
            for weight in layer.parameters():
                torch.nn.init.zeros_(weight)
            optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * 4)
            order = torch.Generator().manual_seed(4)
            for _ in range(3):
                for rows in torch.split(torch.randperm(50, generator=order), 16):
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(
                        layer(seen[rows, columns.slice]), labels[rows].float(), reduction="sum"
                    ) / len(rows)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
            expected = torch.sigmoid(layer(seen[:, columns.slice])).detach()
            found = probes.probabilities(features, choice, rate)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_validation_chooses_columns_and_learning_rate_and_passes_over_what_diverged() -> None:
    features = torch.eye(4)
    labels = torch.tensor([[1], [0], [1], [0]], dtype=torch.uint8)
    right = (labels.float() * 2 - 1)[:, None]
    probes = LinearProbes(
        standardization=Standardization(mean=torch.zeros(4), std=torch.ones(4)),
        columns=(
            Columns(name="first", start=0, stop=2),
            Columns(name="whole", start=0, stop=4),
        ),
        learning_rates=(0.1, 1.0),
        weights=(
            torch.cat([-right[:2], right[:2] * torch.nan], dim=1),
            torch.cat([-right, right], dim=1),
        ),
        bias=torch.zeros(2, 2, 1),
    )
    best = choose_probe(probes, features, labels)
    assert (best.choice, best.rate, best.validation_micro_ap) == (1, 1, 1.0)


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    features, labels = labelled(60, 3)
    config = LinearConfig(learning_rates=(0.1,), epochs=2, batch_size=8)
    first, again, other = (
        fit_linear_probes(features, labels, (ALL,), config, seed=seed).probabilities(features, 0, 0)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
