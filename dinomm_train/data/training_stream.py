"""The stream of a run on one rank: opened, its terms stated, refused where they cannot be met."""

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bigearth_prep.whole_file import write_text
from dinomm_train.config import RunConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.loader import ReadOptions, TrainingBatches
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.stream_terms import StreamTerms, require_room
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError

RECORD_NAME = "stream.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamRecord:
    """What a run leaves behind of its stream, so that its order can be told later."""

    dataset: str
    """Folder or address."""

    dataset_checksum: str
    """xxh3_128 of the dataset's `dataset.json`."""

    ranks: int
    """Processes that shared each step when the run was last started."""


def open_training_batches(
    dataset: StoredDataset, config: RunConfig, ranks: Ranks, options: ReadOptions
) -> TrainingBatches:
    """This rank's batches of the train split; rank zero says what they come to.

    Raises:
        TrainError: the split does not fill a step, ranks cannot share one evenly, or the cache is
            too small for the shuffle.
    """
    split = dataset.split("train")
    order = SampleOrder.of(split, config.sampling)
    epochs = config.schedule.epochs
    terms = StreamTerms.of(split, order, world=ranks.world, epochs=epochs)
    lines = (*terms.lines(), require_room(split, order, terms, epochs=epochs))
    if ranks.is_first:
        _log.info("%s", "\n".join(lines))
    on_device = replace(options, pinned=ranks.device.type == "cuda")
    return TrainingBatches(split, order, rank=ranks.rank, world=ranks.world, options=on_device)


def write_record(run: Path, dataset: StoredDataset, ranks: Ranks) -> None:
    """Leave the record in the run's folder."""
    record = StreamRecord(
        dataset=dataset.location, dataset_checksum=dataset.checksum, ranks=ranks.world
    )
    write_text(run / RECORD_NAME, json.dumps(asdict(record), indent=2) + "\n")


def read_record(run: Path) -> StreamRecord:
    """The record that a run left.

    Raises:
        TrainError: there is none, or it cannot be read.
    """
    path = run / RECORD_NAME
    try:
        return StreamRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise TrainError(
            f"{path} cannot be read ({error}); name the dataset instead, with --config "
            f"{run / 'config.toml'}"
        ) from error
