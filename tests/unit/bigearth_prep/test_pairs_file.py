"""Tables of pairs: both forms say the same, and wrong values are refused by column."""

import logging
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.pairs_file import read_pairs_file

CSV = """key,s2,labels,split,country,s2_time,contains_seasonal_snow,location
a,one.tif;two.tif,"x;y, z",val,NA,2020-01-02T03:04:05Z,true,0001
b,three.tif,,train,,2020-01-02 03:04:05,,0002
"""


def write_both(folder: Path) -> tuple[Path, Path]:
    (folder / "pairs.csv").write_text(CSV)
    time = datetime(2020, 1, 2, 3, 4, 5)  # noqa: DTZ001 (a table without time zone)
    columns = {
        "key": ["a", "b"],
        "s2": [["one.tif", "two.tif"], ["three.tif"]],
        "labels": [["x", "y, z"], None],
        "split": ["val", "train"],
        "country": ["NA", None],
        "s2_time": [time, time],
        "contains_seasonal_snow": [True, None],
        "location": ["0001", "0002"],
    }
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.csv", folder / "pairs.parquet"


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    text, binary = (read_pairs_file(path) for path in write_both(tmp_path))
    assert text.equals(binary)
    first, second = text.to_pylist()
    assert (first["s2"], first["labels"]) == (["one.tif", "two.tif"], ["x", "y, z"])
    assert (first["split"], first["country"], first["location"]) == ("validation", "NA", "0001")
    assert second["labels"] is None
    assert second["s2_time"] == first["s2_time"]


def test_one_path_of_parquet_is_a_list_of_one_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"key": [7], "s2": ["a;b.tif"], "s1": pa.nulls(1)}), path)
    assert read_pairs_file(path).to_pylist() == [{"key": "7", "s2": ["a;b.tif"], "s1": None}]


def test_columns_that_nothing_uses_are_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pairs.csv").write_text("key,s2,lables\na,b,c\n")
    with caplog.at_level(logging.WARNING):
        assert read_pairs_file(tmp_path / "pairs.csv").column_names == ["key", "s2"]
    assert "columns not used: lables" in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("key,s2,s2_time\na,b,yesterday\n", "column s2_time: Invalid isoformat"),
        ("key,s2,contains_seasonal_snow\na,b,perhaps\n", "column contains_seasonal_snow"),
        ("key,s2\na,b,c\n", "is not a readable CSV table"),
        ("key,s2\na,one.tif;;two.tif\n", "column s2: an entry of a list is empty"),
        ("key,key\na,b\n", "a column is named twice in key,key"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises(PrepError, match=says):
        read_pairs_file(path)


def test_an_absent_entry_of_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"key": ["a"], "s2": [["one.tif", None]]}), path)
    with pytest.raises(PrepError, match="column s2: an entry of a list is empty"):
        read_pairs_file(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_text("key\n")
    with pytest.raises(PrepError, match="is not a readable Parquet table"):
        read_pairs_file(path)
