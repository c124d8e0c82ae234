"""Headers walked here against `tarfile`, in every form that tars of patches come in."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearth_prep.errors import PrepError
from bigearth_prep.tar_walk import walk_tar

SHORT = "BigEarthNet-v1.0/S2A_MSIL2A_20170613T101031_87_48/S2A_MSIL2A_20170613T101031_87_48_B01.tif"
LONG = "/".join(
    ["BigEarthNet-S2", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", *SHORT.split("/")]
)
FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def found_in(path: Path) -> list[tuple[str, int, int]]:
    return [(member.name, member.start, member.size) for member in walk_tar(path)]


def listed_by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as tar:
        return [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]


@pytest.mark.parametrize("form", FORMS)
def test_names_and_places_are_tarfiles_in_every_format(tmp_path: Path, form: str) -> None:
    files = {SHORT: b"a" * 1172, LONG: b"b" * 512, "last/ü.tif": b"", "x/y": b"c" * 513}
    path = write_tar(tmp_path / "a.tar", files, FORMS[form])
    assert found_in(path) == listed_by_tarfile(path)
    assert [name for name, _, _ in found_in(path)] == list(files)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=8),
    lengths=st.lists(st.integers(1, 400), min_size=8, max_size=8),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_sizes_and_lengths_of_names_are_walked_as_tarfile_does(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], lengths: list[int], form: int
) -> None:
    files = {
        "d/" * (lengths[number] // 2) + f"{number}": bytes([number]) * size
        for number, size in enumerate(sizes)
    }
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", files, form)
    assert found_in(path) == listed_by_tarfile(path)


def test_folders_links_and_global_attributes_are_no_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        folder = tarfile.TarInfo(LONG)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, LONG * 2
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("file"))
    assert [name for name, _, _ in found_in(path)] == ["file"]
    assert found_in(path) == listed_by_tarfile(path)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE])
def test_every_kind_of_regular_file_is_found(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("file")
        member.type = kind
        tar.addfile(member)
    assert found_in(tmp_path / "a.tar") == [("file", 512, 0)]


def test_what_gnu_tar_keeps_in_place_of_a_prefix_is_no_part_of_the_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a/b": b""})
    content = bytearray(path.read_bytes())
    content[345:356] = b"14000000000"  # a time of access
    checksum = sum(content[:148]) + 8 * ord(" ") + sum(content[156:512])
    content[148:156] = b"%06o\0 " % checksum
    path.write_bytes(content)
    assert found_in(path) == [("a/b", 512, 0)]


def test_a_long_link_target_is_not_taken_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, LONG * 2
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("file"))
    assert [name for name, _, _ in found_in(path)] == ["file"]


def cut(tmp_path: Path, size: int) -> Path:
    whole = write_tar(tmp_path / "whole.tar", {SHORT: b"a" * 1000, LONG: b"b" * 1000}).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[:size])
    return path


# In the first header, its content, before and in the long name, in the last content, and
# between the last member and the end marker.
@pytest.mark.parametrize("size", [0, 100, 512, 1000, 1536, 2048, 2300, 3072, 3500, 4096])
def test_a_truncated_tar_is_an_error_wherever_it_was_cut(tmp_path: Path, size: int) -> None:
    with pytest.raises(PrepError, match=r"cut\.tar is truncated: it has .* copy or download"):
        found_in(cut(tmp_path, size))


def test_a_tar_with_an_end_marker_of_one_block_is_whole(tmp_path: Path) -> None:
    assert len(found_in(cut(tmp_path, 4608))) == 2


@pytest.mark.parametrize("place", [0, 60, 130, 150, 156, 260, 400])
def test_a_header_with_a_wrong_byte_is_an_error_that_names_its_place(
    tmp_path: Path, place: int
) -> None:
    path = write_tar(tmp_path / "a.tar", {"a/b": b"x" * 1000, "a/c": b"y"})
    content = bytearray(path.read_bytes())
    content[1536 + place] ^= 0x11
    path.write_bytes(content)
    with pytest.raises(PrepError, match=r"no readable header at byte 1,536"):
        found_in(path)


def test_a_file_that_is_no_tar_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(PrepError, match="not a plain tar"):
        found_in(path)


def test_a_hole_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    files = {f"a/{number}": b"x" * 100_000 for number in range(20)}
    path = write_tar(tmp_path / "a.tar", files)
    content = bytearray(path.read_bytes())
    hole = listed_by_tarfile(path)[5][1] - 512
    content[hole : hole + 50_000] = bytes(50_000)
    path.write_bytes(content)
    with pytest.raises(PrepError, match=f"ends at byte {hole:,} of .*missing there"):
        found_in(path)
