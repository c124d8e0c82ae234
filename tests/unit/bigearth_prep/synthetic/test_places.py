import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearth_prep.synthetic.places import PlannedPair, plan_pairs
from bigearth_prep.synthetic.tiles import TILES

PAIRS = plan_pairs(600, seed=3)


def _location(pair: PlannedPair) -> tuple[str, int, int]:
    return (pair.place.tile.name, pair.place.column, pair.place.row)


@settings(max_examples=10)
@given(count=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_as_many_pairs_are_planned_as_asked_for_and_all_names_differ(count: int, seed: int) -> None:
    pairs = plan_pairs(count, seed)
    assert len(pairs) == count
    for names in (
        [p.v1_name for p in pairs],
        [p.v2_name for p in pairs],
        [p.s1_name for p in pairs],
    ):
        assert len(set(names)) == count


def test_a_larger_archive_begins_with_the_pairs_of_a_smaller_one() -> None:
    assert plan_pairs(50, seed=3) == PAIRS[:50]
    assert plan_pairs(50, seed=4) != PAIRS[:50]


def test_splits_are_rings_of_the_tile_so_that_no_location_is_in_two() -> None:
    first_ring = {"train": 0, "validation": 13, "test": 23}
    last_ring = {"train": 12, "validation": 22, "test": 45}
    for pair in PAIRS:
        column, row = pair.place.column, pair.place.row
        to_border = min(column, row, 90 - column, 90 - row)
        assert first_ring[pair.place.split] <= to_border <= last_ring[pair.place.split]


def test_half_of_the_pairs_are_for_training() -> None:
    shares = {split: count / 600 for split, count in Counter(p.place.split for p in PAIRS).items()}
    assert shares == {
        "train": pytest.approx(0.5, abs=0.05),
        "validation": pytest.approx(0.25, abs=0.05),
        "test": pytest.approx(0.25, abs=0.05),
    }


@pytest.mark.parametrize("seed", range(5))
def test_four_pairs_hold_every_split(seed: int) -> None:
    assert {pair.place.split for pair in plan_pairs(4, seed)} == {"train", "validation", "test"}


def test_places_are_seen_one_to_four_times_in_scenes_that_differ() -> None:
    visits: dict[tuple[str, int, int], list[str]] = {}
    for pair in PAIRS:
        visits.setdefault(_location(pair), []).append(pair.scene.v1_prefix)
    assert {len(scenes) for scenes in visits.values()} >= {1, 2, 3}
    assert max(map(len, visits.values())) <= 4
    assert all(len(set(scenes)) == len(scenes) for scenes in visits.values())


def test_names_have_the_published_forms_and_their_anomalies() -> None:
    for pair in PAIRS:
        assert re.fullmatch(r"S2[AB]_MSIL2A_\d{8}T\d{5,6}_\d{1,2}_\d{1,2}", pair.v1_name)
        v2_form = r"S2[AB]_MSIL2A_\d{8}T\d{6}_N9999_R\d{3}_T\d{2}[A-Z]{3}_\d{2}_\d{2}"
        assert re.fullmatch(v2_form, pair.v2_name)
        s1_form = r"S1[AB]_IW_GRDH_1SDV_\d{8}T\d{6}_\d{2}[A-Z]{3}_\d{1,2}_\d{1,2}"
        assert re.fullmatch(s1_form, pair.s1_name)
    times = [pair.v1_name.split("_")[2][9:] for pair in PAIRS]
    assert any(len(time) == 5 for time in times)
    assert any(int(time[-2:]) >= 60 for time in times)


def test_the_example_of_the_published_name_triple_is_reproduced() -> None:
    tile = next(tile for tile in TILES if tile.name == "35VPK")
    scene = next(scene for scene in tile.scenes if scene.v1_stamp == "20180204T94161")
    pair = next(p for p in plan_pairs(5_000, 0) if p.scene is scene and p.place.row < 10)
    place = pair.place
    column, row = place.column, place.row
    assert pair.v1_name == f"S2B_MSIL2A_20180204T94161_{column}_{row}"
    assert pair.v2_name == f"S2B_MSIL2A_20180204T094159_N9999_R036_T35VPK_{column:02}_0{row}"
    assert pair.s1_name == f"S1A_IW_GRDH_1SDV_20180204T043253_35VPK_{column}_{row}"
    assert (place.grid.epsg, place.grid.ulx) == (32635, 600_000 + 1200 * column)
    assert place.grid.uly == 7_000_020 - 1200 * row


def test_snow_follows_the_scene_and_never_comes_with_a_cloud_flag() -> None:
    pairs = plan_pairs(5_000, 0)
    assert not any(pair.snow and pair.cloud for pair in pairs)
    assert not any(pair.snow for pair in pairs if pair.scene.snow_share == 0)
    winter = [pair.snow for pair in pairs if pair.scene.v1_stamp == "20180228T101021"]
    assert sum(winter) > 0.9 * len(winter)
    assert 0.01 < sum(pair.cloud for pair in pairs) / len(pairs) < 0.06
