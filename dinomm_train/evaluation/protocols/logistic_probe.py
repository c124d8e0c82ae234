"""Logistic regression on frozen features, solved exactly for every strength of L2 together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from sklearn.metrics import average_precision_score
from torch import Tensor

from dinomm_train.evaluation.protocols.logistic_solver import (
    GRADIENT_TOLERANCE,
    LogisticProblem,
    solve_logistic,
)

L2_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties tried, in mean cross-entropy + l2 / 2 * |w|^2: scikit-learn's C is 1 / (samples l2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticProbes:
    """One linear layer per strength of L2, on standardized features."""

    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]
    weights: Float[Tensor, "l2 dim class"]
    bias: Float[Tensor, "l2 class"]

    def probabilities(
        self, features: Float[Tensor, "sample dim"], index: int
    ) -> Float[Tensor, "sample class"]:
        """Probability of each class, under the strength of L2 at this index."""
        standardized = (features - self.mean) / self.std
        return torch.sigmoid(standardized @ self.weights[index] + self.bias[index])


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeChoice:
    """The strength of L2 that the validation samples prefer."""

    index: int
    l2: float
    validation_micro_ap: tuple[float, ...]
    """One per strength tried, in their order."""


def fit_logistic_probes(
    features: Float[Tensor, "sample dim"],
    labels: UInt8[Tensor, "sample class"],
    *,
    l2_values: tuple[float, ...] = L2_VALUES,
    tolerance: float = GRADIENT_TOLERANCE,
) -> LogisticProbes:
    """Independent logistic regressions for every class and every strength of L2.

    Features are standardized with their own mean and standard deviation; the bias is free.
    """
    std, mean = torch.std_mean(features, dim=0, correction=0)
    std = torch.where(std > 1e-6 * std.max(), std, 1.0)
    standardized = (features - mean) / std
    axes = _principal_axes(standardized)
    penalty = torch.zeros(features.shape[1] + 1, len(l2_values), labels.shape[1])
    penalty[:-1] = torch.tensor(l2_values)[:, None]
    problem = LogisticProblem(
        inputs=torch.cat([standardized @ axes, torch.ones_like(features[:, :1])], dim=1),
        targets=labels.to(features.dtype).repeat(1, len(l2_values)),
        penalty=penalty.flatten(1).to(features),
    )
    solution = solve_logistic(problem, tolerance=tolerance).reshape(penalty.shape)
    weights = torch.einsum("da,alc->ldc", axes, solution[:-1])
    return LogisticProbes(mean=mean, std=std, weights=weights, bias=solution[-1])


def _principal_axes(standardized: Float[Tensor, "sample dim"]) -> Float[Tensor, "dim axis"]:
    """An orthonormal basis without correlations: the L2 penalty is the same in it."""
    axes: Tensor = torch.linalg.eigh(standardized.T @ standardized / len(standardized))[1]
    return axes


def choose_l2(
    probes: LogisticProbes,
    features: Float[Tensor, "sample dim"],
    labels: UInt8[Tensor, "sample class"],
    *,
    l2_values: tuple[float, ...] = L2_VALUES,
) -> ProbeChoice:
    """The strength with the best micro-AP on these samples; of equals, the strongest."""
    truth = labels.cpu().numpy().ravel()
    scores = [
        float(
            average_precision_score(truth, probes.probabilities(features, i).cpu().numpy().ravel())
        )
        for i in range(len(l2_values))
    ]
    best = max(range(len(scores)), key=lambda index: (scores[index], l2_values[index]))
    return ProbeChoice(index=best, l2=l2_values[best], validation_micro_ap=tuple(scores))
