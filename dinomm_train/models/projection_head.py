"""The projection head: from features to cosines with the prototypes."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.config import HeadConfig

_INIT_STD = 0.02


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
        weight = nn.functional.normalize(self.directions, dim=-1)
        return weight if self.lengths is None else weight * self.lengths


def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
        nn.init.zeros_(layer.bias)
