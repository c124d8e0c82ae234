"""Going on with a run: with the configuration, dataset and network it began with, on all ranks."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import xxhash

from dinomm_train.checkpoint import Checkpoint, find_checkpoint
from dinomm_train.config import RunConfig
from dinomm_train.config_text import config_differences
from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks, gather_objects
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner

_LOOKS, _LOOK_AGAIN_S = 12, 5.0

_log = logging.getLogger(__name__)


def require_same_start(config: RunConfig, dataset: StoredDataset, ranks: Ranks) -> None:
    """Return nothing where all ranks have this configuration and this dataset.

    Raises:
        TrainError: they have not; on every rank.
    """
    name = f"{dataset.checksum}, manifest {dataset.manifest_checksum}"
    starts = gather_objects((config, name), ranks)
    first_config, first_name = starts[0]
    for rank, (other_config, other_name) in enumerate(starts):
        changed = list(config_differences(first_config, other_config))
        if other_name != first_name:
            changed.append(f"dataset: {first_name} -> {other_name}")
        if changed:
            raise TrainError(
                f"rank {rank} was started otherwise than rank 0; give all ranks the same settings "
                f"and dataset. Changed: {'; '.join(changed)}"
            )


def find_same_checkpoint(run: Path, ranks: Ranks) -> Checkpoint | None:
    """The run's newest whole checkpoint, the same on all ranks; None where there is none.

    Raises:
        TrainError: ranks find different ones, also after a minute, or all find that none is whole;
            on every rank.
    """
    names: list[str] = []
    for look in range(_LOOKS):
        if look:
            # A node may see for a while what a shared file system was before the last save.
            if ranks.is_first:
                _log.info("the ranks see different checkpoints in %s; looking again", run)
            time.sleep(_LOOK_AGAIN_S)
        found = _look_for_checkpoint(run)
        names = gather_objects(_name_found(found), ranks)
        if len(set(names)) == 1:
            if isinstance(found, TrainError):
                raise found
            return found
        del found  # two states would be in memory at the next look
    rank = next(rank for rank, name in enumerate(names) if name != names[0])
    raise TrainError(
        f"the ranks found different checkpoints in {run}: rank 0 {names[0]}, rank {rank} "
        f"{names[rank]}; put the run on a file system that all nodes share"
    )


def _look_for_checkpoint(run: Path) -> Checkpoint | TrainError | None:
    try:
        return find_checkpoint(run)
    except TrainError as error:  # so may be what a node sees for a while
        return error


def _name_found(found: Checkpoint | TrainError | None) -> str:
    if found is None:
        return "none"
    if isinstance(found, TrainError):
        return f"none that is whole ({found})"
    # The centre follows from all that was learnt, and is small.
    centre = found.loss["centre"].numpy().tobytes()
    return f"step {found.step} ({xxhash.xxh3_64_hexdigest(centre)})"


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
