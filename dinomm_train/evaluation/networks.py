"""The networks that an evaluation compares."""

from pathlib import Path

from bigearth_prep.card import DatasetCard
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import RANDOM, NetworkChoice
from dinomm_train.models.frozen import (
    FrozenBackbone,
    expected_input,
    require_same_input,
    untrained,
)
from dinomm_train.pretrained import read_frozen_backbone

CHECKPOINT = "checkpoint"
"""Name in the table of the network that is evaluated; the untrained one is `random`."""


def open_network(choice: NetworkChoice, dataset: StoredDataset) -> FrozenBackbone:
    """The network that was chosen, fit for this dataset.

    Raises:
        TrainError: it cannot be read, or was trained on other bands or another normalization.
    """
    if choice.checkpoint == RANDOM:
        return _untrained_for(choice, dataset.card)
    frozen = read_frozen_backbone(Path(choice.checkpoint))
    require_same_input(frozen, dataset.card, str(dataset.path))
    return frozen


def open_networks(
    choice: NetworkChoice, dataset: StoredDataset, *, floor: bool
) -> dict[str, FrozenBackbone]:
    """The chosen network, and before it the same one untrained where a floor is wanted.

    Raises:
        TrainError: as `open_network` does.
    """
    frozen = open_network(choice, dataset)
    if choice.checkpoint == RANDOM:
        return {RANDOM: frozen}
    if not floor:
        return {CHECKPOINT: frozen}
    twin = untrained(
        frozen.architecture, frozen.expects, seed=choice.seed, origin=_origin(choice.seed)
    )
    return {RANDOM: twin, CHECKPOINT: frozen}


def _untrained_for(choice: NetworkChoice, card: DatasetCard) -> FrozenBackbone:
    expects = expected_input(card, choice.untrained.views)
    return untrained(choice.untrained.model, expects, seed=choice.seed, origin=_origin(choice.seed))


def _origin(seed: int) -> str:
    return f"untrained, initial weights from seed {seed}"
