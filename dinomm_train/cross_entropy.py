"""Cross-entropies between assignments to very many prototypes, without ever storing the logits.

A crop has 65,536 logits but 256 numbers that they come from, so logits are computed a chunk of
prototypes at a time, used, and computed again for the gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

_WORKING_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Memory for one chunk of float32 logits, by device: on a CPU about what its caches hold."""

_LEAST_CHUNK = 512
"""Prototypes that keep a matrix product busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What the teacher's assignment comes of: softmax((x . prototype - centre) / temperature)."""

    directions: Float[Tensor, "target bottleneck"]
    prototypes: Float[Tensor, "prototype bottleneck"]
    centre: Float[Tensor, " prototype"]
    temperature: float


def paired_cross_entropy(
    directions: Float[Tensor, "crop bottleneck"],
    prototypes: Float[Tensor, "prototype bottleneck"],
    temperature: float,
    targets: Targets,
    pair_weights: Float[Tensor, "crop target"],
) -> Float[Tensor, ""]:
    """Sum over crops i and targets j of weight[i, j] x (-sum_k q[j, k] log p[i, k]).

    p = softmax(directions . prototypes / temperature). As q sums to one, that is the sum of
    weight[i, j] (logsumexp(z[i]) - q[j] . z[i]) for z the logits of p, and q . (W x) = (q W) . x.
    Gradients reach the crops' directions and the prototypes alone.

    Under autocast, matrix products are in its type, and everything else is in float32.
    """
    device = directions.device.type
    is_narrow = torch.is_autocast_enabled(device)
    narrow = torch.get_autocast_dtype(device) if is_narrow else directions.dtype
    with torch.autocast(device, enabled=False):
        student = _Assignment.of(directions.detach(), prototypes.detach(), temperature, narrow)
        teacher = _Assignment.of(
            targets.directions, targets.prototypes, targets.temperature, narrow, targets.centre
        )
        loss: Tensor = _PairedCrossEntropy.apply(
            directions, prototypes, student, teacher, pair_weights
        )
    return loss


class _PairedCrossEntropy(torch.autograd.Function):
    """Takes the directions and prototypes only so that gradients find them."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's context has no type of its own)
        directions: Tensor,
        prototypes: Tensor,
        student: "_Assignment",
        teacher: "_Assignment",
        pair_weights: Tensor,
    ) -> Tensor:
        rows = len(student.scaled) + len(teacher.scaled)
        chunks = list(_chunks(len(prototypes), rows, directions.device))
        spread, target_spread = (_logsumexp(one, chunks) for one in (student, teacher))
        # Where each target's prototypes lie in the student, on average over the target.
        drawn_to = sum(
            _product(teacher.share(chunk, target_spread), student.prototypes[chunk])
            for chunk in chunks
        )
        paired = pair_weights.T @ directions
        ctx.save_for_backward(directions, pair_weights, spread, target_spread, drawn_to, paired)
        ctx.student, ctx.teacher, ctx.chunks = student, teacher, chunks
        agreement = (paired * drawn_to).sum() / student.temperature
        return (pair_weights.sum(dim=1) * spread).sum() - agreement

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        directions, pair_weights, spread, target_spread, drawn_to, paired = ctx.saved_tensors
        student, teacher = ctx.student, ctx.teacher
        narrow = student.prototypes.dtype
        seen, paired = directions.to(narrow), paired.to(narrow)
        weights = pair_weights.sum(dim=1, keepdim=True)
        of_directions = -(pair_weights @ drawn_to)
        of_prototypes = directions.new_empty(student.prototypes.shape)
        for chunk in ctx.chunks:
            shares = student.share(chunk, spread).mul_(weights)
            of_directions += _product(shares, student.prototypes[chunk])
            of_prototypes[chunk] = _product(shares.T, seen)
            of_prototypes[chunk] -= _product(teacher.share(chunk, target_spread).T, paired)
        scale = loss_gradient / student.temperature
        return of_directions.mul_(scale), of_prototypes.mul_(scale), None, None, None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Assignment:
    """One network's softmax over prototypes, chunk by chunk."""

    scaled: Tensor
    """Directions over the temperature, in the type of matrix products."""
    prototypes: Tensor
    """Prototypes, in the same type."""
    temperature: float
    shift: Tensor | None
    """What is taken off each prototype's scaled logits."""

    @classmethod
    def of(
        cls,
        directions: Tensor,
        prototypes: Tensor,
        temperature: float,
        narrow: torch.dtype,
        centre: Tensor | None = None,
    ) -> "_Assignment":
        return cls(
            scaled=(directions / temperature).to(narrow),
            prototypes=prototypes.to(narrow),
            temperature=temperature,
            shift=None if centre is None else centre / temperature,
        )

    def logits(self, chunk: slice) -> Tensor:
        """Scaled logits of these prototypes, at least in float32."""
        logits = linear(self.scaled, self.prototypes[chunk])
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return wide if self.shift is None else wide.sub_(self.shift[chunk])

    def share(self, chunk: slice, spread: Tensor) -> Tensor:
        """Probabilities of these prototypes, given the logsumexp over all of them."""
        return self.logits(chunk).sub_(spread[:, None]).exp_()


def _chunks(prototypes: int, rows: int, device: torch.device) -> Iterator[slice]:
    at_once = max(_LEAST_CHUNK, _WORKING_BYTES[device.type] // (4 * rows))
    for first in range(0, prototypes, at_once):
        yield slice(first, first + at_once)


def _logsumexp(assignment: _Assignment, chunks: list[slice]) -> Tensor:
    parts = [assignment.logits(chunk).logsumexp(dim=1) for chunk in chunks]
    return torch.stack(parts).logsumexp(dim=0)


def _product(shares: Tensor, vectors: Tensor) -> Tensor:
    """Their matrix product in the vectors' type, given back in the shares'."""
    return (shares.to(vectors.dtype) @ vectors).to(shares.dtype)
