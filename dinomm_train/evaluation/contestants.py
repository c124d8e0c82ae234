"""What an evaluation compares: the checkpoint, others beside it, floors, and a ceiling."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bigearth_prep.card import DatasetCard
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import (
    CHECKPOINT,
    RANDOM,
    SUPERVISED,
    EvaluationConfig,
    ExtractionConfig,
    NetworkChoice,
)
from dinomm_train.evaluation.encoders import Encoder, NetworkEncoder, network_checksum
from dinomm_train.evaluation.floors.random_convolutions import RandomConvolutions
from dinomm_train.evaluation.floors.statistics import ChannelStatistics
from dinomm_train.evaluation.images import InputSize, choose_crop, choose_input_size
from dinomm_train.models.frozen import (
    FrozenBackbone,
    expected_input,
    require_same_input,
    untrained,
)
from dinomm_train.pretrained import read_frozen_backbone


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A row's worth of the table: features, weights to start from, or both."""

    origin: str
    """Where it comes from, in words."""

    checksum: str
    """Stands for everything that decides its predictions, but for labels and protocol."""

    encoder: Encoder | None
    """None for one that has no features before it has learnt."""

    frozen: FrozenBackbone | None
    """None for one that is no network."""

    size: InputSize | None
    """Of images that the network is given."""


def open_network(choice: NetworkChoice, dataset: StoredDataset) -> FrozenBackbone:
    """The network that was chosen, fit for this dataset.

    Raises:
        TrainError: it cannot be read, or was trained on other bands or another normalization.
    """
    if choice.checkpoint in (RANDOM, SUPERVISED):
        expects = expected_input(dataset.card, choice.untrained.views)
        return untrained(
            choice.untrained.model, expects, seed=choice.seed, origin=_origin(choice.seed)
        )
    frozen = read_frozen_backbone(Path(choice.checkpoint), dataset.card)
    require_same_input(frozen, dataset.card, dataset.location)
    return frozen


def open_contestants(
    config: EvaluationConfig, dataset: StoredDataset, device: torch.device
) -> dict[str, Contestant]:
    """By name in the table: floors, then the checkpoint and those beside it, then the ceiling.

    Raises:
        TrainError: as `open_network` does, or patches do not fit a network.
    """
    return dict(_contestants(config, dataset, device))


def _contestants(
    config: EvaluationConfig, dataset: StoredDataset, device: torch.device
) -> Iterator[tuple[str, Contestant]]:
    card, chosen = dataset.card, config.network.checkpoint
    frozen = open_network(config.network, dataset)
    extraction = config.extraction
    twin = untrained(
        frozen.architecture,
        frozen.expects,
        seed=config.network.seed,
        origin=_origin(config.network.seed),
    )
    if chosen == RANDOM or "random" in config.floors:
        yield RANDOM, _of_network(twin, card, extraction, device)
    if "statistics" in config.floors:
        crop_px = choose_crop(card.patch.size_px, extraction)
        yield (
            "statistics",
            _of_floor(ChannelStatistics(frozen.expects.channel_sensors, crop_px=crop_px)),
        )
    if "rcf" in config.floors:
        crop_px = choose_crop(card.patch.size_px, extraction)
        filters = RandomConvolutions(
            frozen.expects.channel_sensors, crop_px=crop_px, seed=config.network.seed, device=device
        )
        yield "rcf", _of_floor(filters)
    if chosen not in (RANDOM, SUPERVISED):
        yield CHECKPOINT, _of_network(frozen, card, extraction, device)
    for name, checkpoint in config.beside.items():
        other = NetworkChoice(checkpoint=checkpoint, untrained=config.network.untrained)
        yield name, _of_network(open_network(other, dataset), card, extraction, device)
    if config.supervised or chosen == SUPERVISED:
        yield SUPERVISED, _of_labels(twin, card, extraction)


def _of_network(
    frozen: FrozenBackbone, card: DatasetCard, config: ExtractionConfig, device: torch.device
) -> Contestant:
    encoder = NetworkEncoder(frozen, patch_px=card.patch.size_px, config=config, device=device)
    return Contestant(
        origin=frozen.origin,
        checksum=encoder.checksum,
        encoder=encoder,
        frozen=frozen,
        size=encoder.size,
    )


def _of_floor(encoder: Encoder) -> Contestant:
    return Contestant(
        origin=encoder.origin,
        checksum=encoder.checksum,
        encoder=encoder,
        frozen=None,
        size=None,
    )


def _of_labels(twin: FrozenBackbone, card: DatasetCard, config: ExtractionConfig) -> Contestant:
    size = choose_input_size(twin, card.patch.size_px, config)
    return Contestant(
        origin=f"trained from scratch with the labels, {twin.origin}",
        checksum=network_checksum(twin, size, config.precision),
        encoder=None,
        frozen=twin,
        size=size,
    )


def _origin(seed: int) -> str:
    return f"untrained, initial weights from seed {seed}"
