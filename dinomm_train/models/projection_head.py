"""The projection head: from features to cosines with the prototypes."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dinomm_train.config import HeadConfig

_INIT_STD = 0.02
_LEAST_LENGTH = 1e-12
"""Below this, a row of zeros stays one."""


class Projections(NamedTuple):
    """What the logits of crops are made of; all of them together need not be in memory at once."""

    directions: Float[Tensor, "crop bottleneck"]
    """Unit vectors."""

    prototypes: Float[Tensor, "prototype bottleneck"]
    """The last layer's weight."""

    def logits(self) -> Float[Tensor, "crop prototype"]:
        """Cosines with the prototypes, times the prototypes' lengths."""
        return nn.functional.linear(self.directions, self.prototypes)


class ProjectionHead(nn.Module):
    """A three-layer perceptron onto the unit sphere, then the prototypes (arXiv:2104.14294, B)."""

    def __init__(self, config: HeadConfig, *, features: int) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.bottleneck),
        )
        self.perceptron.apply(_initialize)
        self.prototypes = Prototypes(config)

    def forward(self, features: Float[Tensor, "crop feature"]) -> Projections:
        """Where each crop points, and the prototypes it is compared with."""
        hidden: Tensor = self.perceptron(features)
        # Half-precision unit vectors would be half a percent too long or short.
        widened = hidden if hidden.dtype == torch.float64 else hidden.float()
        directions = nn.functional.normalize(widened, dim=-1)
        return Projections(directions=directions, prototypes=self.prototypes())


class Prototypes(nn.Module):
    """The last layer: rows of unit length, or of a learnt one."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(config.prototypes, config.bottleneck))
        # As torch's linear layers start, and as published: their length sets how fast they turn.
        bound = config.bottleneck**-0.5
        nn.init.uniform_(self.directions, -bound, bound)
        self.lengths = (
            None if config.unit_prototypes else nn.Parameter(torch.ones(config.prototypes, 1))
        )

    def forward(self) -> Float[Tensor, "prototype bottleneck"]:
        """The prototypes as they are compared: of unit length, or of their own."""
        weight: Tensor = _UnitRows.apply(self.directions)
        return weight if self.lengths is None else weight * self.lengths


class _UnitRows(torch.autograd.Function):
    """Rows over their lengths, with a gradient in few passes over what is 17 million numbers."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 (torch's context has no type)
        lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        inverse = lengths.clamp_min(_LEAST_LENGTH).reciprocal()
        unit: Tensor = rows * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        unit, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(unit, gradient)[:, None]
        return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)


def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
        nn.init.zeros_(layer.bias)
