"""Checkpoints are written beside the steps: what was saved, one at a time, errors heard."""

import threading
from dataclasses import replace
from pathlib import Path

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


def test_what_is_written_is_the_state_at_the_save(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, real_save = threading.Event(), save_checkpoint

    def save_late(run: Path, checkpoint: Checkpoint, **policy: int) -> Path:
        assert may_write.wait(timeout=30)
        return real_save(run, checkpoint, **policy)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_late)
    weights = torch.zeros(3)
    with CheckpointWriter(tmp_path, OutputConfig()) as writer:
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
    with CheckpointWriter(tmp_path, output) as writer:
        for step in (1, 2, 3):
            writer.save(replace(sample, step=step))
    found = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert found == ["step-00000002.pt", "step-00000003.pt"]


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_an_error_of_the_thread_is_heard_by_the_next_save_and_at_the_end(
    kind: type[Exception], sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise kind("the disk is full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)
    message = r"the checkpoint of step 1 could not be written .*the disk is full.*bytes are free"
    writer = CheckpointWriter(tmp_path, OutputConfig())
    writer.save(sample)
    with pytest.raises(TrainError, match=message):
        writer.save(replace(sample, step=2))
    with pytest.raises(TrainError, match=message), writer:
        writer.save(sample)


def test_an_error_of_the_loop_is_not_hidden_by_one_of_the_thread(
    sample: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fail)

    def save_and_fail() -> None:
        with CheckpointWriter(tmp_path, OutputConfig()) as writer:
            writer.save(sample)
            raise KeyError("loop")

    with pytest.raises(KeyError, match="loop"):
        save_and_fail()


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
