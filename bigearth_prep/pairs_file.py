"""A table of pairs, CSV or Parquet, to columns of known types."""

import csv
import logging
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bigearth_prep.errors import PrepError

log = logging.getLogger(__name__)

LIST_MARK = ";"
"""Parts the entries of a list in CSV."""

_STRINGS = pa.list_(pa.field("element", pa.string()))
_TYPES: dict[str, pa.DataType] = {
    "key": pa.string(),
    "s2": _STRINGS,
    "s1": _STRINGS,
    "labels": _STRINGS,
    "split": pa.string(),
    "location": pa.string(),
    "s1_name": pa.string(),
    "country": pa.string(),
    "s1_time": pa.timestamp("ms", tz="UTC"),
    "s2_time": pa.timestamp("ms", tz="UTC"),
    "contains_seasonal_snow": pa.bool_(),
    "contains_cloud_or_shadow": pa.bool_(),
}
"""Every column that a table may have."""


def read_pairs_file(path: Path) -> pa.Table:
    """Those of the known columns that the file has, each of its type; `val` means validation.

    Raises:
        PrepError: the file is unreadable, or a value is not of its column's type.
    """
    is_csv = path.suffix.lower() == ".csv"
    try:
        table = _read_csv(path) if is_csv else pq.read_table(path)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        kind = "CSV" if is_csv else "Parquet"
        raise PrepError(f"--pairs {path} is not a readable {kind} table: {error}") from error
    if ignored := [name for name in table.column_names if name not in _TYPES]:
        log.warning("%s: columns not used: %s", path, ", ".join(ignored))
    columns = {}
    for name in (name for name in table.column_names if name in _TYPES):
        try:
            columns[name] = _typed(table.column(name), _TYPES[name])
        except (pa.ArrowException, ValueError) as error:
            raise PrepError(f"--pairs {path}, column {name}: {error}") from error
    if "split" in columns:
        split = columns["split"]
        columns["split"] = pc.if_else(pc.equal(split, "val"), "validation", split)
    return pa.table(columns)


def _read_csv(path: Path) -> pa.Table:
    """All values as text, lists apart; nothing but an empty cell is null."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(csv.reader(stream), [])
    if len(set(header)) < len(header):
        raise ValueError(f"a column is named twice in {','.join(header)}")
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    table = pa_csv.read_csv(path, convert_options=options)
    for index, name in enumerate(table.column_names):
        if _TYPES.get(name) == _STRINGS:
            table = table.set_column(index, name, pc.split_pattern(table.column(name), LIST_MARK))
    return table


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column as this type: one path is a list of one, a time without zone is UTC."""
    if kind == _STRINGS and not pa.types.is_nested(column.type):
        values = column.cast(pa.string()).to_pylist()
        return pa.chunked_array([pa.array([value and [value] for value in values], _STRINGS)])
    if pa.types.is_timestamp(kind):
        return _times(column)
    typed = column.cast(kind)
    if kind == _STRINGS:
        entries = pc.list_flatten(typed)
        if entries.null_count or pc.any(pc.equal(entries, "")).as_py():
            raise ValueError("an entry of a list is empty")
    return typed


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = pa.timestamp("ms", tz="UTC")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        times = [text and datetime.fromisoformat(text) for text in column.to_pylist()]
        zoned = [time and (time if time.tzinfo else time.replace(tzinfo=UTC)) for time in times]
        return pa.chunked_array([pa.array(zoned, kind)])
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        return column.cast(pa.timestamp("ms"), safe=False).cast(kind)
    return column.cast(kind, safe=False)
