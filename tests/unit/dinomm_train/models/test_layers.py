import dataclasses

import pytest
import torch
from torch import Tensor

from dinomm_train.config import ModelConfig
from dinomm_train.models.backbone import Backbone, build_backbone
from dinomm_train.models.layers import last_attention, last_tokens

CONFIG = ModelConfig(patch_px=8, depth=3, width=24, heads=2, drop_path=0.0)


def backbone(**changes: object) -> Backbone:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    built = build_backbone(config, channels=3, global_px=32).eval()
    assert built.vit.pos_embed is not None
    built.vit.pos_embed.data = torch.randn_like(built.vit.pos_embed)
    return built.requires_grad_(requires_grad=False)


@pytest.fixture
def crops() -> Tensor:
    return torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("table", ["timm", "published"])
def test_the_last_class_token_is_the_backbones_feature(crops: Tensor, table: str) -> None:
    network = backbone(table_px=64, table_resampling=table)
    tokens = last_tokens(network, crops, blocks=2)
    assert [one.shape for one in tokens] == [(2, 26, 24)] * 2
    torch.testing.assert_close(tokens[-1][:, 0], network(crops))
    assert network.vit.pos_embed is not None
    assert network.vit.pos_embed.shape[1] == 65, "the network keeps its table"


def test_fewer_blocks_than_asked_for_give_what_there_is(crops: Tensor) -> None:
    assert len(last_tokens(backbone(depth=1), crops, blocks=4)) == 1


@pytest.mark.parametrize("depth", [1, 3])
def test_attention_equals_the_softmax_of_the_last_block_written_out(
    crops: Tensor, depth: int
) -> None:
    network = backbone(depth=depth)
    vit = network.vit
    inputs = []
    with vit.blocks[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0])):
        last_tokens(network, crops, blocks=1)
    weights = dict(vit.blocks[-1].named_parameters())
    normed = torch.nn.functional.layer_norm(
        inputs[0], (24,), weights["norm1.weight"], weights["norm1.bias"], eps=1e-6
    )
    qkv = normed @ weights["attn.qkv.weight"].T + weights["attn.qkv.bias"]
    found = last_attention(network, crops)
    assert found.shape == (2, 2, 5, 5)
    for head in range(2):
        columns = slice(12 * head, 12 * (head + 1))
        query, key = qkv[:, 0, :24][:, columns], qkv[:, :, 24:48][:, :, columns]
        logits = torch.einsum("cf,ctf->ct", query, key) / 12**0.5
        expected = torch.softmax(logits, dim=1)[:, 1:].reshape(2, 5, 5)
        torch.testing.assert_close(found[:, head], expected)
