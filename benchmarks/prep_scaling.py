"""What a second worker brings, and how much memory one takes at the default shard size.

The same shards are made by one and by two worker processes in turns. The speed-up on two free
cores follows from the CPU-seconds that the workers spend on them, which other load on the machine
changes little: tasks share nothing, so two workers are twice as fast but for what tasks cost more
beside each other, and for a last task that finds the other worker idle. That leaves out what the
scheduler and the client cost, which on two cores compete with the workers: where this gave 1.92,
the clock gave 1.65. Both are printed, with the scheduler's CPU time for each task; the bar holds
the first alone, and does not show what a user of two cores waits for. Peak memory (VmHWM) is that
of a new worker that has made full shards of 256 MB, of either format and of native values, which
take the most. Exit 1 beyond a bar.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bigearth_prep.bands import ALL_BANDS
from bigearth_prep.build_tasks import recipe_of, shard_tasks, write_plan
from bigearth_prep.card import Scheme
from bigearth_prep.cluster import ClusterConfig, Runner, open_cluster
from bigearth_prep.normalize import parameters_of
from bigearth_prep.pairing import TableConfig
from bigearth_prep.plan import BuildConfig, ShardFormat, plan_build
from bigearth_prep.shard_task import ShardTask, make_shard
from bigearth_prep.statistics import published_statistics
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive

_SPEED_UP, _MOST_GIB = 1.8, 1.0
_SCALING_SHARD_MB = 8.0


@dataclass(frozen=True, slots=True)
class Made:
    """What one shard took."""

    cpu_s: float
    peak_gib: float


@dataclass(frozen=True, slots=True)
class Turn:
    """What one pass over all shards took."""

    tasks: int
    wall_s: float
    workers_cpu_s: float
    own_cpu_s: float
    """Of the scheduler and the client, which run in this process."""

    longest_s: float
    """CPU time of the longest task."""


def main() -> int:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prep-scaling-") as name:
        archive = Path(name) / "archive"
        write_archive(
            ArchiveConfig(out=archive, layout="v2", pairs=arguments.pairs, seed=1, tar=True)
        )
        speed_up = scaling(archive, Path(name) / "out", arguments.rounds)
        peaks = {
            f"{scheme}, {shard_format}": peak_gib(archive, Path(name) / "out", scheme, shard_format)
            for scheme, shard_format in (("paper", "webdataset"), ("none", "zarr"))
        }
    for what, gib in peaks.items():
        print(f"peak memory of a worker, {what}: {gib:.2f} GiB, at most {_MOST_GIB:g}")
    print(json.dumps({"benchmark": "prep_scaling", "speed_up": speed_up, "peak_gib": peaks}))
    return int(speed_up < _SPEED_UP or max(peaks.values()) > _MOST_GIB)


def scaling(archive: Path, out: Path, rounds: int) -> float:
    """The median speed-up of a second worker, by CPU time; that by the clock is printed."""
    turns: dict[int, list[Turn]] = {1: [], 2: []}
    with (
        open_cluster(ClusterConfig(workers=1)) as one,
        open_cluster(ClusterConfig(workers=2)) as two,
    ):
        for run in (one, two):
            take_turn(run, tasks_for(archive, out, shard_mb=_SCALING_SHARD_MB))
        for _ in range(rounds):
            for workers, run in ((1, one), (2, two)):
                tasks = tasks_for(archive, out, shard_mb=_SCALING_SHARD_MB)
                turns[workers].append(take_turn(run, tasks))
    by_cpu, by_clock = [], []
    for alone, both in zip(turns[1], turns[2], strict=True):
        by_cpu.append(alone.workers_cpu_s / ((both.workers_cpu_s + both.longest_s) / 2))
        by_clock.append(alone.wall_s / both.wall_s)
    speed_up = statistics.median(by_cpu)
    own_ms = statistics.median(1e3 * both.own_cpu_s / both.tasks for both in turns[2])
    shard_ms = statistics.median(1e3 * both.workers_cpu_s / both.tasks for both in turns[2])
    print(
        f"a second worker: {speed_up:.2f} times as fast by CPU time, at least {_SPEED_UP:g}; by "
        f"the clock {statistics.median(by_clock):.2f} ({min(by_clock):.2f} to {max(by_clock):.2f})"
        f", {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; scheduler and client take "
        f"{own_ms:.1f} ms of CPU a task, a shard of {_SCALING_SHARD_MB:g} MB {shard_ms:.0f} ms"
    )
    return speed_up


def peak_gib(archive: Path, out: Path, scheme: Scheme, shard_format: ShardFormat) -> float:
    """Peak memory of a worker over shards of the default size."""
    with open_cluster(ClusterConfig(workers=1)) as run:
        tasks = tasks_for(archive, out, scheme=scheme, shard_format=shard_format)
        return max(made.peak_gib for made in run(measured, tasks))


def tasks_for(
    archive: Path,
    out: Path,
    *,
    scheme: Scheme = "paper",
    shard_format: ShardFormat = "webdataset",
    shard_mb: float = 256.0,
) -> list[ShardTask]:
    """The tasks of a build into an empty folder, all pairs in one split for full shards."""
    shutil.rmtree(out, ignore_errors=True)
    mapping = archive / "pairs.csv"
    if not mapping.exists():
        write_mapping(archive, mapping)
    config = BuildConfig(
        s2=archive / "BigEarthNet-S2.tar",
        s1=archive / "BigEarthNet-S1.tar",
        tables=TableConfig(
            metadata=tuple(archive.glob("metadata*.parquet")), splits=(("train", mapping),)
        ),
        scheme=scheme,
        shard_format=shard_format,
        shard_mb=shard_mb,
    )
    plan = plan_build(config)
    write_plan(out, plan)
    moments = published_statistics("dino-mm").bands
    parameters = {
        band.name: parameters_of(scheme, moments[band.name], band=band.name) for band in ALL_BANDS
    }
    return shard_tasks(out, config, plan, recipe_of(config, parameters))


def write_mapping(archive: Path, path: Path) -> None:
    """A list of every Sentinel-2 patch."""
    import pyarrow.parquet as pq

    tables = [pq.read_table(table) for table in archive.glob("metadata*.parquet")]
    names = [name for table in tables for name in table.column("patch_id").to_pylist()]
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def take_turn(run: Runner, tasks: list[ShardTask]) -> Turn:
    """Make all shards once."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    made = list(run(measured, tasks))
    return Turn(
        tasks=len(made),
        wall_s=time.perf_counter() - start_s,
        workers_cpu_s=sum(shard.cpu_s for shard in made),
        own_cpu_s=time.process_time() - start_cpu_s,
        longest_s=max(shard.cpu_s for shard in made),
    )


def measured(task: ShardTask) -> Made:
    """Make a shard, and say what that took."""
    start_s = time.process_time()
    make_shard(task)
    cpu_s = time.process_time() - start_s
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return Made(cpu_s, int(status.split("VmHWM:")[1].split()[0]) / 2**20)


if __name__ == "__main__":
    sys.exit(main())
