"""`--align warp` in a whole build: what it saves, what it leaves as it was, and what is said."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.enums import Resampling as GdalResampling
from rasterio.warp import reproject

import bigearth_prep
from tests.archive_fixture import build, copy_archive, problems_of, tree_bytes

NORTH_UP_10_M = (10.0, 0.0, 0.0, -10.0)


def shards_in(dataset: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree_bytes(dataset).items() if ".tar" in name}


def move_radar(archive: Path, shift_m: float, margin_px: int) -> Path:
    """The Sentinel-1 folder of one pair, its files on a wider grid that is shifted."""
    folder = min((archive / "BigEarthNet-S1").glob("*/*"))
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as source:
            pixels, profile = source.read(1), source.profile
        west, north = profile["transform"].c, profile["transform"].f
        offset_m = shift_m - 10 * margin_px
        a, b, d, e = NORTH_UP_10_M
        moved = rasterio.Affine(a, b, west + offset_m, d, e, north - offset_m)
        wide = np.pad(pixels, margin_px, mode="symmetric")
        profile.update(transform=moved, width=wide.shape[1], height=wide.shape[0])
        path.unlink()
        with rasterio.open(path, "w", **profile) as target:
            target.write(wide, 1)
    return folder


def test_an_archive_on_one_grid_gives_the_same_shards_with_either_option(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "same")
    summary = build(v2_archive, tmp_path / "warp", align="warp")
    assert shards_in(tmp_path / "same") == shards_in(tmp_path / "warp")
    assert "warp" not in summary.files_read
    assert summary.card.normalization.order.startswith("where grids differ, warp (cubic)")


@pytest.mark.parametrize("scheme", ["zscore", "none"])
def test_radar_off_the_grid_is_stored_as_gdal_warps_it(
    v2_archive: Path, tmp_path: Path, scheme: str
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    moved = move_radar(archive, shift_m=3.0, margin_px=4)
    build(archive, tmp_path / "same", scheme=scheme)
    (row,) = pq.read_table(tmp_path / "same" / "rejected.parquet").to_pylist()
    assert (row["s1_name"], row["reason"]) == (moved.name, "wrong size")

    summary = build(archive, tmp_path / "warp", scheme=scheme, align="warp")
    assert summary.rejected == {}
    assert summary.files_read["warp"] == 2
    assert "warp (bilinear)" in summary.card.normalization.order
    assert problems_of(tmp_path / "warp") == []
    samples = bigearth_prep.open_dataset(tmp_path / "warp", row["split"])
    index = samples.manifest.column("key").to_pylist().index(row["key"])
    layout = samples.card.sensors["s1"]
    (optical,) = (archive / "BigEarthNet-S2").glob(f"*/{row['key']}/*_B02.tif")
    with rasterio.open(optical) as grid:
        transform, crs = grid.transform, grid.crs
    for band, name in enumerate(layout.bands):
        with rasterio.open(moved / f"{moved.name}_{name}.tif") as source:
            expected, _ = reproject(
                rasterio.band(source, 1),
                np.zeros((120, 120), np.float32),
                dst_transform=transform,
                dst_crs=crs,
                resampling=GdalResampling.bilinear,
            )
        stored = samples[index]["s1"][band] * layout.scale[band] + layout.offset[band]
        assert stored == pytest.approx(expected, abs=1e-4)


def test_radar_that_does_not_reach_the_edge_is_left_out_with_the_share(
    v2_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    moved = move_radar(archive, shift_m=30.0, margin_px=0)
    build(archive, tmp_path / "out", align="warp")
    (row,) = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert (row["s1_name"], row["reason"]) == (moved.name, "nodata pixels")
    assert "VH: 711 of 14400 px (4.9%)" in row["detail"]
