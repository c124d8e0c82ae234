import dataclasses

import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import ExtractionConfig
from dinomm_train.evaluation.encoders import NetworkEncoder, network_checksum
from dinomm_train.evaluation.images import InputSize
from dinomm_train.models.frozen import FrozenBackbone, expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(
        make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1})
    )


def network(dataset: StoredDataset, *, depth: int = 6, seed: int = 0) -> FrozenBackbone:
    expects = expected_input(dataset.card, TINY_RUN.views)
    architecture = dataclasses.replace(TINY_MODEL, depth=depth)
    return untrained(architecture, expects, seed=seed, origin="a network")


def encoder(frozen: FrozenBackbone) -> NetworkEncoder:
    return NetworkEncoder(frozen, patch_px=32, config=ExtractionConfig(), device=CPU)


def test_features_are_four_class_tokens_and_the_mean_patch_of_a_plain_pass(
    dataset: StoredDataset,
) -> None:
    frozen = network(dataset)
    images = torch.rand(3, 14, 32, 32)
    vit = frozen.network.vit
    tokens = vit.patch_embed(images).flatten(1, 2)
    assert vit.cls_token is not None
    assert vit.pos_embed is not None
    tokens = torch.cat([vit.cls_token.expand(3, -1, -1), tokens], dim=1) + vit.pos_embed
    expected = []
    for block in vit.blocks:
        tokens = block(tokens)
        expected.append(vit.norm(tokens)[:, 0])
    expected = [*expected[-4:], vit.norm(tokens)[:, 1:].mean(dim=1)]
    found = encoder(frozen).encode(images, "s1+s2")
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)


def test_a_probe_may_choose_one_or_four_class_tokens_with_or_without_the_mean(
    dataset: StoredDataset,
) -> None:
    found = {one.name: (one.start, one.stop) for one in encoder(network(dataset)).choices}
    assert found == {
        "last CLS": (72, 96),
        "last CLS + mean patch": (72, 120),
        "last 4 CLS": (0, 96),
        "last 4 CLS + mean patch": (0, 120),
    }
    assert encoder(network(dataset)).plain.name == "last CLS"


def test_a_network_of_few_blocks_gives_what_it_has(dataset: StoredDataset) -> None:
    short = encoder(network(dataset, depth=1))
    assert [one.name for one in short.choices] == ["last CLS", "last CLS + mean patch"]
    assert short.encode(torch.rand(2, 14, 32, 32), "s2").shape == (2, short.width)


def test_features_of_sensor_sets_differ(dataset: StoredDataset) -> None:
    one, images = encoder(network(dataset)), torch.rand(2, 14, 32, 32)
    rows = [one.encode(images, sensors) for sensors in ("s1", "s2", "s1+s2")]
    assert not torch.allclose(rows[0], rows[1])
    assert not torch.allclose(rows[1], rows[2])


def test_the_checksum_changes_with_weights_input_size_fill_and_arithmetic(
    dataset: StoredDataset,
) -> None:
    frozen = network(dataset)
    size = InputSize(crop_px=32, input_px=32, antialias=False)
    shifted = dataclasses.replace(frozen, expects=dataclasses.replace(frozen.expects, fill=9.0))
    checksums = {
        network_checksum(frozen, size, "fp32"),
        network_checksum(network(dataset, seed=1), size, "fp32"),
        network_checksum(frozen, dataclasses.replace(size, input_px=40), "fp32"),
        network_checksum(frozen, size, "bf16"),
        network_checksum(shifted, size, "fp32"),
    }
    assert len(checksums) == 5
    assert network_checksum(network(dataset), size, "fp32") in checksums
