"""One task of a build: the pairs of one shard, read, made into samples and written.

A task is small to send and needs nothing but the file system: its rows are one row group of
`.build/plan.parquet`. When the shard stands, its record follows: a parquet of one row per
planned pair, stored or rejected, with size and checksum of the shard's files in the schema.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int64

from bigearth_prep.align import check_values, common_grid, trusted_grid
from bigearth_prep.allocator import keep_freed_memory
from bigearth_prep.bands import Band
from bigearth_prep.breadcrumbs import leave_breadcrumbs, patches_died_at, refuse_deadly
from bigearth_prep.card import ShardCard
from bigearth_prep.errors import PrepError
from bigearth_prep.pair_source import PairFacts, PairFiles, PairReader
from bigearth_prep.patch import Grid, PatchError, Raster
from bigearth_prep.raster import Decoder
from bigearth_prep.sample import SampleRecipe, make_arrays
from bigearth_prep.shard_record import read_record, write_record
from bigearth_prep.shard_writers.shard_files import ShardFileNames, open_shard_files
from bigearth_prep.shard_writers.webdataset import StoredSample
from bigearth_prep.statistics import count_pixels, empty_counts
from bigearth_prep.warp import warp_bands
from bigearth_prep.whole_file import xxh3_128_of

BUILD_FOLDER = ".build"
PLAN_NAME = "plan.parquet"


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to be made."""

    dataset: Path
    row_group: int
    """Where in the plan its pairs are."""

    name: str
    """The shard's name, which begins with its split: where a tar is, relative to the dataset."""

    files: ShardFileNames
    pairs: PairFiles
    """Where the pairs' files are."""

    recipe: SampleRecipe
    fail_on_bad: bool
    """A bad pair ends the build instead of being rejected."""

    @property
    def record_path(self) -> Path:
        """Where the record of the finished shard is kept while the build lasts."""
        return self.dataset / BUILD_FOLDER / Path(self.name).with_suffix(".parquet")

    @property
    def breadcrumbs_path(self) -> Path:
        """Where the task notes which of its pairs it is at."""
        return self.record_path.with_suffix(".at")


@dataclass(frozen=True, slots=True)
class ShardReader:
    """Reads the pairs of one shard."""

    task: ShardTask
    pairs: PairReader
    files_read: Counter[Decoder]
    """How many files were decoded by what, and how many bands were warped; grows on reading."""

    note: Callable[[int], None]
    """Notes which row is being read."""


@dataclass(frozen=True, slots=True)
class ReadPair:
    """One checked pair, before its values are touched."""

    rasters: dict[Band, Raster]
    grid: Grid | None
    """Where it lies; None where that is not known."""

    fields: dict[str, Any]
    """What the sample's JSON and the manifest row say of it."""


@dataclass(frozen=True, slots=True)
class CountedShard:
    """What the pixels of a shard's pairs are."""

    histograms: dict[str, Int64[np.ndarray, " bin"]]
    """Of native values, by band name."""

    first_bad: str | None
    """The first pair that is not among them, and why."""


def make_shard(task: ShardTask) -> int:
    """How many pairs the shard was planned for, once it and its record stand.

    A shard that an earlier build finished is kept.

    Raises:
        PrepError: a pair is bad and the task is to fail on it, the disk does not take it, or the
            shard has killed its processes too often.
    """
    rows = _planned_rows(task)
    if _is_done(task):
        return len(rows)
    try:
        _write_shard(task, rows)
    except OSError as error:
        raise PrepError(
            f"{task.dataset / task.name} cannot be written: {error.strerror or error}; "
            "free space or repair the disk, and run the same command to go on"
        ) from error
    return len(rows)


def _write_shard(task: ShardTask, rows: list[dict[str, Any]]) -> None:
    record: list[dict[str, Any]] = []
    with (
        _open_pairs(task, rows) as reader,
        open_shard_files(task.dataset, task.files) as shard,
    ):
        for row, pair in _read_pairs(reader, rows):
            if isinstance(pair, PatchError):
                record.append(_rejected_row(row, pair))
                continue
            stored = shard.add(row["key"], make_arrays(pair.rasters, task.recipe), pair.fields)
            record.append(_manifest_row(pair) | _placement(task.files.tar, stored))
    write_record(task.record_path, record, shard.cards(), reader.files_read)


def _placement(shard: str | None, stored: StoredSample) -> dict[str, Any]:
    """Place in the tar; that in a Zarr group is only known when all shards are."""
    return {
        "shard": shard,
        "index_in_shard": stored.index,
        "offset_s2": stored.offsets.get("s2"),
        "offset_s1": stored.offsets.get("s1"),
        "xxh3_64": stored.xxh3_64,
    }


