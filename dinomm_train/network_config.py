"""The networks that are trained: a vision transformer and its projection head."""

from dataclasses import dataclass
from typing import Literal

from dinomm_train.config_checks import (
    require_not_negative,
    require_positive,
    require_probabilities,
)

PositionResampling = Literal["timm", "published"]
"""How the position table is brought to a crop's token grid: bicubic with antialiasing, or without
and with the published code's 0.1 added to the target size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The vision transformer: one of timm's by name, with its dimensions open to change."""

    name: str = "vit_small_patch8_224"
    """timm's name of a plain vision transformer."""

    patch_px: int = 0
    """Side of a token's square, in pixels; zero keeps the named architecture's."""

    depth: int = 0
    """Transformer blocks; zero keeps the named architecture's."""

    width: int = 0
    """Features per token; zero keeps the named architecture's."""

    heads: int = 0
    """Attention heads; zero keeps the named architecture's."""

    drop_path: float = 0.1
    """Stochastic depth of the student's last block, rising linearly from zero in the first; the
    teacher has none."""

    table_px: int = 0
    """Image side that the position table is made for, in pixels; zero takes the global crop's, so
    that only local crops resample it. The published model has 224."""

    table_resampling: PositionResampling = "timm"
    """How the table is resampled for other sizes."""

    def __post_init__(self) -> None:
        require_not_negative(self, "patch_px", "depth", "width", "heads", "table_px")
        require_probabilities(self, "drop_path")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """The projection head: a perceptron, a bottleneck on the unit sphere, and the prototypes."""

    hidden: int = 2048
    """Features of the two hidden layers."""

    bottleneck: int = 256
    """Features of the unit vector that is compared with the prototypes."""

    prototypes: int = 65_536
    """Outputs of the head."""

    unit_prototypes: bool = True
    """Whether prototypes keep unit length, so that logits stay cosines; else lengths are learnt."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "bottleneck", "prototypes")
