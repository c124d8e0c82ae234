"""Pairs from tables and JSON: every patch and every row ends in a pair or among the rejected."""

import bz2
import json
import resource
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.archive import scan_archive
from bigearth_prep.errors import PrepError
from bigearth_prep.pairing import PairTable, TableConfig, pair_patches

REAL = Path(__file__).parents[4] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="real tables are not at hand")

V1 = [(f"S2A_MSIL2A_20170613T94033_{n}_4{n}", f"S1A_IW_X_33UUP_{n}_4{n}") for n in range(6)]
V2 = [
    (f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{n:02}_0{n}", f"S1A_IW_X_33UUP_{n}_{n}")
    for n in range(6)
]


def make_v1(root: Path, pairs: list[tuple[str, str]], *, with_json: bool = True) -> None:
    for s2, s1 in pairs:
        (root / "s2" / s2).mkdir(parents=True)
        (root / "s2" / s2 / f"{s2}_B02.tif").touch()
        (root / "s1" / s1).mkdir(parents=True)
        (root / "s1" / s1 / f"{s1}_VH.tif").touch()
        if with_json:
            text = json.dumps({"corresponding_s2_patch": s2})
            (root / "s1" / s1 / f"{s1}_labels_metadata.json").write_text(text)


def make_v2(root: Path, pairs: list[tuple[str, str]]) -> None:
    for s2, s1 in pairs:
        (root / "s2" / s2.rsplit("_", 2)[0] / s2).mkdir(parents=True)
        (root / "s1" / s1.rsplit("_", 3)[0] / s1).mkdir(parents=True)


def make_metadata(path: Path, pairs: list[tuple[str, str]], **columns: list[object]) -> Path:
    count = len(pairs)
    table = {
        "patch_id": [s2 for s2, _ in pairs],
        "labels": [["Mixed forest", "Arable land"]] * count,
        "split": (["train", "validation", "test"] * count)[:count],
        "country": ["Austria"] * count,
        "s1_name": [s1 for _, s1 in pairs],
        "s2v1_name": [f"v1_{s2}" for s2, _ in pairs],
        "contains_seasonal_snow": [False] * count,
        "contains_cloud_or_shadow": [False] * count,
    }
    pq.write_table(pa.table(table | columns), path)
    return path


def paired(root: Path, **tables: object) -> PairTable:
    config = TableConfig(**tables)  # type: ignore[arg-type]
    return pair_patches(scan_archive(root / "s2", "s2"), scan_archive(root / "s1", "s1"), config)


def reasons(table: PairTable) -> dict[str, int]:
    return dict(Counter(table.rejected.column("reason").to_pylist()))


def names(table: PairTable) -> list[tuple[str, str]]:
    rows = table.pairs.select(["key", "s1_name"]).to_pylist()
    return [(row["key"], row["s1_name"]) for row in rows]


def test_v1_pairs_follow_the_radar_json_even_against_the_names(tmp_path: Path) -> None:
    crossed = [(V1[0][0], V1[1][1]), (V1[1][0], V1[0][1])]
    make_v1(tmp_path, crossed)
    assert names(paired(tmp_path)) == crossed


@pytest.mark.parametrize("order", [("s2", "s1"), ("s1", "s2")])
@pytest.mark.parametrize("header", [True, False])
def test_a_mapping_pairs_in_either_column_order_with_or_without_header(
    tmp_path: Path, order: tuple[str, str], *, header: bool
) -> None:
    make_v1(tmp_path, V1, with_json=False)
    lines = [f"{order[0]}_name,{order[1]}_name"] if header else []
    lines += [",".join((s2, s1) if order[0] == "s2" else (s1, s2)) for s2, s1 in V1]
    mapping = tmp_path / "map.csv.bz2"
    mapping.write_bytes(bz2.compress("\r\n".join(lines).encode()))
    assert names(paired(tmp_path, mapping=(mapping,))) == V1


def test_patches_and_rows_without_a_counterpart_are_rejected_by_what_is_missing(
    tmp_path: Path,
) -> None:
    make_v2(tmp_path, V2[:3])
    for lost in (tmp_path / "s2").glob(f"*/{V2[0][0]}"):
        lost.rmdir()
    for lost in (tmp_path / "s1").glob(f"*/{V2[1][1]}"):
        lost.rmdir()
    stray = "S2B_MSIL2A_20170613T101031_N9999_R022_T33UUP_70_70"
    (tmp_path / "s2" / "stray" / stray).mkdir(parents=True)
    metadata = make_metadata(tmp_path / "m.parquet", V2[:4])
    found = paired(tmp_path, metadata=(metadata,))
    assert names(found) == V2[2:3]
    assert reasons(found) == {"missing partner": 2, "missing pair": 1, "not in metadata": 1}
    rows = found.rejected.to_pylist()
    assert {row["key"] for row in rows if row["reason"] == "not in metadata"} == {stray}


def test_v2_patches_without_a_table_are_orphans(tmp_path: Path) -> None:
    make_v2(tmp_path, V2[:2])
    found = paired(tmp_path)
    assert names(found) == []
    assert reasons(found) == {"missing partner": 4}


def test_radar_json_that_names_no_partner_leaves_two_orphans(tmp_path: Path) -> None:
    make_v1(tmp_path, V1[:2])
    (tmp_path / "s1" / V1[0][1] / f"{V1[0][1]}_labels_metadata.json").write_text("{ truncated")
    found = paired(tmp_path)
    assert names(found) == V1[1:2]
    assert reasons(found) == {"missing partner": 2}


def test_labels_come_out_in_official_order_and_unlabelled_pairs_are_dropped(tmp_path: Path) -> None:
    make_v2(tmp_path, V2[:3])
    labels: list[object] = [
        ["Pastures"],
        ["Airports"],
        ["Sea and ocean", "Transitional woodland/shrub"],
    ]
    metadata = make_metadata(tmp_path / "m.parquet", V2[:3], labels=labels)
    found = paired(tmp_path, metadata=(metadata,))
    expected = [["Pastures"], ["Transitional woodland, shrub", "Marine waters"]]
    assert found.pairs.column("labels").to_pylist() == expected
    assert reasons(found) == {"filtered (no label)": 1}


def test_split_files_override_the_tables_and_leave_out_what_they_do_not_list(
    tmp_path: Path,
) -> None:
    make_v2(tmp_path, V2[:3])
    metadata = make_metadata(tmp_path / "m.parquet", V2[:3])
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(f"{V2[0][0]}\r\n")
    second.write_text(f"v1_{V2[1][0]},{V2[1][1]}\r\n")
    second.write_text(f"S2_not_here\r\nv1_{V2[1][0]}\r\n")
    found = paired(tmp_path, metadata=(metadata,), splits=(("test", first), ("train", second)))
    assert found.pairs.column("split").to_pylist() == ["test", "train"]
    assert reasons(found) == {"filtered (not in a split)": 1}


def test_pairs_keep_the_split_that_the_metadata_names(tmp_path: Path) -> None:
    make_v2(tmp_path, V2)
    split = ["test", "test", "train", "validation", "train", "test"]
    metadata = make_metadata(tmp_path / "m.parquet", V2, split=list(split))
    found = paired(tmp_path, metadata=(metadata,))
    assert found.pairs.column("split").to_pylist() == split


def test_a_patch_in_two_split_files_is_an_error(tmp_path: Path) -> None:
    make_v1(tmp_path, V1)
    listed = tmp_path / "list.csv"
    listed.write_text(V1[0][0])
    with pytest.raises(PrepError, match=f"{V1[0][0]} is listed in split train and in test"):
        paired(tmp_path, splits=(("train", listed), ("test", listed)))


def test_exclusion_lists_reject_by_their_kind_and_clear_the_flag_of_the_rest(
    tmp_path: Path,
) -> None:
    make_v1(tmp_path, V1)
    snow = tmp_path / "patches_with_seasonal_snow.csv"
    snow.write_text(f"{V1[0][0]}\r\n{V1[1][0]}\r\n")
    other = tmp_path / "mine.csv"
    other.write_text(V1[2][0])
    found = paired(tmp_path, exclude=(snow, other))
    assert reasons(found) == {"filtered (snow)": 2, "filtered (excluded)": 1}
    assert found.pairs.column("contains_seasonal_snow").to_pylist() == [False] * 3
    assert found.pairs.column("contains_cloud_or_shadow").to_pylist() == [None] * 3


def test_times_of_one_place_share_a_split_by_ratio(tmp_path: Path) -> None:
    pairs = [
        (f"S2A_MSIL2A_2017061{time}T94033_{n}_4{n}", f"S1A_IW_2017061{time}_33UUP_{n}_4{n}")
        for n in range(9)
        for time in range(3)
    ]
    make_v1(tmp_path, pairs)
    found = paired(tmp_path, split_ratio=(0.5, 0.25, 0.25), seed=3)
    split_of_place: dict[str, set[str]] = {}
    for row in found.pairs.to_pylist():
        split_of_place.setdefault(row["s1_name"].partition("_33UUP")[2], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in split_of_place.values())
    assert len(set(found.pairs.column("split").to_pylist())) > 1


def test_the_same_table_twice_is_an_error_that_names_a_patch(tmp_path: Path) -> None:
    make_v2(tmp_path, V2[:2])
    metadata = make_metadata(tmp_path / "m.parquet", V2[:2])
    with pytest.raises(PrepError, match="2 patches are named by two pairs, S2A"):
        paired(tmp_path, metadata=(metadata, metadata))


def test_one_radar_patch_of_two_pairs_is_an_error_that_names_it(tmp_path: Path) -> None:
    shared = [V2[0], (V2[1][0], V2[0][1])]
    make_v2(tmp_path, V2[:2])
    metadata = make_metadata(tmp_path / "m.parquet", shared)
    with pytest.raises(PrepError, match=f"1 patches are named by two pairs, {V2[0][1]} for one"):
        paired(tmp_path, metadata=(metadata,))


def test_a_radar_name_without_a_place_cannot_be_split_by_ratio(tmp_path: Path) -> None:
    make_v1(tmp_path, [(V1[0][0], "S1A_IW_nowhere")])
    with pytest.raises(PrepError, match=r"S1A_IW_nowhere does not end in tile.*--split NAME=FILE"):
        paired(tmp_path)


def test_another_parquet_is_refused_by_the_column_it_lacks(tmp_path: Path) -> None:
    make_v2(tmp_path, V2[:1])
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"patch_id": ["a"]}), path)
    with pytest.raises(PrepError, match="no column labels"):
        paired(tmp_path, metadata=(path,))


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="split ratio"):
        TableConfig(split_ratio=(1.2, share, 0.1))


