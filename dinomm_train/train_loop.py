"""The steps of one rank: batches to views to steps, reported, looked at, and saved."""

import logging
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from bigearth_prep.whole_file import write_text
from dinomm_train.agreement import Agreement
from dinomm_train.capsule import stop_for_skips
from dinomm_train.checkpoint import Checkpoint
from dinomm_train.checkpoint_writer import CheckpointWriter
from dinomm_train.config_text import config_to_toml
from dinomm_train.data.sensor_drop import warn_of_everyday_fill
from dinomm_train.data.stream import StoredBatch
from dinomm_train.data.training_stream import write_record
from dinomm_train.flops import measure_utilization
from dinomm_train.hang_watch import READING, HangWatch
from dinomm_train.health.watch import HealthWatch
from dinomm_train.learner import Learner
from dinomm_train.requeue import withdraw_requeue
from dinomm_train.resume import find_same_checkpoint, require_same_run, restore_learner
from dinomm_train.run_report import RunReport, Work, is_row_due, open_report
from dinomm_train.shared_weights import contribute
from dinomm_train.step_input import StepInput
from dinomm_train.stop_request import StopRequest

CONFIG_NAME = "config.toml"

_log = logging.getLogger(__name__)


class TrainLoop:
    """One rank's part of a run."""

    def __init__(self, step_input: StepInput, run: Path, watch: HangWatch) -> None:
        self.input = step_input
        self.dataset, self.batches = step_input.dataset, step_input.batches
        self.config, self.ranks = step_input.config, step_input.ranks
        self.run = run
        self.watch = watch
        self.dataset.store.on_progress = watch.note_shards
        self.agreement = Agreement(self.ranks)
        channels = len(self.dataset.card.channels)
        self.learner = Learner(self.config, self.ranks, channels=channels)
        self.health = HealthWatch(self.dataset, self.learner, self.batches.steps_per_epoch)
        self.step = 0
        """Steps done."""
        self.stopped_by = 0
        """The signal on which all ranks agreed to stop; zero as long as there is none."""
        self._last = 0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.schedule.epochs * self.batches.steps_per_epoch

    def restore(self) -> None:
        """Go on from the run's newest whole checkpoint, where it has one.

        Raises:
            TrainError: the checkpoint is of another configuration, dataset or network, or ranks
                have found different ones.
        """
        stored = find_same_checkpoint(self.run, self.ranks)
        if stored is None:
            return
        require_same_run(stored, self.config, self.dataset, self.run)
        restore_learner(self.learner, stored, self.run)
        self.step = stored.step
        self.health.resume(self.run, self.step)
        _log.info("continuing %s after step %d of %d", self.run, self.step, self.total_steps)

    def train(self, stop: StopRequest, *, max_steps: int) -> None:
        """Do the steps that are left, or `max_steps` of them, or those until a signal."""
        left = self.total_steps - self.step
        if not left:
            if self.ranks.is_first:
                withdraw_requeue(self.run)
            _log.info("%s is finished: all %d steps are done", self.run, self.total_steps)
            return
        self._last = self.step + min(left, max_steps or left)
        self._announce()
        with (
            closing(self._batches_left()) as batches,
            CheckpointWriter(self.run, self.config.output, self.watch.mark) as writer,
            self._open_report(self._last) as report,
        ):
            self.watch.before_end = writer.finish
            self.stopped_by = self.agreement.settle(stop.signal_number)
            while self.step < self._last and not self.stopped_by:
                self._train_step(batches, report)
                self._after_step(stop, writer, report)
            if report is not None:
                report.write_row()
            self.watch.mark(f"writing the checkpoint of step {self.step}")
            writer.wait()
            self.agreement.settle(0)  # none runs into the end of the job alone
            self.watch.mark("handing the last rows to the trackers")
        if self.stopped_by:
            name = signal.Signals(self.stopped_by).name
            _log.warning("%s: stopped after step %d of %d", name, self.step, self.total_steps)

    def _after_step(
        self, stop: StopRequest, writer: CheckpointWriter, report: RunReport | None
    ) -> None:
        self._stop_if_lost()
        is_last = self.step == self._last
        # Only what all ranks agreed on decides: a signal that comes later than this line is one
        # that the other ranks know nothing of.
        agree = self.agreement.settle if is_last else self.agreement.exchange
        self.stopped_by = agree(stop.signal_number)
        if is_saved := is_last or self._is_save_due() or bool(self.stopped_by):
            self._save(writer)
        elif writer.has_failed:
            writer.wait()
        # After saving, so that no look can cost a step.
        if not self.stopped_by and self._look_at_health(stop, report) and not is_saved:
            self._save(writer)

    def _look_at_health(self, stop: StopRequest, report: RunReport | None) -> int:
        """The signal on which all ranks agreed to stop meanwhile; zero where there was none."""
        looking = f"{READING} and looking at held-out patches after step {self.step}"

        def must_stop() -> bool:
            self.watch.mark(looking)
            self.stopped_by = self.agreement.settle(stop.signal_number)
            return bool(self.stopped_by)

        self.watch.mark(looking)
        row = self.health.look(self.step, must_stop)
        if row and report is not None:
            report.add_health(self.step, row)
            self.health.report(self.step, row)
        return self.stopped_by

    def _stop_if_lost(self) -> None:
        """End the run where too many steps in a row were skipped; looked at when rows are due.

        Only a streak that still goes on: skipped steps move nothing, so that the state before it is
        still there for the capsule.
        """
        steps_per_epoch = self.batches.steps_per_epoch
        if not is_row_due(self.step, self.config, steps_per_epoch=steps_per_epoch):
            return
        if int(self.learner.skipped_in_row) < self.config.optim.stop_after_skipped:
            return
        before = self._checkpoint(self.step - 1)
        stop_for_skips(self.run, before, self.input, self._mark_capsule)

    def _mark_capsule(self) -> None:
        self.watch.mark("leaving a capsule of the step")

    def _announce(self) -> None:
        if not self.ranks.is_first:
            return
        withdraw_requeue(self.run)
        write_text(self.run / CONFIG_NAME, config_to_toml(self.config))
        write_record(self.run, self.dataset, self.ranks)
        _log.info(
            "%d epochs of %d steps of %d samples on %d %s process(es); an epoch leaves out %d "
            "samples, others each time; %s arithmetic",
            self.config.schedule.epochs,
            self.batches.steps_per_epoch,
            self.config.sampling.global_batch,
            self.ranks.world,
            self.ranks.device.type,
            self.batches.dropped_per_epoch,
            "bf16" if self.learner.half_precision else "fp32",
        )
        warn_of_everyday_fill(self.config.views.sensor_drop.fill, self.input.scaling)
        self.health.warn_if_too_short(self._last)

    def _batches_left(self) -> Generator[StoredBatch]:
        first_epoch, first_step = divmod(self.step, self.batches.steps_per_epoch)
        for epoch in range(first_epoch, self.config.schedule.epochs):
            yield from self.batches.epoch(epoch, first_step if epoch == first_epoch else 0)

    def _train_step(self, batches: Iterator[StoredBatch], report: RunReport | None) -> None:
        # From its second step on an invocation runs steadily: all is opened and compiled.
        self.watch.mark(f"{READING} the batch of step {self.step}")
        start_s = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - start_s
        self.watch.mark(f"in step {self.step}")
        values = self.input.values(self.step)
        measured = self.learner.step(self.input.views(batch, self.step), values, self.step)
        self.step += 1
        if report is not None:
            report.add(self.step, values, measured, waited_s=waited_s)
        self.watch.mark(f"after step {self.step - 1}", is_steady=True)

    def _is_save_due(self) -> bool:
        every = self.config.output.checkpoint_every_steps or self.batches.steps_per_epoch
        return self.step % every == 0

    def _save(self, writer: CheckpointWriter) -> None:
        """Rank zero writes, while training goes on; the others give it their parts."""
        checkpoint = self._checkpoint(self.step)
        if self.ranks.is_first:
            writer.save(checkpoint)
        else:
            contribute(checkpoint.state)

    def _checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            step=step,
            steps_per_epoch=self.batches.steps_per_epoch,
            config=self.config,
            card=self.dataset.card,
            dataset_checksum=self.dataset.checksum,
            **self.learner.state_dict(),
        )

    def _open_report(self, last_step: int) -> AbstractContextManager[RunReport | None]:
        if not self.ranks.is_first:
            return nullcontext()
        return open_report(self.run, self.config, self._work(last_step))

    def _work(self, last_step: int) -> Work:
        flops_per_image, peak_flops = measure_utilization(
            self.config,
            self.ranks,
            channels=len(self.dataset.card.channels),
            half_precision=self.learner.half_precision,
        )
        return Work(
            steps_done=self.step,
            steps_to_do=last_step - self.step,
            steps_per_epoch=self.batches.steps_per_epoch,
            flops_per_image=flops_per_image,
            peak_flops=peak_flops,
        )
