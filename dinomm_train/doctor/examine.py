"""All measurements and checks in a row."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.data.batch_memory import BatchMemory
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
    check_batches,
    check_cache,
    check_checkpoints,
    check_device,
    check_shards,
    check_views,
    lacks_memory,
)
from dinomm_train.doctor.diagnosis import Diagnosis, Rates
from dinomm_train.doctor.memory import available_memory_bytes
from dinomm_train.doctor.rates import forget_shards, read_rate, repeated_rate
from dinomm_train.flops import device_peak_flops, training_flops_per_image
from dinomm_train.learner import Learner, without_sharding
from dinomm_train.schedules import StepValues, step_values

_CPU_BATCH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamineConfig:
    """How the machine is looked at."""

    device: DeviceChoice = "auto"
    """Where to compute."""

    ranks: int = 1
    """Processes that the run will have."""

    nodes: int = 1
    """Machines that these are shared out over, evenly."""

    batch: int = 0
    """Samples of a measured step; zero takes a rank's share, on a CPU at most 8."""

    seconds: float = 5.0
    """For each measurement."""

    out: Path = Path()
    """Folder of the coming run."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    """How batches are read."""

    def __post_init__(self) -> None:
        if self.ranks % self.nodes:
            raise ValueError(
                f"{self.ranks:,} processes cannot be shared evenly by {self.nodes:,} machines"
            )

    @property
    def ranks_per_node(self) -> int:
        """Processes that share this machine."""
        return self.ranks // self.nodes


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
        check_views(dataset.card, config),
        check_batches(split, config, wanted.ranks),
        check_cache(split, config),
    )
    if not all(check.is_good for check in checks):
        return Diagnosis(checks=checks)
    order = SampleOrder.of(split, config.sampling)
    batches = node_batches(split, order, wanted, device)
    share = batches.share_size // wanted.ranks_per_node
    batch = min(wanted.batch or (share if device.type == "cuda" else _CPU_BATCH), share)
    try:
        learner = Learner(
            without_sharding(config),
            Ranks(rank=0, world=1, device=device),
            channels=len(dataset.card.channels),
        )
        rates = _measure(dataset, split, batches, learner, batch, wanted.seconds)
    except torch.OutOfMemoryError:
        return Diagnosis(checks=(*checks, lacks_memory(batch, config)))
    return Diagnosis(
        checks=(*checks, check_checkpoints(learner, order.steps_per_epoch, wanted.out)),
        rates=rates.shared_by(wanted.ranks_per_node, has_own_device=device.type == "cuda"),
        ranks=wanted.ranks,
        assumed=_assumed(wanted, device),
        batch=batch,
        fits_in_memory=_epoch_bytes(split, order) < available_memory_bytes(),
    )


def node_batches(
    split: StoredSplit, order: SampleOrder, wanted: ExamineConfig, device: torch.device
) -> TrainingBatches:
    """What all ranks of this machine read together, with the threads of all of them."""
    options = replace(
        wanted.reading,
        threads=wanted.reading.threads * wanted.ranks_per_node,
        pinned=device.type == "cuda",
    )
    return TrainingBatches(split, order, world=wanted.nodes, options=options)


def _assumed(wanted: ExamineConfig, device: torch.device) -> str:
    if wanted.ranks == 1:
        return ""
    nodes = f"all {wanted.nodes:,} nodes are like this one, and none slows another down"
    if wanted.ranks_per_node == 1:
        return nodes
    devices = (
        "has a GPU like this one of its own" if device.type == "cuda" else "shares its processors"
    )
    here = (
        f"each of the {wanted.ranks_per_node:,} ranks of this node shares its disk and cores "
        f"with the others, and {devices}"
    )
    return here if wanted.nodes == 1 else f"{here}; {nodes}"


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
    memory = BatchMemory(pinned=device.type == "cuda")
    stored = ShardReader(split, memory).read(batches.order.epoch(0)[:batch])
    scaling = InputScaling.of(dataset.card)
    key = ViewKey(seed=config.sampling.seed, epoch=0, sample_ids=stored.sample_ids)

    def views() -> Views:
        images = to_network_input(stored, scaling, device)
        return make_views(images, key, config.views, scaling)

    views_rate = repeated_rate(views, float(batch), seconds, device)
    seen, values = views(), _steady_values(config, batches.steps_per_epoch)
    step_rate = repeated_rate(lambda: learner.step(seen, values, 0), float(batch), seconds, device)
    peak_flops = device_peak_flops(config, device, half_precision=learner.half_precision)
    flops = training_flops_per_image(config, channels=len(dataset.card.channels))
    return Rates(
        disk=disk,
        reader=reader,
        views=views_rate,
        step=step_rate,
        peak_tflops=peak_flops / 1e12,
        step_tflops=step_rate * flops / 1e12,
    )


def _steady_values(config: RunConfig, steps_per_epoch: int) -> StepValues:
    """Those of the first step that moves the prototypes; if none does, of the last epoch."""
    epoch = min(config.optim.frozen_last_layer_epochs, config.schedule.epochs - 1)
    return step_values(epoch * steps_per_epoch, config, steps_per_epoch=steps_per_epoch)


def _epoch_bytes(split: StoredSplit, order: SampleOrder) -> int:
    sample = sum(stored.sample_bytes for stored in split.arrays.values())
    return len(order.shard_of) * sample
