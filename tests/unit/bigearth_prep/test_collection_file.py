"""TOML to collections: what comes along, what each field does, and what is refused by name."""

from pathlib import Path

import pytest

from bigearth_prep.cli_pairs import list_pairs
from bigearth_prep.collection_file import (
    open_collection,
    read_collection,
    shipped_collections,
)
from bigearth_prep.errors import PrepError

TOML = """
name = "Mine"
grids = "compared"
[patch]
side_px = 256
resolution_m = 2.5
[s2]
unit = "reflectance"
dtype = "float32"
files = "listed"
file_name = "*_{band}.tif"
missing = -1
bands = ["red", { name = "swir", resolution_m = 20, file = "B11", missing = false }]
[s1]
unit = "dB"
dtype = "float32"
files = "stacked"
bands = ["VV"]
[labels]
nomenclature = "crops"
classes = ["maize", "wheat"]
[listing]
s2 = "s2/{scene}_{band}.tif"
s1 = "s1/{scene}.tif"
key = "{scene}"
"""


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    text = TOML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_field_of_a_file_arrives(tmp_path: Path) -> None:
    found = read_collection(write(tmp_path))
    red, swir, vv = found.bands
    assert (red.native_px, red.resolution_m, red.dtype, red.unit) == (
        256,
        2.5,
        "float32",
        "reflectance",
    )
    assert (red.missing, swir.missing, vv.missing) == (-1.0, None, None)
    assert (swir.native_px, vv.sensor) == (32, "s1")
    assert found.files["s2"].file_name(swir) == "*_B11.tif"
    assert (found.files["s2"].kind, found.files["s1"].kind) == ("listed", "stacked")
    assert (found.nomenclature, found.classes) == ("crops", ("maize", "wheat"))
    assert found.listing is not None
    assert found.listing.patterns["s1"] == "s1/{scene}.tif"
    assert not found.trusts_grids


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "Mine"', "", "name is missing"),
        ('name = "Mine"', 'name = "BigEarthNet v1"', "stands for the published archive"),
        ('name = "Mine"', 'name = "Mine"\npitch = 3', "the file holds 'pitch'"),
        ('grids = "compared"', 'grids = "yes"', "expected compared or trusted"),
        ("side_px = 256", "side_px = 513", "expected 8 to 512 px"),
        ("side_px = 256", "side_px = 25.6", "side_px is 25.6, which is of another kind"),
        ("side_px = 256", "", "patch.side_px is missing"),
        ("resolution_m = 2.5", "resolution_m = 0", "0 m"),
        ("resolution_m = 20", "resolution_m = 30", "30 m do not divide the patch's 640 m"),
        ('dtype = "float32"\nfiles = "listed"', 'dtype = "int8"\nfiles = "listed"', "s2.dtype"),
        ('files = "listed"', 'files = "many"', "expected stacked, listed, folder"),
        ('file_name = "*_{band}.tif"', 'file_name = "B.tif"', "a file's name with {band}"),
        ('files = "listed"', 'files = "folder"', "names hold no wildcards"),
        ('"listed"\nfile_name = "*_{band}.tif"', '"folder"', "s2.file_name is missing"),
        ('files = "listed"', 'files = "stacked"', "one resolution_m"),
        ('"stacked"', '"stacked"\nfile_name = "{band}"', "s1.file_name has no use"),
        ("missing = -1", 'missing = "x"', "missing is 'x'"),
        ('bands = ["VV"]', "bands = []", "s1.bands is empty"),
        ('bands = ["VV"]', 'bands = ["red"]', "band 'red' occurs twice"),
        ('bands = ["VV"]', "bands = [3]", "expected a name or a table"),
        ('unit = "dB"', "", "s1.unit is missing"),
        ('["maize", "wheat"]', '["maize", "maize"]', "class 'maize' occurs twice"),
        ('"crops"', '"BigEarthNet-19"', "not those of BigEarthNet-19"),
        ("{scene}_{band}.tif", "{scene}.tif", "{band} stands in the pattern"),
        ('key = "{scene}"', "", "listing.key is missing"),
        ("[patch]", "[patch", "see docs/collections.md"),
    ],
)
def test_a_wrong_field_is_refused_by_name(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(PrepError) as caught:
        read_collection(write(tmp_path, (old, new)))
    assert says in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_missing_value_must_be_one_that_the_type_can_hold(tmp_path: Path) -> None:
    path = write(
        tmp_path, ('dtype = "float32"\nfiles = "listed"', 'dtype = "uint16"\nfiles = "listed"')
    )
    with pytest.raises(PrepError, match=r"missing is -1, which is no uint16"):
        read_collection(path)


def test_a_file_without_sensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\n[patch]\nside_px = 64\nresolution_m = 10\n')
    with pytest.raises(PrepError, match="neither s2 nor s1"):
        read_collection(path)


def test_what_comes_along_is_named_where_a_name_is_unknown() -> None:
    with pytest.raises(PrepError, match=r"ssl4eo-s12-l2a, ssl4eo-s12$"):
        open_collection("ssl5eo")


def test_every_file_that_comes_along_can_be_read_by_its_name_and_stands_in_the_help() -> None:
    text = next(param.help for param in list_pairs.params if param.name == "collection")
    for path in shipped_collections():
        assert open_collection(path.stem).path == path
        assert f" {path.stem}" in str(text)


@pytest.mark.parametrize(("name", "count"), [("ssl4eo-s12", 13), ("ssl4eo-s12-l2a", 12)])
def test_ssl4eo_s12_is_as_its_authors_code_writes_it(name: str, count: int) -> None:
    found = open_collection(name)
    sides = {band.name: band.native_px for band in found.bands}
    names = found.files["s2"].names
    assert len(names) == count
    assert ("B10" in names) == (count == 13)
    assert {names[band]: sides[band] for band in names} == {
        **dict.fromkeys(("B2", "B3", "B4", "B8"), 264),
        **dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12"), 132),
        **dict.fromkeys(("B1", "B9") + (("B10",) if count == 13 else ()), 44),
    }
    assert [(band.name, band.dtype, band.native_px) for band in found.bands[count:]] == [
        ("VH", "float32", 264),
        ("VV", "float32", 264),
    ]
    assert found.trusts_grids
