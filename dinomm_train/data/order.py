"""Which sample comes when: one order per run seed and epoch, cut into batches and ranks' shares."""

import numpy as np
from jaxtyping import Int64

from dinomm_train.data.draws import Purpose, hash_words
from dinomm_train.errors import TrainError


def epoch_order(sample_count: int, seed: int, epoch: int) -> Int64[np.ndarray, " sample"]:
    """All positions of a split once, shuffled; ranks and batch size have no say in it."""
    positions = np.arange(sample_count, dtype=np.uint64)
    words = hash_words(seed, epoch, int(Purpose.ORDER), positions)
    return np.argsort(words, kind="stable")


def steps_per_epoch(sample_count: int, global_batch: int) -> int:
    """Whole global batches in an epoch; the samples left over come up in other epochs.

    Raises:
        TrainError: there is not one whole batch.
    """
    if sample_count < global_batch:
        raise TrainError(
            f"{sample_count:,} samples do not fill one global batch of {global_batch:,}; "
            "lower sampling.global_batch or use a larger dataset"
        )
    return sample_count // global_batch


def step_positions(
    order: Int64[np.ndarray, " sample"], step: int, global_batch: int
) -> Int64[np.ndarray, " batch"]:
    """The positions of one step's global batch; `step` counts from the epoch's start."""
    return order[step * global_batch : (step + 1) * global_batch]


def share_size(global_batch: int, world: int) -> int:
    """Samples per rank of each global batch.

    Raises:
        TrainError: the batch cannot be shared out evenly.
    """
    if global_batch % world:
        raise TrainError(
            f"a global batch of {global_batch:,} cannot be shared evenly by {world:,} processes; "
            "set sampling.global_batch to a multiple of them"
        )
    return global_batch // world


def rank_share(
    positions: Int64[np.ndarray, " batch"], rank: int, world: int
) -> Int64[np.ndarray, " share"]:
    """This rank's part of a global batch; the ranks' parts, one after another, are the batch.

    Raises:
        TrainError: the batch cannot be shared out evenly.
    """
    size = share_size(len(positions), world)
    return positions[rank * size : (rank + 1) * size]
