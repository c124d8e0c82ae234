"""How a run's health is watched; nothing of it changes what is learnt."""

from dataclasses import dataclass

from dinomm_train.config_checks import require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthConfig:
    """How often the networks are looked at while they learn; never changes what is learnt."""

    every_steps: int = 250
    """Steps between two looks at the held-out patches; zero looks at the end of each epoch."""

    samples: int = 256
    """Held-out patches of a look: of the validation split, or the last of train where there is
    none; zero turns looks off."""

    patience: int = 3
    """Looks in a row that must show the same sign of collapse before it is warned of."""

    knn_every_epochs: int = 10
    """Epochs between two scores of nearest neighbours; zero turns them off."""

    knn_bank: int = 2000
    """Labelled train patches among which neighbours are sought."""

    knn_queries: int = 1000
    """Held-out patches that are classified by them."""

    def __post_init__(self) -> None:
        require_not_negative(self, "every_steps", "samples", "knn_every_epochs")
        require_positive(self, "patience", "knn_bank", "knn_queries")
        if self.samples == 1:
            raise ValueError(
                "samples must be 0 or at least 2, got 1: one patch spreads over nothing"
            )
