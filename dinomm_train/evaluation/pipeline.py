"""From a checkpoint and a dataset to the table of scores."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dinomm_train import __version__
from dinomm_train.data.index import StoredDataset, StoredSplit
from dinomm_train.evaluation.config import EvaluationConfig
from dinomm_train.evaluation.features import choose_input_size, choose_sensor_sets
from dinomm_train.evaluation.networks import open_networks
from dinomm_train.evaluation.report import Evaluation, EvaluationSetup
from dinomm_train.evaluation.sensor_matrix import describe_protocol, open_splits, score_matrix
from dinomm_train.models.frozen import FrozenBackbone


def evaluate(config: EvaluationConfig) -> Evaluation:
    """Scores of the network, and of the same one untrained, under every sensor set and protocol.

    Raises:
        TrainError: checkpoint or dataset cannot be read, do not fit each other, or lack what was
            asked for.
    """
    dataset = StoredDataset.open(config.dataset)
    splits = open_splits(dataset)
    sensor_sets = choose_sensor_sets(dataset, config.extraction.sensor_sets)
    extraction = dataclasses.replace(config.extraction, sensor_sets=sensor_sets)
    config = dataclasses.replace(config, extraction=extraction)
    networks = open_networks(config.network, dataset, floor=config.floor)
    rows = score_matrix(networks, dataset, splits, config)
    return Evaluation(setup=_setup(config, dataset, splits, networks), rows=rows)


def _setup(
    config: EvaluationConfig,
    dataset: StoredDataset,
    splits: Mapping[str, StoredSplit],
    networks: Mapping[str, FrozenBackbone],
) -> EvaluationSetup:
    *_, frozen = networks.values()
    size = choose_input_size(frozen, dataset.card.patch.size_px, config.extraction)
    return EvaluationSetup(
        networks={name: one.origin for name, one in networks.items()},
        architecture=dataclasses.asdict(frozen.architecture),
        dataset=str(dataset.path),
        dataset_checksum=dataset.checksum,
        samples={name: len(split) for name, split in splits.items()},
        positive_share=float(np.mean(splits["test"].labels)),
        crop_px=size.crop_px,
        input_px=size.input_px,
        fill=frozen.expects.fill,
        seed=config.network.seed,
        protocols={
            name: describe_protocol(name, held_out="validation" not in splits)
            for name in config.protocols
        },
        created_by=f"dinomm-train {__version__}",
    )
