"""A run on shards: it stops and goes on as if it never had, alone or on several ranks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dinomm_train.checkpoint import Checkpoint, read_checkpoint
from dinomm_train.config import (
    ComputeConfig,
    CropConfig,
    HeadConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    ViewConfig,
)
from dinomm_train.config_text import config_to_toml, read_config
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner, StepReport
from dinomm_train.metrics import read_metrics
from dinomm_train.schedules import StepValues
from dinomm_train.trainer import LaunchOptions, PretrainResult, pretrain
from tests.shard_fixture import make_dataset

TINY = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=2, width=24, heads=2),
    head=HeadConfig(hidden=32, bottleneck=16, prototypes=64),
    views=ViewConfig(crops=CropConfig(global_px=24, local_px=16, local_count=2)),
    optim=OptimConfig(frozen_last_layer_epochs=1),
    schedule=ScheduleConfig(epochs=3, warmup_epochs=1, lr=0.01),
    sampling=SamplingConfig(global_batch=8, seed=3),
    output=OutputConfig(log_every_steps=2),
)
TOTAL_STEPS = 9
"""Of 3 epochs over 28 samples in batches of 8, the last 4 of an epoch left out."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("shards"), samples={"train": 28})


def run_here(
    dataset: Path, run: Path, config: RunConfig = TINY, *, max_steps: int = 0
) -> PretrainResult:
    options = LaunchOptions(device="cpu", max_steps=max_steps, threads=1)
    return pretrain(dataset, run, config, options)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert run_here(dataset, run).is_finished
    return run


def tensors_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    parts = {
        "student": checkpoint.student,
        "teacher": checkpoint.teacher,
        "loss": checkpoint.loss,
        **{f"adam.{index}": state for index, state in checkpoint.optimizer["state"].items()},
    }
    return {
        f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()
    }


def assert_same_weights(found: Path, expected: Path) -> None:
    mine, other = (tensors_of(read_checkpoint(run)) for run in (found, expected))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("stops", [(1,), (4,), (3, 2, 2)])
def test_a_run_that_stops_and_goes_on_ends_with_the_weights_of_one_that_never_stopped(
    stops: tuple[int, ...], dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    for max_steps in stops:
        assert not run_here(dataset, tmp_path, max_steps=max_steps).is_finished
    assert read_checkpoint(tmp_path).step == sum(stops)
    assert run_here(dataset, tmp_path).is_finished
    assert_same_weights(tmp_path, undisturbed)


def test_training_moves_every_part_and_reports_finite_losses(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, max_steps=1)
    first, last = tensors_of(read_checkpoint(tmp_path)), tensors_of(read_checkpoint(undisturbed))
    still = [name for name, tensor in first.items() if torch.equal(tensor, last[name])]
    assert not still
    rows = read_metrics(undisturbed)
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 8, 9]
    assert all(0 < row["loss"] < 20 for row in rows)


def test_the_last_layer_stays_for_the_first_epoch_and_moves_in_the_second(
    dataset: Path, tmp_path: Path
) -> None:
    prototypes = []
    for _ in range(4):
        run_here(dataset, tmp_path, max_steps=1)
        prototypes.append(read_checkpoint(tmp_path).student["head.prototypes.directions"])
    assert torch.equal(prototypes[0], prototypes[2])
    assert not torch.equal(prototypes[2], prototypes[3])


def test_the_run_holds_its_configuration_and_its_last_checkpoints(undisturbed: Path) -> None:
    assert read_config(undisturbed / "config.toml", RunConfig()) == TINY
    stored = read_checkpoint(undisturbed)
    assert (stored.step, stored.steps_per_epoch, stored.config) == (TOTAL_STEPS, 3, TINY)
    names = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert names == ["latest", "step-00000003.pt", "step-00000006.pt", "step-00000009.pt"]


