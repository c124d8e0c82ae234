import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bigearth_prep.labels import CLASSES
from bigearth_prep.synthetic.tiles import TILES

METADATA = Path(__file__).parents[5] / "shared" / "real" / "metadata"

needs_official_tables = pytest.mark.skipif(
    not METADATA.is_dir(), reason="no official tables beside the repo"
)


def _rows(name: str) -> list[dict[str, str]]:
    with (METADATA / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_no_two_scenes_share_a_v1_prefix_and_no_tile_a_radar_scene() -> None:
    prefixes = [scene.v1_prefix for tile in TILES for scene in tile.scenes]
    assert len(set(prefixes)) == len(prefixes)
    for tile in TILES:
        assert len({scene.s1_prefix for scene in tile.scenes}) == len(tile.scenes)
        assert len({scene.v2_prefix for scene in tile.scenes}) == len(tile.scenes)


def test_every_class_occurs_in_some_tile() -> None:
    percents = [tile.class_percent for tile in TILES]
    assert all(len(percent) == len(CLASSES) for percent in percents)
    assert all(any(column) for column in zip(*percents, strict=True))


def test_both_sensors_saw_a_tile_within_six_days() -> None:
    for tile in TILES:
        for scene in tile.scenes:
            gap = scene.s1_sensing - scene.s2_sensing
            assert abs(gap.total_seconds()) < 6 * 86_400


@needs_official_tables
def test_origins_and_zones_are_the_official_ones() -> None:
    official = {row["tile"]: row for row in _rows("tiles.csv")}
    for tile in TILES:
        row = official[tile.name]
        found = (tile.epsg, tile.ulx, tile.uly)
        assert found == (int(row["epsg"]), int(row["tile_ulx"]), int(row["tile_uly"]))


@needs_official_tables
def test_every_scene_is_an_official_product_under_its_official_names() -> None:
    official = {(row["prefix"], row["tile"]): row["v2_product"] for row in _rows("products.csv")}
    for tile in TILES:
        for scene in tile.scenes:
            assert official[scene.v1_prefix, tile.name] == f"{scene.v2_prefix}_T{tile.name}"


@needs_official_tables
def test_radar_partners_are_official_ones() -> None:
    columns = ["s2v1_name", "s1_name"]
    table = pq.read_table(METADATA / "metadata.parquet", columns=columns)
    partners = {
        (s2.rsplit("_", 2)[0], s1.rsplit("_", 2)[0])
        for s2, s1 in zip(*(table[column].to_pylist() for column in columns), strict=True)
    }
    for tile in TILES:
        for scene in tile.scenes:
            assert (scene.v1_prefix, f"{scene.s1_prefix}_{tile.name}") in partners
