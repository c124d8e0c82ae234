"""What a person hears of a run: a progress line, a row of metrics now and then, a line an epoch."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bigearth_prep.terminal import Advance, progress_bar
from dinomm_train.config import RunConfig
from dinomm_train.learner import StepReport
from dinomm_train.metrics import MetricsWriter, open_metrics
from dinomm_train.schedules import StepValues

_log = logging.getLogger(__name__)


def is_row_due(steps_done: int, config: RunConfig, *, steps_per_epoch: int) -> bool:
    """Whether measures are read after this many steps: the only time a device is waited for."""
    at_epoch_end = steps_done % steps_per_epoch == 0
    return at_epoch_end or steps_done % config.output.log_every_steps == 0


@dataclass(slots=True)
class _Window:
    """Sums over some steps in a row; they stay on the device until they are read."""

    steps: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))
    waited_s: float = 0.0
    start_s: float = field(default_factory=time.perf_counter)

    def add(self, measured: StepReport, waited_s: float) -> None:
        self.steps += 1
        taken = torch.where(measured.skipped > 0, 0.0, measured.loss)
        self.loss_sum = self.loss_sum.to(taken.device) + taken
        self.skipped = self.skipped.to(taken.device) + measured.skipped
        self.waited_s += waited_s

    @property
    def loss(self) -> float:
        """Mean over the steps that were taken; NaN where none was."""
        taken = self.steps - float(self.skipped)
        return float(self.loss_sum) / taken if taken else float("nan")

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.start_s, 1e-9)


class RunReport:
    """Takes note of each step on rank zero."""

    def __init__(
        self, metrics: MetricsWriter, advance: Advance, config: RunConfig, work: "Work"
    ) -> None:
        self._metrics = metrics
        self._advance = advance
        self._config = config
        self._work = work
        self._row, self._epoch = _Window(), _Window()
        self._last: tuple[int, StepValues, StepReport] | None = None

    def add(
        self, steps_done: int, values: StepValues, measured: StepReport, *, waited_s: float
    ) -> None:
        """Note the step after which this many are done, and how long its batch was waited for."""
        for window in (self._row, self._epoch):
            window.add(measured, waited_s)
        self._last = (steps_done, values, measured)
        steps_per_epoch = self._work.steps_per_epoch
        note = ""
        if is_row_due(steps_done, self._config, steps_per_epoch=steps_per_epoch):
            note = self.write_row()
        self._advance(1, note)
        if steps_done % steps_per_epoch == 0:
            self._log_epoch(values.epoch)

    def add_health(self, steps_done: int, row: Mapping[str, int | float]) -> None:
        """Note a look at the run; the time it took does not count as training's."""
        self._metrics.write_health(steps_done, row)
        for window in (self._row, self._epoch):
            window.start_s += row["health/seconds"]

    def write_row(self) -> str:
        """The progress line's note; a row of the steps since the last one is written, if any."""
        if self._last is None or not self._row.steps:
            return ""
        steps_done, values, measured = self._last
        row, skipped = self._row, int(self._row.skipped)
        speed = self._speed(row) | {"data_wait_share": row.waited_s / row.seconds}
        numbers: dict[str, int | float] = {
            "epoch": values.epoch,
            "loss": row.loss,
            "lr": values.lr,
            "weight_decay": values.weight_decay,
            "teacher_momentum": values.teacher_momentum,
            "teacher_temperature": values.teacher_temperature,
            "gradient_norm": float(measured.gradient_norm),
            "skipped_steps": skipped,
        }
        # JSON has no word for numbers that are not finite.
        known = {name: one for name, one in numbers.items() if math.isfinite(one)}
        self._metrics.write(steps_done, known | speed)
        if skipped:
            _log.warning(
                "%d of %d steps up to step %d were skipped: a loss or gradient was not finite",
                skipped,
                row.steps,
                steps_done,
            )
        self._row = _Window()
        return _describe(known | speed)

    def _log_epoch(self, epoch: int) -> None:
        _log.info(
            "epoch %d of %d: loss %.4f, %.1f samples/s",
            epoch + 1,
            self._config.schedule.epochs,
            self._epoch.loss,
            self._speed(self._epoch)["samples_per_s"],
        )
        self._epoch = _Window()

    def _speed(self, window: _Window) -> dict[str, int | float]:
        rate = window.steps * self._config.sampling.global_batch / window.seconds
        if not self._work.peak_flops:
            return {"samples_per_s": rate}
        return {
            "samples_per_s": rate,
            "mfu": rate * self._work.flops_per_image / self._work.peak_flops,
        }


def _describe(row: Mapping[str, int | float]) -> str:
    parts = [f"loss {row['loss']:.4f}"] if "loss" in row else []
    parts.append(f"{row['samples_per_s']:,.1f} images/s")
    if "mfu" in row:
        parts.append(f"MFU {row['mfu']:.1%}")
    return ", ".join([*parts, f"data wait {row['data_wait_share']:.0%}"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be done, and what it is measured against."""

    steps_done: int
    """Steps of earlier invocations."""

    steps_to_do: int
    """Steps that this invocation does if nothing stops it."""

    steps_per_epoch: int
    """The same in each epoch."""

    flops_per_image: int = 0
    """Operations of training on one image."""

    peak_flops: float = 0.0
    """Operations per second that all devices together can do; zero where that is not asked."""


@contextmanager
def open_report(run: Path, config: RunConfig, work: Work) -> Iterator[RunReport]:
    """A report that goes on after the steps already done, and expects so many more."""
    with (
        open_metrics(run, config, steps_done=work.steps_done) as metrics,
        progress_bar(work.steps_to_do, "steps") as advance,
    ):
        yield RunReport(metrics, advance, config, work)
