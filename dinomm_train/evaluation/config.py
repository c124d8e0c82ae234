"""What an evaluation is asked to do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.config_checks import require_not_negative, require_positive
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.evaluation.protocol_config import (
    FinetuneConfig,
    LegacyConfig,
    LinearConfig,
)

SensorSet = Literal["s1", "s2", "s1+s2"]
"""Which sensors a network is given; a missing one holds the fill value it was trained with."""

SENSOR_SETS: tuple[SensorSet, ...] = get_args(SensorSet)

Protocol = Literal["knn", "linear", "logistic", "finetune", "legacy"]
"""How a network's view of labelled patches becomes class probabilities of others."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

DEFAULT_PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear")
"""Those that need each patch to pass the network once."""

Floor = Literal["random", "statistics", "rcf"]
"""What a pretrained network must beat: itself untrained, numbers per channel, random filters."""

FLOORS: tuple[Floor, ...] = get_args(Floor)

RANDOM, SUPERVISED = "random", "supervised"
"""In place of a checkpoint: the untrained network, and the same one trained with labels."""

CHECKPOINT = "checkpoint"
"""Name in the table of the network that is evaluated."""

RESERVED_NAMES = (*FLOORS, SUPERVISED, CHECKPOINT)
"""Names in the table that a network beside the evaluated one cannot have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionConfig:
    """How patches become features."""

    sensor_sets: tuple[SensorSet, ...] = ()
    """Features of a patch under each of these; none given: under all that the dataset allows."""

    batch_size: int = 64
    """Patches per forward pass."""

    crop_px: int = 0
    """Side of the centre crop taken of a patch, in pixels of 10 m; zero takes the whole patch."""

    input_px: int = 0
    """Side to which that is resized, in pixels; zero: the nearest that tokens tile."""

    device: DeviceChoice = "auto"
    """Where networks and protocols run."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the frozen networks' forward passes."""

    def __post_init__(self) -> None:
        if len(set(self.sensor_sets)) < len(self.sensor_sets):
            raise ValueError(f"sensor_sets must differ, got {self.sensor_sets}")
        require_positive(self, "batch_size")
        require_not_negative(self, "crop_px", "input_px")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkChoice:
    """Which network: one that is stored somewhere, or one that is not trained yet."""

    checkpoint: str
    """A run folder, a file of weights, `random` or `supervised`."""

    untrained: RunConfig
    """Architecture, crop side and fill value of the latter two."""

    seed: int = 0
    """Of untrained weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorPair:
    """What the labelled patches are seen with, and what the test patches are seen with."""

    train: SensorSet
    test: SensorSet

    def __str__(self) -> str:
        return self.train if self.train == self.test else f"{self.train} → {self.test}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Which scores, of what, and how."""

    network: NetworkChoice
    """What is evaluated."""

    beside: dict[str, str] = field(default_factory=dict)
    """Other checkpoints in the same table, by the name they have there."""

    dataset: str | Path
    """Folder or address; learnt from on train, chosen on validation, scored on test."""

    storage: StorageOptions = field(default_factory=StorageOptions)
    """Where its shards are kept, should they lie elsewhere."""

    cache: Path
    """Folder of features and predictions, which a later call finds again; all ranks share it."""

    protocols: tuple[Protocol, ...] = DEFAULT_PROTOCOLS
    """Every one of them under every pair of sensor sets."""

    floors: tuple[Floor, ...] = FLOORS
    """Scored by the same protocols."""

    supervised: bool = False
    """Whether the same network is trained from scratch with the labels as well."""

    crossed: tuple[SensorPair, ...] = ()
    """Pairs beside those of one sensor set for both."""

    label_fractions: tuple[float, ...] = (1.0,)
    """Shares of the train split whose labels are used."""

    seeds: int = 1
    """Repetitions: each draws its own few labels, orders and new layers."""

    bootstrap: int = 500
    """Resamples of the test split behind each interval."""

    extraction: ExtractionConfig
    """Sensor sets, input size and device."""

    linear: LinearConfig = field(default_factory=LinearConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    scratch: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(layer_decay=1.0))
    """Of the network that is trained with labels alone."""
    legacy: LegacyConfig = field(default_factory=LegacyConfig)

    def __post_init__(self) -> None:
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"protocols must differ, got {self.protocols}")
        if not self.label_fractions or not all(0 < one <= 1 for one in self.label_fractions):
            raise ValueError(f"label_fractions must be in (0, 1], got {self.label_fractions}")
        require_positive(self, "seeds", "bootstrap")
        taken = [name for name in self.beside if name in RESERVED_NAMES]
        if taken:
            raise ValueError(f"{taken[0]!r} is a name of the table's own; choose another")
