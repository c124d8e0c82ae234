from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from bigearth_prep.card import DatasetCard, read_card
from dinomm_train.errors import TrainError
from dinomm_train.models.plain_weights import read_plain_weights
from dinomm_train.pretrained import read_frozen_backbone
from tests.shard_fixture import make_dataset

SHAPE: dict[str, Any] = {
    "patch_size": 8,
    "depth": 2,
    "embed_dim": 64,
    "num_heads": 1,
    "img_size": 32,
}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> DatasetCard:
    return read_card(make_dataset(tmp_path_factory.mktemp("dataset"), samples={"train": 1}))


def plain_vit(channels: int = 14) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_small_patch8_224", in_chans=channels, num_classes=5, dynamic_img_size=True, **SHAPE
    ).eval()


@pytest.mark.parametrize("form", ["bare", "state_dict", "model", "safetensors"])
def test_a_timm_vit_gives_timms_own_features_however_it_is_stored(
    card: DatasetCard, tmp_path: Path, form: str
) -> None:
    vit = plain_vit()
    weights: dict[str, Tensor] = vit.state_dict()
    path = tmp_path / ("vit.safetensors" if form == "safetensors" else "vit.pth")
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights if form == "bare" else {form: weights}, path)
    frozen = read_frozen_backbone(path, card)
    images = torch.rand(2, 14, 40, 40)
    with torch.no_grad():
        expected = vit.forward_features(images)[:, 0]  # type: ignore[operator]
    torch.testing.assert_close(frozen.network(images), expected, atol=1e-5, rtol=1e-5)
    assert frozen.expects.channels == card.channels
    assert not frozen.network.training


def test_another_number_of_channels_is_refused_with_what_to_do(card: DatasetCard) -> None:
    with pytest.raises(TrainError, match=r"takes 3 channels, the dataset holds 14 \(B01,B02.*--ba"):
        read_plain_weights(plain_vit(3).state_dict(), card, origin="rgb.pth")


def test_without_a_dataset_nothing_says_what_the_input_is() -> None:
    with pytest.raises(TrainError, match="does not say which bands it was trained on"):
        read_plain_weights(plain_vit().state_dict(), None, origin="vit.pth")


def test_weights_of_something_else_are_refused_by_what_is_missing(card: DatasetCard) -> None:
    weights = {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    with pytest.raises(TrainError, match=r"patch_embed\.proj\.weight is missing, it holds conv1"):
        read_plain_weights(weights, card, origin="resnet.pth")


def test_weights_beyond_a_plain_vits_are_named(card: DatasetCard) -> None:
    weights = plain_vit().state_dict() | {"reg_token": torch.zeros(1, 4, 64)}
    with pytest.raises(TrainError, match="reg_token is not part of it"):
        read_plain_weights(weights, card, origin="registers.pth")
