"""A file is there in full, or as it was before."""

from pathlib import Path

import pytest

from bigearth_prep.whole_file import whole_file, write_text


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
