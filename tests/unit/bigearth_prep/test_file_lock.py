"""A lock keeps others out for as long as it is held, and leaves nothing behind."""

import errno
import fcntl
import logging
from pathlib import Path
from typing import TextIO

import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.file_lock import hold_lock


def test_another_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with (
        hold_lock(lock, "wait for it"),
        pytest.raises(PrepError, match="wait for it"),
        hold_lock(lock, "wait for it"),
    ):
        pass
    with hold_lock(lock, "wait for it"):
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_lock_file_that_its_holder_removes_meanwhile_is_not_the_one_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_made_anew: bool
) -> None:
    lock, real_flock = tmp_path / ".lock", fcntl.flock

    def flock_after_the_holder_ended(stream: TextIO, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real_flock)
        lock.unlink()
        if is_made_anew:
            lock.touch()
        real_flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_ended)
    with (
        hold_lock(lock, "wait for it"),
        pytest.raises(PrepError, match="wait for it"),
        hold_lock(lock, "wait for it"),
    ):
        pass


def test_a_file_system_without_locks_is_taken_on_trust_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), hold_lock(tmp_path / ".lock", "wait"):
        pass
    assert "cannot be locked; make sure no other process works there" in caplog.text


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(PrepError, match="nowhere cannot be written to"),
        hold_lock(tmp_path / "nowhere" / ".lock", "wait"),
    ):
        pass


def test_a_mount_on_which_no_file_stays_the_same_is_taken_on_trust_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.path.samestat", lambda *_: False)
    with hold_lock(tmp_path / ".lock", "wait"):
        pass
    assert "cannot be locked; make sure no other process works there" in caplog.text
