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
from bigearth_prep.archive import StorageConfig
from bigearth_prep.archive_pairs import scan_pairs
from bigearth_prep.bands import ALL_BANDS, SENSORS, Band, Sensor, bands_of
from bigearth_prep.card import SPLITS, Scheme
from bigearth_prep.collection import BIG_EARTH_NET, Collection
from bigearth_prep.errors import PrepError
from bigearth_prep.normalize import DTYPES
from bigearth_prep.pair_source import PairSource
from bigearth_prep.pairing import PairTable, TableConfig
from bigearth_prep.shard_plan import ShardSpec, plan_shards
from bigearth_prep.shard_writers.webdataset import sample_bytes
from bigearth_prep.table_pairs import tabled_pairs
from bigearth_prep.tables import sha256_of

_ROWS_HASHED_AT_ONCE = 4096

StatisticsSource = Literal["published", "compute"] | Path
ShardFormat = Literal["webdataset", "zarr", "both"]
Alignment = Literal["same", "warp"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """A request for a dataset: all that decides its bytes, and where to keep files meanwhile."""

    s2: Path
    """The Sentinel-2 archive; with a pairs table, what paths in its column are relative to."""

    s1: Path
    pairs: Path | None = None
    """A table of pairs of any collection, in place of the archives."""

    collection: Collection = BIG_EARTH_NET
    tables: TableConfig = field(default_factory=TableConfig)
    bands: tuple[Band, ...] = ALL_BANDS
    scheme: Scheme = "paper"
    statistics: StatisticsSource | None = None
    """Where normalization parameters come from; by default published, where there are such, and
    computed for percentile."""

    dtype: str | None = None
    """Stored dtype; by default the scheme's first in `DTYPES`."""

    size_px: int | None = None
    """Side of a stored patch; by default that of the collection."""

    resampling: Resampling | None = None
    """How bands come to that side; by default cubic for the published form, nearest at the
    collection's own side, where it repeats each coarse pixel, and bilinear at others."""

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
        self._check_collection()

    def _check_collection(self) -> None:
        """Whether what is asked for can be made of the collection."""
        is_tabled = self.pairs is not None
        if is_tabled == (self.collection is BIG_EARTH_NET):
            raise ValueError("--pairs and --collection go together; give both, or --s2 and --s1")
        if is_tabled and (self.tables.metadata or self.tables.mapping):
            raise ValueError("--metadata and --mapping are BigEarthNet's; leave them out")
        if self.used_size_px not in self.collection.sides_px:
            sides = self.collection.sides_px
            allowed = (
                f"{sides[0]} to {sides[-1]}" if len(sides) > 2 else f"{sides[0]} or {sides[1]}"
            )
            raise ValueError(f"--size is {self.size_px}, expected {allowed}")
        if self.align == "warp" and self.collection.trusts_grids:
            raise ValueError("--align warp needs the grids that the collection trusts unseen")
        if self.statistics == "published" and not set(self.bands) <= set(ALL_BANDS):
            raise ValueError("only BigEarthNet's bands have published statistics: --stats compute")

    @property
    def used_size_px(self) -> int:
        """The side, its default filled in."""
        return self.collection.side_px if self.size_px is None else self.size_px

    @property
    def stored_dtype(self) -> str:
        """The dtype, its default filled in."""
        return self.dtype or DTYPES[self.scheme][0]

    @property
    def used_resampling(self) -> Resampling:
        """The method, its default filled in."""
        if self.resampling or self.scheme == "paper":
            return self.resampling or "cubic"
        return "nearest" if self.used_size_px == self.collection.side_px else "bilinear"

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
        computes = self.scheme == "percentile" or not self.collection.has_published_statistics
        return self.statistics or ("compute" if computes else "published")

    def places(self) -> dict[str, Any]:
        """Options of the command line that name files; moving them changes nothing."""
        tables = self.tables
        lists = {"metadata": tables.metadata, "mapping": tables.mapping, "exclude": tables.exclude}
        given = {
            "pairs": self.pairs,
            "collection": self.collection.path,
            "s2": self.s2,
            "s1": self.s1,
        }
        return {
            **{name: str(path.absolute()) for name, path in given.items() if path is not None},
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
            "size": str(self.used_size_px),
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

    pairs: PairSource
    shards: list[ShardSpec]
    pairs_per_shard: int
    """Pairs of every shard but the last of a split."""

    source: dict[str, Any]
    """Archive kind and checksums of everything that was given: the card's `source`."""

    def tables(self) -> Iterator[pa.Table]:
        """The pairs of each shard in stored order, as tasks need them."""
        return self.pairs.planned_tables(pa.array(spec.rows) for spec in self.shards)

    @property
    def table(self) -> PairTable:
        """What is to be read, and what is already known to be left out."""
        return self.pairs.table

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
    pairs = _open_pairs(config)
    table = pairs.table
    _check_splits(table)
    pairs_per_shard = _pairs_per_shard(config)
    shards = plan_shards(
        table.pairs.column("key").to_pylist(),
        table.pairs.column("split").to_pylist(),
        pairs_per_shard=pairs_per_shard,
        seed=config.tables.seed,
    )
    return BuildPlan(pairs, shards, pairs_per_shard, _source(config, pairs))


def _open_pairs(config: BuildConfig) -> PairSource:
    """The pairs, from whatever the request names; nothing after this asks where they come from."""
    if config.pairs is not None:
        roots: dict[Sensor, Path] = {"s2": config.s2, "s1": config.s1}
        return tabled_pairs(config.pairs, config.collection, config.bands, config.tables, roots)
    return scan_pairs(config.s2, config.s1, config.tables, config.storage)


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
            dtype = bands[0].dtype if config.scheme == "none" else config.stored_dtype
            shape = (len(bands), config.used_size_px, config.used_size_px)
            arrays[sensor] = np.broadcast_to(np.zeros((), dtype), shape)
    return max(1, int(config.shard_mb * 1e6) // sample_bytes(arrays))


def _source(config: BuildConfig, pairs: PairSource) -> dict[str, Any]:
    files = pairs.metadata_files
    if isinstance(config.used_statistics, Path):
        files = [*files, ("stats", config.used_statistics)]
    return {
        "archive": pairs.name,
        "files": [
            {"role": role, "name": path.name, "sha256": sha256_of(path)} for role, path in files
        ],
        "pairs": len(pairs.table.pairs),
        "pairs_xxh3_128": _table_hash(pairs.table),
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
