import dataclasses
import json
from collections.abc import Callable

import pytest
import torch

from bigearth_prep.card import BandParameters, DatasetCard, read_card
from dinomm_train.errors import TrainError
from dinomm_train.models.frozen import (
    FrozenBackbone,
    expected_input,
    expected_input_from_json,
    freeze,
    require_same_input,
    untrained,
)
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> DatasetCard:
    return read_card(make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1}))


@pytest.fixture
def frozen(card: DatasetCard) -> FrozenBackbone:
    expects = expected_input(card, TINY_RUN.views)
    return untrained(TINY_MODEL, expects, seed=0, origin="a network")


def test_what_a_network_expects_survives_json(frozen: FrozenBackbone) -> None:
    assert expected_input_from_json(frozen.expects.to_json()) == frozen.expects


def test_untrained_weights_depend_on_the_seed_alone_and_draw_nothing_else(
    card: DatasetCard,
) -> None:
    expects = expected_input(card, TINY_RUN.views)
    images = torch.rand(2, 14, 32, 32)
    state = torch.random.get_rng_state()
    first, again, other = (
        untrained(TINY_MODEL, expects, seed=seed, origin="").network(images) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not first.requires_grad


def test_the_datasets_own_card_is_accepted(frozen: FrozenBackbone, card: DatasetCard) -> None:
    require_same_input(frozen, card, "DATASET")


def reverse_radar(card: DatasetCard) -> DatasetCard:
    radar = dataclasses.replace(card.sensors["s1"], bands=("VV", "VH"))
    return dataclasses.replace(card, sensors=card.sensors | {"s1": radar})


def shift_b02(card: DatasetCard) -> DatasetCard:
    parameters = card.normalization.parameters | {
        "B02": BandParameters(mean=1.0, std=2.0, lower=-3.0, upper=5.0)
    }
    return dataclasses.replace(
        card, normalization=dataclasses.replace(card.normalization, parameters=parameters)
    )


def linear_radar(card: DatasetCard) -> DatasetCard:
    radar = dataclasses.replace(card.sensors["s1"], unit="linear power")
    return dataclasses.replace(card, sensors=card.sensors | {"s1": radar})


def rename_scheme(card: DatasetCard) -> DatasetCard:
    return dataclasses.replace(
        card, normalization=dataclasses.replace(card.normalization, scheme="zscore")
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (reverse_radar, "VV,VH instead of .*VH,VV"),
        (
            shift_b02,
            "B02 normalized with mean 1, std 2, lower -3, upper 5 instead of mean 430, std 570",
        ),
        (rename_scheme, "normalization zscore instead of paper"),
        (linear_radar, "s1 in linear power instead of dB"),
    ],
)
def test_another_input_is_refused_and_the_difference_spelled_out(
    frozen: FrozenBackbone,
    card: DatasetCard,
    change: Callable[[DatasetCard], DatasetCard],
    named: str,
) -> None:
    with pytest.raises(TrainError, match=f"DATASET does not hold.*{named}"):
        require_same_input(frozen, change(card), "DATASET")


def test_missing_superfluous_and_misshapen_weights_are_refused(frozen: FrozenBackbone) -> None:
    weights = frozen.network.vit.state_dict()
    weights["extra"] = weights.pop("norm.bias")
    weights["norm.weight"] = torch.zeros(5)
    with pytest.raises(
        TrainError,
        match=r"norm\.bias is missing; extra is not part of it; norm\.weight is \(5,\), "
        r"expected \(24,\)",
    ):
        freeze(TINY_MODEL, frozen.expects, weights, origin="a file")


def test_frozen_weights_are_the_ones_given(frozen: FrozenBackbone) -> None:
    again = freeze(TINY_MODEL, frozen.expects, frozen.network.vit.state_dict(), origin="a file")
    images = torch.rand(2, 14, 40, 40)
    assert torch.equal(again.network(images), frozen.network(images))


def test_whose_a_channel_is_stands_in_json_and_follows_from_names_where_it_does_not(
    frozen: FrozenBackbone, card: DatasetCard
) -> None:
    assert frozen.expects.channel_sensors == ("s2",) * 12 + ("s1",) * 2
    fields = json.loads(frozen.expects.to_json())
    del fields["sensors"]
    earlier = expected_input_from_json(json.dumps(fields))
    assert earlier.channel_sensors == frozen.expects.channel_sensors
    optical = dataclasses.replace(card.sensors["s2"], bands=("red", "nir"))
    other = dataclasses.replace(card, sensors=card.sensors | {"s2": optical})
    assert expected_input(other, TINY_RUN.views).channel_sensors == ("s2", "s2", "s1", "s1")
