"""A process ends itself where it stands still; what goes on, or goes wrong, is left alone."""

import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch

from dinomm_train import hang_watch
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError
from dinomm_train.hang_watch import watch_for_hangs
from dinomm_train.stop_request import StoppedEarly
from tests.run_processes import places

ALONE = Ranks(rank=0, world=1, device=torch.device("cpu"))

HANGING = """
import logging, time, torch
from dinomm_train.distributed import Ranks
from dinomm_train.hang_watch import watch_for_hangs
logging.basicConfig(format="%(message)s")
with watch_for_hangs(Ranks(rank=0, world=1, device=torch.device("cpu")), 0.5) as watch:
    for step in range(20):
        watch.mark(f"in step {step}", is_steady=True)
        time.sleep(0.05)
    time.sleep(600)
"""


FETCHING = """
import logging, sys, time, torch
from dinomm_train.distributed import Ranks
from dinomm_train.hang_watch import watch_for_hangs
logging.basicConfig(format="%(message)s")
with watch_for_hangs(Ranks(rank=0, world=1, device=torch.device("cpu")), 1.0) as watch:
    watch.mark(sys.argv[1], is_steady=True)
    for shard in range(40):
        watch.note_shards()
        time.sleep(0.1)
"""


def test_a_process_that_stands_still_ends_with_a_word_on_where() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ,
    )
    assert ended.returncode == 1
    assert "error: no progress for" in ended.stderr
    assert "is in step 19. The run ends here" in ended.stderr


def test_a_store_that_is_gone_when_the_watch_begins_is_one_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in places(2)[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hang_watch, "_ANSWER", timedelta(milliseconds=100))
    second = Ranks(rank=1, world=2, device=torch.device("cpu"))
    told = pytest.raises(TrainError, match=r"rank 1: rank 0, or .* start all again")
    with told, watch_for_hangs(second, 60.0):
        raise AssertionError


def test_what_goes_on_or_is_not_watched_is_left_alone() -> None:
    with watch_for_hangs(ALONE, 1.0) as watch:
        for _ in range(20):
            watch.mark("working", is_steady=True)
            time.sleep(0.1)
    with watch_for_hangs(ALONE, 0.0) as watch:
        watch.mark("working", is_steady=True)


@pytest.mark.parametrize(("doing", "code"), [("reading the batch of step 3", 0), ("in step 3", 1)])
def test_shards_that_come_count_as_progress_where_they_are_waited_for(
    doing: str, code: int
) -> None:
    script = [sys.executable, "-c", FETCHING, doing]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code, ended.stderr
    assert ("no progress for" in ended.stderr) == bool(code)


def test_errors_pass_through_as_they_are() -> None:
    for error in (StoppedEarly(15), TrainError("data"), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(error), match=str(error)), watch_for_hangs(ALONE, 60.0):
            raise error
