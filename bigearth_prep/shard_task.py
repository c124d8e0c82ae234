"""One task of a build: the pairs of one shard, read, made into samples and written.

A task is small to send and needs nothing but the file system: its rows are one row group of
`.build/plan.parquet`. When the shard stands, its record follows: a parquet of one row per
planned pair, stored or rejected, with size and checksum of the shard's files in the schema.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int64

from bigearth_prep.acquisition import s1_time, s2_time
from bigearth_prep.align import check_values, common_grid
from bigearth_prep.bands import Band, bands_of
from bigearth_prep.breadcrumbs import leave_breadcrumbs, refuse_deadly
from bigearth_prep.card import ShardCard
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import to_official_classes
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason
from bigearth_prep.patch_source import PatchSource, open_source, place_of
from bigearth_prep.raster import Decoder, read_bands, read_patch_json
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
    s2_root: Path
    """Folder or plain tar of the Sentinel-2 patches."""

    s1_root: Path
    recipe: SampleRecipe
    has_json: bool
    """Patches are of v1, which keeps metadata beside the bands."""

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
class PairReader:
    """Reads the pairs of one shard from the open archives."""

    task: ShardTask
    s2: PatchSource
    s1: PatchSource
    files_read: Counter[Decoder]
    """How many files were decoded by what, and how many bands were warped; grows on reading."""

    note: Callable[[int], None]
    """Notes which row is being read."""


@dataclass(frozen=True, slots=True)
class ReadPair:
    """One checked pair, before its values are touched."""

    rasters: dict[Band, Raster]
    grid: Grid
    fields: dict[str, Any]
    """What the sample's JSON and the manifest row say of it."""


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
        _open_archives(task, rows) as archives,
        open_shard_files(task.dataset, task.files) as shard,
    ):
        for row, pair in _read_pairs(archives, rows):
            if isinstance(pair, PatchError):
                record.append(_rejected_row(row, pair))
                continue
            stored = shard.add(row["key"], make_arrays(pair.rasters, task.recipe), pair.fields)
            record.append(_manifest_row(pair) | _placement(task.files.tar, stored))
    write_record(task.record_path, record, shard.cards(), archives.files_read)


def _placement(shard: str | None, stored: StoredSample) -> dict[str, Any]:
    """Place in the tar; that in a Zarr group is only known when all shards are."""
    return {
        "shard": shard,
        "index_in_shard": stored.index,
        "offset_s2": stored.offsets.get("s2"),
        "offset_s1": stored.offsets.get("s1"),
        "xxh3_64": stored.xxh3_64,
    }


def count_values(task: ShardTask) -> dict[str, Int64[np.ndarray, " bin"]]:
    """Histograms of the native pixels of every good pair of the shard, by band name."""
    rows = _planned_rows(task)
    counts = {band.name: empty_counts(band) for band in task.recipe.bands}
    with _open_archives(task, rows) as archives:
        for _, pair in _read_pairs(archives, rows):
            if isinstance(pair, PatchError):
                continue
            for band, raster in pair.rasters.items():
                counts[band.name] += count_pixels(band, raster.pixels)
    return counts


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
def _open_archives(task: ShardTask, rows: list[dict[str, Any]]) -> Iterator[PairReader]:
    refuse_deadly(task.breadcrumbs_path, task.name, [row["key"] for row in rows])
    with (
        open_source(task.s2_root) as s2,
        open_source(task.s1_root) as s1,
        leave_breadcrumbs(task.breadcrumbs_path) as note,
    ):
        yield PairReader(task, s2, s1, Counter(), note)


def _read_pairs(
    reader: PairReader, rows: list[dict[str, Any]]
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


def _read_pair(reader: PairReader, row: dict[str, Any]) -> ReadPair:
    bands = reader.task.recipe.bands
    s2_place = place_of(row["s2_folder"], row["s2_members"])
    s1_place = place_of(row["s1_folder"], row["s1_members"])
    rasters = read_bands(reader.s2, s2_place, bands_of("s2", bands), reader.files_read)
    rasters |= read_bands(reader.s1, s1_place, bands_of("s1", bands), reader.files_read)
    rasters, grid = _align(rasters, reader)
    check_values(rasters)
    metadata = {}
    if row["labels"] is None or reader.task.has_json:
        metadata = read_patch_json(reader.s2, s2_place)
    return ReadPair(rasters, grid, _sample_fields(row, grid, metadata))


def _align(rasters: dict[Band, Raster], reader: PairReader) -> tuple[dict[Band, Raster], Grid]:
    """The rasters on one footprint: as they were read, or warped where the recipe allows it."""
    method = reader.task.recipe.warp
    if method is None:
        return rasters, common_grid(rasters)
    aligned, grid = warp_bands(rasters, method)
    reader.files_read["warp"] += sum(aligned[band] is not rasters[band] for band in rasters)
    return aligned, grid


def _sample_fields(row: dict[str, Any], grid: Grid, metadata: dict[str, Any]) -> dict[str, Any]:
    labels = row["labels"]
    if labels is None:
        labels = _labels_in(metadata)
    _, west, north, east, south = grid.footprint
    times = {"s1_time": s1_time(row["s1_name"]), "s2_time": _sensing_time(row["key"], metadata)}
    known = ("key", "s1_name", "split", "country")
    flags = ("contains_seasonal_snow", "contains_cloud_or_shadow")
    return {
        **{name: row[name] for name in known},
        "labels": list(labels),
        "epsg": grid.epsg,
        "bounds": [west, south, east, north],
        **{name: time and f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in times.items()},
        **{name: row[name] for name in flags},
    }


def _sensing_time(key: str, metadata: dict[str, Any]) -> datetime | None:
    try:
        return s2_time(key, metadata)
    except ValueError as error:
        raise PatchError(RejectReason.MISSING_METADATA, f"time in the JSON: {error}") from error


def _labels_in(metadata: dict[str, Any]) -> tuple[str, ...]:
    names = metadata.get("labels")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise PatchError(RejectReason.MISSING_METADATA, f"labels in the JSON are {names!r}")
    try:
        labels = to_official_classes(names)
    except PrepError as error:
        raise PatchError(RejectReason.MISSING_METADATA, f"labels in the JSON: {error}") from error
    if not labels:
        raise PatchError(RejectReason.NO_LABEL, "no label is among the 19 classes")
    return labels


def _manifest_row(pair: ReadPair) -> dict[str, Any]:
    fields = pair.fields
    west, _, _, north = fields["bounds"]
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
