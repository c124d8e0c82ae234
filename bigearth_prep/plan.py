"""What a build is asked to do, and the plan that follows from the request and the archive."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash

from bigearth_prep.align import Resampling
from bigearth_prep.archive import Archive, StorageConfig, scan_archives
from bigearth_prep.bands import ALL_BANDS, PATCH_PX, SENSORS, Band, Sensor, bands_of
from bigearth_prep.card import SPLITS, Scheme
from bigearth_prep.errors import PrepError
from bigearth_prep.normalize import DTYPES, native_dtype
from bigearth_prep.pairing import PAIRS_SCHEMA, PairTable, TableConfig, pair_patches
from bigearth_prep.shard_plan import ShardSpec, plan_shards
from bigearth_prep.shard_writers.webdataset import sample_bytes
from bigearth_prep.tables import sha256_of
from bigearth_prep.tar_index import MEMBERS_TYPE

PLAN_SCHEMA = pa.schema(
    [
        *PAIRS_SCHEMA,
        pa.field("s2_members", MEMBERS_TYPE),
        pa.field("s1_members", MEMBERS_TYPE),
    ]
)
"""What a task knows of its pairs; members are null where archives are folders."""

_ROWS_HASHED_AT_ONCE = 4096

StatisticsSource = Literal["published", "compute"] | Path
ShardFormat = Literal["webdataset", "zarr", "both"]
Alignment = Literal["same", "warp"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """A request for a dataset: all that decides its bytes, and where to keep files meanwhile."""

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
    """How bands come to `size_px`; by default cubic for the published form, bilinear at 128 px,
    and nearest at 120 px, where it repeats each coarse pixel."""

    align: Alignment = "same"
    """What happens to pairs whose bands do not share a grid: refused, or warped onto one."""

    shard_mb: float = 256.0
    """Size that shards stay under, in 10^6 bytes."""

    shard_format: ShardFormat = "webdataset"
    """What holds the samples: tars, Zarr groups, or both with the same values."""

    fail_on_bad: bool = False
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shard_mb) and self.shard_mb > 0):
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
        if self.resampling or self.scheme == "paper":
            return self.resampling or "cubic"
        return "nearest" if self.size_px == PATCH_PX else "bilinear"

    @property
    def warp(self) -> Resampling | None:
        """How bands are warped onto a common grid; None refuses pairs that need it.

        The default is the scheme's own method, and bilinear in place of nearest, which would
        move every pixel by up to half its size.
        """
        if self.align == "same":
            return None
        return self.resampling or ("cubic" if self.scheme == "paper" else "bilinear")

    @property
    def used_statistics(self) -> StatisticsSource:
        """The source, its default filled in."""
        return self.statistics or ("compute" if self.scheme == "percentile" else "published")

    def places(self) -> dict[str, Any]:
        """Options of the command line that name files; moving them changes nothing."""
        tables = self.tables
        lists = {"metadata": tables.metadata, "mapping": tables.mapping, "exclude": tables.exclude}
        return {
            "s2": str(self.s2.absolute()),
            "s1": str(self.s1.absolute()),
            **{name: [str(path.absolute()) for path in paths] for name, paths in lists.items()},
            "split": [f"{name}={path.absolute()}" for name, path in tables.splits],
        }

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
            "align": self.align,
            "split_ratio": ",".join(f"{share:g}" for share in self.tables.split_ratio),
            "format": self.shard_format,
            "shard_mb": self.shard_mb,
            "seed": self.tables.seed,
            "on_bad": "fail" if self.fail_on_bad else "skip",
        }


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What will be read and where it will go."""

    s2: Archive
    s1: Archive
    table: PairTable
    shards: list[ShardSpec]
    pairs_per_shard: int
    """Pairs of every shard but the last of a split."""

    source: dict[str, Any]
    """Archive kind and checksums of everything that was given: the card's `source`."""

    def tables(self) -> Iterator[pa.Table]:
        """The pairs of each shard in stored order, as `PLAN_SCHEMA`."""
        pairs = self.table.pairs
        rows_in = {
            archive.sensor: archive.rows_of(pairs.column(f"{archive.sensor}_folder"))
            for archive in (self.s2, self.s1)
        }
        for spec in self.shards:
            rows = pa.array(spec.rows)
            table = pairs.take(rows)
            for archive in (self.s2, self.s1):
                members = archive.members.take(rows_in[archive.sensor].take(rows))
                table = table.append_column(f"{archive.sensor}_members", members)
            yield table

    @property
    def layout(self) -> str:
        """Version of the archive."""
        return _layout(self.s2, self.s1)

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
    s2, s1 = scan_archives(config.s2, config.s1, config.storage)
    if not (len(s2.names) or len(s1.names) or config.tables.metadata or config.tables.mapping):
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


def _layout(s2: Archive, s1: Archive) -> str:
    return s2.layout if s2.layout != "unknown" else s1.layout


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


def _source(config: BuildConfig, s2: Archive, s1: Archive, table: PairTable) -> dict[str, Any]:
    files = config.tables.files
    if isinstance(config.used_statistics, Path):
        files = [*files, ("stats", config.used_statistics)]
    return {
        "archive": f"BigEarthNet {_layout(s2, s1)}",
        "files": [
            {"role": role, "name": path.name, "sha256": sha256_of(path)} for role, path in files
        ],
        "pairs": len(table.pairs),
        "pairs_xxh3_128": _table_hash(table),
    }


def _table_hash(table: PairTable) -> str:
    """Of every planned and rejected row, so that a changed archive does not pass for this one."""
    digest = xxhash.xxh3_128()
    for part in (table.pairs, table.rejected):
        for column in part.columns:
            for start in range(0, len(column), _ROWS_HASHED_AT_ONCE):
                values = column.slice(start, _ROWS_HASHED_AT_ONCE).to_pylist()
                digest.update(("\n" * bool(start) + "\n".join(map(str, values))).encode())
    return digest.hexdigest()
