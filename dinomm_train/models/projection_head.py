"""The projection head: from features to cosines with the prototypes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dinomm_train.config import HeadConfig

_INIT_STD = 0.02


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

    def forward(self, features: Float[Tensor, "crop feature"]) -> Float[Tensor, "crop prototype"]:
        """The logit of each prototype."""
        directions = nn.functional.normalize(self.perceptron(features), dim=-1)
        logits: Tensor = self.prototypes(directions)
        return logits


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

    def forward(
        self, directions: Float[Tensor, "crop bottleneck"]
    ) -> Float[Tensor, "crop prototype"]:
        """Cosines with the prototypes, times the prototypes' lengths."""
        weight = nn.functional.normalize(self.directions, dim=-1)
        if self.lengths is not None:
            weight = weight * self.lengths
        return nn.functional.linear(directions, weight)


def _initialize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
        nn.init.zeros_(layer.bias)
