"""What a person hears of a run: a progress line, a row of metrics now and then, a line an epoch."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bigearth_prep.pace import Clock
from bigearth_prep.terminal import Advance, progress_bar
from dinomm_train.config import RunConfig
from dinomm_train.learner import StepReport
from dinomm_train.metrics import MetricsWriter, open_metrics
from dinomm_train.schedules import StepValues

_SHOWN = {
    "loss": "loss {:.4f}",
    "samples_per_s": "{:,.1f} images/s",
    "mfu": "MFU {:.1%}",
    "data_wait_share": "data wait {:.0%}",
}

_log = logging.getLogger(__name__)


def is_row_due(steps_done: int, config: RunConfig, *, steps_per_epoch: int) -> bool:
    """Whether measures are read after this many steps: the only time a device is waited for."""
    at_epoch_end = steps_done % steps_per_epoch == 0
    return at_epoch_end or steps_done % config.output.log_every_steps == 0


@dataclass(slots=True)
class _Window:
    """Sums over some steps in a row; they stay on the device until they are read."""

    start_s: float
    steps: int = 0
    timed_steps: int = 0
    """Those since `start_s`."""

    loss_sum: Tensor | float = 0.0
    skipped: Tensor | float = 0.0
    waited_s: float = 0.0

    def add(self, measured: StepReport, waited_s: float) -> None:
        self.steps += 1
        self.timed_steps += 1
        taken = torch.where(measured.skipped > 0, 0.0, measured.loss)
        self.loss_sum = self.loss_sum + taken
        self.skipped = self.skipped + measured.skipped
        self.waited_s += waited_s

    def time_from(self, now_s: float) -> None:
        """Let the time begin now, behind the steps so far."""
        self.start_s, self.timed_steps, self.waited_s = now_s, 0, 0.0

    @property
    def loss(self) -> float:
        """Mean over the steps that were taken; NaN where none was."""
        taken = self.steps - float(self.skipped)
        return float(self.loss_sum) / taken if taken else float("nan")


class RunReport:
    """Takes note of each step on rank zero.

    Rates leave out the first step of an invocation, which opens and compiles.
    """

    def __init__(
        self,
        metrics: MetricsWriter,
        advance: Advance,
        config: RunConfig,
        work: "Work",
        clock: Clock,
    ) -> None:
        self._metrics = metrics
        self._advance = advance
        self._config = config
        self._work = work
        self._clock = clock
        self._row, self._epoch = _Window(clock()), _Window(clock())
        self._last: tuple[int, StepValues, StepReport] | None = None

    def add(
        self, steps_done: int, values: StepValues, measured: StepReport, *, waited_s: float
    ) -> None:
        """Note the step after which this many are done, and how long its batch was waited for."""
        for window in (self._row, self._epoch):
            window.add(measured, waited_s)
            if self._last is None:
                window.time_from(self._clock())
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
        speed = self._speed(row)
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
        self._row = _Window(self._clock())
        place = f"epoch {values.epoch + 1} of {self._config.schedule.epochs}"
        return ", ".join([place, *_main_numbers(known | speed)])

    def _log_epoch(self, epoch: int) -> None:
        _log.info(
            "epoch %d of %d: %s",
            epoch + 1,
            self._config.schedule.epochs,
            ", ".join(_main_numbers({"loss": self._epoch.loss} | self._speed(self._epoch))),
        )
        self._epoch = _Window(self._clock())

    def _speed(self, window: _Window) -> dict[str, int | float]:
        """Images per second, and what goes with it; nothing where no step is timed."""
        if not window.timed_steps:
            return {}
        seconds = max(self._clock() - window.start_s, 1e-9)
        rate = window.timed_steps * self._config.sampling.global_batch / seconds
        speed: dict[str, int | float] = {
            "samples_per_s": rate,
            "data_wait_share": window.waited_s / seconds,
        }
        if self._work.peak_flops:
            speed["mfu"] = rate * self._work.flops_per_image / self._work.peak_flops
        return speed


def _main_numbers(row: Mapping[str, int | float]) -> Iterator[str]:
    for name, words in _SHOWN.items():
        if name in row:
            yield words.format(row[name])


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
def open_report(
    run: Path, config: RunConfig, work: Work, clock: Clock = time.monotonic
) -> Iterator[RunReport]:
    """A report that goes on after the steps already done, and expects so many more."""
    with (
        open_metrics(run, config, steps_done=work.steps_done) as metrics,
        progress_bar(
            work.steps_done + work.steps_to_do,
            "steps",
            done=work.steps_done,
            leaves_out_first=True,
            clock=clock,
        ) as advance,
    ):
        yield RunReport(metrics, advance, config, work, clock)
