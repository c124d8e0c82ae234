"""Pairs of any collection, from a table that names the files of each (docs/collections.md)."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.bands import SENSORS, Band, Sensor, bands_of
from bigearth_prep.collection import Collection
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import NOMENCLATURE
from bigearth_prep.listed_files import ListedFiles
from bigearth_prep.manifest import REJECTED_SCHEMA
from bigearth_prep.pair_filters import (
    assign_splits,
    drop_excluded,
    drop_unlabelled,
    rejected_rows,
)
from bigearth_prep.pairing import PairTable, TableConfig
from bigearth_prep.pairs_file import read_pairs_file
from bigearth_prep.patch import RejectReason
from bigearth_prep.statistics import PublishedOrigin

log = logging.getLogger(__name__)

_STRINGS = pa.list_(pa.field("element", pa.string()))
_TIME = pa.timestamp("ms", tz="UTC")
_PLANNED = pa.schema(
    [
        ("key", pa.string()),
        ("s1_name", pa.string()),
        ("s2", _STRINGS),
        ("s1", _STRINGS),
        ("split", pa.string()),
        ("labels", _STRINGS),
        ("country", pa.string()),
        ("s1_time", _TIME),
        ("s2_time", _TIME),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""One row per pair to be read; paths as the table has them, null for a sensor not asked for."""

_KEY = re.compile(r"[^./\\\s\x00-\x1f]+")
_MOST_KEY_BYTES = 93
"""What a tar's header has room for, beside `.json` or `.s2.npy`."""


@dataclass(frozen=True, slots=True)
class TablePairs:
    """The pairs that a table names."""

    path: Path
    collection: Collection
    table: PairTable
    tables: TableConfig
    roots: Mapping[Sensor, Path]

    @property
    def name(self) -> str:
        """The collection's own name."""
        return self.collection.name

    @property
    def metadata_files(self) -> list[tuple[str, Path]]:
        """The table, the collection's description, and lists of splits and exclusions."""
        described = [("collection", self.collection.path)] if self.collection.path else []
        return [("pairs", self.path), *described, *self.tables.files]

    @property
    def published_origin(self) -> PublishedOrigin:
        """BigEarthNet's first version, whose values the published form is made from."""
        return "dino-mm"

    @property
    def files(self) -> ListedFiles:
        """Where tasks find the files."""
        return ListedFiles(
            roots={sensor: root.absolute() for sensor, root in self.roots.items()},
            files=self.collection.files,
            trusts_grids=self.collection.trusts_grids,
        )

    @property
    def plan_schema(self) -> pa.Schema:
        """What a task knows of its pairs."""
        return _PLANNED

    def planned_tables(self, shards: Iterable[pa.Array]) -> Iterator[pa.Table]:
        """The pairs of each shard."""
        return (self.table.pairs.take(rows) for rows in shards)

    def make_readable(self) -> None:
        """Nothing: files are read where they are."""

    def clean_up(self) -> None:
        """Nothing: nothing was put anywhere."""


def tabled_pairs(
    path: Path,
    collection: Collection,
    bands: tuple[Band, ...],
    tables: TableConfig,
    roots: Mapping[Sensor, Path],
) -> TablePairs:
    """The pairs of a table, with the files of the sensors that have one of the bands.

    Args:
        path: The table.
        collection: What its files hold.
        bands: What is asked for.
        tables: Lists of splits and exclusions, shares of a split by ratio.
        roots: What paths are relative to, by sensor.

    Raises:
        PrepError: the table is unreadable, contradicts the collection, or names a pair twice.
    """
    sensors = [sensor for sensor in SENSORS if bands_of(sensor, bands)]
    rows = read_pairs_file(path)
    _check_columns(path, rows, collection, sensors)
    _check_keys(path, rows.column("key"))
    rows = _with_labels(path, rows, collection)
    found, rejected = _drop_incomplete(_with_unknowns(rows, sensors), sensors)
    found, excluded = drop_excluded(found, tables.exclude)
    rejected += excluded
    if collection.nomenclature == NOMENCLATURE:
        found, unlabelled = drop_unlabelled(found)
        rejected += unlabelled
    by_ratio = not (tables.splits or "split" in rows.column_names)
    found, unlisted = assign_splits(found, tables, _locations_of(path, found) if by_ratio else None)
    rejected += unlisted
    pairs = found.select(_PLANNED.names).cast(_PLANNED).sort_by("key")
    table = PairTable(pairs, pa.concat_tables([REJECTED_SCHEMA.empty_table(), *rejected]))
    used = {sensor: roots[sensor] for sensor in sensors}
    return TablePairs(path, collection, table, tables, used)


