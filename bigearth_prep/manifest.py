"""The two tables of a dataset: `manifest.parquet` and `rejected.parquet`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bigearth_prep.card import MANIFEST_NAME
from bigearth_prep.errors import PrepError
from bigearth_prep.whole_file import whole_file

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
Sentinel-2 first.
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


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file, whole or not at all, the same bytes for the same table."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


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
