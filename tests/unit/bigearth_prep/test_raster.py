"""Band files whichever way they are read: chosen, counted, and refused with a reason."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio

from bigearth_prep.bands import select_bands
from bigearth_prep.patch import PatchError
from bigearth_prep.patch_source import FolderSource, PatchPlace
from bigearth_prep.raster import Decoder, decode_with_rasterio, read_bands, read_patch_json
from bigearth_prep.synthetic.geotiff import PatchGrid, encode_geotiff

BANDS = select_bands(["B02", "B05", "B01"])
GRID = PatchGrid(32633, 399_960, 5_300_040)
PLACE = PatchPlace("S2_a")


def pixels_of(side: int) -> np.ndarray:
    return np.arange(1, side * side + 1, dtype=np.uint16).reshape(side, side)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A patch of three bands."""
    (tmp_path / "S2_a").mkdir()
    for band in BANDS:
        path = tmp_path / "S2_a" / f"S2_a_{band.name}.tif"
        path.write_bytes(encode_geotiff(pixels_of(band.native_px), GRID))
    return tmp_path


def compress(path: Path) -> None:
    with rasterio.open(path) as source:
        pixels, profile = source.read(), source.profile
    path.unlink()
    with rasterio.open(path, "w", **(profile | {"compress": "deflate"})) as target:
        target.write(pixels)


def test_plain_files_and_others_give_the_same_rasters_and_are_counted(folder: Path) -> None:
    source = FolderSource(folder)
    plain: Counter[Decoder] = Counter()
    expected = read_bands(source, PLACE, BANDS, plain)
    assert plain == {"strips": 3}
    compress(folder / "S2_a" / "S2_a_B05.tif")
    mixed: Counter[Decoder] = Counter()
    found = read_bands(source, PLACE, BANDS, mixed)
    assert mixed == {"strips": 2, "rasterio": 1}
    for band in BANDS:
        assert found[band].grid == expected[band].grid
        assert np.array_equal(found[band].pixels, pixels_of(band.native_px))


def test_both_spellings_of_the_suffix_are_found_side_by_side(folder: Path) -> None:
    path = folder / "S2_a" / "S2_a_B05.tif"
    path.rename(path.with_suffix(".tiff"))
    (folder / "S2_a" / "S2_a_B02.tiff").write_bytes(b"left over")
    counts: Counter[Decoder] = Counter()
    found = read_bands(FolderSource(folder), PLACE, BANDS, counts)
    assert set(found) == set(BANDS)
    assert counts == {"strips": 3}
    path.with_suffix(".tiff").unlink()
    with pytest.raises(PatchError, match=r"^missing band: S2_a_B05\.tif$"):
        read_bands(FolderSource(folder), PLACE, BANDS, Counter())


@pytest.mark.parametrize("content", [b"", b"II*\0", b"nothing", bytes(2000)])
def test_a_file_that_is_no_tiff_is_refused_in_words_that_are_the_same_every_time(
    content: bytes,
) -> None:
    messages = set()
    for _ in range(2):
        with pytest.raises(PatchError, match=r"^unreadable file: S2_a_B02\.tif") as caught:
            decode_with_rasterio(content, "S2_a_B02.tif", BANDS[0])
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert "vsimem" not in messages.pop()


@pytest.mark.parametrize(
    ("crs", "unit_m"), [("EPSG:32633", 1.0), ("EPSG:2263", 1200 / 3937), ("EPSG:4326", None)]
)
def test_a_grid_knows_its_unit(crs: str, unit_m: float | None) -> None:
    place = {"crs": crs, "transform": rasterio.Affine(1e-4, 0, 40, 0, -1e-4, 10)}
    shape = {"width": 120, "height": 120, "count": 1, "dtype": "uint16"}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", **shape, **place) as file:
            file.write(pixels_of(120), 1)
        found = decode_with_rasterio(memory.read(), "S2_a_B02.tif", BANDS[0]).ground.unit_m
    assert found == (unit_m and pytest.approx(unit_m))


def test_a_file_of_another_type_is_refused(folder: Path) -> None:
    content = (folder / "S2_a" / "S2_a_B02.tif").read_bytes()
    (vv,) = select_bands(["VV"])
    with pytest.raises(PatchError, match=r"holds 1 band\(s\) of uint16, expected 1 of float32"):
        decode_with_rasterio(content, "S2_a_VV.tif", vv)


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_metadata_that_is_missing_or_no_json_object_is_a_reason(
    folder: Path, content: bytes | None
) -> None:
    if content is not None:
        (folder / "S2_a" / "S2_a_labels_metadata.json").write_bytes(content)
    with pytest.raises(PatchError, match="S2_a_labels_metadata") as caught:
        read_patch_json(FolderSource(folder), PLACE)
    assert caught.value.reason == "missing metadata"
