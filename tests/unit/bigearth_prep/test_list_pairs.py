"""Folders to tables: what belongs together, what is left alone, and that both forms say so."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bigearth_prep.collection import Collection, Listing
from bigearth_prep.collection_file import open_collection, read_collection
from bigearth_prep.errors import PrepError
from bigearth_prep.list_pairs import list_folder, write_pairs
from bigearth_prep.pairs_file import read_pairs_file
from tests.collection_fixture import listed_collection, stacked_collection

S2 = (
    "20200323T162931_20200323T163750_T15QXA",
    "20200621T162901_20200621T164746_T15QXA",
    "20200924T162929_20200924T164434_T15QXA",
)
S1 = (  # in order of time, which is not that of the names
    "S1B_IW_GRDH_1SDV_20200329T001515_20200329T001540_031883_03AE27_9BAF",
    "S1A_IW_GRDH_1SDV_20200627T001449_20200627T001514_022212_02A27E_2A09",
    "S1A_IW_GRDH_1SDV_20200928T120105_20200928T120130_023575_02CCB0_F035",
)
SSL4EO = open_collection("ssl4eo-s12")


def make_folders(root: Path, radar: int = 3) -> Path:
    """Two places, the second with so many radar images; what does not belong is there too."""
    for place, count in (("0000000", 3), ("0000007", radar)):
        for name in S2:
            (root / "s2c" / place / name).mkdir(parents=True)
        for name in S1[:count]:
            (root / "s1" / place / name).mkdir(parents=True)
    (root / "s2c" / "readme.txt").write_text("no folder")
    (root / "s2c" / "0000000" / "metadata").mkdir()
    (root / "s2a" / "0000000").mkdir(parents=True)
    return root


def test_seasons_of_a_place_go_together_in_order_of_time(tmp_path: Path) -> None:
    listed = list_folder(make_folders(tmp_path), SSL4EO)
    assert (listed.pairs, listed.alone) == (6, {"s2": 0, "s1": 0})
    row = listed.rows[1]
    assert row["key"] == f"0000000_{S2[1]}"
    assert row["s2"] == (f"s2c/0000000/{S2[1]}",)
    assert row["s1"] == (f"s1/0000000/{S1[1]}",)
    assert (row["location"], row["s1_name"]) == ("0000000", S1[1])
    assert row["s2_time"] == datetime(2020, 6, 21, 16, 29, 1, tzinfo=UTC)
    assert row["s1_time"] == datetime(2020, 6, 27, 0, 14, 49, tzinfo=UTC)


def test_what_cannot_be_paired_has_rows_of_its_own_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        listed = list_folder(make_folders(tmp_path, radar=2), SSL4EO)
    assert (listed.pairs, listed.alone) == (3, {"s2": 3, "s1": 2})
    alone = [row["key"] for row in listed.rows if not (row["s2"] and row["s1"])]
    assert sorted(alone) == sorted([f"0000007_{name}" for name in (*S2, *S1[:2])])
    assert "5 patches have no partner" in caplog.text
    assert f"0000007_{S2[0]}" in caplog.text


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_both_forms_of_the_table_read_back_alike(tmp_path: Path, suffix: str) -> None:
    root = make_folders(tmp_path / "root", radar=2)
    listed = list_folder(root, SSL4EO)
    write_pairs(listed, root, root / f"pairs{suffix}")
    table = read_pairs_file(root / f"pairs{suffix}")
    assert table.column("key").to_pylist() == [row["key"] for row in listed.rows]
    assert table.column("s1").to_pylist() == [row["s1"] and list(row["s1"]) for row in listed.rows]
    assert table.column("s2_time").to_pylist() == [row["s2_time"] for row in listed.rows]


def test_paths_are_relative_to_a_table_above_the_files_and_absolute_elsewhere(
    tmp_path: Path,
) -> None:
    root = make_folders(tmp_path / "above" / "root")
    listed = list_folder(root, SSL4EO)
    (tmp_path / "pairs").mkdir()
    write_pairs(listed, root, tmp_path / "above" / "pairs.csv")
    write_pairs(listed, root, tmp_path / "pairs" / "pairs.csv")
    near, far = (
        read_pairs_file(tmp_path / folder / "pairs.csv").column("s2")[0].as_py()[0]
        for folder in ("above", "pairs")
    )
    assert near == f"root/s2c/0000000/{S2[0]}"
    assert far == str(root / "s2c" / "0000000" / S2[0])


def with_listing(collection: Collection, **fields: object) -> Collection:
    return replace(collection, listing=Listing(**fields))  # type: ignore[arg-type]


def test_files_of_single_bands_are_gathered_in_the_order_of_the_bands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = listed_collection(tmp_path, pairs=3)
    (tmp_path / "001" / "scene_swir.tif").unlink()
    patterns = {"s2": "{scene}/scene_{band}.tif"}
    collection = with_listing(
        read_collection(made.description), patterns=patterns, key="scene_{scene}"
    )
    with caplog.at_level(logging.WARNING):
        listed = list_folder(tmp_path, collection)
    assert [(row["key"], row["s2"]) for row in listed.rows] == [
        ("scene_000", ("000/scene_red.tif", "000/scene_swir.tif")),
        ("scene_002", ("002/scene_red.tif", "002/scene_swir.tif")),
    ]
    assert "001/scene_red.tif: no file of swir" in caplog.text


def test_stacks_with_equal_names_go_together(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path, pairs=2)
    patterns = {"s2": "optical/{scene}.tif", "s1": "radar/{scene}.tif"}
    collection = with_listing(
        read_collection(made.description), patterns=patterns, key="pair_{name}"
    )
    rows = list_folder(tmp_path, collection).rows
    assert [(row["key"], row["s2"], row["s1"]) for row in rows] == [
        ("pair_000", ("optical/000.tif",), ("radar/000.tif",)),
        ("pair_001", ("optical/001.tif",), ("radar/001.tif",)),
    ]


def test_a_name_that_occurs_twice_in_a_pattern_must_agree_with_itself(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path, pairs=1)
    for name in ("a/a_1.tif", "a/b_1.tif"):
        (tmp_path / "tiles" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiles" / name).touch()
    collection = with_listing(
        read_collection(made.description),
        patterns={"s2": "tiles/{tile}/{tile}_{number}.tif"},
        key="{tile}",
    )
    assert [row["s2"] for row in list_folder(tmp_path, collection).rows] == [("tiles/a/a_1.tif",)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": "{name}"}, "3 keys name several pairs"),
        (
            {"key": "{other}_{name}"},
            "listing.key '{other}_{name}' needs 'other'; known are location",
        ),
        ({"time_format": "%Y"}, "unconverted data remains.*; see listing.time_format"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    assert SSL4EO.listing is not None
    collection = replace(SSL4EO, listing=replace(SSL4EO.listing, **changes))  # type: ignore[arg-type]
    with pytest.raises(PrepError, match=says):
        list_folder(make_folders(tmp_path), collection)


def test_a_root_that_is_no_folder_and_a_collection_without_patterns_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(PrepError, match="is not a folder"):
        list_folder(tmp_path / "none", SSL4EO)
    with pytest.raises(PrepError, match=r"has no \[listing\]"):
        list_folder(tmp_path, replace(SSL4EO, listing=None))
