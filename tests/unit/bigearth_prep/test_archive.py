"""Archives as they are, in folders and tars, and what is no archive."""

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from bigearth_prep import archive
from bigearth_prep.archive import (
    StorageConfig,
    drop_scratch,
    make_readable,
    scan_archive,
    scan_archives,
)
from bigearth_prep.errors import PrepError
from bigearth_prep.patch_source import open_source
from bigearth_prep.tar_index import index_tar

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


# Tars.

V1_NAME = "S2A_MSIL2A_20170613T101031_0_9"
S1_NAME = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57"


def write_tar(path: Path, folders: list[str], mode: str = "w") -> Path:
    """One file in each folder."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for folder in folders:
            tar.addfile(tarfile.TarInfo(f"{folder}/{folder.rpartition('/')[2]}_B01.tif"))
    return path


@pytest.mark.parametrize(
    ("folder", "layout", "inner"),
    [
        (f"BigEarthNet-v1.0/{V1_NAME}", "v1", V1_NAME),
        (f"./BigEarthNet-v1.0/{V1_NAME}", "v1", V1_NAME),
        (V1_NAME, "v1", V1_NAME),
        (f"BigEarthNet-S2/{V2_NAME[:-6]}/{V2_NAME}", "v2", f"{V2_NAME[:-6]}/{V2_NAME}"),
        (f"{V2_NAME[:-6]}/{V2_NAME}", "v2", f"{V2_NAME[:-6]}/{V2_NAME}"),
        (f"a/b/{V2_NAME[:-6]}/{V2_NAME}", "v2", f"{V2_NAME[:-6]}/{V2_NAME}"),
    ],
)
def test_a_tar_has_the_layout_and_folders_that_its_extraction_would_have(
    tmp_path: Path, folder: str, layout: str, inner: str
) -> None:
    found = scan_archive(write_tar(tmp_path / "a.tar", [folder]), "s2")
    assert found.layout == layout
    assert found.patches == {inner.rpartition("/")[2]: inner}
    (place,) = found.places()
    assert (place.folder, list(place.members)) == (inner, ["_B01.tif"])


def test_the_scenes_of_sentinel_1_are_known_by_their_names_too(tmp_path: Path) -> None:
    scene = S1_NAME.rsplit("_", 3)[0]
    path = write_tar(tmp_path / "a.tar", [f"BigEarthNet-S1/{scene}/{S1_NAME}"])
    assert scan_archive(path, "s1").patches == {S1_NAME: f"{scene}/{S1_NAME}"}


def test_an_empty_tar_has_no_patches_and_one_patch_twice_is_an_error(tmp_path: Path) -> None:
    found = scan_archive(write_tar(tmp_path / "empty.tar", []), "s2")
    assert (found.layout, found.patches, len(found.members)) == ("unknown", {}, 0)
    twice = write_tar(tmp_path / "twice.tar", [f"a/{V1_NAME}", f"b/{V1_NAME}"])
    with pytest.raises(PrepError, match=f"twice.tar holds patch {V1_NAME} twice"):
        scan_archive(twice, "s2")
    with pytest.raises(PrepError, match="which is no S1 patch"):
        scan_archive(write_tar(tmp_path / "s2.tar", [V1_NAME]), "s1")


def test_places_are_given_step_by_step_and_none_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PLACES_PER_STEP", 2)
    folders = [f"{V1_NAME}{number}" for number in range(5)]
    found = scan_archive(write_tar(tmp_path / "a.tar", folders), "s2")
    assert [place.folder for place in found.places()] == folders


def test_a_tar_is_walked_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []

    def counted(tar: Path) -> pa.Table:
        walks.append(tar)
        return index_tar(tar)

    monkeypatch.setattr(archive, "index_tar", counted)
    path = write_tar(tmp_path / "a.tar", [V1_NAME])
    storage = StorageConfig(cache=tmp_path / "cache")
    first = scan_archive(path, "s2", storage)
    again = scan_archive(path, "s2", storage)
    assert list(again.places()) == list(first.places())
    assert len(walks) == 1
    write_tar(tmp_path / "a.tar", [V1_NAME, f"{V1_NAME}9"])
    assert len(scan_archive(path, "s2", storage).patches) == 2
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["a.tar.index.parquet"]


def test_a_compressed_tar_is_unpacked_to_be_known_and_then_only_to_be_read(tmp_path: Path) -> None:
    s2 = write_tar(tmp_path / "s2.tar.gz", [V1_NAME], "w:gz")
    s1 = write_tar(tmp_path / "s1.tgz", [S1_NAME], "w:gz")
    storage = StorageConfig(scratch=tmp_path / "scratch")
    tars = {tmp_path / "scratch" / name for name in ("s2.tar", "s1.tar")}
    archives = scan_archives(s2, s1, storage)
    assert {found.root for found in archives} == tars
    assert all(path.exists() for path in tars)
    drop_scratch(archives, storage)
    assert not (tmp_path / "scratch").exists()

    known = scan_archives(s2, s1, storage)
    assert [found.patches for found in known] == [found.patches for found in archives]
    assert not (tmp_path / "scratch").exists()
    make_readable(known)
    with open_source(known[0].root) as source:
        assert source.read(next(known[0].places()), ["_B01.tif"]) == {"_B01.tif": b""}


def test_scratch_is_left_where_it_is_to_be_kept(tmp_path: Path) -> None:
    s2 = write_tar(tmp_path / "s2.tar.gz", [V1_NAME], "w:gz")
    s1 = write_tar(tmp_path / "s1.tar", [S1_NAME])
    storage = StorageConfig(scratch=tmp_path / "scratch", keep_scratch=True)
    archives = scan_archives(s2, s1, storage)
    drop_scratch(archives, storage)
    assert (tmp_path / "scratch" / "s2.tar").exists()
    assert s1.exists()


def test_a_missing_archive_is_named_even_when_the_other_is_compressed(tmp_path: Path) -> None:
    s1 = write_tar(tmp_path / "s1.tgz", [S1_NAME], "w:gz")
    with pytest.raises(PrepError, match=r"--s2 .*nowhere\.tar\.zst does not exist"):
        scan_archives(tmp_path / "nowhere.tar.zst", s1, StorageConfig(scratch=tmp_path / "scratch"))


def test_a_folder_that_is_not_writable_still_gives_its_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tar(tmp_path / "a.tar", [V1_NAME])
    path_open = os.open

    def refuse(name: str, *arguments: int, **options: int) -> int:
        if str(name).endswith(".partial"):
            raise PermissionError(13, "Permission denied", str(name))
        return path_open(name, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert list(scan_archive(path, "s2").patches) == [V1_NAME]
    assert "--cache" in caplog.text
