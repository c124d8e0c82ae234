"""What a build is asked to do, and the plan that follows from the request and the archive."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from bigearth_prep.align import Resampling
from bigearth_prep.archive import ArchiveFolder, scan_archive
from bigearth_prep.bands import ALL_BANDS, SENSORS, Band, Sensor, bands_of
from bigearth_prep.card import SPLITS, Scheme
from bigearth_prep.errors import PrepError
from bigearth_prep.normalize import DTYPES, native_dtype
from bigearth_prep.pairing import PairTable, TableConfig, pair_patches
from bigearth_prep.shard_plan import ShardSpec, plan_shards
from bigearth_prep.shard_writers.webdataset import sample_bytes
from bigearth_prep.tables import sha256_of

StatisticsSource = Literal["published", "compute"] | Path
ShardFormat = Literal["webdataset", "zarr", "both"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """A request for a dataset: everything that decides its bytes."""

    s2: Path
    s1: Path
    tables: TableConfig = field(default_factory=TableConfig)
    bands: tuple[Band, ...] = ALL_BANDS
    scheme: Scheme = "paper"
    statistics: StatisticsSource | None = None
    """Where normalization parameters come from; by default published, computed for percentile."""

    dtype: str | None = None
    """Stored dtype; by default the scheme's first in `DTYPES`."""

    size_px: int = 120
    resampling: Resampling | None = None
    """How coarse bands are refined; by default nearest, and cubic for the published form."""

    shard_mb: float = 256.0
    """Size that shards stay under, in 10^6 bytes."""

    shard_format: ShardFormat = "webdataset"
    """What holds the samples: tars, Zarr groups, or both with the same values."""

    fail_on_bad: bool = False

    def __post_init__(self) -> None:
        if self.shard_mb <= 0:
            raise ValueError(f"shard size must be positive, got {self.shard_mb} MB")
        if self.scheme == "paper" and self.resampling not in {None, "cubic"}:
            raise ValueError("--normalize paper is published with cubic resampling only")
        if self.stored_dtype not in DTYPES[self.scheme]:
            allowed = " or ".join(DTYPES[self.scheme])
            raise ValueError(f"--normalize {self.scheme} is stored as {allowed}, not {self.dtype}")

    @property
    def stored_dtype(self) -> str:
        """The dtype, its default filled in."""
        return self.dtype or DTYPES[self.scheme][0]

    @property
    def used_resampling(self) -> Resampling:
        """The method, its default filled in."""
        return self.resampling or ("cubic" if self.scheme == "paper" else "nearest")

    @property
    def used_statistics(self) -> StatisticsSource:
        """The source, its default filled in."""
        return self.statistics or ("compute" if self.scheme == "percentile" else "published")

    @property
    def writes_tars(self) -> bool:
        """Whether samples go to WebDataset tars."""
        return self.shard_format != "zarr"

    @property
    def writes_zarr(self) -> bool:
        """Whether samples go to Zarr groups."""
        return self.shard_format != "webdataset"

    def options(self) -> dict[str, Any]:
        """Options of the command line that decide the bytes, files aside."""
        ordered = [band.name for sensor in SENSORS for band in bands_of(sensor, self.bands)]
        statistics = self.used_statistics
        return {
            "bands": ",".join(ordered),
            "normalize": self.scheme,
            "stats": str(statistics),
            "dtype": self.stored_dtype,
            "size": str(self.size_px),
            "resampling": self.used_resampling,
            "split_ratio": ",".join(f"{share:g}" for share in self.tables.split_ratio),
            "format": self.shard_format,
            "shard_mb": self.shard_mb,
            "seed": self.tables.seed,
        }


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What will be read and where it will go."""

    s2: ArchiveFolder
    s1: ArchiveFolder
    table: PairTable
    shards: list[ShardSpec]
    pairs_per_shard: int
    """Pairs of every shard but the last of a split."""

    source: dict[str, Any]
    """Archive kind and checksums of everything that was given: the card's `source`."""

    @property
    def layout(self) -> str:
        """Version of the archive."""
        return self.s2.layout if self.s2.layout != "unknown" else self.s1.layout

    def counts_by_split(self) -> dict[str, int]:
        """Planned pairs of each split."""
        counts = Counter(self.table.pairs.column("split").to_pylist())
        return {split: counts[split] for split in SPLITS if counts[split]}

    def counts_by_reason(self) -> dict[str, int]:
        """Rejected rows of each reason."""
        return dict(Counter(self.table.rejected.column("reason").to_pylist()).most_common())


def plan_build(config: BuildConfig) -> BuildPlan:
    """The plan of a build: a function of the archive's names, the tables and the request.

    Raises:
        PrepError: the archive or a table cannot be read.
    """
    s2, s1 = scan_archive(config.s2, "s2"), scan_archive(config.s1, "s1")
    if not (s2.patches or s1.patches or config.tables.metadata or config.tables.mapping):
        raise PrepError(f"{config.s2} and {config.s1} hold no patch; give the extracted archives")
    table = pair_patches(s2, s1, config.tables)
    _check_splits(table)
    pairs_per_shard = _pairs_per_shard(config)
    shards = plan_shards(
        table.pairs.column("key").to_pylist(),
        table.pairs.column("split").to_pylist(),
        pairs_per_shard=pairs_per_shard,
        seed=config.tables.seed,
    )
    source = _source(config, s2, s1, table)
    return BuildPlan(s2, s1, table, shards, pairs_per_shard, source)


def _check_splits(table: PairTable) -> None:
    unknown = set(table.pairs.column("split").to_pylist()) - set(SPLITS)
    if unknown:
        raise PrepError(
            f"unknown split {', '.join(sorted(unknown))}; known are {', '.join(SPLITS)}"
        )


def _pairs_per_shard(config: BuildConfig) -> int:
    arrays: dict[Sensor, np.ndarray] = {}
    for sensor in SENSORS:
        if bands := bands_of(sensor, config.bands):
            dtype = native_dtype(bands[0]) if config.scheme == "none" else config.stored_dtype
            shape = (len(bands), config.size_px, config.size_px)
            arrays[sensor] = np.broadcast_to(np.zeros((), dtype), shape)
    return max(1, int(config.shard_mb * 1e6) // sample_bytes(arrays))


def _source(
    config: BuildConfig, s2: ArchiveFolder, s1: ArchiveFolder, table: PairTable
) -> dict[str, Any]:
    layout = s2.layout if s2.layout != "unknown" else s1.layout
    files: Mapping[str, str] = {path.name: sha256_of(path) for path in config.tables.files}
    if isinstance(config.used_statistics, Path):
        files = {**files, config.used_statistics.name: sha256_of(config.used_statistics)}
    return {
        "archive": f"BigEarthNet {layout}",
        "metadata_sha256": dict(files),
        "pairs": len(table.pairs),
        "pairs_xxh3_128": _table_hash(table),
    }


def _table_hash(table: PairTable) -> str:
    """Of every planned and rejected row, so that a changed archive does not pass for this one."""
    digest = xxhash.xxh3_128()
    for part in (table.pairs, table.rejected):
        for name in part.column_names:
            digest.update("\n".join(map(str, part.column(name).to_pylist())).encode())
    return digest.hexdigest()
