"""A run on shards: it stops and goes on as if it never had, alone or on several ranks."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from dinomm_train import checkpoint_writer
from dinomm_train.agreement import Agreement
from dinomm_train.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from dinomm_train.config import (
    ComputeConfig,
    CropConfig,
    HeadConfig,
    HealthConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    ViewConfig,
)
from dinomm_train.config_text import read_config
from dinomm_train.data.views import Views
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner, StepReport
from dinomm_train.metrics import read_metrics
from dinomm_train.requeue import REQUEUE_NAME
from dinomm_train.schedules import StepValues
from dinomm_train.stop_request import StopRequest
from dinomm_train.trainer import LaunchOptions, PretrainResult, pretrain
from tests.run_processes import Forks, Process, places, pretrain_arguments
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
    with StopRequest() as stop:
        return pretrain(dataset, run, config, options, stop)


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


def test_a_run_on_standardized_data_says_once_that_its_fill_is_an_everyday_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    standardized = make_dataset(tmp_path / "shards", scheme="zscore", samples={"train": 28})
    run_here(standardized, tmp_path / "run", max_steps=1)
    assert caplog.text.count("views.sensor_drop.fill is -1, but") == 1


def test_an_invocation_too_short_to_warn_of_collapse_says_so(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(dataset, tmp_path / "run", max_steps=1)
    assert "up to step 1 there are 0 look(s)" in caplog.text


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


def start_ranks(
    forks: Forks, dataset: str | Path, run: Path, config: RunConfig, world: int, *more: str
) -> list[Process]:
    """Processes with the variables that torchrun sets."""
    arguments = pretrain_arguments(dataset, run, config, *more)
    return [forks.start(arguments, place) for place in places(world)]


def wait_for_metrics(run: Path, process: Process) -> None:
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").is_file() or not read_metrics(run):
        assert process.poll() is None, process.errors.read_text()
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
    forks: Forks, dataset: Path, gentle: Path, tmp_path: Path
) -> None:
    # Stochastic depth is drawn per sample, and ranks may take their samples in parts.
    config = replace(GENTLE, compute=ComputeConfig(micro_batch=3))
    processes = start_ranks(forks, dataset, tmp_path / "two", config, 2)
    assert [process.wait() for process in processes] == [0, 0], told(processes)
    assert_close_weights(tmp_path / "two", gentle)


@pytest.mark.slow
def test_compiled_blocks_give_the_weights_of_plain_ones(
    forks: Forks, dataset: Path, gentle: Path, tmp_path: Path
) -> None:
    config = replace(GENTLE, compute=ComputeConfig(compile=True))
    process = forks.start(pretrain_arguments(dataset, tmp_path / "run", config), {})
    assert process.wait(timeout_s=300) == 0, process.errors.read_text()
    assert_close_weights(tmp_path / "run", gentle)


def told(processes: list[Process]) -> str:
    return "\n".join(process.errors.read_text() for process in processes)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_the_run_goes_on(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    endless = replace(TINY, schedule=replace(TINY.schedule, epochs=10_000))
    run = tmp_path / "run"
    processes = start_ranks(forks, dataset, run, endless, 2)
    wait_for_metrics(run, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait() for process in processes] == [85, 85], told(processes)
    reports = [json.loads(text) for one in processes if (text := one.output.read_text())]
    stopped_at = read_checkpoint(run).step
    assert [report["step"] for report in reports] == [stopped_at]
    assert re.findall(r"stopped after step (\d+)", told(processes)) == [str(stopped_at)] * 2
    assert (run / REQUEUE_NAME).exists()
    goes_on = run_here(dataset, run, endless, max_steps=1)
    assert goes_on.step == stopped_at + 1
    assert not (run / REQUEUE_NAME).exists()


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
    real_exchange = Agreement.exchange
    agreements = 0

    def agree_then_signal(self: Agreement, number: int) -> int:
        nonlocal agreements
        agreements += 1
        heard = real_exchange(self, number)
        if agreements == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return heard

    monkeypatch.setattr(Agreement, "exchange", agree_then_signal)
    # The first agreement is before the first step.
    assert run_here(dataset, tmp_path).step == 3


def test_steps_go_on_while_a_checkpoint_is_written_and_the_next_waits_for_it(
    dataset: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_at_start: list[int] = []
    real_save, real_step = save_checkpoint, Learner.step
    is_stepping = threading.Event()

    def save_once_steps_go_on(run: Path, checkpoint: Checkpoint, **policy: Any) -> Path:  # noqa: ANN401
        steps_at_start.append(checkpoint.step)
        if checkpoint.step < TOTAL_STEPS:
            is_stepping.clear()
            assert is_stepping.wait(timeout=30)
        return real_save(run, checkpoint, **policy)

    def step_and_tell(self: Learner, views: Views, values: StepValues, step: int) -> StepReport:
        report = real_step(self, views, values, step)
        is_stepping.set()
        return report

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", save_once_steps_go_on)
    monkeypatch.setattr(Learner, "step", step_and_tell)
    assert run_here(dataset, tmp_path).is_finished
    assert steps_at_start == [3, 6, 9]
    # What was written is the state at the save, not that of the steps done meanwhile.
    assert_same_weights(tmp_path, undisturbed)
    newest = [tmp_path, undisturbed]
    for step in (3, 6):
        mine, other = (
            tensors_of(read_checkpoint(run / "checkpoints" / f"step-{step:08}.pt"))
            for run in newest
        )
        assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def test_a_disk_that_is_full_while_training_goes_on_ends_the_run_with_a_message(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    endless = replace(TINY, schedule=replace(TINY.schedule, epochs=10_000))
    assert run_here(dataset, run, endless, max_steps=3).step == 3
    arguments = pretrain_arguments(dataset, run, endless)
    process = forks.start(arguments, {"DINOMM_TEST_FILE_BYTES": "20000"})
    assert process.wait() == 1
    said = process.errors.read_text()
    assert re.search(
        r"error: the checkpoint of step 6 could not be written to .*; make space", said
    )
    assert "Traceback" not in said
    assert read_checkpoint(run).step == 3
    assert not list((run / "checkpoints").glob("*.partial"))


def test_a_run_that_stops_between_two_rows_leaves_the_steps_since_the_last_one(
    dataset: Path, tmp_path: Path
) -> None:
    config = replace(TINY, output=replace(TINY.output, log_every_steps=4))
    run_here(dataset, tmp_path, config, max_steps=5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [3, 4, 5]
    run_here(dataset, tmp_path, config)
    assert [row["step"] for row in read_metrics(tmp_path)] == [3, 4, 5, 6, 8, 9]


def test_checkpoints_are_kept_by_age_and_by_step(dataset: Path, tmp_path: Path) -> None:
    output = replace(TINY.output, checkpoint_every_steps=1, keep_last=2, keep_every_steps=4)
    run_here(dataset, tmp_path, replace(TINY, output=output))
    steps = [int(path.stem.split("-")[1]) for path in (tmp_path / "checkpoints").glob("*.pt")]
    assert sorted(steps) == [4, 8, 9]


def test_weights_of_another_network_are_refused_before_the_first_step(
    dataset: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, max_steps=1)
    stored = read_checkpoint(tmp_path)
    foreign = replace(stored, step=2, student=stored.student | {"backbone.more": torch.ones(1)})
    save_checkpoint(tmp_path, foreign, keep_last=3)
    with pytest.raises(TrainError, match=r"step 2 .* does not fit this network.*backbone\.more"):
        run_here(dataset, tmp_path)


def test_a_batch_that_ranks_cannot_share_is_refused_by_all_of_them(
    forks: Forks, dataset: Path, tmp_path: Path
) -> None:
    processes = start_ranks(forks, dataset, tmp_path / "run", TINY, 3)
    assert [process.wait() for process in processes] == [1, 1, 1]
    for process in processes:
        assert "a global batch of 8 cannot be shared evenly by 3 processes" in (
            process.errors.read_text()
        )


BEFORE, WITHIN = -1, -2


class ScalarReads(TorchDispatchMode):
    """Notes after how many steps a tensor's value was brought to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps_done = BEFORE
        self.read_after: list[int] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.read_after.append(self.steps_done)
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_from_the_device_but_when_a_row_is_due(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, real_step = ScalarReads(), Learner.step

    def step_and_count(self: Learner, views: Views, values: StepValues, step: int) -> StepReport:
        reads.steps_done = WITHIN
        report = real_step(self, views, values, step)
        reads.steps_done = step + 1
        return report

    monkeypatch.setattr(Learner, "step", step_and_count)
    quiet = replace(
        TINY,
        output=replace(TINY.output, log_every_steps=2),
        health=HealthConfig(samples=0, knn_every_epochs=0),
    )
    with reads:
        run_here(dataset, tmp_path, quiet)
    assert set(reads.read_after) - {BEFORE} == {2, 3, 4, 6, 8, 9}
