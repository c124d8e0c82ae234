"""One linear layer on frozen features: every learning rate and choice of layers in one pass."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from sklearn.metrics import average_precision_score
from torch import Tensor

from dinomm_train.evaluation.encoders import Columns
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class Standardization:
    """Brings every column to mean 0 and standard deviation 1 over the train samples."""

    mean: Float[Tensor, " feature"]
    std: Float[Tensor, " feature"]

    @classmethod
    def of(cls, features: Float[Tensor, "sample feature"]) -> "Standardization":
        """Of these samples; a column that does not vary is only centred."""
        std, mean = torch.std_mean(features, dim=0, correction=0)
        return cls(mean=mean, std=torch.where(std > 1e-6 * std.max(), std, 1.0))

    def apply(self, features: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample feature"]:
        """The standardized features."""
        return (features - self.mean) / self.std


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbes:
    """A linear layer for each choice of columns and each learning rate."""

    standardization: Standardization
    columns: tuple[Columns, ...]
    learning_rates: tuple[float, ...]
    weights: tuple[Float[Tensor, "_ lr class"], ...]
    """One per choice of columns."""
    bias: Float[Tensor, "choice lr class"]

    @property
    def candidates(self) -> tuple[tuple[int, int], ...]:
        """Every choice of columns with every learning rate, as indices."""
        rates = range(len(self.learning_rates))
        return tuple((choice, rate) for choice in range(len(self.columns)) for rate in rates)

    def probabilities(
        self, features: Float[Tensor, "sample feature"], choice: int, rate: int
    ) -> Float[Tensor, "sample class"]:
        """Probability of each class under one of the candidates."""
        seen = self.standardization.apply(features)[:, self.columns[choice].slice]
        return torch.sigmoid(seen @ self.weights[choice][:, rate] + self.bias[choice, rate])


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearChoice:
    """The candidate that the validation samples prefer."""

    choice: int
    rate: int
    validation_micro_ap: float


def fit_linear_probes(
    features: Float32[Tensor, "sample feature"],
    labels: UInt8[Tensor, "sample class"],
    columns: Sequence[Columns],
    config: LinearConfig,
    *,
    seed: int,
) -> LinearProbes:
    """Independent probes, each minimizing the classes' summed cross-entropy, mean over samples.

    SGD with momentum from zero, on shuffled batches that all probes share; the learning rate of
    each falls to zero along half a cosine. Features are standardized by these samples.
    """
    standardization = Standardization.of(features)
    seen = standardization.apply(features)
    targets = labels.to(features.dtype)
    rates, classes = len(config.learning_rates), labels.shape[1]
    layers = [_Layer.zeros(one, rates * classes, seen) for one in columns]
    peak = to_device(np.array(config.learning_rates, dtype=np.float32), seen.device)
    peak = peak.repeat_interleave(classes)
    batches = config.epochs * math.ceil(len(seen) / config.batch_size)
    for step, rows in enumerate(_shuffled_batches(len(seen), config, seed, seen.device)):
        factor = 0.5 * (1 + math.cos(math.pi * step / batches))
        chosen, wanted = seen[rows], targets[rows].repeat(1, rates)
        for layer in layers:
            layer.step(chosen, wanted, peak * factor, config)
    return LinearProbes(
        standardization=standardization,
        columns=tuple(columns),
        learning_rates=config.learning_rates,
        weights=tuple(layer.weights.reshape(-1, rates, classes) for layer in layers),
        bias=torch.stack([layer.bias.reshape(rates, classes) for layer in layers]),
    )


def choose_probe(
    probes: LinearProbes,
    features: Float32[Tensor, "sample feature"],
    labels: UInt8[Tensor, "sample class"],
) -> LinearChoice:
    """The candidate with the best micro-AP on these samples; of equals, the first."""
    truth = labels.cpu().numpy().ravel()
    scores = [_micro_ap(truth, probes, features, *pair) for pair in probes.candidates]
    best = max(range(len(scores)), key=scores.__getitem__)
    choice, rate = probes.candidates[best]
    return LinearChoice(choice=choice, rate=rate, validation_micro_ap=scores[best])


def _micro_ap(
    truth: object, probes: LinearProbes, features: Tensor, choice: int, rate: int
) -> float:
    # A learning rate that is too high ends in numbers without an order: the worst score.
    found = probes.probabilities(features, choice, rate)
    if not bool(torch.isfinite(found).all()):
        return -1.0
    return float(average_precision_score(truth, found.cpu().numpy().ravel()))


@dataclass(slots=True)
class _Layer:
    """All learning rates' weights on one choice of columns, side by side, and their velocities."""

    columns: slice
    weights: Float[Tensor, "column output"]
    bias: Float[Tensor, " output"]
    weights_velocity: Float[Tensor, "column output"]
    bias_velocity: Float[Tensor, " output"]

    @classmethod
    def zeros(cls, columns: Columns, outputs: int, like: Tensor) -> "_Layer":
        shape = (columns.stop - columns.start, outputs)
        weights, bias = like.new_zeros(shape), like.new_zeros(outputs)
        return cls(columns.slice, weights, bias, weights.clone(), bias.clone())

    def step(self, rows: Tensor, targets: Tensor, lr: Tensor, config: LinearConfig) -> None:
        seen = rows[:, self.columns]
        residuals = torch.sigmoid_(torch.addmm(self.bias, seen, self.weights)).sub_(targets)
        residuals /= len(rows)
        gradient = torch.addmm(self.weights, seen.T, residuals, beta=config.weight_decay)
        self.weights_velocity.mul_(config.momentum).add_(gradient)
        self.bias_velocity.mul_(config.momentum).add_(residuals.sum(0))
        self.weights.addcmul_(self.weights_velocity, lr, value=-1)
        self.bias.addcmul_(self.bias_velocity, lr, value=-1)


def _shuffled_batches(
    count: int, config: LinearConfig, seed: int, device: torch.device
) -> Iterator[Int64[Tensor, " row"]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.epochs):
        # On its way once: rows that are chosen on the host make a GPU wait for each batch.
        order = torch.randperm(count, generator=generator)
        yield from torch.split(to_device(order, device), config.batch_size)
