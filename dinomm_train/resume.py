"""Going on with a run: only with the configuration, dataset and network that it began with."""

from dataclasses import replace
from pathlib import Path

from dinomm_train.checkpoint import Checkpoint
from dinomm_train.config import RunConfig
from dinomm_train.config_text import config_differences
from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks, greatest_over_ranks
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner


def require_same_step(step: int, ranks: Ranks, run: Path) -> None:
    """Return nothing where all ranks have found a checkpoint of this step.

    Raises:
        TrainError: they have not; on every rank.
    """
    greatest, least = greatest_over_ranks(step, ranks), -greatest_over_ranks(-step, ranks)
    if least != greatest:
        raise TrainError(
            f"the ranks found checkpoints of different steps in {run}, from {least} to {greatest}; "
            "put the run on a file system that all nodes share"
        )


def require_same_run(
    stored: Checkpoint, config: RunConfig, dataset: StoredDataset, run: Path
) -> None:
    """Return nothing where the checkpoint is one of this run.

    Raises:
        TrainError: settings that change what is learnt, or the dataset, are others.
    """
    # What these settings say changes no weight but by rounding.
    kept = stored.config
    optim = replace(config.optim, stop_after_skipped=kept.optim.stop_after_skipped)
    comparable = replace(
        config, compute=kept.compute, output=kept.output, health=kept.health, optim=optim
    )
    changed = list(config_differences(stored.config, comparable))
    if stored.dataset_checksum != dataset.checksum:
        changed.append(
            f"dataset: {stored.dataset_checksum} -> {dataset.checksum} ({dataset.location})"
        )
    if changed:
        raise TrainError(
            f"{run} was started otherwise; give the same settings and dataset, or another --out. "
            f"Changed: {'; '.join(changed)}"
        )


def restore_learner(learner: Learner, stored: Checkpoint, source: Path) -> None:
    """Put the checkpoint's state into the learner.

    Raises:
        TrainError: the state is that of another network.
    """
    try:
        learner.load_state_dict(stored.state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainError(
            f"the checkpoint of step {stored.step} in {source} does not fit this network: "
            f"{' '.join(str(error).split())[:500]}; go on with the version that wrote it, or start "
            "again in another --out"
        ) from error
