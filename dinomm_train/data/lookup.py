"""Which samples a step sees, and at which steps a sample comes: told without reading any."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dinomm_train.data.order import SampleOrder, rank_share, share_size, step_positions
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSamples:
    """What one step saw."""

    step: int
    """Steps done before it since the start of the run."""

    epoch: int
    step_in_epoch: int

    keys_by_rank: tuple[tuple[str, ...], ...]
    """The share of each rank; all of them, one after another, are the global batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Appearance:
    """One time that a sample came."""

    step: int
    """Steps done before it since the start of the run."""

    epoch: int
    rank: int


def samples_of_step(
    split: StoredSplit, order: SampleOrder, step: int, *, world: int
) -> StepSamples:
    """What this step sees, `step` counting from zero at the start of the run.

    Raises:
        TrainError: the ranks cannot share a batch evenly.
    """
    epoch, step_in_epoch = divmod(step, order.steps_per_epoch)
    batch = step_positions(order.epoch(epoch), step_in_epoch, order.global_batch)
    shares = [rank_share(batch, rank, world) for rank in range(world)]
    return StepSamples(
        step=step,
        epoch=epoch,
        step_in_epoch=step_in_epoch,
        keys_by_rank=tuple(tuple(map(split.key, share.tolist())) for share in shares),
    )


def appearances_of_key(
    split: StoredSplit, order: SampleOrder, key: str, *, epochs: int, world: int
) -> Iterator[Appearance]:
    """When the sample comes, once in each epoch that does not leave it out.

    Raises:
        TrainError: the split has no such sample, or the ranks cannot share a batch evenly.
    """
    position = _position(split, len(order.shard_of), key)
    share = share_size(order.global_batch, world)
    for epoch in range(epochs):
        place = int(np.flatnonzero(order.epoch(epoch) == position)[0])
        step_in_epoch, row = divmod(place, order.global_batch)
        if step_in_epoch < order.steps_per_epoch:
            step = epoch * order.steps_per_epoch + step_in_epoch
            yield Appearance(step=step, epoch=epoch, rank=row // share)


def _position(split: StoredSplit, used: int, key: str) -> int:
    keys = split.table["key"].to_pylist()
    try:
        position: int = keys.index(key)
    except ValueError:
        raise TrainError(
            f"split {split.name} has no sample {key!r}; keys are Sentinel-2 patch names, as in "
            "manifest.parquet"
        ) from None
    if position >= used:
        raise TrainError(
            f"sample {key!r} is number {position:,} of split {split.name}, of which "
            f"sampling.sample_limit uses the first {used:,}"
        )
    return position
