"""The same bytes from folders and tars, and what is said when they cannot be read."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.patch import PatchError
from bigearth_prep.patch_source import PatchPlace, TarSource, open_source, place_of
from bigearth_prep.tar_index import index_tar

FILES = {
    "_B01.tif": b"a" * 1172,
    "_B02.tif": os.urandom(70_000),
    "_empty.tif": b"",
    "_block.tif": os.urandom(1 << 16),
    "_labels_metadata.json": b"{}",
}
PLACE = PatchPlace("product/S2_a")


def write_folder(root: Path) -> Path:
    (root / PLACE.folder).mkdir(parents=True)
    for ending, content in FILES.items():
        (root / PLACE.folder / f"S2_a{ending}").write_bytes(content)
    return root


def write_tar(path: Path, *, between: bytes = b"") -> PatchPlace:
    with tarfile.open(path, "w") as tar:
        for ending, content in FILES.items():
            for name, body in ((f"product/S2_a/S2_a{ending}", content), ("other/x", between)):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
    (row,) = index_tar(path).to_pylist()
    return place_of(row["folder"], row["members"])


def test_a_folder_gives_those_files_that_are_there(tmp_path: Path) -> None:
    with open_source(write_folder(tmp_path / "root")) as source:
        assert source.read(PLACE, [*FILES, "_B03.tif"]) == FILES
        assert source.read(PLACE, ["_B03.tif"]) == {}


def test_a_patch_folder_that_has_gone_stops_the_build(tmp_path: Path) -> None:
    with open_source(write_folder(tmp_path / "root")) as source:
        for folder in ("product/S2_b", "product/S2_a/S2_a_B01.tif"):
            with pytest.raises(PrepError, match="is gone; see that its disk is mounted"):
                source.read(PatchPlace(folder), list(FILES))


@pytest.mark.parametrize("between", [b"", bytes(1_000_000)])
def test_a_tar_gives_the_same_files_in_one_read_or_in_many(tmp_path: Path, between: bytes) -> None:
    place = write_tar(tmp_path / "a.tar", between=between)
    assert (place.folder, place.name) == ("product/S2_a", "S2_a")
    with open_source(tmp_path / "a.tar") as source:
        found = source.read(place, [*FILES, "_B03.tif"])
        assert {ending: bytes(content) for ending, content in found.items()} == FILES
        assert source.read(place, ["_B03.tif"]) == {}
        assert bytes(source.read(place, ["_B01.tif"])["_B01.tif"]) == FILES["_B01.tif"]


@pytest.mark.parametrize(("between", "count"), [(b"", 1), (bytes(1_000_000), len(FILES))])
def test_files_side_by_side_in_a_tar_take_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: bytes, count: int
) -> None:
    place = write_tar(tmp_path / "a.tar", between=between)
    reads = []
    pread = os.pread

    def counted(descriptor: int, size: int, start: int) -> bytes:
        reads.append(size)
        return pread(descriptor, size, start)

    with open_source(tmp_path / "a.tar") as source:
        monkeypatch.setattr(os, "pread", counted)
        source.read(place, list(FILES))
    assert len(reads) == count


def test_a_file_that_may_not_be_read_is_a_bad_patch(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root")
    (root / PLACE.folder / "S2_a_dir.tif").mkdir()
    with (
        open_source(root) as source,
        pytest.raises(PatchError, match=r"S2_a_dir\.tif: Is a directory") as caught,
    ):
        source.read(PLACE, ["_dir.tif"])
    assert caught.value.reason == "unreadable file"


def test_an_archive_that_is_gone_or_was_cut_stops_the_build(tmp_path: Path) -> None:
    with (
        pytest.raises(PrepError, match=r"gone\.tar was there .* and is gone; see that its disk"),
        open_source(tmp_path / "gone.tar"),
    ):
        pass
    place = write_tar(tmp_path / "a.tar")
    os.truncate(tmp_path / "a.tar", 5000)
    with (
        open_source(tmp_path / "a.tar") as source,
        pytest.raises(PrepError, match=r"a\.tar ends at byte 5,000, inside S2_a") as caught,
    ):
        source.read(place, ["_B02.tif"])
    assert not isinstance(caught.value, PatchError)


def test_a_read_error_in_a_tar_stops_the_build_and_names_the_byte(tmp_path: Path) -> None:
    place = write_tar(tmp_path / "a.tar")
    start, _ = place.members["_B01.tif"]
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(PrepError, match=rf"a\.tar cannot be read at byte {start:,} \(S2_a\)"):
            TarSource(tmp_path / "a.tar", descriptor).read(place, ["_B01.tif"])
    finally:
        os.close(descriptor)
