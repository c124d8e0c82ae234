"""Checkpoints are written beside the steps: what was saved, one at a time, errors heard."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigearth_prep.card import read_card
from dinomm_train import checkpoint_writer
from dinomm_train.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from dinomm_train.checkpoint_writer import CheckpointWriter, HostCopies
from dinomm_train.config import OutputConfig, RunConfig
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    dataset = make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1}, size_px=4)
    return Checkpoint(
        step=1,
        steps_per_epoch=3,
        config=RunConfig(),
        card=read_card(dataset),
        dataset_checksum="ab" * 16,
        student={"weight": torch.zeros(3)},
        teacher={"weight": torch.zeros(3)},
        loss={"centre": torch.zeros(3)},
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.5}]},
        skips={"total": torch.tensor(0)},
    )


def unwatched(doing: str) -> None:
    pass


def test_what_is_written_is_the_state_at_the_save(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, real_save = threading.Event(), save_checkpoint

    def save_late(run: Path, checkpoint: Checkpoint, **policy: Any) -> Path:  # noqa: ANN401
        assert may_write.wait(timeout=30)
        return real_save(run, checkpoint, **policy)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_late)
    weights = torch.zeros(3)
    with CheckpointWriter(tmp_path, OutputConfig(), unwatched) as writer:
        writer.save(replace(sample, student={"weight": weights}))
        weights.add_(1)
        may_write.set()
        writer.save(replace(sample, step=2, student={"weight": weights}))
        weights.add_(1)
    for step in (1, 2):
        stored = read_checkpoint(tmp_path / "checkpoints" / f"step-{step:08}.pt")
        assert torch.equal(stored.student["weight"], torch.full((3,), step - 1.0))


def test_the_policy_of_the_configuration_holds(sample: Checkpoint, tmp_path: Path) -> None:
    output = OutputConfig(keep_last=1, keep_every_steps=2)
    with CheckpointWriter(tmp_path, output, unwatched) as writer:
        for step in (1, 2, 3):
            writer.save(replace(sample, step=step))
    found = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert found == ["step-00000002.pt", "step-00000003.pt"]


def test_an_error_without_words_is_told_by_its_type(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise OSError

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    message = r"\(OSError; [\d,]+ bytes are free, unless a quota on bytes or on files leaves less\)"
    with (
        pytest.raises(TrainError, match=message),
        CheckpointWriter(tmp_path, OutputConfig(), unwatched) as writer,
    ):
        writer.save(sample)


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_an_error_of_the_thread_is_heard_by_the_next_save_and_at_the_end(
    kind: type[Exception], sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise kind("the disk is full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    message = r"the checkpoint of step 1 could not be written .*the disk is full.*bytes are free"
    writer = CheckpointWriter(tmp_path, OutputConfig(), unwatched)
    writer.save(sample)
    with pytest.raises(TrainError, match=message):
        writer.save(replace(sample, step=2))
    with pytest.raises(TrainError, match=message), writer:
        writer.save(sample)


def test_a_mount_that_is_gone_is_said_in_one_message_too(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise OSError("Stale file handle")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    monkeypatch.setattr(shutil, "disk_usage", fail)
    writer = CheckpointWriter(tmp_path, OutputConfig(), unwatched)
    writer.save(sample)
    with pytest.raises(TrainError, match=r"could not be written to .* \(Stale file handle\); make"):
        writer.wait()


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_thread(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)

    def save_and_fail() -> None:
        with CheckpointWriter(tmp_path, OutputConfig(), unwatched) as writer:
            writer.save(sample)
            raise KeyError("loop")

    with pytest.raises(KeyError, match="loop"):
        save_and_fail()


def test_a_write_that_an_error_of_the_loop_waits_for_is_no_hang_either(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_told = threading.Event()

    def save_until_told(*_: object, **__: object) -> Path:
        is_told.wait(timeout=30)
        return tmp_path

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_until_told)

    def save_and_fail() -> None:
        with CheckpointWriter(tmp_path, OutputConfig(), lambda _: is_told.set()) as writer:
            writer.save(sample)
            raise KeyError("loop")

    with pytest.raises(KeyError, match="loop"):
        save_and_fail()
    assert is_told.is_set()


def test_copies_go_into_the_same_memory_each_time() -> None:
    copies, weights = HostCopies(), torch.zeros(2)
    first = copies.take({"part": {"weight": weights, "list": [weights, 3]}, "number": 1})
    weights.add_(1)
    second = copies.take({"part": {"weight": weights, "list": [weights, 3]}, "number": 1})
    assert first["part"]["weight"].data_ptr() == second["part"]["weight"].data_ptr()
    assert torch.equal(second["part"]["list"][0], torch.ones(2))
    assert (second["part"]["list"][1], second["number"]) == (3, 1)
    larger = copies.take({"part": {"weight": torch.zeros(5)}})
    assert larger["part"]["weight"].shape == (5,)


SLOW_THEN_STILL = """
import logging, os, sys, time, torch
from dataclasses import replace
from pathlib import Path
from dinomm_train import checkpoint_writer, steady_file
from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.checkpoint_writer import CheckpointWriter
from dinomm_train.config import OutputConfig
from dinomm_train.distributed import Ranks
from dinomm_train.hang_watch import watch_for_hangs

run, limit_s, pieces = Path(sys.argv[1]), 2.0, 0

def reach_a_slow_disk(_):
    global pieces
    pieces += 1
    time.sleep(0.2 if pieces <= 30 else 600)

logging.basicConfig(format="%(message)s")
stored = read_checkpoint(run)
large = replace(stored, step=2, student={"weight": torch.zeros(40_000)})
steady_file.PIECE_BYTES, os.fdatasync = 4_000, reach_a_slow_disk
with watch_for_hangs(Ranks(rank=0, world=1, device=torch.device("cpu")), limit_s) as watch:
    with CheckpointWriter(run, OutputConfig(), watch.mark) as writer:
        watch.before_end = lambda: print(pieces)
        watch.mark("after step 1", is_steady=True)
        writer.save(large)
        writer.wait()
"""


def test_a_write_that_takes_longer_than_a_hang_is_waited_for_until_it_stands_still(
    sample: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, sample, keep_last=1)
    ended = subprocess.run(
        [sys.executable, "-c", SLOW_THEN_STILL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ,
    )
    assert ended.returncode == 1, ended.stderr
    # Thirty pieces take three times the limit; the next one never ends.
    assert ended.stdout.split() == ["31"], ended.stderr
    assert "error: no progress for" in ended.stderr
    assert "is writing the checkpoint of step 2. The run ends here" in ended.stderr
    assert read_checkpoint(tmp_path).step == 1
