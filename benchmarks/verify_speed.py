"""CPU-seconds of a whole verify, as a ratio to reading and hashing the same files (xxh3_128).

Both take turns over one made-up dataset, whose files the system's cache holds: the disk is left
out, so that only computing is compared. A sample's own checksum makes a second pass over its
bytes, and a tar's headers and JSON are work that plain hashing has not. The ratios are medians
over rounds. Exit 1 where a ratio is above its bar.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bigearth_prep.card import read_card
from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.pairing import TableConfig
from bigearth_prep.pipeline import build_dataset
from bigearth_prep.plan import BuildConfig, ShardFormat
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive
from bigearth_prep.verify import VerifyConfig, verify_dataset
from bigearth_prep.whole_file import xxh3_128_of

_BARS: dict[ShardFormat, float] = {"webdataset": 3.5, "zarr": 3.0}


def main() -> int:
    """Run both in turns on each format and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="verify-speed-") as name:
        datasets = make_datasets(Path(name), arguments.pairs)
        ratios = {kind: compare(datasets[kind], arguments.rounds) for kind in _BARS}
    for kind, bar in _BARS.items():
        print(f"{kind}: {ratios[kind]:.2f} times the CPU time of hashing, at most {bar}")
    return int(any(ratios[kind] > _BARS[kind] for kind in _BARS))


def make_datasets(folder: Path, pairs: int) -> dict[ShardFormat, Path]:
    """The same made-up archive as a dataset of each format."""
    archive = folder / "archive"
    write_archive(ArchiveConfig(out=archive, layout="v2", pairs=pairs, seed=1))
    for shard_format in _BARS:
        config = BuildConfig(
            s2=archive / "BigEarthNet-S2",
            s1=archive / "BigEarthNet-S1",
            tables=TableConfig(metadata=tuple(archive.glob("metadata*.parquet"))),
            shard_format=shard_format,
        )
        build_dataset(config, folder / shard_format, ClusterConfig(workers=0))
    shutil.rmtree(archive)
    return {shard_format: folder / shard_format for shard_format in _BARS}


def compare(dataset: Path, rounds: int) -> float:
    """The median ratio of verifying to plain hashing."""
    card = read_card(dataset)
    files = [dataset / file.name for part in card.splits.values() for file in part.files]
    plain, own = [], []
    for _ in range(rounds):
        plain.append(cpu_seconds(lambda: [xxh3_128_of(path) for path in files]))
        own.append(cpu_seconds(lambda: require_whole(dataset)))
    ratio = statistics.median(mine / other for mine, other in zip(own, plain, strict=True))
    size = sum(path.stat().st_size for path in files) / 1e9
    rates = [f"{size / statistics.median(seconds):.2f}" for seconds in (plain, own)]
    print(
        f"{dataset.name}: {size:.2f} GB, xxh3_128 {rates[0]} GB, verify {rates[1]} GB per "
        f"CPU-second, ratio {ratio:.2f}"
    )
    return ratio


def require_whole(dataset: Path) -> None:
    """Verify the dataset, and refuse one in which anything is wrong."""
    with open_cluster(ClusterConfig(workers=0)) as run:
        if problems := verify_dataset(dataset, VerifyConfig(), run, advance=lambda _: None):
            raise SystemExit("\n".join(problems))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process for the work."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
