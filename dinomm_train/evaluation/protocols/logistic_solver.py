"""Many logistic regressions on the same inputs, solved together."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

logger = logging.getLogger(__name__)

GRADIENT_TOLERANCE = 1e-5
"""A fit has converged when no component of its gradient is larger."""

MAX_ITERATIONS = 300

_LINE_SEARCH_TRIALS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticProblem:
    """One regression per column; each minimizes mean cross-entropy + penalty / 2 * weights^2.

    Inputs should be principal axes (uncorrelated columns, and a one for the bias): the solution
    does not depend on it, but the number of iterations does.
    """

    inputs: Float[Tensor, "sample input"]
    targets: Float[Tensor, "sample column"]
    """Zeros and ones."""

    penalty: Float[Tensor, "input column"]

    def gradient(
        self, weights: Float[Tensor, "input column"], logits: Float[Tensor, "sample column"]
    ) -> Float[Tensor, "input column"]:
        """Of the objective, where `logits` are `inputs @ weights`."""
        residuals = torch.sigmoid(logits).sub_(self.targets)
        return (self.inputs.T @ residuals).div_(len(logits)).addcmul_(self.penalty, weights)


def solve_logistic(
    problem: LogisticProblem,
    *,
    tolerance: float = GRADIENT_TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Float[Tensor, "input column"]:
    """Weights by preconditioned nonlinear conjugate gradients, each column with its own steps.

    On principal axes the Hessian is nearly diagonal, p (1 - p) * mean square + penalty, and is
    divided out (Nocedal and Wright, Numerical Optimization, section 5.2). Starts from zero: the
    result holds no randomness. Fits that did not converge are counted in the log.
    """
    weights = torch.zeros_like(problem.penalty)
    logits = torch.zeros_like(problem.targets)
    scale = 1.0 / _hessian_diagonal(problem)
    gradient = problem.gradient(weights, logits)
    direction = -scale * gradient
    iteration = 0
    while gradient.abs().max() > tolerance and iteration < max_iterations:
        change = problem.inputs @ direction
        step = _line_minimum(problem, _Line(weights, logits, direction, change))
        weights.addcmul_(direction, step)
        logits.addcmul_(change, step)
        before, gradient = gradient, problem.gradient(weights, logits)
        direction = _next_direction(direction, gradient, before, scale)
        iteration += 1
    unfinished = int((gradient.abs().amax(0) > tolerance).sum())
    logger.log(
        logging.WARNING if unfinished else logging.DEBUG,
        "%d logistic fits, %d iterations, %d of them above gradient tolerance %.0e",
        weights.shape[1],
        iteration,
        unfinished,
        tolerance,
    )
    return weights


@dataclass(frozen=True, slots=True)
class _Line:
    """A point and a direction per column, as weights and as the logits these give."""

    weights: Float[Tensor, "input column"]
    logits: Float[Tensor, "sample column"]
    direction: Float[Tensor, "input column"]
    change: Float[Tensor, "sample column"]


def _hessian_diagonal(problem: LogisticProblem) -> Float[Tensor, "input column"]:
    """Approximately: as if every sample had the class's frequency for its probability."""
    share = problem.targets.mean(0).clamp(1e-3, 1 - 1e-3)
    mean_square = (problem.inputs**2).mean(0)[:, None]
    return share * (1 - share) * mean_square + problem.penalty + 1e-6


def _next_direction(
    direction: Float[Tensor, "input column"],
    gradient: Float[Tensor, "input column"],
    before: Float[Tensor, "input column"],
    scale: Float[Tensor, "input column"],
) -> Float[Tensor, "input column"]:
    """Conjugate to the last one (Polak and Ribiere's rule), or steepest where that would rise."""
    steepest = -scale * gradient
    kept = -(steepest * (gradient - before)).sum(0) / (scale * before**2).sum(0)
    conjugate = steepest + kept.nan_to_num(0.0, posinf=0.0).clamp_min(0.0) * direction
    return torch.where((conjugate * gradient).sum(0) < 0, conjugate, steepest)


def _line_minimum(problem: LogisticProblem, line: _Line) -> Float[Tensor, " column"]:
    """Step to the minimum along the line, per column: Newton's method inside a bracket."""
    bend = (problem.penalty * line.direction**2).sum(0)
    pull = (problem.penalty * line.direction * line.weights).sum(0)
    low = torch.zeros_like(bend)
    high = torch.full_like(bend, torch.inf)
    step = low
    for _ in range(_LINE_SEARCH_TRIALS):
        probability = torch.sigmoid(torch.addcmul(line.logits, line.change, step))
        curvature = (probability * (1 - probability) * line.change**2).mean(0) + bend
        slope = (probability.sub_(problem.targets) * line.change).mean(0) + pull + step * bend
        low, high = torch.where(slope < 0, step, low), torch.where(slope < 0, high, step)
        newton = step - slope / curvature.clamp_min(1e-30)
        step = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    # Where no bound above was met, halving gives infinity: the last downhill point will do.
    return torch.where(step.isfinite(), step, low)
