"""Everything that decides a pretraining run, and the two recipes as complete values of it."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from dinomm_train.compute_config import ComputeConfig
from dinomm_train.config_checks import (
    require_not_negative,
    require_positive,
    require_probabilities,
)
from dinomm_train.health_config import HealthConfig
from dinomm_train.network_config import HeadConfig, ModelConfig, PositionResampling
from dinomm_train.view_config import (
    Chain,
    CropConfig,
    PublishedConfig,
    RadiometryConfig,
    SensorDropConfig,
    ViewConfig,
)

__all__ = [
    "RECIPES",
    "Chain",
    "ComputeConfig",
    "CropConfig",
    "DeviceChoice",
    "HeadConfig",
    "HealthConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "OutputConfig",
    "PositionResampling",
    "Precision",
    "PublishedConfig",
    "RadiometryConfig",
    "Recipe",
    "RunConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "SensorDropConfig",
    "Shuffle",
    "Tracker",
    "ViewConfig",
]

Recipe = Literal["fixed", "paper"]
"""`paper` is what was run for arXiv:2204.05381; `fixed` repairs its defects."""

Precision = Literal["auto", "fp32", "bf16"]
"""Arithmetic of the forward passes; `auto` is bf16 on GPUs that have it, fp32 elsewhere."""

Shuffle = Literal["full", "block"]
"""`full` mixes the whole split; `block` some shards at a time, for cold or remote storage."""

DeviceChoice = Literal["auto", "cpu", "cuda"]
"""Where to compute; `auto` takes a GPU where there is one."""

Tracker = Literal["tensorboard", "wandb", "mlflow"]
"""Programs that draw curves of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Temperatures and centring of the DINO loss (arXiv:2104.14294)."""

    student_temperature: float = 0.1
    """Divides the student's logits."""

    teacher_temperature: float = 0.04
    """Divides the teacher's centred logits after warm-up."""

    teacher_temperature_start: float = 0.04
    """The same in the first epoch; it rises from here by equal steps, once an epoch."""

    teacher_warmup_epochs: int = 0
    """Epochs of that rise; the last of them has the full temperature."""

    centre_momentum: float = 0.9
    """Share of the old centre in the new one."""

    def __post_init__(self) -> None:
        require_positive(self, "student_temperature", "teacher_temperature")
        require_positive(self, "teacher_temperature_start")
        require_not_negative(self, "teacher_warmup_epochs")
        require_probabilities(self, "centre_momentum")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW and what happens to gradients before it."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's running mean and running square."""

    clip_norm: float = 3.0
    """Greatest Euclidean norm of the gradient; zero turns clipping off."""

    clip: Literal["global", "per_tensor"] = "global"
    """Whether that norm is of all gradients together, or of each tensor alone as published."""

    decay_tokens: bool = False
    """Whether weight decay pulls on the position table and class token too, as published."""

    frozen_last_layer_epochs: int = 1
    """Epochs at the start in which the prototypes do not move."""

    stop_after_skipped: int = 10
    """Steps in a row, skipped for a loss or gradient that is not finite, after which a run stops
    and leaves a capsule to replay."""

    def __post_init__(self) -> None:
        require_not_negative(self, "clip_norm", "frozen_last_layer_epochs")
        require_positive(self, "stop_after_skipped")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """What changes over the run; every value is a function of the step alone."""

    epochs: int = 100
    """Length of the run."""

    warmup_epochs: int = 10
    """Epochs of linear rise of the learning rate from zero."""

    lr: float = 5e-4
    """Learning rate after warm-up for 256 samples a step; scales linearly with the batch."""

    lr_end: float = 1e-6
    """Learning rate at the end, not scaled."""

    weight_decay: float = 0.04
    """Weight decay at the start."""

    weight_decay_end: float = 0.4
    """Weight decay at the end, reached along a cosine."""

    teacher_momentum: float = 0.996
    """Share of the old teacher in the new one at the start."""

    teacher_momentum_end: float = 1.0
    """The same at the end, reached along a cosine."""

    def __post_init__(self) -> None:
        require_positive(self, "epochs")
        require_not_negative(self, "warmup_epochs", "lr", "lr_end")
        require_not_negative(self, "weight_decay", "weight_decay_end")
        require_probabilities(self, "teacher_momentum", "teacher_momentum_end")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs must not exceed epochs ({self.epochs}), got {self.warmup_epochs}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which samples a step sees, and the seed of all that is random."""

    seed: int = 0
    """Seed of initial weights, sample order, crops and stochastic depth."""

    global_batch: int = 256
    """Samples per step over all ranks together."""

    sample_limit: int = 0
    """Train samples used, the first in stored order; zero uses all. Published: 300,000 (D1)."""

    shuffle: Shuffle = "full"
    """Whether the whole split is mixed, or some shards at a time so that reads stay local."""

    block_shards: int = 16
    """Shards that are mixed at a time where `shuffle` is `block`: chosen anew each epoch."""

    precision: Precision = "auto"
    """Arithmetic of the forward passes."""

    def __post_init__(self) -> None:
        require_not_negative(self, "seed", "sample_limit")
        require_positive(self, "global_batch", "block_shards")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """What a run leaves behind; this section and `health` may change when a run continues."""

    log_every_steps: int = 50
    """Steps between two rows of metrics."""

    checkpoint_every_steps: int = 0
    """Steps between two checkpoints; zero writes one at the end of each epoch."""

    keep_last: int = 3
    """Newest checkpoints kept; older ones are deleted."""

    keep_every_steps: int = 0
    """Checkpoints whose step is a multiple of this are kept too, however old; zero keeps none."""

    peak_tflops: float = 0.0
    """What the model FLOPs utilization (MFU) is a share of, in 10^12 operations per second and
    device; zero measures matrix products on a GPU, and reports no MFU on a CPU."""

    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Where rows of metrics go beside the JSON lines; `wandb` and `mlflow` need these packages."""

    def __post_init__(self) -> None:
        require_not_negative(self, "checkpoint_every_steps", "keep_every_steps", "peak_tflops")
        require_positive(self, "log_every_steps", "keep_last")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """All of it; the defaults are the `fixed` recipe."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The backbone."""

    head: HeadConfig = field(default_factory=HeadConfig)
    """The projection head."""

    views: ViewConfig = field(default_factory=ViewConfig)
    """Crops, colour operations and sensor drop."""

    loss: LossConfig = field(default_factory=LossConfig)
    """Temperatures and centring."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Length, learning rate, weight decay and teacher momentum."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Batch, seed and samples."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How a step is computed."""

    output: OutputConfig = field(default_factory=OutputConfig)
    """Metrics and checkpoints."""

    health: HealthConfig = field(default_factory=HealthConfig)
    """Looks at held-out patches."""


_PAPER = RunConfig(
    model=ModelConfig(table_px=224, table_resampling="published"),
    views=ViewConfig(
        chain="published",
        crops=CropConfig(vertical_flip=0.0, quarter_turns=0.0),
        sensor_drop=SensorDropConfig(fill=0.0),
    ),
    optim=OptimConfig(clip="per_tensor", decay_tokens=True),
    sampling=SamplingConfig(sample_limit=300_000, precision="fp32"),
)

RECIPES: dict[Recipe, RunConfig] = dict(zip(get_args(Recipe), (RunConfig(), _PAPER), strict=True))
