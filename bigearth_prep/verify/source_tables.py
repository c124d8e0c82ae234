"""Every row of the manifest against the tables that the dataset was built from."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearth_prep.errors import PrepError
from bigearth_prep.labels import to_official_classes
from bigearth_prep.pairing import TableConfig
from bigearth_prep.tables import METADATA_COLUMNS, read_mapping, read_names, read_split_files
from bigearth_prep.verify.config import first_of
from bigearth_prep.verify.stored import StoredDataset

_SAME_IN_BOTH = ("s1_name", "country", "contains_seasonal_snow", "contains_cloud_or_shadow")


def check_source_tables(stored: StoredDataset, tables: TableConfig) -> Iterator[str]:
    """Where the manifest says other than the tables; nothing of tables that are not given.

    Raises:
        PrepError: a table cannot be read.
    """
    manifest = stored.manifest
    if tables.metadata:
        is_v1 = stored.card.source.get("archive") == "BigEarthNet v1"
        rows = _metadata_rows(tables.metadata, manifest, "s2v1_name" if is_v1 else "patch_id")
        own_split = not tables.splits
        yield from first_of(_check_rows(manifest, rows, own_split=own_split), "--metadata")
    if tables.mapping:
        partners = read_mapping(tables.mapping)
        keys, names = partners.column("key").to_pylist(), partners.column("s1_name").to_pylist()
        partner_of = dict(zip(keys, names, strict=True))
        yield from first_of(_check_column(manifest, "s1_name", partner_of), "--mapping")
    if tables.splits:
        split_of = read_split_files(tables.splits)
        yield from first_of(_check_column(manifest, "split", split_of), "--split")
    for path in tables.exclude:
        listed = pa.array(read_names(path), pa.string())
        found = manifest.filter(pc.is_in(manifest.column("key"), value_set=listed))
        keys = found.column("key").to_pylist()
        yield from first_of((f"{key} is stored, and listed in {path}" for key in keys), str(path))


def _metadata_rows(paths: Sequence[Path], manifest: pa.Table, name: str) -> dict[str, Any]:
    """Rows of the official tables by the key of the sample."""
    keys = manifest.column("key").combine_chunks()
    tables = []
    for path in paths:
        try:
            table = pq.read_table(path, columns=list(METADATA_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise PrepError(f"--metadata {path} is not a readable parquet: {error}") from error
        tables.append(table.filter(pc.is_in(table.column(name), value_set=keys)))
    rows = [row for table in tables for row in table.to_pylist()]
    return {row[name]: row for row in rows}


def _check_rows(manifest: pa.Table, rows: Mapping[str, Any], *, own_split: bool) -> Iterator[str]:
    names = [*_SAME_IN_BOTH, *(["split"] if own_split else [])]
    for found in manifest.select(["key", "labels", *names]).to_pylist():
        row = rows.get(found["key"])
        if row is None:
            yield f"{found['key']}: no table given with --metadata has it"
            continue
        labels = list(to_official_classes(row["labels"]))
        if labels != found["labels"]:
            yield f"{found['key']}: labels are {found['labels']}, the table says {labels}"
        for name in names:
            if row[name] is not None and row[name] != found[name]:
                yield f"{found['key']}: {name} is {found[name]}, the table says {row[name]}"


def _check_column(manifest: pa.Table, column: str, expected: Mapping[str, str]) -> Iterator[str]:
    """A column against a table of keys; v2 keys may stand there by their v1 names, unseen."""
    found = manifest.select(["key", column]).to_pylist()
    for row in found:
        value = expected.get(row["key"])
        if value is not None and value != row[column]:
            yield f"{row['key']}: {column} is {row[column]}, the table says {value}"
