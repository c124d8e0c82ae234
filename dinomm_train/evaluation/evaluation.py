"""What an evaluation found, and how."""

from dataclasses import dataclass

from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.matrix import MatrixRow
from dinomm_train.evaluation.scores import CONVENTION


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSetup:
    """Everything that a reader needs to repeat or compare the scores."""

    networks: dict[str, str]
    """Where each contestant comes from, by its name in the table."""

    checksums: dict[str, str]
    """Of each contestant."""

    architecture: dict[str, object]
    """The configuration's `model` section of the evaluated network."""

    dataset: str
    dataset_checksum: str
    samples: dict[str, int]
    """By split; train is learnt from, validation chooses, test is scored."""

    labelled: dict[str, int]
    """Samples whose labels were used, by share of the train split."""

    positive_share: float
    """Of the test split's sample-class pairs: the micro mAP of guessing."""

    crop_px: int
    """Side of the centre crop taken of each patch, in pixels of 10 m."""

    input_px: int
    """Side that it was resized to for the evaluated network."""

    fill: float
    """Network input in place of a missing sensor."""

    seed: int
    """Of untrained weights and random filters."""

    seeds: int
    """Repetitions of what depends on chance."""

    resamples: int
    """Of the test split, behind each interval."""

    protocols: dict[str, str]
    """What each protocol does, in words."""

    created_by: str
    convention: str = CONVENTION


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyRow:
    """A figure made the published way, on the validation list."""

    network: str
    sensors: SensorSet
    fraction: float
    batch_micro_ap: float
    """Mean of micro-APs of batches of 64, of the epoch where it is best."""

    micro_ap: float
    """Over the whole list, of the same predictions."""

    macro_ap: float
    """The same, averaged over classes."""

    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores and how they came about."""

    setup: EvaluationSetup
    rows: tuple[MatrixRow, ...]
    legacy: tuple[LegacyRow, ...]
    subsets: dict[str, tuple[str, ...]]
    """Keys of the labelled samples of each share below one and seed, by the name of their file."""
