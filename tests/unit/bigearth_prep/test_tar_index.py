"""The index of a tar: what it says of each patch, and when it is made anew."""

import io
import logging
import os
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bigearth_prep.tar_index import (
    INDEX_SCHEMA,
    index_path,
    index_tar,
    is_indexed,
    load_index,
    save_index,
)

FILES = {
    "root/p/S2_a/S2_a_B01.tif": b"one",
    "root/p/S2_a/S2_a_B02.tif": b"three",
    "root/q/S2_b/S2_b_B01.tif": b"five",
    "root/p/S2_a/S2_a_labels_metadata.json": b"{}",
}


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_files_are_gathered_by_patch_even_where_others_lie_between(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    index = index_tar(path)
    assert index.schema.equals(INDEX_SCHEMA)
    content = path.read_bytes()
    found = {
        f"{row['folder']}/{row['folder'].rpartition('/')[2]}{member['ending']}": content[
            member["start"] : member["start"] + member["bytes"]
        ]
        for row in index.to_pylist()
        for member in row["members"]
    }
    assert found == FILES
    assert index.column("folder").to_pylist() == ["root/p/S2_a", "root/q/S2_b"]


def test_files_of_no_patch_are_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strangers = {"README": b"", "root/p/S2_a/notes.txt": b"x"}
    index = index_tar(write_tar(tmp_path / "a.tar", FILES | strangers))
    assert len(index) == 2
    assert "2 files belong to no patch" in caplog.text


def test_a_tar_without_files_has_an_empty_index(tmp_path: Path) -> None:
    index = index_tar(write_tar(tmp_path / "a.tar", {}))
    assert (len(index), index.schema) == (0, INDEX_SCHEMA)


@pytest.mark.parametrize("with_cache", [False, True])
def test_a_kept_index_is_the_one_that_was_made(tmp_path: Path, *, with_cache: bool) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    cache = tmp_path / "cache" if with_cache else None
    assert load_index(path, cache) is None
    index = index_tar(path)
    save_index(index, path, cache)
    kept = load_index(path, cache)
    assert kept is not None
    assert kept.equals(index)
    expected = tmp_path / ("cache" if with_cache else "") / "a.tar.index.parquet"
    assert index_path(path, cache) == expected
    assert expected.exists()


def test_an_index_of_another_size_or_time_is_not_used(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    save_index(index_tar(path), path, None)
    status = path.stat()
    assert is_indexed(path, None)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not is_indexed(path, None)
    assert load_index(path, None) is None
    with path.open("ab") as stream:
        stream.write(bytes(512))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not is_indexed(path, None)


def test_a_broken_or_foreign_index_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    index_path(path, None).write_bytes(b"PAR1 no more")
    assert load_index(path, None) is None
    assert "made anew" in caplog.text
    pq.write_table(index_tar(path), index_path(path, None))
    assert load_index(path, None) is None


def test_a_folder_that_takes_no_file_is_worth_a_warning_that_names_the_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        save_index(index_tar(path), path, tmp_path / "file" / "cache")
    assert "--cache names another place" in caplog.text
