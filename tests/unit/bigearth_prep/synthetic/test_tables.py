from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.synthetic.places import plan_pairs
from bigearth_prep.synthetic.tables import write_v1_tables, write_v2_tables

REAL = Path(__file__).parents[5] / "shared" / "real" / "metadata"
PAIRS = plan_pairs(200, seed=0)
LABELS = {pair.place.number: ("Urban fabric", "Marine waters", "Arable land") for pair in PAIRS}


def _lines(path: Path) -> list[str]:
    text = path.read_bytes().decode()
    assert text.count("\n") == text.count("\r\n")
    return text.removesuffix("\r\n").split("\r\n") if text else []


def test_v1_lists_sort_every_pair_into_one_split_or_one_flag(tmp_path: Path) -> None:
    assert set(write_v1_tables(tmp_path, PAIRS)) == {path.name for path in tmp_path.iterdir()}
    split_files = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
    for split, name in split_files.items():
        expected = [p.v1_name for p in PAIRS if p.place.split == split and not (p.snow or p.cloud)]
        assert _lines(tmp_path / name) == sorted(expected)
    snow = _lines(tmp_path / "patches_with_seasonal_snow.csv")
    cloud = _lines(tmp_path / "patches_with_cloud_and_shadow.csv")
    assert snow == sorted(pair.v1_name for pair in PAIRS if pair.snow)
    assert cloud == sorted(pair.v1_name for pair in PAIRS if pair.cloud)
    listed = sum(len(_lines(tmp_path / name)) for name in split_files.values())
    assert listed + len(snow) + len(cloud) == len(PAIRS)


def test_the_v1_mapping_has_no_header_and_names_s2_first(tmp_path: Path) -> None:
    write_v1_tables(tmp_path, PAIRS)
    rows = [line.split(",") for line in _lines(tmp_path / "s1s2_mapping.csv")]
    assert sorted(map(tuple, rows)) == sorted((pair.v1_name, pair.s1_name) for pair in PAIRS)


def test_v2_tables_divide_clear_from_flagged_pairs(tmp_path: Path) -> None:
    names = write_v2_tables(tmp_path, PAIRS, LABELS)
    clear, flagged = (pq.read_table(tmp_path / name).to_pylist() for name in names)
    flag_names = ("contains_seasonal_snow", "contains_cloud_or_shadow")
    assert not any(row[name] for row in clear for name in flag_names)
    assert all(row["contains_seasonal_snow"] != row["contains_cloud_or_shadow"] for row in flagged)
    by_name = {pair.v2_name: pair for pair in PAIRS}
    assert len(clear) + len(flagged) == len(by_name)
    for row in [*clear, *flagged]:
        pair = by_name[row["patch_id"]]
        assert (row["s1_name"], row["s2v1_name"]) == (pair.s1_name, pair.v1_name)
        assert (row["split"], row["country"]) == (pair.place.split, pair.place.tile.country)
        assert row["contains_seasonal_snow"] == pair.snow
        assert row["labels"] == ["Arable land", "Marine waters", "Urban fabric"]
    for rows in (clear, flagged):
        assert [row["patch_id"] for row in rows] == sorted(row["patch_id"] for row in rows)


@pytest.mark.skipif(not REAL.is_dir(), reason="no official tables beside the repo")
def test_parquet_columns_types_and_compression_equal_the_official_ones(tmp_path: Path) -> None:
    for name in write_v2_tables(tmp_path, PAIRS, LABELS):
        ours, official = pq.ParquetFile(tmp_path / name), pq.ParquetFile(REAL / name)
        assert ours.schema_arrow.remove_metadata() == official.schema_arrow.remove_metadata()
        assert [column.path for column in ours.schema] == [c.path for c in official.schema]
        assert ours.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    names = write_v2_tables(tmp_path, [], {})
    for name in names:
        table = pq.read_table(tmp_path / name)
        assert table.num_rows == 0
        assert table.schema.field("labels").type.value_field == pa.field("element", pa.string())
