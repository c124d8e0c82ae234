"""What a second worker brings, and how much memory one takes at the default shard size.

The same shards are made by a cluster of one worker and by one of two, in turns, and the speed-up is
the median ratio of one turn to the next by the clock. It needs two free cores, and every shard is
full and their number even, for a shard too many would leave one worker idle: 12 of 64 MB, a quarter
of the default size.
Peak memory (VmHWM) is that of a new worker that has made full shards of 256 MB, of either format
and of native values, which take the most. Exit 1 beyond a bar.
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
_SHARDS, _SHARD_MB = 12, 64.0
_PAIRS_OF_SHARD = 312


@dataclass(frozen=True, slots=True)
class Made:
    """What one shard took."""

    cpu_s: float
    peak_gib: float


@dataclass(frozen=True, slots=True)
class Turn:
    """What one pass over all shards took."""

    wall_s: float
    workers_cpu_s: float
    own_cpu_s: float
    """Of the scheduler and the client, which run in this process."""


def main() -> int:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prep-scaling-") as name:
        archive = Path(name) / "archive"
        pairs = _SHARDS * _PAIRS_OF_SHARD
        write_archive(ArchiveConfig(out=archive, layout="v2", pairs=pairs, seed=1, tar=True))
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
    """The median speed-up of a second worker, by the clock."""
    speed_ups = []
    with (
        open_cluster(ClusterConfig(workers=1)) as one,
        open_cluster(ClusterConfig(workers=2)) as two,
    ):
        for run in (one, two):
            take_turn(run, archive, out)
        for _ in range(rounds):
            alone, both = (take_turn(run, archive, out) for run in (one, two))
            speed_ups.append(alone.wall_s / both.wall_s)
            print(
                f"{_SHARDS} shards of {_SHARD_MB:g} MB: {alone.wall_s:.2f} s, with a second worker "
                f"{both.wall_s:.2f} s; CPU time {alone.workers_cpu_s:.2f} and "
                f"{both.workers_cpu_s:.2f} s, scheduler and client "
                f"{1e3 * both.own_cpu_s / _SHARDS:.0f} ms a shard"
            )
    speed_up = statistics.median(speed_ups)
    print(
        f"a second worker: {speed_up:.2f} times as fast ({min(speed_ups):.2f} to "
        f"{max(speed_ups):.2f}), at least {_SPEED_UP:g}; load {os.getloadavg()[0]:.1f}"
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


def take_turn(run: Runner, archive: Path, out: Path) -> Turn:
    """Make all shards once."""
    tasks = tasks_for(archive, out, shard_mb=_SHARD_MB)
    assert len(tasks) == _SHARDS, f"{len(tasks)} shards, not all of them full"
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    made = list(run(measured, tasks))
    return Turn(
        wall_s=time.perf_counter() - start_s,
        workers_cpu_s=sum(shard.cpu_s for shard in made),
        own_cpu_s=time.process_time() - start_cpu_s,
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
