"""What would stop a run, looked for before it starts."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bigearth_prep.card import DatasetCard
from dinomm_train.config import RunConfig
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import ShardReader
from dinomm_train.data.stream_terms import StreamTerms, require_room
from dinomm_train.data.views import require_chain
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner, choose_half_precision, require_shareable

_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_good: bool
    finding: str
    """What was found, and where it is bad what to do."""


def checked(name: str, look: Callable[[], str]) -> Check:
    """The check that a look makes: good with what it returns, bad where it raises."""
    try:
        return Check(name=name, is_good=True, finding=look())
    except TrainError as error:
        return Check(name=name, is_good=False, finding=str(error))


def check_shards(split: StoredSplit) -> Check:
    """Whether the first and last sample of every shard are what was stored."""

    def look() -> str:
        if split.store.room is not None:
            return f"{len(split.shards):,} shards, each held against its checksum as it is fetched"
        reader = ShardReader(split, verify="xxh3_64" in split.table.column_names)
        starts = np.flatnonzero(np.diff(split.shard_of, prepend=-1))
        ends = np.append(starts[1:] - 1, len(split) - 1)
        for first, last in zip(starts, ends, strict=True):
            reader.read(np.unique(np.array([first, last])))
        return f"first and last sample of each of {len(starts):,} shards are readable and whole"

    return checked("shards", look)


def check_batches(split: StoredSplit, config: RunConfig, ranks: int) -> Check:
    """Whether ranks can share steps (and networks), and what an epoch leaves out."""

    def look() -> str:
        require_shareable(config.compute, ranks)
        order = SampleOrder.of(split, config.sampling)
        terms = StreamTerms.of(split, order, world=ranks, epochs=config.schedule.epochs)
        return "; ".join(terms.lines())

    return checked("batches", look)


def check_cache(split: StoredSplit, config: RunConfig) -> Check:
    """Whether the cache holds what the shuffle needs at once."""

    def look() -> str:
        order, epochs = SampleOrder.of(split, config.sampling), config.schedule.epochs
        terms = StreamTerms.of(split, order, world=1, epochs=epochs)
        return require_room(split, order, terms, epochs=epochs)

    return checked("cache", look)


def check_checkpoints(learner: Learner, steps_per_epoch: int, out: Path) -> Check:
    """Whether the disk of the run's folder holds its checkpoints."""

    def look() -> str:
        size, kept = _checkpoint_bytes(learner), _most_checkpoints(learner.config, steps_per_epoch)
        folder = next(one for one in (out.absolute(), *out.absolute().parents) if one.is_dir())
        free = shutil.disk_usage(folder).free
        needed = f"{kept:,} checkpoints of {size / 1e6:,.0f} MB"
        finding = f"{needed}, {free / 1e9:,.1f} GB are free at {folder}"
        if size * kept > free:
            raise TrainError(
                f"{finding}; choose another --out, or keep fewer (output.keep_last, "
                "output.keep_every_steps)"
            )
        return finding

    return checked("checkpoints", look)


def check_device(config: RunConfig, device: torch.device) -> Check:
    """What computes, and in which arithmetic."""

    def look() -> str:
        half = choose_half_precision(config.sampling.precision, device)
        name = f"CPU, {torch.get_num_threads()} threads"
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory / 1e9
            name = f"{torch.cuda.get_device_name(device)}, {memory:,.0f} GB"
        return f"{name}; {'bf16' if half else 'fp32'} arithmetic"

    return checked("device", look)


def check_views(card: DatasetCard, config: RunConfig) -> Check:
    """Whether crops of this dataset may be changed as configured."""

    def look() -> str:
        require_chain(card, config.views)
        return f"the chain of colour operations is {config.views.chain}"

    return checked("views", look)


def lacks_memory(batch: int, config: RunConfig) -> Check:
    """What it means that a device had no memory left in a step of so many samples."""
    finding = f"networks and a step of {batch:,} samples do not fit into the device's memory; "
    is_shared = config.compute.sharding == "fsdp"
    if is_shared:
        finding += "several share the networks out in a run, and nothing is measured here"
    else:
        finding += (
            "lower sampling.global_batch, take a rank's samples in parts (compute.micro_batch), "
            "or set compute.checkpoint_activations or compute.sharding=fsdp"
        )
    return Check(name="memory", is_good=is_shared, finding=finding)


def _most_checkpoints(config: RunConfig, steps_per_epoch: int) -> int:
    """Those that lie there while a run's last one is written: the newest, and older ones kept."""
    output = config.output
    every = output.checkpoint_every_steps or steps_per_epoch
    steps = config.schedule.epochs * steps_per_epoch
    saved = math.ceil(steps / every)  # the last step is, wherever it falls
    kept_of = math.lcm(every, output.keep_every_steps) // every
    older = max(steps // every - output.keep_last, 0) // kept_of if kept_of else 0
    return min(saved, output.keep_last + 1) + older


def _checkpoint_bytes(learner: Learner) -> int:
    student, teacher = (
        sum(weight.numel() for weight in network.parameters())
        for network in (learner.networks.student, learner.networks.teacher)
    )
    # AdamW keeps two running statistics of each of the student's weights.
    return (3 * student + teacher) * _FLOAT_BYTES
