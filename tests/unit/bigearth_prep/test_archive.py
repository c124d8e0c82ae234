"""Archive folders as they are, and folders that are not archives."""

from pathlib import Path

import pytest

from bigearth_prep.archive import scan_archive
from bigearth_prep.errors import PrepError

V2_NAME = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"


def test_v1_is_one_flat_level(tmp_path: Path) -> None:
    (tmp_path / "S2A_MSIL2A_20170613T101031_0_9").mkdir()
    (tmp_path / "S2A_MSIL2A_20170613T101031_0_9" / "x.tif").touch()
    (tmp_path / "S2A_MSIL2A_20170613T101031_1_9").mkdir()
    found = scan_archive(tmp_path, "s2")
    assert found.layout == "v1"
    assert sorted(found.patches) == sorted(found.patches.values())
    assert len(found.patches) == 2


def test_v2_has_a_level_of_products(tmp_path: Path) -> None:
    (tmp_path / "product" / V2_NAME).mkdir(parents=True)
    (tmp_path / "an_empty_product").mkdir()
    (tmp_path / "README.md").touch()
    found = scan_archive(tmp_path, "s2")
    assert found.layout == "v2"
    assert found.patches == {V2_NAME: f"product/{V2_NAME}"}


def test_an_empty_folder_has_no_patches(tmp_path: Path) -> None:
    found = scan_archive(tmp_path, "s1")
    assert (found.layout, found.patches) == ("unknown", {})


def test_a_missing_folder_and_a_file_are_refused_with_the_option_named(tmp_path: Path) -> None:
    with pytest.raises(PrepError, match=r"--s1 .*does not exist"):
        scan_archive(tmp_path / "nowhere", "s1")
    (tmp_path / "archive.zip").touch()
    with pytest.raises(PrepError, match=r"--s2 .*archive\.zip is neither a folder nor named"):
        scan_archive(tmp_path / "archive.zip", "s2")
    (tmp_path / "archive.tar").touch()
    with pytest.raises(PrepError, match=r"archive\.tar is truncated"):
        scan_archive(tmp_path / "archive.tar", "s2")


def test_the_other_sensors_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "product" / V2_NAME).mkdir(parents=True)
    with pytest.raises(PrepError, match=r"which is no S1 patch; give the folder .* BigEarthNet-S1"):
        scan_archive(tmp_path, "s1")


def test_a_patch_in_two_products_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one" / V2_NAME).mkdir(parents=True)
    (tmp_path / "two" / V2_NAME).mkdir(parents=True)
    with pytest.raises(PrepError, match=f"patch {V2_NAME} twice"):
        scan_archive(tmp_path, "s2")


@pytest.mark.parametrize("stray", [".DS_Store", "thumbs.db"])
def test_a_stray_file_beside_the_patches_of_a_product_changes_nothing(
    tmp_path: Path, stray: str
) -> None:
    (tmp_path / "product" / V2_NAME).mkdir(parents=True)
    (tmp_path / "product" / stray).touch()
    assert scan_archive(tmp_path, "s2").patches == {V2_NAME: f"product/{V2_NAME}"}


def test_the_folder_above_the_archive_is_refused_with_the_one_to_give(tmp_path: Path) -> None:
    (tmp_path / "BigEarthNet-S2" / "S2A_product" / V2_NAME).mkdir(parents=True)
    with pytest.raises(PrepError, match="such as BigEarthNet-S2"):
        scan_archive(tmp_path, "s2")