def _check_columns(
    path: Path, rows: pa.Table, collection: Collection, sensors: list[Sensor]
) -> None:
    lacking = [name for name in ("key", *sensors) if name not in rows.column_names]
    if lacking:
        measured = "; ".join(
            f"{sensor}: {', '.join(band.name for band in bands_of(sensor, collection.bands))}"
            for sensor in collection.sensors
        )
        raise PrepError(
            f"--pairs {path} has no column {', '.join(lacking)}; add it, or choose --bands of the "
            f"other sensor ({measured})"
        )


def _check_keys(path: Path, column: pa.ChunkedArray) -> None:
    """Keys name tar members, whose extension begins at the first dot."""
    keys = column.to_pylist()
    for number, key in enumerate(keys, start=1):
        if key is None or not _KEY.fullmatch(key) or len(key.encode()) > _MOST_KEY_BYTES:
            raise PrepError(
                f"--pairs {path}: key {key!r} in row {number}, expected 1 to {_MOST_KEY_BYTES} "
                "bytes without dot, slash or blank"
            )
    if len(set(keys)) < len(keys):
        counts = pc.value_counts(column)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise PrepError(
            f"--pairs {path}: {len(repeated)} keys occur more than once, {repeated[0]} for one"
        )


def _with_labels(path: Path, rows: pa.Table, collection: Collection) -> pa.Table:
    """The rows with labels in the collection's order, each once; empty where none is given."""
    index_of = {name: index for index, name in enumerate(collection.classes)}
    given = rows.column("labels").to_pylist() if "labels" in rows.column_names else []
    if not given:
        given = [None] * len(rows)
    labels: list[list[str]] = []
    for key, names in zip(rows.column("key").to_pylist(), given, strict=True):
        if unknown := sorted(set(names or ()) - index_of.keys()):
            raise PrepError(
                f"--pairs {path}: label {unknown[0]!r} of {key} is not among the "
                f"{len(index_of)} classes of {collection.path}"
            )
        labels.append(sorted(set(names or ()), key=index_of.__getitem__))
    rows = rows.drop_columns([name for name in rows.column_names if name == "labels"])
    return rows.append_column("labels", pa.array(labels, _STRINGS))


def _with_unknowns(rows: pa.Table, sensors: list[Sensor]) -> pa.Table:
    """All columns of a plan, nulls where the table does not know; `split` too."""
    columns = {}
    for field in (*_PLANNED, pa.field("s2v1_name", pa.string()), pa.field("location", pa.string())):
        is_known = field.name in rows.column_names
        if field.name in SENSORS and field.name not in sensors:
            is_known = False
        columns[field.name] = (
            rows.column(field.name).cast(field.type)
            if is_known
            else pa.nulls(len(rows), field.type)
        )
    return pa.table(columns)


def _drop_incomplete(rows: pa.Table, sensors: list[Sensor]) -> tuple[pa.Table, list[pa.Table]]:
    """Rows that name files of every sensor asked for, and those that do not."""
    has = {
        sensor: pc.fill_null(pc.greater(pc.list_value_length(rows.column(sensor)), 0), False)  # noqa: FBT003
        for sensor in sensors
    }
    flags = {sensor: column.to_numpy() for sensor, column in has.items()}
    complete = sum(flags.values()) == len(sensors)
    absent = sum(flags.values()) == 0
    pair, partner = RejectReason.MISSING_PAIR, RejectReason.MISSING_PARTNER
    dropped = [rejected_rows(rows, absent, pair, "the table names no file of it")]
    for sensor, is_there in flags.items():
        why = f"the table names no {sensor} file of it"
        dropped.append(rejected_rows(rows, ~is_there & ~absent, partner, why))
    return rows.filter(pa.array(complete)), dropped


def _locations_of(path: Path, rows: pa.Table) -> list[str]:
    """What must not part in a split by ratio: rows of a location, or of a key where none is."""
    known = rows.column("location")
    by = "location" if known.null_count < len(known) else "key"
    log.info("%s has no column split: split by ratio, by %s", path, by)
    keys = rows.column("key").to_pylist()
    return [place or key for place, key in zip(known.to_pylist(), keys, strict=True)]
