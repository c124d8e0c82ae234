import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dinomm_train.evaluation.protocols.logistic_solver import LogisticProblem, solve_logistic

PENALTIES = (1e-4, 1e-2, 1.0)


def random_problem(seed: int, *, shared_scale: float = 1.0) -> LogisticProblem:
    """Correlated inputs with a column of ones, and targets that depend on some of them."""
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(120, 6, generator=rng, dtype=torch.float64)
    mixed = mixed @ torch.randn(6, 6, generator=rng, dtype=torch.float64) * shared_scale
    targets = (mixed[:, :1] + torch.randn(120, 1, generator=rng) > 0.8).to(torch.float64)
    penalty = torch.zeros(7, len(PENALTIES), dtype=torch.float64)
    penalty[:-1] = torch.tensor(PENALTIES)
    return LogisticProblem(
        inputs=torch.cat([mixed, torch.ones(120, 1)], dim=1),
        targets=targets.repeat(1, len(PENALTIES)),
        penalty=penalty,
    )


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_scikit_learns_for_every_penalty(seed: int) -> None:
    problem = random_problem(seed)
    found = solve_logistic(problem, tolerance=1e-10).numpy()
    inputs = problem.inputs[:, :-1].numpy()
    for column, l2 in enumerate(PENALTIES):
        reference = LogisticRegression(
            C=1 / (len(inputs) * l2), tol=1e-12, max_iter=1000, solver="newton-cholesky"
        )
        reference.fit(inputs, problem.targets[:, column].numpy())
        np.testing.assert_allclose(found[:-1, column], reference.coef_[0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found[-1, column], reference.intercept_[0], rtol=1e-6, atol=1e-7)


def test_the_gradient_is_that_of_cross_entropy_and_penalty() -> None:
    problem = random_problem(0)
    weights = torch.randn(7, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weights.requires_grad_()
    logits = problem.inputs @ weights
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, problem.targets, reduction="none"
    )
    total = losses.mean(0).sum() + (problem.penalty * weights**2).sum() / 2
    (expected,) = torch.autograd.grad(total, weights)
    torch.testing.assert_close(problem.gradient(weights, logits).detach(), expected)


def test_separable_and_one_sided_targets_end_in_finite_weights() -> None:
    problem = random_problem(1, shared_scale=1e-3)
    targets = problem.targets.clone()
    targets[:, 0] = 0.0
    targets[:, 1] = 1.0
    targets[:, 2] = (problem.inputs[:, 0] > 0).to(torch.float64)
    found = solve_logistic(
        LogisticProblem(inputs=problem.inputs, targets=targets, penalty=problem.penalty * 0)
    )
    assert found.isfinite().all()
    predicted = (problem.inputs @ found > 0).to(torch.float64)
    assert (predicted == targets).double().mean() > 0.99
