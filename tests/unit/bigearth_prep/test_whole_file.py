"""A file is there in full, or as it was before."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bigearth_prep.whole_file import drop_partial_files, whole_file, write_text


def test_a_finished_file_has_its_name_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "note.txt", "whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["note.txt"]
    assert (tmp_path / "new" / "note.txt").read_text(encoding="utf-8") == "whole"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    with whole_file(path) as partial:
        partial.write_text("whole", encoding="utf-8")
        assert not path.exists()
    assert path.exists()


def test_two_writers_of_one_file_do_not_meet_and_what_the_killed_leave_is_removed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "note.txt"
    with whole_file(path, is_shared=True) as slow:
        slow.write_text("same", encoding="utf-8")
        with whole_file(path, is_shared=True) as fast:
            fast.write_text("same", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "same"
    (tmp_path / "deep" / "note.txt.1234.partial").write_text("half", encoding="utf-8")
    drop_partial_files(tmp_path)
    assert [file.name for file in path.parent.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("kind", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
@pytest.mark.parametrize("of", [stat.S_ISDIR, stat.S_ISREG])
def test_a_file_system_that_does_not_sync_folders_is_no_fault(
    kind: int, of: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        if of(os.fstat(descriptor).st_mode):
            raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(os, "fsync", refuse)
    if of is stat.S_ISDIR and kind != errno.EIO:
        write_text(tmp_path / "note.txt", "whole")
        assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "whole"
    else:
        with pytest.raises(OSError, match=os.strerror(kind)):
            write_text(tmp_path / "note.txt", "whole")
