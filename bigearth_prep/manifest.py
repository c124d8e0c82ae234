"""The two tables of a dataset: `manifest.parquet` and `rejected.parquet`."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearth_prep.card import MANIFEST_NAME, REJECTED_NAME
from bigearth_prep.errors import PrepError
from bigearth_prep.whole_file import whole_file, xxh3_128_of
from bigearth_prep.zarr_group import group_name

_TIME = pa.timestamp("ms", tz="UTC")

MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("index_in_shard", pa.int64()),
        ("offset_s2", pa.int64()),
        ("offset_s1", pa.int64()),
        ("xxh3_64", pa.uint64()),
        ("s1_name", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("country", pa.string()),
        ("epsg", pa.int32()),
        ("ulx", pa.float64()),
        ("uly", pa.float64()),
        ("s1_time", _TIME),
        ("s2_time", _TIME),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""One row per sample, in stored order; null where a value is not known.

`shard` is the tar's path relative to the dataset; `offset_*` is the byte in the tar where the
array's data begin, null for a sensor that is not stored; `xxh3_64` covers the arrays' bytes,
Sentinel-2 first. Where a dataset holds no tars, `shard` is the Zarr group, `index_in_shard` the
place along its `sample` dimension, and the offsets are null.
"""

REJECTED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("s1_name", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row per pair, or patch without a partner, that is left out; `RejectReason` lists why."""


def write_table(table: pa.Table, path: Path, *, is_shared: bool = False) -> None:
    """Write a parquet file, whole or not at all, the same bytes for the same table."""
    with whole_file(path, is_shared=is_shared) as partial:
        pq.write_table(table, partial, compression="zstd")


def write_tables(dataset: Path, records: pa.Table, rejected: pa.Table) -> dict[str, str]:
    """Write both tables of a dataset; returns the xxh3_128 of each by file name.

    Args:
        dataset: The folder.
        records: One row per pair that was read, in stored order: the columns of both tables,
            `reason` null where the pair was stored.
        rejected: Rows of pairs that never were read.
    """
    bad = pc.is_valid(records.column("reason"))
    stored = records.filter(pc.invert(bad)).select(MANIFEST_SCHEMA.names)
    write_table(_place_in_groups(stored), dataset / MANIFEST_NAME)
    refused = records.filter(bad).select(REJECTED_SCHEMA.names)
    order = [(name, "ascending") for name in ("reason", "key", "s1_name")]
    everything = pa.concat_tables([rejected, refused]).sort_by(order)
    write_table(everything, dataset / REJECTED_NAME)
    return {name: xxh3_128_of(dataset / name) for name in (MANIFEST_NAME, REJECTED_NAME)}


def _place_in_groups(rows: pa.Table) -> pa.Table:
    """The rows, those without a tar placed in the Zarr group of their split, in order."""
    if rows.column("shard").null_count == 0:
        return rows
    count_of: Counter[str] = Counter()
    names, indices = [], []
    for split in rows.column("split").to_pylist():
        names.append(group_name(split))
        indices.append(count_of[split])
        count_of[split] += 1
    columns = {"shard": pa.array(names), "index_in_shard": pa.array(indices)}
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def read_manifest(dataset: Path) -> pa.Table:
    """The manifest of a dataset.

    Raises:
        PrepError: the file is missing, unreadable or lacks a column.
    """
    path = dataset / MANIFEST_NAME
    try:
        table = pq.read_table(path)
        return table.select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise PrepError(
            f"{path} is not a readable manifest ({error}); copy the dataset again, or build it "
            "again with --overwrite"
        ) from error
