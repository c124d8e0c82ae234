"""Rows of a table: paired, left out with a reason, or refused by key."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.bands import bands_of
from bigearth_prep.collection_file import read_collection
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES
from bigearth_prep.pairing import TableConfig
from bigearth_prep.table_pairs import TablePairs, tabled_pairs
from tests.collection_fixture import MadeCollection, stacked_collection, with_toml

NO_TABLES = TableConfig()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeCollection:
    return stacked_collection(tmp_path_factory.mktemp("made"), pairs=1)


def pairs_of(
    made: MadeCollection,
    folder: Path,
    rows: list[dict[str, Any]],
    tables: TableConfig = NO_TABLES,
    sensors: tuple[str, ...] = ("s2", "s1"),
) -> TablePairs:
    collection = read_collection(made.description)
    path = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    bands = tuple(band for band in collection.bands if band.sensor in sensors)
    return tabled_pairs(path, collection, bands, tables, {"s2": folder, "s1": folder})


def row(key: str, **fields: object) -> dict[str, Any]:
    return {"key": key, "s2": [f"{key}.tif"], "s1": ["r.tif"], "split": "train"} | fields


def test_labels_come_in_the_collections_order_each_once(
    made: MadeCollection, tmp_path: Path
) -> None:
    rows = [row("a", labels=["water", "forest", "water"]), row("b", labels=None)]
    found = pairs_of(made, tmp_path, rows).table.pairs.to_pylist()
    assert [one["labels"] for one in found] == [["forest", "water"], []]


def test_an_unknown_label_is_refused_with_its_key(made: MadeCollection, tmp_path: Path) -> None:
    with pytest.raises(PrepError, match=r"label 'lake' of a is not among the 2 classes"):
        pairs_of(made, tmp_path, [row("a", labels=["lake"])])


@pytest.mark.parametrize("key", ["a.b", "a/b", "a b", "", "x" * 94, "\u00e9" * 47])
def test_a_key_that_cannot_name_a_tar_member_is_refused(
    made: MadeCollection, tmp_path: Path, key: str
) -> None:
    with pytest.raises(PrepError, match=r"in row 2, expected 1 to 93 bytes"):
        pairs_of(made, tmp_path, [row("a"), row(key)])


def test_a_key_that_occurs_twice_is_refused(made: MadeCollection, tmp_path: Path) -> None:
    with pytest.raises(PrepError, match="1 keys occur more than once, a for one"):
        pairs_of(made, tmp_path, [row("a"), row("a")])


def test_rows_that_lack_a_sensor_are_left_out_with_the_reason(
    made: MadeCollection, tmp_path: Path
) -> None:
    rows = [row("a"), row("b", s1=None), row("c", s2=[]), row("d", s2=None, s1=None)]
    found = pairs_of(made, tmp_path, rows).table
    assert found.pairs.column("key").to_pylist() == ["a"]
    reasons = {one["key"]: (one["reason"], one["detail"]) for one in found.rejected.to_pylist()}
    assert reasons == {
        "b": ("missing partner", "the table names no s1 file of it"),
        "c": ("missing partner", "the table names no s2 file of it"),
        "d": ("missing pair", "the table names no file of it"),
    }


def test_a_sensor_that_is_not_asked_for_may_be_absent(made: MadeCollection, tmp_path: Path) -> None:
    rows = [{"key": "a", "s2": ["a.tif"], "split": "train"}]
    found = pairs_of(made, tmp_path, rows, sensors=("s2",))
    assert found.table.pairs.to_pylist()[0]["s1"] is None
    assert list(found.files.roots) == ["s2"]
    with pytest.raises(PrepError, match=r"has no column s1; .*s1: VH, VV"):
        pairs_of(made, tmp_path, rows)


def splits_by_ratio(found: TablePairs) -> dict[int, set[str]]:
    """Splits of each four keys that follow each other."""
    splits: dict[int, set[str]] = {}
    for one in found.table.pairs.to_pylist():
        splits.setdefault(int(one["key"][1:]) // 4, set()).add(one["split"])
    return splits


def test_a_split_by_ratio_never_parts_rows_of_one_location(
    made: MadeCollection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(f"k{n}", location=f"{n // 4}") for n in range(80)]
    for one in rows:
        del one["split"]
    with caplog.at_level(logging.INFO):
        found = pairs_of(made, tmp_path, rows, TableConfig(split_ratio=(1.0, 1.0, 1.0)))
    assert "split by ratio, by location" in caplog.text
    splits = splits_by_ratio(found)
    assert {len(names) for names in splits.values()} == {1}
    assert len(set.union(*splits.values())) == 3


def test_without_locations_a_split_by_ratio_is_by_key(
    made: MadeCollection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(f"k{n}") for n in range(80)]
    for one in rows:
        del one["split"]
    with caplog.at_level(logging.INFO):
        found = pairs_of(made, tmp_path, rows, TableConfig(split_ratio=(1.0, 1.0, 1.0)))
    assert "split by ratio, by key" in caplog.text
    assert max(len(names) for names in splits_by_ratio(found).values()) > 1


def test_a_row_of_no_split_is_left_out(made: MadeCollection, tmp_path: Path) -> None:
    found = pairs_of(made, tmp_path, [row("a"), row("b", split=None)]).table
    assert found.pairs.column("key").to_pylist() == ["a"]
    assert found.rejected.to_pylist()[0]["reason"] == "filtered (not in a split)"


def test_lists_of_splits_and_exclusions_hold_for_keys(made: MadeCollection, tmp_path: Path) -> None:
    for name, keys in (("test.csv", "a\nb\n"), ("bad.csv", "b\n")):
        (tmp_path / name).write_text(keys)
    tables = TableConfig(splits=(("test", tmp_path / "test.csv"),), exclude=(tmp_path / "bad.csv",))
    found = pairs_of(made, tmp_path, [row("a"), row("b"), row("c")], tables)
    assert [(one["key"], one["split"]) for one in found.table.pairs.to_pylist()] == [("a", "test")]
    reasons = {one["key"]: one["reason"] for one in found.table.rejected.to_pylist()}
    assert reasons == {"b": "filtered (excluded)", "c": "filtered (not in a split)"}
    assert [role for role, _ in found.metadata_files] == [
        "pairs",
        "collection",
        "split test",
        "exclude",
    ]


def test_bigearthnets_nomenclature_knows_no_sample_without_a_label(
    made: MadeCollection, tmp_path: Path
) -> None:
    official = with_toml(
        made, ('"two"', '"BigEarthNet-19"'), ('["forest", "water"]', repr(list(CLASSES)))
    )
    rows = [row("a", labels=["Pastures"]), row("b", labels=[])]
    found = pairs_of(official, tmp_path, rows).table
    assert found.pairs.column("key").to_pylist() == ["a"]
    assert found.rejected.to_pylist()[0]["reason"] == "filtered (no label)"


def test_a_task_gets_rows_by_their_numbers(made: MadeCollection, tmp_path: Path) -> None:
    found = pairs_of(made, tmp_path, [row("b"), row("a"), row("c")])
    (table,) = found.planned_tables([pa.array([2, 0])])
    assert table.column("key").to_pylist() == ["c", "a"]
    assert table.schema == found.plan_schema
    assert bands_of("s1", found.files.files["s1"].bands)
