"""A pretraining run: shards to batches to views to steps, reported, saved, and continued."""

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from bigearth_prep.file_lock import hold_lock
from bigearth_prep.whole_file import write_text
from dinomm_train.checkpoint import Checkpoint, find_checkpoint, save_checkpoint
from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.config_text import config_differences, config_to_toml
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.loader import ReadOptions
from dinomm_train.data.location import StorageOptions, open_dataset
from dinomm_train.data.stream import StoredBatch
from dinomm_train.data.training_stream import open_training_batches, write_record
from dinomm_train.data.views import make_views
from dinomm_train.distributed import Ranks, greatest_over_ranks, join_ranks, wait_for_all
from dinomm_train.errors import TrainError
from dinomm_train.health.watch import HealthWatch
from dinomm_train.learner import Learner
from dinomm_train.run_report import RunReport, open_report
from dinomm_train.schedules import step_values
from dinomm_train.stop_request import StopRequest

CONFIG_NAME = "config.toml"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchOptions:
    """How this invocation runs; nothing of it changes what is learnt, up to rounding."""

    device: DeviceChoice = "auto"
    """Where to compute; `auto` takes a GPU where there is one."""

    max_steps: int = 0
    """Steps after which this invocation saves and stops; zero goes on to the end."""

    threads: int = 0
    """CPU threads per process; zero leaves the choice to torch."""

    storage: StorageOptions = field(default_factory=StorageOptions)
    """Where shards are kept that lie elsewhere."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    """How batches are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainResult:
    """Where a run stands when its invocation ends."""

    run: Path
    """The run's folder."""

    step: int
    """Steps done."""

    total_steps: int
    """Steps of the whole run."""

    signal_number: int
    """The signal that stopped it early; zero where none did."""

    is_first_rank: bool = True
    """Whether this process reports for the run."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step == self.total_steps

    def to_dict(self) -> dict[str, object]:
        """The same in plain values, for scripts."""
        fields = asdict(self) | {"run": str(self.run), "is_finished": self.is_finished}
        del fields["is_first_rank"]
        return fields


def pretrain(
    dataset: str | Path, run: Path, config: RunConfig, options: LaunchOptions
) -> PretrainResult:
    """Where the run stands after training as far as options and signals let it.

    A run that has a checkpoint goes on from there, and ends with the weights it would have had
    without the stop. Checkpoints, metrics and the configuration appear in the run's folder.

    Raises:
        TrainError: the dataset does not fit the configuration, the run's checkpoint is of another
            configuration or dataset, or the loss is not finite.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with StopRequest() as stop, join_ranks(options.device) as ranks, _hold_run(run, ranks):
        stored = open_dataset(dataset, options.storage)
        trainer = Trainer(stored, run, config, ranks, options.reading)
        trainer.restore()
        trainer.train(stop, max_steps=options.max_steps)
        return PretrainResult(
            run=run,
            step=trainer.step,
            total_steps=trainer.total_steps,
            signal_number=trainer.stopped_by,
            is_first_rank=ranks.is_first,
        )


