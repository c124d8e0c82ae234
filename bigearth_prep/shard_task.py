"""One task of a build: the pairs of one shard, read, made into samples and written.

A task is small to send and needs nothing but the file system: its rows are one row group of
`.build/plan.parquet`. When the shard stands, its record follows: a parquet of one row per
planned pair, stored or rejected, with size and checksum of the shard's files in the schema.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from jaxtyping import Int64

from bigearth_prep.acquisition import s1_time, s2_time
from bigearth_prep.align import check_values, common_grid
from bigearth_prep.bands import Band, bands_of
from bigearth_prep.card import ShardCard
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import to_official_classes
from bigearth_prep.manifest import MANIFEST_SCHEMA, write_table
from bigearth_prep.patch import Grid, PatchError, Raster, RejectReason
from bigearth_prep.raster import read_bands, read_patch_json
from bigearth_prep.sample import SampleRecipe, make_arrays
from bigearth_prep.shard_writers.shard_files import ShardFileNames, open_shard_files
from bigearth_prep.shard_writers.webdataset import StoredSample
from bigearth_prep.statistics import count_pixels, empty_counts

BUILD_FOLDER = ".build"
PLAN_NAME = "plan.parquet"
RECORD_SCHEMA = pa.schema(
    [*MANIFEST_SCHEMA, pa.field("reason", pa.string()), pa.field("detail", pa.string())]
)
_FILES_KEY = b"files"


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
    s1_root: Path
    recipe: SampleRecipe
    fail_on_bad: bool
    """A bad pair ends the build instead of being rejected."""

    @property
    def record_path(self) -> Path:
        """Where the record of the finished shard is kept while the build lasts."""
        return self.dataset / BUILD_FOLDER / Path(self.name).with_suffix(".parquet")


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
        PrepError: a pair is bad and the task is to fail on it, or the disk does not take it.
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
    with open_shard_files(task.dataset, task.files) as shard:
        for row, pair in _read_pairs(task, rows):
            if isinstance(pair, PatchError):
                record.append(_rejected_row(row, pair))
                continue
            stored = shard.add(row["key"], make_arrays(pair.rasters, task.recipe), pair.fields)
            record.append(_manifest_row(pair) | _placement(task.files.tar, stored))
    _write_record(task.record_path, record, shard.cards())


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
    counts = {band.name: empty_counts(band) for band in task.recipe.bands}
    for _, pair in _read_pairs(task, _planned_rows(task)):
        if isinstance(pair, PatchError):
            continue
        for band, raster in pair.rasters.items():
            counts[band.name] += count_pixels(band, raster.pixels)
    return counts


def read_record(path: Path) -> tuple[pa.Table, list[ShardCard]]:
    """The rows and the files of a finished task, the tar first."""
    table = pq.read_table(path)
    files = json.loads(table.schema.metadata[_FILES_KEY])
    return table, [ShardCard(**fields) for fields in files]


def read_records(tasks: Iterable[ShardTask]) -> tuple[pa.Table, list[ShardCard]]:
    """The rows of all finished tasks in stored order, and all their files."""
    records = [read_record(task.record_path) for task in tasks]
    tables = [table.replace_schema_metadata() for table, _ in records]
    rows = pa.concat_tables([RECORD_SCHEMA.empty_table(), *tables])
    return rows, [file for _, files in records for file in files]


def xxh3_128_of(path: Path) -> str:
    """The file's checksum, as 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_done(task: ShardTask) -> bool:
    """Whether an earlier build finished this shard: sizes and checksums are as recorded."""
    if not task.record_path.exists():
        return False
    _, files = read_record(task.record_path)
    return all(_is_whole(task.dataset / file.name, file) for file in files)


def _is_whole(path: Path, file: ShardCard) -> bool:
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    return xxh3_128_of(path) == file.xxh3_128


def _planned_rows(task: ShardTask) -> list[dict[str, Any]]:
    plan = pq.ParquetFile(task.dataset / BUILD_FOLDER / PLAN_NAME)
    rows: list[dict[str, Any]] = plan.read_row_group(task.row_group).to_pylist()
    return rows


def _read_pairs(
    task: ShardTask, rows: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], ReadPair | PatchError]]:
    for row in rows:
        try:
            yield row, _read_pair(task, row)
        except PatchError as error:
            if task.fail_on_bad:
                raise PrepError(
                    f"patch {row['key']}: {error}; --on-bad skip leaves such pairs out"
                ) from error
            yield row, error


def _read_pair(task: ShardTask, row: dict[str, Any]) -> ReadPair:
    s2_folder = task.s2_root / row["s2_folder"]
    s1_folder = task.s1_root / row["s1_folder"]
    rasters = read_bands(s2_folder, bands_of("s2", task.recipe.bands))
    rasters |= read_bands(s1_folder, bands_of("s1", task.recipe.bands))
    grid = common_grid(rasters)
    check_values(rasters)
    metadata = {} if row["labels"] is not None else read_patch_json(s2_folder)
    return ReadPair(rasters, grid, _sample_fields(row, grid, metadata))


def _sample_fields(row: dict[str, Any], grid: Grid, metadata: dict[str, Any]) -> dict[str, Any]:
    labels = row["labels"]
    if labels is None:
        labels = _labels_in(metadata)
    _, west, north, east, south = grid.footprint
    times = {"s1_time": s1_time(row["s1_name"]), "s2_time": s2_time(row["key"], metadata)}
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


def _labels_in(metadata: dict[str, Any]) -> tuple[str, ...]:
    try:
        labels = to_official_classes(metadata["labels"])
    except (KeyError, TypeError, PrepError) as error:
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


def _write_record(path: Path, rows: list[dict[str, Any]], files: list[ShardCard]) -> None:
    fields = json.dumps([asdict(file) for file in files])
    schema = RECORD_SCHEMA.with_metadata({_FILES_KEY: fields})
    write_table(pa.Table.from_pylist(rows, schema=schema), path)
