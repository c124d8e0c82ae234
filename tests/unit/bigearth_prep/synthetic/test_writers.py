import tarfile
from pathlib import Path

from bigearth_prep.synthetic.writers import folder_writer, tar_writer

FILES = {"root/a/one.tif": b"1" * 700, f"root/{'b' * 70}/{'c' * 80}_B01.tif": b"2"}


def test_a_folder_holds_what_was_written(tmp_path: Path) -> None:
    with folder_writer(tmp_path) as write:
        for name, content in FILES.items():
            write(name, content)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES


def test_a_tar_holds_regular_files_only_in_order_and_without_clock_or_user(tmp_path: Path) -> None:
    with tar_writer(tmp_path / "archive.tar") as write:
        for name, content in FILES.items():
            write(name, content)
    with tarfile.open(tmp_path / "archive.tar") as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert contents == FILES
    assert [member.name for member in members] == list(FILES)
    assert {member.type for member in members} == {tarfile.REGTYPE}
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0, 0, "", "", 1704067200)
    }


def test_long_names_take_a_gnu_block_and_short_ones_none(tmp_path: Path) -> None:
    with tar_writer(tmp_path / "archive.tar") as write:
        for name, content in FILES.items():
            write(name, content)
    raw = (tmp_path / "archive.tar").read_bytes()
    assert raw.count(b"././@LongLink") == 1
    assert raw[257:265] == b"ustar  \0"
