"""Samples per CPU-second into batches, in random order: this reader against `webdataset`.

Both take turns over the same shards, which the system's cache holds: the disk is left out. The CPU
time of every process and thread counts. `webdataset` runs as its users run it: shards and samples
shuffled (a buffer, where ours mixes the whole epoch), its decoders, batches; in worker processes of
a DataLoader, which is how it reads ahead of a step, and in this process, where the step would wait
for it. Ours reads ahead with threads, through `TrainingBatches`, as training does. The ratios are
medians over rounds. Exit 1 where one is below its bar.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from torch.utils.data import DataLoader

from bigearth_prep.bands import SENSORS
from dinomm_train.config import SamplingConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.loader import ReadOptions, TrainingBatches
from dinomm_train.data.order import SampleOrder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.shard_fixture import make_dataset

_BATCH = 64
_SHUFFLE_BUFFER = 256
_WORKERS = 2
_READING_AHEAD, _IN_PROCESS = f"webdataset, {_WORKERS} workers", "webdataset, in this process"
_BARS = {_READING_AHEAD: 10.0, _IN_PROCESS: 5.0}


def main() -> int:
    """Run all in turns and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=["uint8", "uint16"], default="uint8")
    parser.add_argument("--threads", type=int, default=ReadOptions().threads)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reader-speed-") as name:
        folder = make_dataset(
            Path(name),
            samples={"train": arguments.samples},
            size_px=120,
            dtype=arguments.dtype,
            per_shard=256,
        )
        rates = measure(folder, arguments.rounds, arguments.threads)
    return report(rates, arguments.dtype)


def measure(folder: Path, rounds: int, threads: int) -> dict[str, list[float]]:
    """Samples per CPU-second of each reader, round by round."""
    dataset = StoredDataset.open(folder)
    split = dataset.split("train")
    order = SampleOrder.of(split, SamplingConfig(global_batch=_BATCH))
    ours = TrainingBatches(split, order, options=ReadOptions(threads=threads))
    urls = [str(path) for path in split.shard_paths]
    require_same(ours, plain_batches(urls, seed=0), len(split))
    readers: dict[str, Callable[[int], Iterable[Any]]] = {
        "ours": ours.epoch,
        _IN_PROCESS: lambda epoch: plain_batches(urls, seed=epoch),
        _READING_AHEAD: lambda epoch: worker_batches(urls, seed=epoch),
    }
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds):
        for name, reader in readers.items():
            # Once before it counts: the fork of the workers makes every page fault once more.
            samples_per_cpu_second(reader(number))
            rates[name].append(samples_per_cpu_second(reader(number)))
    return rates


def plain_batches(urls: list[str], seed: int) -> webdataset.WebDataset:
    """`webdataset` with its decoders, shuffled, in batches."""
    return (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=seed)
        .shuffle(_SHUFFLE_BUFFER)
        .decode()
        .to_tuple("s2.npy", "s1.npy")
        .batched(_BATCH)
    )


def worker_batches(urls: list[str], seed: int) -> Iterable[Any]:
    """The same in worker processes."""
    return DataLoader(plain_batches(urls, seed), batch_size=None, num_workers=_WORKERS)


def samples_per_cpu_second(batches: Iterable[Any]) -> float:
    """How many samples come per second of CPU time of this process and its children."""
    start_s = cpu_seconds()
    count = 0
    for batch in batches:
        count += len(batch.s2 if hasattr(batch, "s2") else batch[0])
    return count / (cpu_seconds() - start_s)


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def require_same(ours: TrainingBatches, theirs: Iterable[Any], count: int) -> None:
    """Refuse to compare readers that do not give the same samples."""
    mine = np.zeros(2, dtype=np.int64)
    for batch in ours.epoch(0):
        mine += [getattr(batch, sensor).sum(dtype=np.int64) for sensor in SENSORS]
    other = np.zeros(2, dtype=np.int64)
    for arrays in theirs:
        other += [array.sum(dtype=np.int64) for array in arrays]
    if count % _BATCH or not np.array_equal(mine, other):
        raise SystemExit(f"the readers give different samples: sums {mine} and {other}")


def report(rates: dict[str, list[float]], dtype: str) -> int:
    """Print rates and ratios; 1 where a ratio is below its bar."""
    for name, values in rates.items():
        print(f"{name}: {statistics.median(values):,.0f} samples of {dtype} per CPU-second")
    is_low = False
    for name, bar in _BARS.items():
        pairs = zip(rates["ours"], rates[name], strict=True)
        ratio = statistics.median(mine / other for mine, other in pairs)
        print(f"reader: {ratio:.1f} times {name}, at least {bar}")
        is_low |= ratio < bar
    return int(is_low)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
