"""A large file is the same as any other, and is told of piece by piece as it reaches the disk."""

import os
from pathlib import Path

import pytest

from dinomm_train import steady_file
from dinomm_train.steady_file import SteadyFile


@pytest.mark.parametrize("writes", [[b"abcdefghij"], [b"a", b"", b"bcde", b"fghij"]])
def test_each_piece_is_on_disk_before_it_is_told_of(
    writes: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = tmp_path / "large", list[str]()
    monkeypatch.setattr(steady_file, "PIECE_BYTES", 4)
    monkeypatch.setattr(os, "fdatasync", lambda _: events.append(f"on disk: {path.read_text()}"))
    with SteadyFile(path, lambda: events.append("told")) as file:
        assert [file.write(content) for content in writes] == [len(one) for one in writes]
    assert path.read_bytes() == b"abcdefghij"
    assert events == ["on disk: abcd", "told", "on disk: abcdefgh", "told"]
