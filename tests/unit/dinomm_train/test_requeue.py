"""A file asks for the run to be started again, where the disk takes it."""

import errno
import logging
from pathlib import Path

import pytest

from dinomm_train.requeue import REQUEUE_NAME, ask_for_requeue, withdraw_requeue


def test_what_is_asked_for_can_be_withdrawn(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ask_for_requeue(run)
    assert (run / REQUEUE_NAME).is_file()
    withdraw_requeue(run)
    withdraw_requeue(run)
    assert not (run / REQUEUE_NAME).exists()


def test_a_disk_that_takes_no_more_files_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "touch", refuse)
    with caplog.at_level(logging.WARNING):
        ask_for_requeue(tmp_path)
    assert f"{tmp_path / REQUEUE_NAME} could not be written: [Errno 122] Disk" in caplog.text
