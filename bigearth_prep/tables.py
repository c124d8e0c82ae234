"""The official tables: v2 metadata parquets, v1 mapping, split and exclusion lists."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES, to_official_classes

_HEADER_CELLS = {"s1_name", "s2_name", "patch_id", "name", "patch", "patch_name"}

METADATA_COLUMNS = (
    "patch_id",
    "labels",
    "split",
    "country",
    "s1_name",
    "s2v1_name",
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)
"""Columns of the official v2 tables, in their order."""


def read_metadata(paths: Sequence[Path]) -> pa.Table:
    """The rows of all v2 tables together, labels as official classes in official order.

    Raises:
        PrepError: a file is not such a table.
    """
    tables = []
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise PrepError(f"--metadata {path} is not a readable parquet: {error}") from error
        lacking = [name for name in METADATA_COLUMNS if name not in table.column_names]
        if lacking:
            raise PrepError(
                f"--metadata {path} has no column {', '.join(lacking)}; "
                "give metadata.parquet of BigEarthNet v2"
            )
        tables.append(table.select(list(METADATA_COLUMNS)))
    table = pa.concat_tables(tables, promote_options="permissive")
    labels = official_labels(table.column("labels"))
    return table.set_column(table.column_names.index("labels"), "labels", labels)


def official_labels(column: pa.ChunkedArray) -> pa.ListArray:
    """Lists of class names of either nomenclature as lists of official classes, in order.

    Raises:
        PrepError: a name is in neither nomenclature.
    """
    lists = column.combine_chunks()
    flat = lists.flatten()
    known = pc.unique(flat)
    codes = np.array([_class_code(name) for name in known.to_pylist()], dtype=np.int64)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(lists)), lengths)
    code = codes[pc.index_in(flat, known).to_numpy(zero_copy_only=False)] if len(flat) else row
    kept = code >= 0
    is_of = np.zeros((len(lists), len(CLASSES)), dtype=bool)
    is_of[row[kept], code[kept]] = True
    offsets = np.concatenate([[0], np.cumsum(is_of.sum(axis=1))]).astype(np.int32)
    names = pa.array(CLASSES).take(pa.array(np.nonzero(is_of)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


def _class_code(name: str) -> int:
    """Position among the official classes, -1 for a class that the 19 leave out."""
    official = to_official_classes([name])
    return CLASSES.index(official[0]) if official else -1


def read_mapping(paths: Sequence[Path]) -> pa.Table:
    """Pairs of names as columns `key` and `s1_name`.

    Which column is which is told by the names: both orders are in circulation, with and without
    a header.

    Raises:
        PrepError: a row is not one S1 and one S2 name.
    """
    keys: list[str] = []
    partners: list[str] = []
    for path in paths:
        rows = _read_rows(path)
        if not rows or len(rows[0]) != 2:
            raise PrepError(f"--mapping {path} must hold two names a line, an S1 and an S2 patch")
        s2_column = 0 if rows[0][0].startswith("S2") else 1
        if not rows[0][1 - s2_column].startswith("S1"):
            raise PrepError(f"--mapping {path}: {','.join(rows[0])} is not an S1 and an S2 name")
        keys += [row[s2_column] for row in rows]
        partners += [row[1 - s2_column] for row in rows]
    return pa.table({"key": keys, "s1_name": partners})


def read_names(path: Path) -> list[str]:
    """The Sentinel-2 names of a split or exclusion list, one or two columns, header or none.

    Raises:
        PrepError: the file is unreadable.
    """
    rows = _read_rows(path)
    columns = range(len(rows[0]) if rows else 0)
    column = next((index for index in columns if rows[0][index].startswith("S2")), 0)
    return [row[column] for row in rows]


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            text = stream.read().decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise PrepError(f"{path} is not a readable list of names: {error}") from error
    width = len(rows[0]) if rows else 0
    if ragged := next((row for row in rows if len(row) != width), None):
        raise PrepError(f"{path}: a line of {len(ragged)} columns among {width}: {ragged[0]}")
    has_header = bool(rows) and not _HEADER_CELLS.isdisjoint(cell.lower() for cell in rows[0])
    return rows[1:] if has_header else rows


def read_split_files(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """The split of every listed Sentinel-2 name.

    Raises:
        PrepError: a name is in two splits.
    """
    split_of: dict[str, str] = {}
    for split, path in files:
        for name in read_names(path):
            if split_of.setdefault(name, split) != split:
                raise PrepError(f"{name} is listed in split {split_of[name]} and in {split}")
    return split_of


def sha256_of(path: Path) -> str:
    """Checksum of a metadata file, comparable with the published ones."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
