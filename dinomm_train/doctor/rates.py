"""How fast each part of training goes on its own, in samples per second."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import torch

from dinomm_train.data.loader import TrainingBatches
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import StoredBatch
from dinomm_train.transfer import wait_for_device


def repeated_rate(
    work: Callable[[], object], units: float, seconds: float, device: torch.device
) -> float:
    """Units per second of some work that is repeated for so long, after a first time."""
    work()
    wait_for_device(device)
    repeats, start_s = 0, time.perf_counter()
    while True:
        work()
        wait_for_device(device)
        repeats += 1
        spent_s = time.perf_counter() - start_s
        if spent_s >= seconds:
            return repeats * units / spent_s


def forget_shards(split: StoredSplit) -> None:
    """Ask the system to drop the split's shards from memory, so that the disk is measured."""
    for shard in split.shards:
        split.store.open(shard).forget_cached()


def read_rate(batches: TrainingBatches, seconds: float, most_steps: int = 0) -> tuple[float, int]:
    """Samples per second that the stream gives to who takes them at once, and the steps it took."""
    start_s = time.perf_counter()
    steps = 0
    with closing(batches.epoch(0)) as stream:
        for _ in _limited(stream, most_steps):
            steps += 1
            if not most_steps and time.perf_counter() - start_s >= seconds:
                break
    return steps * batches.share_size / (time.perf_counter() - start_s), steps


def _limited(stream: Iterator[StoredBatch], most: int) -> Iterator[StoredBatch]:
    for number, batch in enumerate(stream, start=1):
        yield batch
        if number == most:
            return
