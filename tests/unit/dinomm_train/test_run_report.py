"""Metrics rows average the steps since the row before, and epochs are logged with their mean."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from dinomm_train.config import OutputConfig, RunConfig
from dinomm_train.learner import StepReport
from dinomm_train.metrics import read_metrics
from dinomm_train.run_report import RunReport, Work, is_row_due, open_report
from dinomm_train.schedules import step_values

CONFIG = replace(RunConfig(), output=OutputConfig(log_every_steps=4))
STEPS_PER_EPOCH = 6


def work_of(first: int, last: int, *, peak_flops: float = 0.0) -> Work:
    return Work(
        steps_done=first,
        steps_to_do=last - first,
        steps_per_epoch=STEPS_PER_EPOCH,
        flops_per_image=1_000,
        peak_flops=peak_flops,
    )


def add_step(
    report: RunReport, step: int, *, loss: float, skipped: bool = False, waited_s: float = 0.0
) -> None:
    values = step_values(step, CONFIG, steps_per_epoch=STEPS_PER_EPOCH)
    measured = StepReport(
        loss=torch.tensor(loss),
        gradient_norm=torch.tensor(float("nan") if skipped else 0.5),
        skipped=torch.tensor(float(skipped)),
    )
    report.add(step + 1, values, measured, waited_s=waited_s)


@dataclass
class FakeClock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def report_steps(run: Path, first: int, last: int) -> None:
    """Steps whose loss is their number, counted from one; the first takes 90 s, others 2 s."""
    clock = FakeClock()
    with open_report(run, CONFIG, work_of(first, last), clock) as report:
        for step in range(first, last):
            clock.now_s += 90.0 if step == first else 2.0
            add_step(report, step, loss=float(step + 1))


def test_a_row_holds_the_mean_loss_since_the_last_row(tmp_path: Path) -> None:
    report_steps(tmp_path, 0, 12)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [4, 6, 8, 12]
    assert [row["loss"] for row in rows] == [2.5, 5.5, 7.5, 10.5]
    assert [row["epoch"] for row in rows] == [0, 0, 1, 1]
    assert rows[1]["lr"] == step_values(5, CONFIG, steps_per_epoch=STEPS_PER_EPOCH).lr
    assert rows[0]["gradient_norm"] == 0.5


def test_each_epoch_is_logged_once_with_its_mean_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report_steps(tmp_path, 0, 12)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "epoch 1 of 100: loss 3.5000, 128.0 images/s, data wait 0%",
        "epoch 2 of 100: loss 9.5000, 128.0 images/s, data wait 0%",
    ]


def test_rates_leave_out_the_first_step_which_opens_and_compiles(tmp_path: Path) -> None:
    clock, batch = FakeClock(), CONFIG.sampling.global_batch
    with open_report(tmp_path, CONFIG, work_of(0, 6, peak_flops=1e9), clock) as report:
        for step, seconds in enumerate((90.0, 2.0, 2.0, 4.0, 5.0, 5.0)):
            clock.now_s += seconds
            add_step(report, step, loss=1.0, waited_s=seconds / 2)
    first, second = read_metrics(tmp_path)
    assert first["samples_per_s"] == pytest.approx(3 * batch / 8)
    assert first["mfu"] == pytest.approx(3 * batch / 8 * 1_000 / 1e9)
    assert first["data_wait_share"] == pytest.approx(0.5)
    assert second["samples_per_s"] == pytest.approx(2 * batch / 10)


def test_a_row_of_the_first_step_alone_has_a_loss_and_no_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_steps(tmp_path, 3, 4)
    (row,) = read_metrics(tmp_path)
    assert row["loss"] == 4.0
    assert not {"samples_per_s", "mfu", "data_wait_share"} & set(row)
    assert capsys.readouterr().err == "steps: 4 of 4, epoch 1 of 100, loss 4.0000\n"


def test_a_continued_report_goes_on_after_the_steps_done(tmp_path: Path) -> None:
    report_steps(tmp_path, 0, 8)
    report_steps(tmp_path, 6, 12)
    assert [row["step"] for row in read_metrics(tmp_path)] == [4, 6, 8, 12]


def test_progress_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_steps(tmp_path, 2, 12)
    output = capsys.readouterr()
    assert output.out == ""
    assert "steps: 12 of 12" in output.err


def test_a_continued_run_counts_from_the_steps_done_and_names_its_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_steps(tmp_path, 41_198, 41_213)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "steps: 41,199 of 41,213"
    assert re.search(r"^steps: 41,213 of 41,213, 0\.5/s, 0 s left, epoch 6869 of 100, loss", last)


def test_time_spent_looking_at_health_does_not_count_as_training_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, batch = FakeClock(), CONFIG.sampling.global_batch
    with caplog.at_level(logging.INFO), open_report(tmp_path, CONFIG, work_of(0, 6), clock) as one:
        for step in range(6):
            clock.now_s += 2.0
            add_step(one, step, loss=1.0)
            if step == 2:
                clock.now_s += 40.0
                one.add_health(3, {"health/seconds": 40.0})
    assert [row["samples_per_s"] for row in read_metrics(tmp_path)] == [batch / 2, batch / 2]
    assert f"{batch / 2:.1f} images/s" in caplog.text


def test_skipped_steps_are_counted_and_left_out_of_the_mean_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_report(tmp_path, CONFIG, work_of(0, 8)) as report:
        for step, loss in enumerate((1.0, float("nan"), 3.0, 5.0)):
            add_step(report, step, loss=loss, skipped=step == 1)
        for step in (4, 5):
            add_step(report, step, loss=float("inf"), skipped=True)
    rows = read_metrics(tmp_path)
    assert [(row["step"], row.get("loss"), row["skipped_steps"]) for row in rows] == [
        (4, 3.0, 1),
        (6, None, 2),
    ]
    assert "gradient_norm" not in rows[1]
    assert "1 of 4 steps up to step 4 were skipped" in caplog.text


def test_steps_since_the_last_row_are_written_when_a_run_stops(tmp_path: Path) -> None:
    with open_report(tmp_path, CONFIG, work_of(0, 9)) as report:
        for step in range(5):
            add_step(report, step, loss=float(step))
        report.write_row()
        report.write_row()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(4, 1.5), (5, 4.0)]


def test_rows_are_due_every_so_many_steps_and_at_the_end_of_an_epoch() -> None:
    due = [step for step in range(1, 13) if is_row_due(step, CONFIG, steps_per_epoch=6)]
    assert due == [4, 6, 8, 12]


def test_the_progress_line_says_loss_rate_utilization_and_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = FakeClock()
    with open_report(tmp_path, CONFIG, work_of(0, 4, peak_flops=1e6), clock) as report:
        for step in range(4):
            clock.now_s += 8.0
            add_step(report, step, loss=2.0, waited_s=2.0)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "steps: 4 of 4, 0.1/s, 0 s left, epoch 1 of 100, loss 2.0000, 32.0 images/s, MFU 3.2%, "
        "data wait 25%"
    )
