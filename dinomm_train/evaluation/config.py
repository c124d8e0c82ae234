"""What an evaluation is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dinomm_train.config import DeviceChoice, RunConfig

SensorSet = Literal["s1", "s2", "s1+s2"]
"""Which sensors the network is given; a missing one holds the fill value it was trained with."""

SENSOR_SETS: tuple[SensorSet, ...] = get_args(SensorSet)

Protocol = Literal["knn", "linear"]
"""How frozen features become class probabilities."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

RANDOM = "random"
"""In place of a checkpoint: the untrained network."""


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

    def __post_init__(self) -> None:
        if len(set(self.sensor_sets)) < len(self.sensor_sets):
            raise ValueError(f"sensor_sets must differ, got {self.sensor_sets}")
        if self.batch_size < 1 or min(self.crop_px, self.input_px) < 0:
            raise ValueError("batch_size must be positive, crop_px and input_px not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkChoice:
    """Which network: one that is stored somewhere, or an untrained one."""

    checkpoint: str
    """A run folder, a checkpoint, an export, the published weights, or `random`."""

    untrained: RunConfig
    """Architecture, crop side and fill value of `random`."""

    seed: int = 0
    """Of untrained weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Which scores, of what, and how."""

    network: NetworkChoice
    """What is evaluated."""

    dataset: Path
    """Learnt from on train, chosen on validation, scored on test."""

    protocols: tuple[Protocol, ...] = PROTOCOLS
    """Every one of them under every sensor set."""

    floor: bool = True
    """Whether the same network untrained is scored beside it."""

    extraction: ExtractionConfig
    """Sensor sets, input size and device."""

    def __post_init__(self) -> None:
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"protocols must be some that differ, got {self.protocols}")
