import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from bigearth_prep.bands import S1_BANDS, S2_BANDS
from bigearth_prep.labels import CLASSES, to_official_classes
from bigearth_prep.synthetic import patch_files
from bigearth_prep.synthetic.geotiff import PatchGrid
from bigearth_prep.synthetic.patch_files import make_s1_patch, make_s2_patch
from bigearth_prep.synthetic.places import PlannedPair, plan_pairs

REAL_V1 = Path(__file__).parents[5] / "shared" / "real" / "v1"
PAIR = plan_pairs(1, seed=0)[0]


def _record(files: dict[str, bytes]) -> dict[str, Any]:
    (content,) = (content for name, content in files.items() if name.endswith(".json"))
    record: dict[str, Any] = json.loads(content)
    return record


def test_a_v1_patch_has_all_bands_and_a_json_named_after_it() -> None:
    s2 = make_s2_patch(PAIR, "v1", seed=0)
    bands = [f"{PAIR.v1_name}_{band.name}.tif" for band in S2_BANDS]
    assert list(s2.files) == sorted([*bands, f"{PAIR.v1_name}_labels_metadata.json"])
    s1 = make_s1_patch(PAIR, "v1", seed=0)
    bands = [f"{PAIR.s1_name}_{band.name}.tif" for band in S1_BANDS]
    assert list(s1.files) == sorted([*bands, f"{PAIR.s1_name}_labels_metadata.json"])


def test_a_v2_patch_has_bands_only_and_the_nodata_tag_on_s2_alone() -> None:
    s2, s1 = make_s2_patch(PAIR, "v2", seed=0), make_s1_patch(PAIR, "v2", seed=0)
    assert len(s2.files) == 12
    assert len(s1.files) == 2
    for files, nodata in ((s2.files, 0), (s1.files, None)):
        for content in files.values():
            with MemoryFile(content) as memory, memory.open() as raster:
                assert raster.nodata == nodata


def test_both_halves_lie_on_the_place_and_carry_the_same_labels() -> None:
    s2, s1 = make_s2_patch(PAIR, "v1", seed=0), make_s1_patch(PAIR, "v1", seed=0)
    grid = PAIR.place.grid
    for content in [*s2.files.values(), *s1.files.values()]:
        if content.startswith(b"II"):
            with MemoryFile(content) as memory, memory.open() as raster:
                assert raster.crs.to_epsg() == grid.epsg
                assert tuple(raster.bounds) == (
                    grid.ulx,
                    grid.uly - 1200,
                    grid.ulx + 1200,
                    grid.uly,
                )
    assert s2.labels == s1.labels
    assert _record(s2.files)["labels"] == _record(s1.files)["labels"]


@pytest.mark.parametrize("place_number", range(3))
def test_v1_labels_reduce_to_the_classes_they_stand_for(place_number: int) -> None:
    names = [patch_files._level3_name(label, place_number) for label in CLASSES]
    assert to_official_classes(names) == CLASSES
    assert "Transitional woodland/shrub" in names


def test_the_s1_json_spells_its_keys_differently() -> None:
    s2 = _record(make_s2_patch(PAIR, "v1", seed=0).files)
    s1 = _record(make_s1_patch(PAIR, "v1", seed=0).files)
    corners = {"s2": s2["coordinates"], "s1": s1["coordinates"]}
    grid = PAIR.place.grid
    start = {"ulx": grid.ulx, "uly": grid.uly, "lrx": grid.ulx + 1200}
    assert corners == {
        "s2": start | {"lry": grid.uly - 1200},
        "s1": start | {"lly": grid.uly - 1200},
    }
    assert s1["corresponding_s2_patch"] == PAIR.v1_name
    assert "T" in s1["acquisition_time"]
    assert "T" not in s2["acquisition_date"]


def test_the_projection_is_the_one_of_the_epsg_code() -> None:
    for epsg in (32629, 32636):
        projection = CRS.from_wkt(PatchGrid(epsg=epsg, ulx=0, uly=0).wkt)
        assert projection.to_epsg() == epsg


@pytest.mark.skipif(not REAL_V1.is_dir(), reason="no real patches beside the repo")
def test_json_keys_their_order_and_the_projection_equal_those_of_real_files() -> None:
    made = {
        "S1": _record(make_s1_patch(PAIR, "v1", seed=0).files),
        "S2": _record(make_s2_patch(PAIR, "v1", seed=0).files),
    }
    real_files = sorted(REAL_V1.glob("*/*/*.json"))
    assert len(real_files) == 8
    for path in real_files:
        real, ours = json.loads(path.read_text()), made[path.name[:2]]
        assert list(real) == list(ours)
        assert list(real["coordinates"]) == list(ours["coordinates"])
        epsg = CRS.from_wkt(real["projection"]).to_epsg()
        assert real["projection"] == PatchGrid(epsg=epsg, ulx=0, uly=0).wkt


def test_pixels_depend_on_seed_and_pair_alone() -> None:
    pairs = plan_pairs(3, seed=0)
    once = [make_s2_patch(pair, "v1", seed=0).files for pair in pairs]
    again = [make_s2_patch(pair, "v1", seed=0).files for pair in reversed(pairs)]
    assert once == again[::-1]
    assert make_s2_patch(PAIR, "v1", seed=1).files != once[0]


def test_visits_of_one_place_share_labels_and_nothing_else_and_places_differ() -> None:
    pairs = plan_pairs(60, seed=0)
    by_place: dict[int, list[PlannedPair]] = {}
    for pair in pairs:
        by_place.setdefault(pair.place.number, []).append(pair)
    first, second = next(visits for visits in by_place.values() if len(visits) > 1)[:2]
    early, late = make_s1_patch(first, "v2", seed=0), make_s1_patch(second, "v2", seed=0)
    assert early.labels == late.labels
    assert not set(early.files.values()) & set(late.files.values())
    moved = replace(first, place=replace(first.place, number=1_000))
    drawn = [patch_files._draw_cover(pair.place, 0).classes.tobytes() for pair in (first, moved)]
    assert drawn[0] != drawn[1]
