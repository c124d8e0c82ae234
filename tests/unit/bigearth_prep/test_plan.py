"""What a plan depends on: names, tables and the request; no file of a patch is there to be read."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.pairing import TableConfig
from bigearth_prep.plan import BuildConfig, BuildPlan, plan_build

NUMBERS = range(20)


def lay_out(root: Path, *, split: str = "train") -> None:
    """Empty folders of twenty v2 pairs, and their table."""
    s2 = [f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{n}_{n}" for n in NUMBERS]
    s1 = [f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{n}_{n}" for n in NUMBERS]
    for sensor, names, parts in (("s2", s2, 2), ("s1", s1, 3)):
        for name in names:
            (root / sensor / name.rsplit("_", parts)[0] / name).mkdir(parents=True, exist_ok=True)
    table = {
        "patch_id": s2,
        "labels": [["Pastures"]] * len(s2),
        "split": [split] * len(s2),
        "country": ["Austria"] * len(s2),
        "s1_name": s1,
        "s2v1_name": s2,
        "contains_seasonal_snow": [False] * len(s2),
        "contains_cloud_or_shadow": [False] * len(s2),
    }
    pq.write_table(pa.table(table), root / "metadata.parquet")


def planned(root: Path, seed: int = 0, **request: object) -> BuildPlan:
    tables = TableConfig(metadata=(root / "metadata.parquet",), seed=seed)
    fields: dict[str, Any] = {"s2": root / "s2", "s1": root / "s1", "tables": tables}
    return plan_build(BuildConfig(**(fields | request)))


def test_the_seed_of_the_request_decides_the_order(tmp_path: Path) -> None:
    lay_out(tmp_path)
    orders = [planned(tmp_path, seed).shards[0].rows.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_a_split_that_no_dataset_has_is_refused_by_name(tmp_path: Path) -> None:
    lay_out(tmp_path, split="holdout")
    with pytest.raises(PrepError, match="unknown split holdout; known are train, validation, test"):
        planned(tmp_path)


@pytest.mark.parametrize(
    ("scheme", "shard_mb", "pairs"), [("paper", 1.0, 4), ("none", 1.0, 2), ("none", 0.01, 1)]
)
def test_shards_stay_under_their_size_and_hold_a_pair_at_least(
    tmp_path: Path, scheme: str, shard_mb: float, pairs: int
) -> None:
    lay_out(tmp_path)
    plan = planned(tmp_path, scheme=scheme, shard_mb=shard_mb)
    assert {len(spec.rows) for spec in plan.shards} == {pairs}


def test_what_is_left_out_is_part_of_what_was_planned(tmp_path: Path) -> None:
    lay_out(tmp_path)
    whole = planned(tmp_path)
    stray = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_77_77"
    (tmp_path / "s2" / stray.rsplit("_", 2)[0] / stray).mkdir()
    other = planned(tmp_path)
    assert whole.source["pairs"] == other.source["pairs"] == len(NUMBERS)
    assert whole.source["pairs_xxh3_128"] != other.source["pairs_xxh3_128"]
    assert other.counts_by_reason() == {"not in metadata": 1}
