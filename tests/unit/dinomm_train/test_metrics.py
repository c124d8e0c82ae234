"""Rows of metrics go on where a stopped run left them, each step once."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from dinomm_train.config import RunConfig
from dinomm_train.errors import TrainError
from dinomm_train.metrics import open_metrics, read_health, read_metrics


def test_rows_reach_the_file_and_the_board(tmp_path: Path) -> None:
    with open_metrics(tmp_path, RunConfig(), steps_done=0) as metrics:
        metrics.write(10, {"loss": 2.5, "lr": 0.1})
        metrics.write(20, {"loss": 1.5, "lr": 0.2})
    assert read_metrics(tmp_path) == [
        {"step": 10, "loss": 2.5, "lr": 0.1},
        {"step": 20, "loss": 1.5, "lr": 0.2},
    ]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(10, 2.5), (20, 1.5)]


def test_rows_after_the_checkpoint_make_way_for_the_steps_done_again(tmp_path: Path) -> None:
    with open_metrics(tmp_path, RunConfig(), steps_done=0) as metrics:
        for step in (10, 20, 30):
            metrics.write(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"step": 4')
    with open_metrics(tmp_path, RunConfig(), steps_done=20) as metrics:
        metrics.write(30, {"loss": -1.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [
        (10, 10.0),
        (20, 20.0),
        (30, -1.0),
    ]


def test_rows_of_health_have_a_file_of_their_own_and_make_way_too(tmp_path: Path) -> None:
    with open_metrics(tmp_path, RunConfig(), steps_done=0) as metrics:
        metrics.write(10, {"loss": 2.5})
        metrics.write_health(10, {"health/both/rankme": 7.0})
        metrics.write_health(20, {"health/both/rankme": 8.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [10]
    assert [row["step"] for row in read_health(tmp_path, until_step=10)] == [10]
    with open_metrics(tmp_path, RunConfig(), steps_done=10):
        pass
    assert read_health(tmp_path) == [{"step": 10, "health/both/rankme": 7.0}]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Scalars("health/both/rankme")[0].value == 7.0


def test_a_run_that_was_never_looked_at_has_no_rows_of_health(tmp_path: Path) -> None:
    assert read_health(tmp_path) == []


def test_a_row_that_cannot_be_written_is_an_error_that_names_file_step_and_reason(
    tmp_path: Path,
) -> None:
    full_disk = Path("/dev/full")
    if not full_disk.exists():
        pytest.skip("this system has no device that is always full")
    (tmp_path / "metrics.jsonl").symlink_to(full_disk)
    message = (
        r"row of step 10 .*metrics\.jsonl \(No space left on device\); see that there is space"
    )
    with (
        open_metrics(tmp_path, RunConfig(), steps_done=0) as metrics,
        pytest.raises(TrainError, match=message),
    ):
        metrics.write(10, {"loss": 2.5})
