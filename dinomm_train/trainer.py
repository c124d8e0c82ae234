"""A pretraining run from its command to its result: ranks meet, go on, train, and part."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from bigearth_prep.file_lock import hold_lock
from dinomm_train.config import DeviceChoice, RunConfig
from dinomm_train.data.loader import ReadOptions
from dinomm_train.data.location import open_dataset
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.distributed import Ranks, greatest_over_ranks, join_ranks
from dinomm_train.hang_watch import watch_for_hangs
from dinomm_train.resume import require_same_start
from dinomm_train.step_input import StepInput
from dinomm_train.stop_request import StoppedEarly, StopRequest
from dinomm_train.train_loop import TrainLoop


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchOptions:
    """How this invocation runs; nothing of it changes what is learnt, up to rounding."""

    device: DeviceChoice = "auto"
    """Where to compute; `auto` takes a GPU where there is one."""

    max_steps: int = 0
    """Steps after which this invocation saves and stops; zero goes on to the end."""

    threads: int = 0
    """CPU threads per process; zero leaves the choice to torch."""

    hang_timeout_s: float = 300.0
    """Seconds without progress after which the run ends with a message; ten times as long up to the
    first step, and later longer by the longest pause so far. Zero waits for ever."""

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
    dataset: str | Path, run: Path, config: RunConfig, options: LaunchOptions, stop: StopRequest
) -> PretrainResult:
    """Where the run stands after training as far as options and signals let it.

    A run that has a checkpoint goes on from there, and ends with the weights it would have had
    without the stop. Checkpoints, metrics and the configuration appear in the run's folder.

    Raises:
        TrainError: the dataset does not fit the configuration, the run's checkpoint or another
            rank is of another configuration or dataset, losses are not finite any more, a
            checkpoint could not be written, or another rank is gone.
        StoppedEarly: a signal came before the run was open.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with (
        join_ranks(options.device, stop) as ranks,
        watch_for_hangs(ranks, options.hang_timeout_s) as watch,
        _hold_run(run, ranks),
    ):
        _leave_if_asked(stop, ranks)
        stored = open_dataset(dataset, options.storage)
        _leave_if_asked(stop, ranks)
        require_same_start(config, stored, ranks)
        loop = TrainLoop(StepInput(stored, config, ranks, options.reading), run, watch)
        loop.restore()
        loop.train(stop, max_steps=options.max_steps)
        return PretrainResult(
            run=run,
            step=loop.step,
            total_steps=loop.total_steps,
            signal_number=loop.stopped_by,
            is_first_rank=ranks.is_first,
        )


def _leave_if_asked(stop: StopRequest, ranks: Ranks) -> None:
    if number := greatest_over_ranks(stop.signal_number, ranks):
        raise StoppedEarly(number)


def _hold_run(run: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """Rank zero keeps other invocations out of the run's folder."""
    if not ranks.is_first:
        return nullcontext()
    run.mkdir(parents=True, exist_ok=True)
    return hold_lock(run / ".lock", f"{run} is being trained by another process; wait for it")
