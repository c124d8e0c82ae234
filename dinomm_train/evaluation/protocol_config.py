"""What each protocol does, in numbers."""

from dataclasses import dataclass

from dinomm_train.config_checks import (
    require_not_negative,
    require_positive,
    require_probabilities,
    require_rising,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearConfig:
    """One linear layer on frozen features, trained by SGD with momentum."""

    learning_rates: tuple[float, ...] = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    """All are trained together; validation chooses. Each falls to zero along a cosine."""

    epochs: int = 100
    batch_size: int = 256
    momentum: float = 0.9

    weight_decay: float = 0.0
    """L2 in the gradient: the objective is mean cross-entropy + decay / 2 * weights^2."""

    def __post_init__(self) -> None:
        _require_learning_rates(self.learning_rates)
        require_positive(self, "learning_rates", "epochs", "batch_size")
        _require_momentum(self.momentum)
        require_not_negative(self, "weight_decay")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """The whole network learns from labels, with AdamW."""

    learning_rates: tuple[float, ...] = (1e-3,)
    """Of the new layer; each is trained by itself, validation chooses."""

    layer_decay: float = 0.75
    """A block's learning rate as a share of the next one's."""

    epochs: int = 20
    """Validation chooses the epoch whose weights are kept; where it has more patches than are
    learnt from, among every second, third, … epoch, five at least, the last one included."""

    warmup_share: float = 0.1
    """Of all steps: the learning rate rises over these, then falls to zero along a cosine."""

    batch_size: int = 64
    weight_decay: float = 0.05
    crop_scale: tuple[float, float] = (0.8, 1.0)
    """Share of a patch's area that a training crop shows; flips and quarter turns come with it."""

    def __post_init__(self) -> None:
        _require_learning_rates(self.learning_rates)
        require_positive(self, "learning_rates", "epochs", "batch_size")
        require_positive(self, "layer_decay")
        require_probabilities(self, "layer_decay", "warmup_share")
        require_not_negative(self, "weight_decay")
        require_rising(self, "crop_scale", most=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyConfig:
    """The linear probe as DINO-MM's code runs it (arXiv:2204.05381)."""

    learning_rate: float = 0.01
    """Published for DINO-MM; its table gives the random network 0.1."""

    epochs: int = 100
    batch_size: int = 256
    momentum: float = 0.9

    score_batch: int = 64
    """Samples per micro-AP; the score is their mean."""

    resized_px: int = 128
    """Side that a patch is resized to; training crops of any place and size are as large."""

    centre_px: int = 112
    """Side of the centre crop that is scored."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of a patch's area that a training crop shows."""

    subset_seed: int = 42
    """Of the few labels, which are drawn with replacement."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "epochs", "batch_size", "score_batch")
        require_positive(self, "resized_px", "centre_px")
        _require_momentum(self.momentum)
        require_not_negative(self, "subset_seed")
        require_rising(self, "crop_scale", most=1.0)


def _require_learning_rates(rates: tuple[float, ...]) -> None:
    if not rates:
        raise ValueError("learning_rates must hold at least one")


def _require_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