def _hold_run(run: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """Rank zero keeps other invocations out of the run's folder."""
    if not ranks.is_first:
        return nullcontext()
    run.mkdir(parents=True, exist_ok=True)
    return hold_lock(run / ".lock", f"{run} is being trained by another process; wait for it")


class Trainer:
    """One rank's part of a run."""

    def __init__(
        self,
        dataset: StoredDataset,
        run: Path,
        config: RunConfig,
        ranks: Ranks,
        reading: ReadOptions,
    ) -> None:
        self.dataset = dataset
        self.run = run
        self.config = config
        self.ranks = ranks
        self.batches = open_training_batches(dataset, config, ranks, reading)
        self.scaling = InputScaling.of(dataset.card)
        self.learner = Learner(config, ranks, channels=len(dataset.card.channels))
        self.health = HealthWatch(dataset, self.learner, self.batches.steps_per_epoch)
        self.step = 0
        """Steps done."""
        self.stopped_by = 0
        """The signal on which all ranks agreed to stop; zero as long as there is none."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.schedule.epochs * self.batches.steps_per_epoch

    def restore(self) -> None:
        """Go on from the run's newest whole checkpoint, where it has one.

        Raises:
            TrainError: the checkpoint is of another configuration or dataset.
        """
        stored = find_checkpoint(self.run)
        if stored is None:
            return
        _require_same_run(stored, self.config, self.dataset, self.run)
        self.learner.load_state_dict(
            {
                "student": stored.student,
                "teacher": stored.teacher,
                "loss": stored.loss,
                "optimizer": stored.optimizer,
                "skips": stored.skips,
            }
        )
        self.step = stored.step
        self.health.resume(self.run, self.step)
        _log.info("continuing %s after step %d of %d", self.run, self.step, self.total_steps)

    def train(self, stop: StopRequest, *, max_steps: int) -> None:
        """Do the steps that are left, or `max_steps` of them, or those until a signal."""
        left = self.total_steps - self.step
        if not left:
            _log.info("%s is finished: all %d steps are done", self.run, self.total_steps)
            return
        self._announce()
        last = self.step + min(left, max_steps or left)
        with closing(self._batches_left()) as batches, self._open_report(last) as report:
            while self.step < last and not self.stopped_by:
                self._train_step(batches, report)
                # Only what all ranks agreed on decides: a signal that comes later than this line
                # is one that the other ranks know nothing of.
                self.stopped_by = greatest_over_ranks(stop.signal_number, self.ranks)
                if self._must_save() or self.step == last or self.stopped_by:
                    self._save()
                self._look_at_health(stop, report)

    def _look_at_health(self, stop: StopRequest, report: RunReport | None) -> None:
        # After saving, so that no look can cost a step. A signal ends it early, and the run after
        # the step that follows.
        row = self.health.look(
            self.step, lambda: bool(greatest_over_ranks(stop.signal_number, self.ranks))
        )
        if row and report is not None:
            report.add_health(self.step, row)
            self.health.report(self.step, row)

    def _announce(self) -> None:
        if not self.ranks.is_first:
            return
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

    def _batches_left(self) -> Generator[StoredBatch]:
        first_epoch, first_step = divmod(self.step, self.batches.steps_per_epoch)
        for epoch in range(first_epoch, self.config.schedule.epochs):
            yield from self.batches.epoch(epoch, first_step if epoch == first_epoch else 0)

    def _train_step(self, batches: Iterator[StoredBatch], report: RunReport | None) -> None:
        start_s = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - start_s
        values = step_values(self.step, self.config, steps_per_epoch=self.batches.steps_per_epoch)
        images = to_network_input(batch, self.scaling, self.ranks.device)
        key = ViewKey(
            seed=self.config.sampling.seed, epoch=values.epoch, sample_ids=batch.sample_ids
        )
        views = make_views(images, key, self.config.views, self.scaling)
        measured = self.learner.step(views, values, self.step)
        self.step += 1
        if report is not None:
            report.add(self.step, values, measured, waited_s=waited_s)

    def _must_save(self) -> bool:
        every = self.config.output.checkpoint_every_steps or self.batches.steps_per_epoch
        return self.step % every == 0

    def _save(self) -> None:
        """Rank zero writes; the others wait, so that none runs into the end of the job alone."""
        if self.ranks.is_first:
            checkpoint = Checkpoint(
                step=self.step,
                steps_per_epoch=self.batches.steps_per_epoch,
                config=self.config,
                card=self.dataset.card,
                dataset_checksum=self.dataset.checksum,
                **self.learner.state_dict(),
            )
            save_checkpoint(self.run, checkpoint, keep_last=self.config.output.keep_last)
        wait_for_all(self.ranks)

    def _open_report(self, last_step: int) -> AbstractContextManager[RunReport | None]:
        if not self.ranks.is_first:
            return nullcontext()
        return open_report(
            self.run,
            self.config,
            steps_done=self.step,
            steps_to_do=last_step - self.step,
            steps_per_epoch=self.batches.steps_per_epoch,
        )


def _require_same_run(
    stored: Checkpoint, config: RunConfig, dataset: StoredDataset, run: Path
) -> None:
    # What these sections say changes no weight but by rounding.
    kept = stored.config
    comparable = replace(config, compute=kept.compute, output=kept.output, health=kept.health)
    changed = list(config_differences(stored.config, comparable))
    if stored.dataset_checksum != dataset.checksum:
        changed.append(f"dataset: {stored.dataset_checksum} -> {dataset.checksum} ({dataset.path})")
    if changed:
        raise TrainError(
            f"{run} was started otherwise; give the same settings and dataset, or another --out. "
            f"Changed: {'; '.join(changed)}"
        )
