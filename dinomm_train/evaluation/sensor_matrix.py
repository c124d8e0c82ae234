"""Scores of networks under every sensor set and protocol, from features computed once."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bigearth_prep.card import SPLITS
from bigearth_prep.terminal import progress_bar
from dinomm_train.data.index import StoredDataset, StoredSplit
from dinomm_train.distributed import choose_device
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import (
    EvaluationConfig,
    ExtractionConfig,
    Protocol,
    SensorSet,
)
from dinomm_train.evaluation.features import LabelledFeatures, embed_split
from dinomm_train.evaluation.knn import NEIGHBOURS, TEMPERATURE, knn_votes
from dinomm_train.evaluation.linear_probe import L2_VALUES, choose_l2, fit_linear_probes
from dinomm_train.evaluation.scores import Scores, score_probabilities
from dinomm_train.models.frozen import FrozenBackbone

_log = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.2
"""Of the train split, where a dataset has no validation split to choose L2 on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRow:
    """One network's scores on the test split."""

    network: str
    sensors: SensorSet
    protocol: Protocol
    scores: Scores
    l2: float | None
    """Strength of L2 that validation chose; none for kNN."""


def open_splits(dataset: StoredDataset) -> dict[str, StoredSplit]:
    """The dataset's splits that hold samples, by name.

    Raises:
        TrainError: the dataset is unlabelled, or train or test holds no sample.
    """
    if not dataset.card.labels.classes:
        raise TrainError(
            f"{dataset.path} is unlabelled: its card lists no class, and scores need labels; "
            "evaluate on a labelled dataset of the same bands, or write features with embed"
        )
    splits = {name: dataset.split(name) for name in SPLITS if _sample_count(dataset, name)}
    for name in ("train", "test"):
        if name not in splits:
            raise TrainError(
                f"{dataset.path} has no samples in split {name}: evaluation learns on train and "
                "scores on test; build shards with both, by --split or --split-ratio"
            )
    if "validation" not in splits:
        _log.warning(
            "%s has no validation samples; %.0f %% of train choose L2 in their place",
            dataset.path,
            100 * HELD_OUT_SHARE,
        )
    return splits


def score_matrix(
    networks: Mapping[str, FrozenBackbone],
    dataset: StoredDataset,
    splits: Mapping[str, StoredSplit],
    config: EvaluationConfig,
) -> tuple[MatrixRow, ...]:
    """One row per sensor set, protocol and network, in this order.

    Raises:
        TrainError: the patches cannot be brought to a size that a network takes, or no test sample
            has a label.
    """
    cells = list(product(config.extraction.sensor_sets, config.protocols))
    rows = []
    for name, frozen in networks.items():
        features = _extract(name, frozen, dataset, splits, config.extraction)
        for sensors, protocol in cells:
            probabilities, l2 = predict(protocol, features[sensors], seed=config.network.seed)
            scores = score_probabilities(
                splits["test"].labels, probabilities.cpu().numpy(), dataset.card.labels.classes
            )
            rows.append(
                MatrixRow(network=name, sensors=sensors, protocol=protocol, scores=scores, l2=l2)
            )
    return tuple(sorted(rows, key=lambda row: cells.index((row.sensors, row.protocol))))


def predict(
    protocol: Protocol, features: Mapping[str, LabelledFeatures], *, seed: int
) -> tuple[Float[Tensor, "sample class"], float | None]:
    """Class probabilities of the test samples, and the strength of L2 chosen if any was.

    Args:
        protocol: What learns.
        features: By split; without validation, a share of train takes its place.
        seed: Of that share.
    """
    train, test = features["train"], features["test"]
    if protocol == "knn":
        return knn_votes(train.features, train.labels, test.features), None
    validation = features.get("validation")
    if validation is None:
        train, validation = hold_out(train, seed=seed)
    probes = fit_linear_probes(train.features, train.labels)
    choice = choose_l2(probes, validation.features, validation.labels)
    return probes.probabilities(test.features, choice.index), choice.l2


def describe_protocol(protocol: Protocol, *, held_out: bool) -> str:
    """What the protocol does, in one line for a report.

    Args:
        protocol: Which.
        held_out: Whether a share of train stands in for the validation split.
    """
    if protocol == "knn":
        return (
            f"{NEIGHBOURS} nearest train samples by cosine, each voting with weight "
            f"exp(cosine / {TEMPERATURE})"
        )
    chooser = f"{HELD_OUT_SHARE:.0%} of train, left out of the fit" if held_out else "validation"
    return (
        "logistic regression on standardized features, L2 of "
        f"{', '.join(f'{l2:g}' for l2 in L2_VALUES)} per sample, chosen by micro AP on {chooser}"
    )


def hold_out(train: LabelledFeatures, *, seed: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    """The samples without, and with only, a random share of at least one."""
    order = np.random.default_rng(seed).permutation(len(train))
    count = max(1, round(HELD_OUT_SHARE * len(train)))
    return train.at(order[count:]), train.at(order[:count])


def _sample_count(dataset: StoredDataset, name: str) -> int:
    return dataset.card.splits[name].samples if name in dataset.card.splits else 0


def _extract(
    name: str,
    frozen: FrozenBackbone,
    dataset: StoredDataset,
    splits: Mapping[str, StoredSplit],
    config: ExtractionConfig,
) -> dict[SensorSet, dict[str, LabelledFeatures]]:
    """Features by sensor set and split, on the device of the extraction."""
    device = choose_device(config.device)
    found: dict[SensorSet, dict[str, LabelledFeatures]] = {one: {} for one in config.sensor_sets}
    with progress_bar(sum(map(len, splits.values())), f"patches through {name}") as advance:
        for split_name, split in splits.items():
            batches = []
            for batch in embed_split(frozen, dataset, split, config):
                batches.append(batch)
                advance(len(batch[config.sensor_sets[0]]))
            labels = torch.from_numpy(split.labels).to(device)
            for sensors in config.sensor_sets:
                joined = torch.cat([batch[sensors] for batch in batches]).to(device)
                found[sensors][split_name] = LabelledFeatures(features=joined, labels=labels)
    return found
