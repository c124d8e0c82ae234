import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.evaluation.breakdown import group_samples
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoredSplit:
    path: Path = make_dataset(tmp_path_factory.mktemp("dataset"), samples={"test": 6}, size_px=8)
    return StoredDataset.open(path).split("test")


def with_columns(split: StoredSplit, **columns: pa.Array) -> StoredSplit:
    table = split.table
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    labels = np.zeros_like(split.labels)
    for row, count in enumerate((1, 1, 2, 5, 7, 0)):
        labels[row, :count] = 1
    return dataclasses.replace(split, table=table, labels=labels)


def test_samples_are_told_apart_by_what_the_manifest_knows(split: StoredSplit) -> None:
    months = (12, 1, 3, 8, None, 11)
    times = [month and datetime(2018, month, 5, tzinfo=UTC) for month in months]
    known = with_columns(
        split,
        country=pa.array(["Austria", "Serbia", None, "Austria", "Austria", "Serbia"]),
        s2_time=pa.array(times, type=pa.timestamp("ms", tz="UTC")),
        contains_seasonal_snow=pa.array([True, None, False, False, False, False]),
        contains_cloud_or_shadow=pa.array([False] * 6),
    )
    found = {
        (one.kind, one.name): one.members.nonzero()[0].tolist() for one in group_samples(known)
    }
    assert found == {
        ("country", "Austria"): [0, 3, 4],
        ("country", "Serbia"): [1, 5],
        ("season", "winter"): [0, 1],
        ("season", "spring"): [2],
        ("season", "summer"): [3],
        ("season", "autumn"): [5],
        ("snow", "no"): [2, 3, 4, 5],
        ("snow", "yes"): [0],
        ("labels", "1"): [0, 1],
        ("labels", "2"): [2],
        ("labels", "5 or more"): [3, 4],
    }


def test_what_is_not_known_makes_no_group(split: StoredSplit) -> None:
    bare = dataclasses.replace(split, table=split.table.select(["key"]))
    assert {one.kind for one in group_samples(bare)} <= {"labels"}
    assert {one.kind for one in group_samples(split)} <= {"labels"}, "one country tells nothing"
