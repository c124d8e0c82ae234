"""All measurements and checks in a row, and the part that limits the rest."""

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.loader import ReadOptions, TrainingBatches
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import ShardReader
from dinomm_train.data.views import Views, make_views
from dinomm_train.distributed import Ranks, choose_device
from dinomm_train.doctor.checks import (
    Check,
    check_batches,
    check_cache,
    check_checkpoints,
    check_device,
    check_shards,
)
from dinomm_train.doctor.rates import forget_shards, matmul_flops_per_s, read_rate, repeated_rate
from dinomm_train.flops import training_flops_per_image
from dinomm_train.learner import Learner, without_sharding
from dinomm_train.schedules import step_values

_CPU_BATCH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamineConfig:
    """How the machine is looked at."""

    device: DeviceChoice = "auto"
    """Where to compute."""

    ranks: int = 1
    """Processes that the run will have."""

    batch: int = 0
    """Samples of a measured step; zero takes a rank's share, on a CPU at most 8."""

    seconds: float = 5.0
    """For each measurement."""

    out: Path = Path()
    """Folder of the coming run."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    """How batches are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What each part reaches alone, in samples per second of one process."""

    disk: float
    """The stream just after the system was asked to forget the shards."""

    reader: float
    """The same samples again, from the system's memory."""

    views: float
    """Network input and crops of a batch."""

    step: float
    """Both networks, loss and optimizer on ready crops."""

    matmul_tflops: float
    """10^12 operations per second of a large matrix product."""

    step_tflops: float
    """10^12 operations per second of the step."""

    @property
    def mfu(self) -> float:
        """Share of the measured ceiling that the step reaches."""
        return self.step_tflops / self.matmul_tflops

    @property
    def compute(self) -> float:
        """Samples per second of views and step one after the other."""
        return 1 / (1 / self.views + 1 / self.step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What was found."""

    checks: tuple[Check, ...]

    rates: Rates | None = None
    """None where a check failed without which nothing can be measured."""

    batch: int = 0
    """Samples of the measured steps."""

    fits_in_memory: bool = False
    """Whether free memory could hold what an epoch reads: then the disk matters but once."""

    @property
    def is_healthy(self) -> bool:
        """Whether every check is good."""
        return all(check.is_good for check in self.checks)

    @property
    def limit(self) -> str:
        """The part that a faster run would have to begin with: disk, reader, views or step."""
        if self.rates is None:
            return ""
        stream = self.rates.reader if self.fits_in_memory else self.rates.disk
        if stream < self.rates.compute:
            return "reader" if self.fits_in_memory else "disk"
        return "views" if self.rates.views < self.rates.step else "step"

    def to_dict(self) -> dict[str, object]:
        """The same in plain values, for scripts."""
        rates = self.rates and asdict(self.rates) | {"mfu": self.rates.mfu}
        return {
            "checks": [asdict(check) for check in self.checks],
            "rates": rates,
            "batch": self.batch,
            "fits_in_memory": self.fits_in_memory,
            "limit": self.limit,
        }


def examine(dataset: StoredDataset, config: RunConfig, wanted: ExamineConfig) -> Diagnosis:
    """What the machine can reach, and what would stop a run.

    Raises:
        TrainError: there is no train split, or the configuration does not fit the dataset.
    """
    device = choose_device(wanted.device)
    split = dataset.split("train")
    checks = (
        check_device(config, device),
        check_shards(split),
        check_batches(split, config, wanted.ranks),
        check_cache(split, config),
    )
    if not all(check.is_good for check in checks):
        return Diagnosis(checks=checks)
    learner = Learner(
        without_sharding(config),
        Ranks(rank=0, world=1, device=device),
        channels=len(dataset.card.channels),
    )
    options = replace(wanted.reading, pinned=device.type == "cuda")
    order = SampleOrder.of(split, config.sampling)
    batches = TrainingBatches(split, order, world=wanted.ranks, options=options)
    most = wanted.batch or (batches.share_size if device.type == "cuda" else _CPU_BATCH)
    batch = min(most, batches.share_size)
    rates = _measure(dataset, split, batches, learner, batch, wanted.seconds)
    return Diagnosis(
        checks=(*checks, check_checkpoints(learner, config, wanted.out)),
        rates=rates,
        batch=batch,
        fits_in_memory=_epoch_bytes(split, order) < _free_memory_bytes(),
    )


def _measure(
    dataset: StoredDataset,
    split: StoredSplit,
    batches: TrainingBatches,
    learner: Learner,
    batch: int,
    seconds: float,
) -> Rates:
    config, device = learner.config, learner.ranks.device
    forget_shards(split)
    disk, steps = read_rate(batches, seconds)
    reader, _ = read_rate(batches, seconds, most_steps=steps)
    stored = ShardReader(split).read(batches.order.epoch(0)[:batch])
    scaling = InputScaling.of(dataset.card)
    key = ViewKey(seed=config.sampling.seed, epoch=0, sample_ids=stored.sample_ids)

    def views() -> Views:
        images = to_network_input(stored, scaling, device)
        return make_views(images, key, config.views, scaling)

    views_rate = repeated_rate(views, float(batch), seconds, device)
    seen, values = views(), step_values(0, config, steps_per_epoch=batches.steps_per_epoch)
    step_rate = repeated_rate(lambda: learner.step(seen, values, 0), float(batch), seconds, device)
    dtype = torch.bfloat16 if learner.half_precision else torch.float32
    flops = training_flops_per_image(config, channels=len(dataset.card.channels))
    return Rates(
        disk=disk,
        reader=reader,
        views=views_rate,
        step=step_rate,
        matmul_tflops=matmul_flops_per_s(device, dtype, seconds) / 1e12,
        step_tflops=step_rate * flops / 1e12,
    )


def _epoch_bytes(split: StoredSplit, order: SampleOrder) -> int:
    sample = sum(stored.sample_bytes for stored in split.arrays.values())
    return len(order.shard_of) * sample


def _free_memory_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