def count_values(task: ShardTask) -> CountedShard:
    """Histograms of the native pixels of every good pair of the shard."""
    rows = _planned_rows(task)
    counts = {band.name: empty_counts(band) for band in task.recipe.bands}
    bad: list[str] = []
    with _open_pairs(task, rows) as reader:
        for row, pair in _read_pairs(reader, rows):
            if isinstance(pair, PatchError):
                bad.append(f"{row['key']}: {pair}")
                continue
            for band, raster in pair.rasters.items():
                counts[band.name] += count_pixels(band, raster.pixels)
    return CountedShard(counts, bad[0] if bad else None)


def _is_done(task: ShardTask) -> bool:
    """Whether an earlier build finished this shard: sizes and checksums are as recorded."""
    if not task.record_path.exists():
        return False
    files = read_record(task.record_path).files
    return all(_is_whole(task.dataset / file.name, file) for file in files)


def _is_whole(path: Path, file: ShardCard) -> bool:
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    return xxh3_128_of(path) == file.xxh3_128


def _planned_rows(task: ShardTask) -> list[dict[str, Any]]:
    plan = pq.ParquetFile(task.dataset / BUILD_FOLDER / PLAN_NAME)
    rows: list[dict[str, Any]] = plan.read_row_group(task.row_group).to_pylist()
    return rows


@contextmanager
def _open_pairs(task: ShardTask, rows: list[dict[str, Any]]) -> Iterator[ShardReader]:
    keys = [row["key"] for row in rows]
    refuse_deadly(task.breadcrumbs_path, task.name, keys)
    keep_freed_memory()
    with task.pairs.open() as pairs, leave_breadcrumbs(task.breadcrumbs_path) as note:
        try:
            yield ShardReader(task, pairs, Counter(), note)
        except Exception as error:
            for key in patches_died_at(task.breadcrumbs_path, keys)[-1:]:
                error.add_note(f"at patch {key} of {task.name}")
            raise


def _read_pairs(
    reader: ShardReader, rows: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], ReadPair | PatchError]]:
    for number, row in enumerate(rows):
        reader.note(number)
        try:
            yield row, _read_pair(reader, row)
        except PatchError as error:
            if reader.task.fail_on_bad:
                raise PrepError(
                    f"patch {row['key']}: {error}; --on-bad skip leaves such pairs out"
                ) from error
            yield row, error


def _read_pair(reader: ShardReader, row: dict[str, Any]) -> ReadPair:
    rasters = reader.pairs.read_bands(row, reader.task.recipe.bands, reader.files_read)
    rasters, grid = _align(rasters, reader)
    check_values(rasters)
    return ReadPair(rasters, grid, _sample_fields(row, grid, reader.pairs.read_facts(row)))


def _align(
    rasters: dict[Band, Raster], reader: ShardReader
) -> tuple[dict[Band, Raster], Grid | None]:
    """The rasters on one footprint: as they were read, or warped where the recipe allows it."""
    if reader.task.recipe.trusts_grids:
        return rasters, trusted_grid(rasters)
    method = reader.task.recipe.warp
    if method is None:
        return rasters, common_grid(rasters)
    aligned, grid = warp_bands(rasters, method)
    reader.files_read["warp"] += sum(aligned[band] is not rasters[band] for band in rasters)
    return aligned, grid


def _sample_fields(row: dict[str, Any], grid: Grid | None, facts: PairFacts) -> dict[str, Any]:
    times = {"s1_time": facts.s1_time, "s2_time": facts.s2_time}
    known = ("key", "s1_name", "split", "country")
    flags = ("contains_seasonal_snow", "contains_cloud_or_shadow")
    return {
        **{name: row[name] for name in known},
        "labels": list(facts.labels),
        "epsg": grid and grid.epsg,
        "bounds": grid and grid.bounds,
        **{name: time and f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in times.items()},
        **{name: row[name] for name in flags},
    }


def _manifest_row(pair: ReadPair) -> dict[str, Any]:
    fields = pair.fields
    west, _, _, north = fields["bounds"] or (None,) * 4
    times = {
        name: np.datetime64(fields[name].removesuffix("Z")).item() if fields[name] else None
        for name in ("s1_time", "s2_time")
    }
    kept = {name: value for name, value in fields.items() if name != "bounds"}
    return kept | times | {"ulx": west, "uly": north}


def _rejected_row(row: dict[str, Any], error: PatchError) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("key", "s1_name", "split")},
        "reason": str(error.reason),
        "detail": error.detail,
    }
