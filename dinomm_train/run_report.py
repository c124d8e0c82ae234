"""What a person hears of a run: a progress line, a row of metrics now and then, a line an epoch."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bigearth_prep.terminal import progress_bar
from dinomm_train.config import RunConfig
from dinomm_train.learner import StepReport
from dinomm_train.metrics import MetricsWriter, open_metrics
from dinomm_train.schedules import StepValues

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Window:
    """Sums over some steps in a row."""

    steps: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    waited_s: float = 0.0
    start_s: float = field(default_factory=time.perf_counter)

    def add(self, loss: Tensor, waited_s: float) -> None:
        self.steps += 1
        # Stays on the device: reading it would make the host wait for each step.
        self.loss_sum = self.loss_sum.to(loss.device) + loss
        self.waited_s += waited_s

    @property
    def loss(self) -> float:
        return float(self.loss_sum) / self.steps

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.start_s, 1e-9)


class RunReport:
    """Takes note of each step on rank zero."""

    def __init__(
        self,
        metrics: MetricsWriter,
        advance: Callable[[int], None],
        config: RunConfig,
        steps_per_epoch: int,
    ) -> None:
        self._metrics = metrics
        self._advance = advance
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._row, self._epoch = _Window(), _Window()

    def add(
        self, steps_done: int, values: StepValues, measured: StepReport, *, waited_s: float
    ) -> None:
        """Note the step after which this many are done, and how long its batch was waited for."""
        for window in (self._row, self._epoch):
            window.add(measured.loss, waited_s)
        self._advance(1)
        epoch_ends = steps_done % self._steps_per_epoch == 0
        if epoch_ends or steps_done % self._config.output.log_every_steps == 0:
            self._write_row(steps_done, values, measured)
        if epoch_ends:
            self._log_epoch(values.epoch)

    def add_health(self, steps_done: int, row: Mapping[str, int | float]) -> None:
        """Note a look at the run; the time it took does not count as training's."""
        self._metrics.write_health(steps_done, row)
        for window in (self._row, self._epoch):
            window.start_s += row["health/seconds"]

    def _write_row(self, steps_done: int, values: StepValues, measured: StepReport) -> None:
        row = self._row
        self._metrics.write(
            steps_done,
            {
                "epoch": values.epoch,
                "loss": row.loss,
                "lr": values.lr,
                "weight_decay": values.weight_decay,
                "teacher_momentum": values.teacher_momentum,
                "teacher_temperature": values.teacher_temperature,
                "gradient_norm": float(measured.gradient_norm),
                "samples_per_s": self._rate(row),
                "data_wait_share": row.waited_s / row.seconds,
            },
        )
        self._row = _Window()

    def _log_epoch(self, epoch: int) -> None:
        _log.info(
            "epoch %d of %d: loss %.4f, %.1f samples/s",
            epoch + 1,
            self._config.schedule.epochs,
            self._epoch.loss,
            self._rate(self._epoch),
        )
        self._epoch = _Window()

    def _rate(self, window: _Window) -> float:
        return window.steps * self._config.sampling.global_batch / window.seconds


@contextmanager
def open_report(
    run: Path, config: RunConfig, *, steps_done: int, steps_to_do: int, steps_per_epoch: int
) -> Iterator[RunReport]:
    """A report that goes on after the steps already done, and expects so many more."""
    with (
        open_metrics(run, steps_done=steps_done) as metrics,
        progress_bar(steps_to_do, "steps") as advance,
    ):
        yield RunReport(metrics, advance, config, steps_per_epoch)
