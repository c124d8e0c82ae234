"""The order of samples of a run that was, or of one that could be."""

from dataclasses import dataclass
from pathlib import Path

from dinomm_train.config import RunConfig
from dinomm_train.config_text import read_config
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.location import open_tables
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.training_stream import RECORD_NAME, read_record
from dinomm_train.errors import TrainError

_CONFIG_NAME = "config.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOrder:
    """What is needed to tell which sample comes when."""

    split: StoredSplit
    order: SampleOrder

    epochs: int
    """Length of the run."""

    ranks: int
    """Processes that share a step."""

    is_last_start: bool
    """Whether the run's last start had so many; steps before it may have been shared by others."""

    def require_step(self, step: int) -> None:
        """Pass if the run has this step.

        Raises:
            TrainError: it is shorter.
        """
        steps = self.epochs * self.order.steps_per_epoch
        if step >= steps:
            raise TrainError(f"step {step:,} is beyond the run's last, {steps - 1:,}")


def open_order(
    source: str | Path, config: RunConfig, ranks: int | None, cache_dir: Path | None = None
) -> RunOrder:
    """The order of a run's folder, or of a dataset under a configuration; no shard is looked at.

    Raises:
        TrainError: it is neither, or the run's dataset has changed since.
    """
    is_last_start = False
    if isinstance(source, Path) and (source / RECORD_NAME).is_file():
        is_last_start = ranks is None
        record = read_record(source)
        config = read_config(source / _CONFIG_NAME, RunConfig())
        dataset = open_tables(record.dataset, cache_dir, record.dataset_checksum)
        _require_checksum(dataset, record.dataset_checksum, source)
        ranks = ranks or record.ranks
    else:
        dataset = open_tables(source, cache_dir)
    split = dataset.split("train")
    return RunOrder(
        split=split,
        order=SampleOrder.of(split, config.sampling),
        epochs=config.schedule.epochs,
        ranks=ranks or 1,
        is_last_start=is_last_start,
    )


def _require_checksum(dataset: StoredDataset, checksum: str, run: Path) -> None:
    if dataset.checksum != checksum:
        raise TrainError(
            f"{run} was trained on a dataset with the checksum {checksum}, {dataset.location} now "
            f"has {dataset.checksum}; name the dataset that it saw, with --config "
            f"{run / _CONFIG_NAME}"
        )