def test_a_finished_run_says_so_and_changes_nothing(
    dataset: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (undisturbed / "checkpoints" / "latest").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        result = run_here(dataset, undisturbed)
    assert result.is_finished
    assert "is finished: all 9 steps are done" in caplog.text
    assert (undisturbed / "checkpoints" / "latest").stat().st_mtime_ns == before


def test_another_configuration_or_dataset_is_refused_with_the_difference(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    longer = replace(TINY, schedule=replace(TINY.schedule, epochs=4))
    with pytest.raises(TrainError, match=r"schedule.epochs: 3 -> 4"):
        run_here(dataset, undisturbed, longer)
    other = make_dataset(tmp_path / "other", samples={"train": 28}, seed=1)
    with pytest.raises(TrainError, match=r"dataset: \w{32} -> \w{32}"):
        run_here(other, undisturbed)


def test_how_often_a_run_saves_may_change_when_it_goes_on(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, max_steps=1)
    often = OutputConfig(checkpoint_every_steps=2, keep_last=9)
    run_here(dataset, tmp_path, replace(TINY, output=often))
    steps = [int(path.stem.split("-")[1]) for path in (tmp_path / "checkpoints").glob("*.pt")]
    assert sorted(steps) == [1, 2, 4, 6, 8, 9]
    assert_same_weights(tmp_path, undisturbed)


def test_a_run_killed_between_checkpoints_comes_back_to_the_same_weights(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, max_steps=5)
    newest = tmp_path / "checkpoints" / "step-00000005.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert run_here(dataset, tmp_path).is_finished
    assert_same_weights(tmp_path, undisturbed)
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps == [2, 3, 4, 6, 8, 9]


def test_steps_whose_loss_is_not_finite_are_skipped_and_counted(
    dataset: Path, tmp_path: Path
) -> None:
    wild = replace(TINY, schedule=replace(TINY.schedule, lr=1e30, warmup_epochs=0))
    run_here(dataset, tmp_path, wild)
    stored = read_checkpoint(tmp_path)
    assert int(stored.skips["total"]) == int(stored.skips["in_row"]) == TOTAL_STEPS - 1
    assert all(one.isfinite().all() for one in stored.student.values())


def start(
    dataset: Path, run: Path, config: RunConfig, environment: dict[str, str]
) -> subprocess.Popen[str]:
    """A process of its own that runs the command."""
    file = run.parent / f"{run.name}.toml"
    file.write_text(config_to_toml(config), encoding="utf-8")
    arguments = ["pretrain", dataset, "--out", run, "--config", file, "--device", "cpu"]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from dinomm_train.cli import main; main()",
            *map(str, arguments),
            "--threads=1",
            "--json",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_ranks(
    dataset: Path, run: Path, config: RunConfig, world: int
) -> list[subprocess.Popen[str]]:
    """Processes with the variables that torchrun sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(dataset, run, config, place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]


def wait_for_metrics(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").is_file() or not read_metrics(run):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


GENTLE = replace(
    TINY,
    model=replace(TINY.model, drop_path=0.5),
    schedule=replace(TINY.schedule, epochs=2, lr=0.001),
)
"""For comparing roundings: where a gradient is all but zero, its rounding decides the sign of
Adam's step, hence the small learning rate."""


@pytest.fixture(scope="module")
def gentle(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "gentle"
    run_here(dataset, run, GENTLE)
    return run


def assert_close_weights(found: Path, expected: Path) -> None:
    mine, other = (tensors_of(read_checkpoint(run)) for run in (found, expected))
    assert read_checkpoint(found).step == read_checkpoint(expected).step == 6
    for name, tensor in mine.items():
        if not name.startswith("adam"):
            assert torch.allclose(tensor, other[name], atol=2e-5), name


def test_two_ranks_give_the_weights_of_one_process_on_the_joint_batch(
    dataset: Path, gentle: Path, tmp_path: Path
) -> None:
    # Stochastic depth is drawn per sample, and ranks may take their samples in parts.
    config = replace(GENTLE, compute=ComputeConfig(micro_batch=3))
    processes = start_ranks(dataset, tmp_path / "two", config, world=2)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert_close_weights(tmp_path / "two", gentle)


@pytest.mark.slow
def test_compiled_blocks_give_the_weights_of_plain_ones(
    dataset: Path, gentle: Path, tmp_path: Path
) -> None:
    config = replace(GENTLE, compute=ComputeConfig(compile=True))
    process = start(dataset, tmp_path / "run", config, {})
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_close_weights(tmp_path / "run", gentle)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_the_run_goes_on(
    dataset: Path, tmp_path: Path
) -> None:
    endless = replace(TINY, schedule=replace(TINY.schedule, epochs=10_000))
    run = tmp_path / "run"
    processes = start_ranks(dataset, run, endless, world=2)
    wait_for_metrics(run, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [85, 85], "".join(map(str, outputs))
    reports = [json.loads(output) for output, _ in outputs if output]
    stopped_at = read_checkpoint(run).step
    assert [report["step"] for report in reports] == [stopped_at]
    goes_on = run_here(dataset, run, endless, max_steps=1)
    assert goes_on.step == stopped_at + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_after_the_step_it_came_in(
    number: signal.Signals, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step = Learner.step

    def step_with_signal(self: Learner, views: Views, values: StepValues, step: int) -> StepReport:
        if step == 3:
            os.kill(os.getpid(), number)
        return real_step(self, views, values, step)

    monkeypatch.setattr(Learner, "step", step_with_signal)
    result = run_here(dataset, tmp_path)
    assert (result.step, result.signal_number) == (4, number)
    assert read_checkpoint(tmp_path).step == 4


def test_a_signal_that_comes_after_the_ranks_agreed_waits_for_the_next_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreements = 0

    def agree_then_signal(number: int, _: Ranks) -> int:
        nonlocal agreements
        agreements += 1
        if agreements == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return number

    monkeypatch.setattr("dinomm_train.trainer.greatest_over_ranks", agree_then_signal)
    assert run_here(dataset, tmp_path).step == 3
