"""Pairs: which patches belong together, with labels, split and flags, and which are left out."""

import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigearth_prep.archive import Archive
from bigearth_prep.card import SPLITS
from bigearth_prep.errors import PrepError
from bigearth_prep.json_pairs import read_json_pairs
from bigearth_prep.manifest import REJECTED_SCHEMA
from bigearth_prep.pair_filters import (
    assign_splits,
    drop_excluded,
    drop_unlabelled,
    kept_rows,
    rejected_names,
    rejected_rows,
)
from bigearth_prep.patch import RejectReason
from bigearth_prep.tables import read_mapping, read_metadata

log = logging.getLogger(__name__)

PAIRS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("s1_name", pa.string()),
        ("s2_folder", pa.string()),
        ("s1_folder", pa.string()),
        ("split", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("country", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""One row per pair to be read; folders relative to the archive roots, null where not known."""

_LOCATION = re.compile(r"_([0-9]{2}[A-Z]{3}_[0-9]+_[0-9]+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableConfig:
    """The tables that pair, label, split and filter the archive's patches."""

    metadata: tuple[Path, ...] = ()
    """v2 parquets."""

    mapping: tuple[Path, ...] = ()
    """v1 pairs; without it, pairs come from the Sentinel-1 JSON files."""

    splits: tuple[tuple[str, Path], ...] = ()
    """Split name and list of Sentinel-2 names; overrides the metadata's own split."""

    exclude: tuple[Path, ...] = ()
    """Lists of Sentinel-2 names to leave out; the file name tells snow and cloud lists apart."""

    split_ratio: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test where no official split is given."""

    seed: int = 0

    def __post_init__(self) -> None:
        shares = self.split_ratio
        if not all(map(math.isfinite, shares)) or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"split ratio must be shares of a whole, got {shares}")
        if self.metadata and self.mapping:
            raise ValueError("--metadata names the pairs; leave --mapping out")
        if unknown := {name for name, _ in self.splits} - set(SPLITS):
            raise ValueError(f"unknown split {min(unknown)}; known are {', '.join(SPLITS)}")

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, and what for."""
        return [
            *(("metadata", path) for path in self.metadata),
            *(("mapping", path) for path in self.mapping),
            *((f"split {name}", path) for name, path in self.splits),
            *(("exclude", path) for path in self.exclude),
        ]


@dataclass(frozen=True, slots=True)
class PairTable:
    """What is to be read, and what is already known to be left out."""

    pairs: pa.Table
    """What manifest rows take over, and where the files are, sorted by key."""

    rejected: pa.Table
    """`REJECTED_SCHEMA`."""


def pair_patches(s2: Archive, s1: Archive, tables: TableConfig) -> PairTable:
    """Every patch of the archive and every row of the tables: in a pair, or rejected.

    Raises:
        PrepError: a table is unreadable, or names a patch twice.
    """
    named = _named_pairs(s2, s1, tables)
    for column in ("key", "s1_name"):
        _refuse_repeated(named.column(column))
    tabled = bool(tables.metadata or tables.mapping)
    found, rejected = _find_in_archive(named, s2, s1, tabled=tabled)
    found, excluded = drop_excluded(found, tables.exclude)
    found, unlabelled = drop_unlabelled(found)
    by_ratio = not (tables.splits or tables.metadata)
    names = found.column("s1_name").to_pylist() if by_ratio else None
    locations = names and [_location_of(name) for name in names]
    found, unlisted = assign_splits(found, tables, locations)
    rejected += [*excluded, *unlabelled, *unlisted]
    pairs = found.select(PAIRS_SCHEMA.names).cast(PAIRS_SCHEMA).sort_by("key")
    return PairTable(pairs, pa.concat_tables([REJECTED_SCHEMA.empty_table(), *rejected]))


def _named_pairs(s2: Archive, s1: Archive, tables: TableConfig) -> pa.Table:
    """Pairs as the tables or the JSON files name them, `key` being the name in the archive."""
    if tables.metadata:
        table = read_metadata(tables.metadata)
        key = "s2v1_name" if s2.layout == "v1" else "patch_id"
        return table.append_column("key", table.column(key))
    if tables.mapping:
        return _with_unknowns(read_mapping(tables.mapping))
    if s1.layout == "v1":
        return _with_unknowns(read_json_pairs(s1))
    if len(s2.names) or len(s1.names):
        log.warning("no --metadata table: nothing says which v2 patches belong together")
    return _with_unknowns(pa.table({"key": [], "s1_name": []}))


def _with_unknowns(named: pa.Table) -> pa.Table:
    """Columns that only the v2 tables know, as nulls."""
    strings = pa.nulls(len(named), pa.string())
    flags = pa.nulls(len(named), pa.bool_())
    return pa.table(
        {
            "key": named.column("key").cast(pa.string()),
            "s1_name": named.column("s1_name").cast(pa.string()),
            "s2v1_name": strings,
            "labels": pa.nulls(len(named), pa.list_(pa.string())),
            "split": strings,
            "country": strings,
            "contains_seasonal_snow": flags,
            "contains_cloud_or_shadow": flags,
        }
    )


def _refuse_repeated(names: pa.ChunkedArray) -> None:
    counts = pc.value_counts(names)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        name = repeated[0]["values"].as_py()
        raise PrepError(
            f"{len(repeated)} patches are named by two pairs, {name} for one; give each table once"
        )


def _find_in_archive(
    named: pa.Table, s2: Archive, s1: Archive, *, tabled: bool
) -> tuple[pa.Table, list[pa.Table]]:
    in_s2, s2_folders, s2_unnamed = _look_up(named.column("key"), s2)
    in_s1, s1_folders, s1_unnamed = _look_up(named.column("s1_name"), s1)
    found = named.append_column("s2_folder", s2_folders).append_column("s1_folder", s1_folders)
    unnamed = RejectReason.NOT_IN_METADATA if tabled else RejectReason.MISSING_PARTNER
    why = "the tables do not name it" if tabled else "nothing names its partner"
    partner, pair = RejectReason.MISSING_PARTNER, RejectReason.MISSING_PAIR
    return kept_rows(found, pa.array(in_s2 & in_s1)), [
        rejected_rows(found, in_s2 & ~in_s1, partner, "the Sentinel-1 patch is not there"),
        rejected_rows(found, ~in_s2 & in_s1, partner, "the Sentinel-2 patch is not there"),
        rejected_rows(found, ~in_s2 & ~in_s1, pair, "neither patch is there"),
        rejected_names(unnamed, why, key=s2_unnamed),
        rejected_names(unnamed, why, s1_name=s1_unnamed),
    ]


def _look_up(names: pa.ChunkedArray, archive: Archive) -> tuple[np.ndarray, pa.Array, list[str]]:
    """Which names are in the archive, their folders, and the archive's patches not named."""
    held = archive.names
    index = pc.index_in(names.combine_chunks(), value_set=held)
    present = pc.is_valid(index).to_numpy(zero_copy_only=False)
    unnamed = np.ones(len(held), dtype=bool)
    unnamed[index.drop_null().to_numpy()] = False
    return present, archive.folders.take(index), sorted(held.filter(pa.array(unnamed)).to_pylist())


def _location_of(s1_name: str) -> str:
    """Tile, column and row: a place on the ground, from the name form all S1 patches share."""
    match = _LOCATION.search(s1_name)
    if match is None:
        raise PrepError(
            f"{s1_name} does not end in tile, column and row, so its place is not known; "
            "give the splits with --split NAME=FILE"
        )
    return match.group(1)
