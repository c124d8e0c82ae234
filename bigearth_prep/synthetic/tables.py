"""The tables beside a made-up archive: names, columns and line ends of the official ones."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bigearth_prep.card import SPLITS
from bigearth_prep.synthetic.places import PlannedPair

LabelsByPlace = Mapping[int, tuple[str, ...]]
"""Classes of each place, by its number."""

V2_SCHEMA = pa.schema(
    [
        ("patch_id", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("split", pa.string()),
        ("country", pa.string()),
        ("s1_name", pa.string()),
        ("s2v1_name", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""Columns of both parquet files of version 2."""

_V1_SPLIT_FILES = dict(zip(SPLITS, ("train.csv", "val.csv", "test.csv"), strict=True))


def write_v1_tables(folder: Path, pairs: Iterable[PlannedPair]) -> tuple[str, ...]:
    """Write mapping, splits, snow and cloud lists; their file names.

    As in the official lists, no patch with snow or clouds is in a split.
    """
    ordered = sorted(pairs, key=lambda pair: pair.v1_name)
    clean = [pair for pair in ordered if not (pair.snow or pair.cloud)]
    lines = {"s1s2_mapping.csv": [f"{pair.v1_name},{pair.s1_name}" for pair in ordered]}
    for split, name in _V1_SPLIT_FILES.items():
        lines[name] = [pair.v1_name for pair in clean if pair.place.split == split]
    lines["patches_with_seasonal_snow.csv"] = [pair.v1_name for pair in ordered if pair.snow]
    lines["patches_with_cloud_and_shadow.csv"] = [pair.v1_name for pair in ordered if pair.cloud]
    for name, rows in lines.items():
        (folder / name).write_bytes("".join(f"{row}\r\n" for row in rows).encode())
    return tuple(lines)


def write_v2_tables(
    folder: Path, pairs: Iterable[PlannedPair], labels: LabelsByPlace
) -> tuple[str, ...]:
    """Write both parquet files, clear patches in one and flagged ones in the other; their names."""
    ordered = sorted(pairs, key=lambda pair: pair.v2_name)
    tables = {
        "metadata.parquet": [pair for pair in ordered if not (pair.snow or pair.cloud)],
        "metadata_for_patches_with_snow_cloud_or_shadow.parquet": [
            pair for pair in ordered if pair.snow or pair.cloud
        ],
    }
    for name, rows in tables.items():
        pq.write_table(_v2_table(rows, labels), folder / name, compression="zstd")
    return tuple(tables)


def _v2_table(pairs: Sequence[PlannedPair], labels: LabelsByPlace) -> pa.Table:
    rows = [
        {
            "patch_id": pair.v2_name,
            "labels": sorted(labels[pair.place.number]),
            "split": pair.place.split,
            "country": pair.place.tile.country,
            "s1_name": pair.s1_name,
            "s2v1_name": pair.v1_name,
            "contains_seasonal_snow": pair.snow,
            "contains_cloud_or_shadow": pair.cloud,
        }
        for pair in pairs
    ]
    return pa.Table.from_pylist(rows, schema=V2_SCHEMA)
