"""Seconds and memory of planning a whole archive, and of indexing a tar of 100,000 members.

The plan is that of BigEarthNet v2 read from two tars: 549,488 pairs, all of them there, each with
the places of its twelve and two files. The pairs are those of the official tables where these lie
in ../shared/real/metadata beside the checkout, and made up otherwise; the indices of the tars are
always made up. Planning is everything that a build does before its first task: reading the
tables and indices, pairing, shuffling, and writing the plan. It runs in a process of its own,
whose CPU time and peak memory (VmHWM) are taken: on a machine that does nothing else, the clock
shows no more than the CPU time, and other load does not touch it. Exit 1 where a figure is above
its bar.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigearth_prep.bands import S1_BANDS, S2_BANDS, Band
from bigearth_prep.build_tasks import write_plan
from bigearth_prep.labels import CLASSES
from bigearth_prep.pairing import TableConfig
from bigearth_prep.plan import BuildConfig, plan_build
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive
from bigearth_prep.tables import METADATA_COLUMNS
from bigearth_prep.tar_index import INDEX_SCHEMA, MEMBERS_TYPE, index_tar, save_index

PAIRS = 549_488
OFFICIAL = Path(__file__).parents[2] / "shared" / "real" / "metadata"

_PLAN_SECONDS, _PLAN_GIB = 10.0, 1.5
_INDEX_MEMBERS, _INDEX_SECONDS = 100_000, 5.0
_PAIRS_WALKED = 300


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and the most that it may be."""

    name: str
    found: float
    unit: str
    bar: float


def main() -> int:
    """Measure and print everything, or plan what an earlier start has laid out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--made-up", action="store_true", help="Leave the official tables alone.")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        plan(arguments.plan)
        return 0
    with tempfile.TemporaryDirectory(prefix="plan-scale-") as name:
        folder = Path(name)
        is_official = OFFICIAL.exists() and not arguments.made_up
        lay_out(folder, arguments.pairs, is_official=is_official)
        figures = [*planned(folder), walked(folder / "walked")]
    print(f"{arguments.pairs:,} {'official' if is_official else 'made-up'} pairs")
    for figure in figures:
        print(f"{figure.name:36}{figure.found:8.2f} {figure.unit}, at most {figure.bar:g}")
    fields = {figure.name: figure.found for figure in figures}
    print(json.dumps({"benchmark": "plan_scale", "found": fields}))
    return int(any(figure.found > figure.bar for figure in figures))


def lay_out(folder: Path, pairs: int, *, is_official: bool) -> None:
    """Tables and two tars of which nothing but the index is there: planning reads no more."""
    if is_official:
        paths = sorted(OFFICIAL.glob("metadata*.parquet"))
        tables = [pq.read_table(path).select(list(METADATA_COLUMNS)) for path in paths]
        table = pa.concat_tables(tables, promote_options="permissive").slice(0, pairs)
    else:
        table = made_up_table(pairs)
    pq.write_table(table, folder / "metadata.parquet")
    write_index(folder / "BigEarthNet-S2.tar", table.column("patch_id").to_pylist(), S2_BANDS)
    write_index(folder / "BigEarthNet-S1.tar", table.column("s1_name").to_pylist(), S1_BANDS)


def made_up_table(pairs: int) -> pa.Table:
    """Rows as the official tables have them, of names that only look real."""
    rng = np.random.default_rng(0)
    tiles = [
        f"{number % 60 + 1:02}U{chr(65 + number // 60)}P" for number in range(1 + pairs // 8100)
    ]
    places = [f"{tiles[n // 8100]}_{n // 90 % 90}_{n % 90}" for n in range(pairs)]
    labels = [[CLASSES[code] for code in codes] for codes in rng.integers(0, 19, (pairs, 3))]
    return pa.table(
        {
            "patch_id": [f"S2A_MSIL2A_20170613T101031_N9999_R022_T{place}" for place in places],
            "labels": labels,
            "split": np.array(["train", "validation", "test"])[rng.integers(0, 3, pairs)],
            "country": np.array(["Austria", "Finland"])[rng.integers(0, 2, pairs)],
            "s1_name": [f"S1A_IW_GRDH_1SDV_20170613T165043_{place}" for place in places],
            "s2v1_name": [f"S2A_MSIL2A_20170613T101031_{number}" for number in range(pairs)],
            "contains_seasonal_snow": np.zeros(pairs, bool),
            "contains_cloud_or_shadow": np.zeros(pairs, bool),
        }
    )


def write_index(tar: Path, names: list[str], bands: tuple[Band, ...]) -> None:
    """A file that passes for a tar of these patches, sorted, beside its index."""
    names = sorted(names)
    parts = 2 if bands is S2_BANDS else 3
    folders = [f"{tar.stem}/{name.rsplit('_', parts)[0]}/{name}" for name in names]
    endings = sorted(f"_{band.name}.tif" for band in bands)
    count = len(names) * len(endings)
    members = pa.StructArray.from_arrays(
        [
            pa.DictionaryArray.from_arrays(
                np.tile(np.arange(len(endings), dtype=np.int32), len(names)), endings
            ),
            pa.array(np.arange(count, dtype=np.int64) * 15_000),
            pa.array(np.full(count, 7572, np.int64)),
        ],
        fields=list(MEMBERS_TYPE.value_type),
    )
    offsets = pa.array(np.arange(len(names) + 1, dtype=np.int32) * len(endings))
    lists = pa.ListArray.from_arrays(offsets, members, type=MEMBERS_TYPE)
    tar.touch()
    save_index(pa.table([pa.array(folders), lists], schema=INDEX_SCHEMA), tar, None)


def plan(folder: Path) -> None:
    """What a build does before its first task, and what that took, as JSON."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    config = BuildConfig(
        s2=folder / "BigEarthNet-S2.tar",
        s1=folder / "BigEarthNet-S1.tar",
        tables=TableConfig(metadata=(folder / "metadata.parquet",)),
    )
    made = plan_build(config)
    write_plan(folder / "out", made)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    fields = {
        "pairs": sum(made.counts_by_split().values()),
        "seconds": time.perf_counter() - start_s,
        "cpu_seconds": time.process_time() - start_cpu_s,
        "gib": peak_kib / 2**20,
    }
    print(json.dumps(fields))


def planned(folder: Path) -> list[Figure]:
    """What planning takes in a process of its own."""
    command = [sys.executable, __file__, "--plan", str(folder)]
    output = subprocess.run(  # noqa: S603 (this very script)
        command, capture_output=True, text=True, check=True
    ).stdout
    fields = json.loads(output)
    expected = pq.read_metadata(folder / "metadata.parquet").num_rows
    assert fields["pairs"] == expected, fields
    print(f"planned in {fields['seconds']:.2f} s by the clock, load {os.getloadavg()[0]:.1f}")
    return [
        Figure("planning, CPU", fields["cpu_seconds"], "s", _PLAN_SECONDS),
        Figure("planning, peak memory", fields["gib"], "GiB", _PLAN_GIB),
    ]


def walked(folder: Path) -> Figure:
    """What the index of a real tar takes, scaled to 100,000 members."""
    write_archive(ArchiveConfig(out=folder, layout="v2", pairs=_PAIRS_WALKED, seed=1, tar=True))
    start_s = time.process_time()
    index = index_tar(folder / "BigEarthNet-S2.tar")
    seconds = time.process_time() - start_s
    members = len(index.column("members").combine_chunks().flatten())
    name = f"index of {_INDEX_MEMBERS:,} tar members"
    return Figure(name, seconds * _INDEX_MEMBERS / members, "s", _INDEX_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
