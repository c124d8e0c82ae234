"""What is known of finished shards: a row per planned pair, and what was written and read for it.

The record of a shard is a parquet in the build folder; files and counts are in its schema.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bigearth_prep.card import ShardCard
from bigearth_prep.manifest import MANIFEST_SCHEMA, write_table
from bigearth_prep.raster import Decoder

RECORD_SCHEMA = pa.schema(
    [*MANIFEST_SCHEMA, pa.field("reason", pa.string()), pa.field("detail", pa.string())]
)
_FILES_KEY = b"files"
_FILES_READ_KEY = b"files_read"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What is known of one finished shard, or of several one after the other."""

    rows: pa.Table
    """One row per planned pair in stored order; `reason` is null where the pair was stored."""

    files: list[ShardCard]
    """The files written, of each shard the tar first."""

    files_read: Counter[str]
    """How many band files were decoded, by what decoded them."""


def read_record(path: Path) -> ShardRecord:
    """The record of one finished shard."""
    rows = pq.read_table(path)
    metadata = rows.schema.metadata
    return ShardRecord(
        rows.replace_schema_metadata(),
        [ShardCard(**fields) for fields in json.loads(metadata[_FILES_KEY])],
        Counter(json.loads(metadata[_FILES_READ_KEY])),
    )


def read_records(paths: Iterable[Path]) -> ShardRecord:
    """The records of finished shards as one, in the order given."""
    records = [read_record(path) for path in paths]
    return ShardRecord(
        pa.concat_tables([RECORD_SCHEMA.empty_table(), *(record.rows for record in records)]),
        [file for record in records for file in record.files],
        sum((record.files_read for record in records), Counter[str]()),
    )


def write_record(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    files: Sequence[ShardCard],
    files_read: Mapping[Decoder, int],
) -> None:
    """Write the record of one finished shard, whole or not at all."""
    metadata = {
        _FILES_KEY: json.dumps([asdict(file) for file in files]),
        _FILES_READ_KEY: json.dumps(files_read),
    }
    schema = RECORD_SCHEMA.with_metadata(metadata)
    write_table(pa.Table.from_pylist(rows, schema=schema), path, is_shared=True)