def test_tables_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="leave --mapping out"):
        TableConfig(metadata=(Path("m.parquet"),), mapping=(Path("m.csv"),))
    with pytest.raises(ValueError, match="unknown split holdout"):
        TableConfig(splits=(("holdout", Path("list.csv")),))


def test_an_empty_exclusion_list_excludes_nothing(tmp_path: Path) -> None:
    make_v1(tmp_path, V1)
    snow = tmp_path / "patches_with_seasonal_snow.csv"
    snow.touch()
    found = paired(tmp_path, exclude=(snow,))
    assert len(found.pairs) == len(V1)
    assert found.pairs.column("contains_seasonal_snow").to_pylist() == [False] * len(V1)


def test_a_filtered_pair_keeps_the_split_that_its_table_names(tmp_path: Path) -> None:
    make_v2(tmp_path, V2[:2])
    metadata = make_metadata(tmp_path / "m.parquet", V2[:2])
    clouds = tmp_path / "patches_with_cloud_and_shadow.csv"
    clouds.write_text(V2[1][0])
    rows = paired(tmp_path, metadata=(metadata,), exclude=(clouds,)).rejected.to_pylist()
    assert [(row["reason"], row["split"]) for row in rows] == [("filtered (cloud)", "validation")]


@needs_real
def test_the_official_tables_leave_an_empty_archive_with_every_pair_missing(tmp_path: Path) -> None:
    (tmp_path / "s2").mkdir()
    (tmp_path / "s1").mkdir()
    tables = sorted((REAL / "metadata").glob("*.parquet"))
    found = paired(tmp_path, metadata=tuple(tables))
    assert reasons(found) == {"missing pair": 549_488}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20


@needs_real
def test_real_v1_patches_get_the_official_splits() -> None:
    folder = REAL / "metadata"
    files = (("train", "train"), ("validation", "val"), ("test", "test"))
    config = TableConfig(
        mapping=(folder / "s1_s2_mapping.csv.bz2",),
        splits=tuple((split, folder / f"{name}.csv.bz2") for split, name in files),
    )
    s2 = scan_archive(REAL / "v1" / "BigEarthNet-v1.0", "s2")
    s1 = scan_archive(REAL / "v1" / "BigEarthNet-S1-v1.0", "s1")
    found = pair_patches(s2, s1, config)
    assert found.pairs.column("split").to_pylist() == ["test", "train", "train", "train"]
    assert reasons(found) == {"missing pair": 590_326 - 4}
