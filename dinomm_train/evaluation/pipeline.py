"""From a checkpoint and a dataset to the table of scores, on one process or shared by many."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigearth_prep.card import SPLITS
from bigearth_prep.terminal import progress_bar
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.location import open_dataset
from dinomm_train.data.shard_plan import bytes_at_once, uses_of_batches
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream_terms import require_cache
from dinomm_train.distributed import choose_device, most_on_a_machine, read_launch
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.collect import collect
from dinomm_train.evaluation.config import EvaluationConfig
from dinomm_train.evaluation.contestants import open_contestants
from dinomm_train.evaluation.evaluation import Evaluation
from dinomm_train.evaluation.features import FeatureStore, Share, wait_for
from dinomm_train.evaluation.images import choose_sensor_sets, in_batches
from dinomm_train.evaluation.jobs import (
    FEATURE_PROTOCOLS,
    Job,
    PredictionStore,
    pairs_of,
    plan_jobs,
)
from dinomm_train.evaluation.pictures.gallery import Gallery, draw_gallery
from dinomm_train.evaluation.protocols.finetune import SCORED_AT_ONCE
from dinomm_train.evaluation.workbench import Workbench

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """An evaluation, and pictures of patches beside it."""

    evaluation: Evaluation
    gallery: Gallery


def evaluate(config: EvaluationConfig) -> Findings | None:
    """Everything that was asked for; None on every process but the first of several.

    Processes share the work through files in the cache, and none waits for another in a collective:
    their number changes nothing but the time. What a stopped call has finished, the next one finds.

    Raises:
        TrainError: checkpoint or dataset cannot be read, do not fit each other, or lack what was
            asked for.
    """
    launch = read_launch(os.environ)
    share = Share(rank=launch.rank, world=launch.world) if launch else Share()
    bench = _set_up(config, local_rank=launch.local_rank if launch else 0)
    jobs = plan_jobs(bench.config, bench.contestants)
    if not jobs:
        raise TrainError(
            "nothing to score: fine-tuning an untrained network is training from scratch; add "
            "--supervised, or another --protocol than finetune"
        )
    for fraction in config.label_fractions:
        bench.labelled(fraction, seed=0)  # what is too few is refused before anything is computed
    _require_cache(bench, jobs, processes=most_on_a_machine(os.environ, world=share.world))
    _extract(bench, share)
    store = PredictionStore(config.cache, bench.dataset.checksum, bench.config)
    paths = {job: store.path(job, bench.contestants[job.network]) for job in jobs}
    _predict(bench, store, dict(list(paths.items())[share.rank :: share.world]))
    if share.rank:
        return None
    wait_for(list(paths.values()))
    done = {job: store.read(path) for job, path in paths.items()}
    return Findings(evaluation=collect(bench, done), gallery=draw_gallery(bench))


def _require_cache(bench: Workbench, jobs: Sequence[Job], *, processes: int) -> None:
    """Return nothing where the cache of a dataset that lies elsewhere holds what is needed at once.

    Processes of a machine share its cache and are at different places of a split; a network that
    learns meets the train split in another order each time, and so all of it at once.

    Raises:
        TrainError: it does not, and processes would wait for each other.
    """
    if bench.dataset.store.room is None:
        return
    learns = any(job.protocol not in FEATURE_PROTOCOLS for job in jobs)
    sizes = (bench.config.extraction.batch_size, *(SCORED_AT_ONCE,) * learns)
    needed = processes * max(
        _bytes_in_order(split, size) for split in bench.splits.values() for size in sizes
    )
    if learns:
        needed += sum(shard.bytes for shard in bench.splits["train"].shards)
    require_cache(bench.dataset.store, needed, "this evaluation")


def _bytes_in_order(split: StoredSplit, batch_size: int) -> int:
    """Of shards that are held at once while the split is read in its own order."""
    batches = in_batches(np.arange(len(split)), batch_size)
    return bytes_at_once(uses_of_batches(split.shards, split.shard_of, batches))


def _predict(bench: Workbench, store: PredictionStore, paths: Mapping[Job, Path]) -> None:
    """Return once each of these jobs' predictions are on disk."""
    with progress_bar(len(paths), "fits") as advance:
        for job, path in paths.items():
            if not path.is_file():
                _log.debug("%s", job)
                store.write(path, bench.run(job))
            advance(1)


def _extract(bench: Workbench, share: Share) -> None:
    """Return once all features that jobs look at are on disk."""
    seen = dict.fromkeys(one for pair in pairs_of(bench.config) for one in (pair.train, pair.test))
    extraction = dataclasses.replace(bench.config.extraction, sensor_sets=tuple(seen))
    for name, store in bench.stores.items():
        store.compute(name, bench.splits, extraction, device=bench.device, share=share)
    for store in bench.stores.values():
        store.wait(bench.splits, extraction.sensor_sets)


def open_splits(dataset: StoredDataset) -> dict[str, StoredSplit]:
    """The dataset's splits that hold samples, by name.

    Raises:
        TrainError: the dataset is unlabelled, or train or test holds no sample or no label.
    """
    if not dataset.card.labels.classes:
        raise TrainError(
            f"{dataset.location} is unlabelled: its card lists no class, and scores need labels; "
            "evaluate on a labelled dataset of the same bands, or write features with embed"
        )
    splits = {name: dataset.split(name) for name in SPLITS if _sample_count(dataset, name)}
    for name in ("train", "test"):
        if name not in splits:
            raise TrainError(
                f"{dataset.location} has no samples in split {name}: evaluation learns on train "
                "and scores on test; build shards with both, by --split or --split-ratio"
            )
    for name, split in splits.items():
        if not split.labels.any():
            raise TrainError(
                f"no sample in split {name} of {dataset.location} has a label: nothing can be "
                "learnt, chosen or scored by it; build shards with its labels, or without the split"
            )
    if "validation" not in splits:
        _log.warning(
            "%s has no validation samples; 20 %% of the labelled train samples choose in their "
            "place",
            dataset.location,
        )
    return splits


def _sample_count(dataset: StoredDataset, name: str) -> int:
    return dataset.card.splits[name].samples if name in dataset.card.splits else 0


def _set_up(config: EvaluationConfig, *, local_rank: int) -> Workbench:
    dataset = open_dataset(config.dataset, config.storage)
    splits = open_splits(dataset)
    if "legacy" in config.protocols and "validation" not in splits:
        raise TrainError(
            f"{dataset.location} has no validation samples, which --protocol legacy scores; leave "
            "it out, or build shards with a validation split"
        )
    wanted = choose_sensor_sets(dataset, config.extraction.sensor_sets)
    for pair in config.crossed:
        choose_sensor_sets(dataset, (pair.train, pair.test))
    config = dataclasses.replace(
        config, extraction=dataclasses.replace(config.extraction, sensor_sets=wanted)
    )
    device = choose_device(config.extraction.device, local_rank=local_rank)
    contestants = open_contestants(config, dataset, device)
    stores = {
        name: FeatureStore(config.cache, one.encoder, dataset)
        for name, one in contestants.items()
        if one.encoder is not None and set(FEATURE_PROTOCOLS) & set(config.protocols)
    }
    return Workbench(
        config=config,
        dataset=dataset,
        splits=splits,
        contestants=contestants,
        stores=stores,
        device=device,
    )
