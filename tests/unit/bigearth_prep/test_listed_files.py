"""Files that a table names: which holds which band, and what is wrong with them."""

import errno
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from bigearth_prep import listed_files
from bigearth_prep.bands import Band
from bigearth_prep.collection import SensorFiles
from bigearth_prep.errors import PrepError
from bigearth_prep.listed_files import ListedFiles, paths_of_bands
from bigearth_prep.patch import PatchError, RejectReason
from bigearth_prep.raster import Decoder
from tests.collection_fixture import write_tif

RED, NIR = (Band(name, "s2", 10.0, 16, "uint16", "DN") for name in ("red", "nir"))
NAMES = {"red": "R", "nir": "N"}
LISTED = SensorFiles(kind="listed", bands=(RED, NIR), names=NAMES)
STACKED = replace(LISTED, kind="stacked")


def reader(folder: Path, files: SensorFiles, *, trusts_grids: bool = False) -> ListedFiles:
    return ListedFiles(roots={"s2": folder}, files={"s2": files}, trusts_grids=trusts_grids)


def read(
    files: ListedFiles, cell: list[str], bands: tuple[Band, ...] = (RED, NIR)
) -> tuple[dict[Band, np.ndarray], Counter[Decoder]]:
    counts: Counter[Decoder] = Counter()
    row: dict[str, Any] = {"s2": cell, "s1": None}
    return {band: one.pixels for band, one in files.read_bands(row, bands, counts).items()}, counts


def layers(count: int = 2, dtype: str = "uint16", side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 99, (count, side, side)).astype(dtype)


def test_a_list_tells_bands_by_its_order() -> None:
    assert paths_of_bands(LISTED, ["a/1.tif", "b/2.tif"], (NIR,)) == {NIR: "b/2.tif"}
    with pytest.raises(
        PatchError, match="1 files are listed, one is expected for each of red, nir"
    ):
        paths_of_bands(LISTED, ["a/1.tif"], (NIR,))


def test_a_list_tells_bands_by_the_names_of_its_files() -> None:
    files = replace(LISTED, pattern="*_{band}.ti*")
    cell = ["x/2020_N.tiff", "x/2020_R.tif", "x/2020_NR.tif"]
    assert paths_of_bands(files, cell, (RED, NIR)) == {RED: cell[1], NIR: cell[0]}
    with pytest.raises(PatchError, match=r"nir: 0 of 1 listed files are named \*_N.ti\*"):
        paths_of_bands(files, cell[1:2], (NIR,))
    with pytest.raises(PatchError, match=r"red: 2 of 2 listed files") as caught:
        paths_of_bands(files, ["a_R.tif", "b_R.tif"], (RED,))
    assert caught.value.reason is RejectReason.MISSING_BAND


def test_a_folder_holds_a_file_of_each_band() -> None:
    files = replace(LISTED, kind="folder", pattern="{band}.tif")
    assert paths_of_bands(files, ["x/y/"], (RED, NIR)) == {RED: "x/y/R.tif", NIR: "x/y/N.tif"}


def test_bands_of_a_stack_are_told_by_position_and_read_as_rasterio_does(tmp_path: Path) -> None:
    write_tif(tmp_path / "x.tif", layers(), compress="deflate")
    found, counts = read(reader(tmp_path, STACKED), ["x.tif"], (NIR,))
    with rasterio.open(tmp_path / "x.tif") as file:
        assert np.array_equal(found[NIR], file.read(2))
    assert counts == {"rasterio": 1}


@pytest.mark.parametrize("absolute", [False, True])
def test_plain_files_are_read_without_gdal_wherever_they_are(
    tmp_path: Path,
    absolute: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    for name, layer in zip("RN", layers(), strict=True):
        write_tif(tmp_path / f"{name}.tif", layer[None])
    cell = [str(tmp_path / name) if absolute else name for name in ("R.tif", "N.tif")]
    root = tmp_path / "elsewhere" if absolute else tmp_path
    found, counts = read(reader(root, LISTED), cell)
    assert np.array_equal(np.stack([found[RED], found[NIR]]), layers())
    assert counts == {"strips": 2}


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        (layers(3), "holds 3 band.s. of uint16, expected 2 of uint16"),
        (layers(2, "int16"), "holds 2 band.s. of int16, expected 2 of uint16"),
    ],
)
def test_a_stack_of_other_bands_is_refused(tmp_path: Path, stack: np.ndarray, says: str) -> None:
    write_tif(tmp_path / "x.tif", stack)
    with pytest.raises(PatchError, match=says) as caught:
        read(reader(tmp_path, STACKED), ["x.tif"])
    assert caught.value.reason is RejectReason.UNREADABLE_FILE


def test_signed_integers_are_never_taken_for_unsigned_ones(tmp_path: Path) -> None:
    write_tif(tmp_path / "x.tif", layers(1))
    signed = replace(RED, dtype="int16")
    files = reader(tmp_path, SensorFiles(kind="stacked", bands=(signed,), names=NAMES))
    with pytest.raises(PatchError, match="of uint16, expected 1 of int16"):
        read(files, ["x.tif"], (signed,))


def test_two_files_are_no_stack(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="s2 names 2 files, and its bands are stacked in one"):
        read(reader(tmp_path, STACKED), ["x.tif", "y.tif"])


def test_a_missing_file_is_a_missing_band_but_a_missing_root_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"x/y\.tif") as caught:
        read(reader(tmp_path, STACKED), ["x/y.tif"])
    assert caught.value.reason is RejectReason.MISSING_BAND
    gone = reader(tmp_path / "gone", STACKED)
    with pytest.raises(PrepError, match="is gone; see that its disk is mounted") as ended:
        read(gone, ["x.tif"])
    assert not isinstance(ended.value, PatchError)
    with pytest.raises(PrepError, match="is gone"), gone.open():
        pass


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(listed_files, "read_file", fail)
    with pytest.raises(PatchError, match=r"x\.tif: Input/output error") as caught:
        read(reader(tmp_path, STACKED), ["x.tif"])
    assert caught.value.reason is RejectReason.UNREADABLE_FILE


def test_a_file_without_a_grid_is_read_only_where_grids_are_trusted(tmp_path: Path) -> None:
    write_tif(tmp_path / "x.tif", layers(), corner=None)
    with pytest.raises(PatchError, match="no north-up grid in a known projection"):
        read(reader(tmp_path, STACKED), ["x.tif"])
    trusting = reader(tmp_path, STACKED, trusts_grids=True)
    row: dict[str, Any] = {"s2": ["x.tif"]}
    rasters = trusting.read_bands(row, (RED, NIR), Counter())
    assert [raster.grid for raster in rasters.values()] == [None, None]
    write_tif(tmp_path / "x.tif", layers())
    grid = trusting.read_bands(row, (RED,), Counter())[RED].grid
    assert grid is not None
    assert (grid.epsg, grid.ulx) == (32633, 500_000.0)


def test_facts_are_what_the_row_says(tmp_path: Path) -> None:
    facts = reader(tmp_path, STACKED).read_facts(
        {"labels": ["x"], "s1_time": None, "s2_time": None}
    )
    assert (facts.labels, facts.s1_time) == (("x",), None)
