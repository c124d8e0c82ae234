"""The released layout, made here from its description, against a plain forward pass."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear

from dinomm_train.errors import TrainError
from dinomm_train.pretrained import read_frozen_backbone

WIDTH, HEADS, DEPTH = 384, 6, 12


def released_weights() -> dict[str, Tensor]:
    """A ViT-S/8 on 14 channels whose position table of 28 x 28 is far from constant."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = timm.create_model("vit_small_patch8_224", in_chans=14, num_classes=0)
        weights: dict[str, Tensor] = vit.state_dict()
        weights["pos_embed"] = torch.randn(1, 785, WIDTH) * 0.5
    return weights


def write_released(path: Path, weights: dict[str, Tensor], *, epoch: object = 99) -> Path:
    head = {"head.mlp.0.weight": torch.zeros(2, 2)}
    teacher = {f"backbone.{name}": one for name, one in weights.items()}
    state = {
        "student": {f"module.{name}": one * 0 for name, one in (teacher | head).items()},
        "teacher": teacher | head,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": epoch,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
        "dino_loss": {"center": torch.zeros(1, 2)},
    }
    torch.save(state, path)
    return path


def cubic_weights(source: int, target: int) -> np.ndarray:
    """Row t weighs the sources of target t: Keys' kernel of a = -0.75, scale of target + 0.1."""
    table = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * source / (target + 0.1) - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            far, a = abs(centre - tap), -0.75
            if far <= 1:
                weight = (a + 2) * far**3 - (a + 3) * far**2 + 1
            else:
                weight = a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a
            table[row, min(max(tap, 0), source - 1)] += weight
    return table


def published_forward(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The class token's feature, operation by operation, in double precision."""
    w = {name: one.double() for name, one in weights.items()}
    patches = conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8)
    side = patches.shape[-1]
    taps = torch.from_numpy(cubic_weights(28, side))
    grid = w["pos_embed"][0, 1:].reshape(28, 28, WIDTH)
    grid = torch.einsum("yj,xi,jif->yxf", taps, taps, grid).reshape(side * side, WIDTH)
    tokens = patches.flatten(2).transpose(1, 2) + grid
    first = (w["cls_token"][0] + w["pos_embed"][0, :1]).expand(len(images), 1, WIDTH)
    tokens = torch.cat([first, tokens], dim=1)
    for block in (f"blocks.{number}." for number in range(DEPTH)):

        def dense(name: str, x: Tensor, block: str = block) -> Tensor:
            return linear(x, w[f"{block}{name}.weight"], w[f"{block}{name}.bias"])

        def norm(name: str, x: Tensor, block: str = block) -> Tensor:
            return layer_norm(
                x, (WIDTH,), w[f"{block}{name}.weight"], w[f"{block}{name}.bias"], eps=1e-6
            )

        qkv = dense("attn.qkv", norm("norm1", tokens))
        q, k, v = qkv.reshape(len(images), -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weight = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), dim=-1)
        tokens = tokens + dense("attn.proj", (weight @ v).transpose(1, 2).flatten(2))
        tokens = tokens + dense("mlp.fc2", gelu(dense("mlp.fc1", norm("norm2", tokens))))
    return layer_norm(tokens, (WIDTH,), w["norm.weight"], w["norm.bias"], eps=1e-6)[:, 0]


@pytest.mark.parametrize("side_px", [112, 120])
def test_features_equal_the_published_network_with_its_own_table_resampling(
    tmp_path: Path, side_px: int
) -> None:
    weights = released_weights()
    frozen = read_frozen_backbone(write_released(tmp_path / "released.pth", weights))
    images = torch.rand(1, 14, side_px, side_px, generator=torch.Generator().manual_seed(1))
    expected = published_forward(weights, images.double())
    torch.testing.assert_close(frozen.network(images).double(), expected, atol=1e-5, rtol=1e-5)
    assert not frozen.network.training
    assert frozen.expects.fill == 0.0
    assert frozen.expects.channels[:2] == ("B01", "B02")
    assert frozen.expects.channels[12:] == ("VH", "VV")


def test_another_number_of_channels_is_named(tmp_path: Path) -> None:
    weights = released_weights()
    weights["patch_embed.proj.weight"] = torch.zeros(WIDTH, 3, 8, 8)
    path = write_released(tmp_path / "rgb.pth", weights)
    with pytest.raises(TrainError, match=r"rgb\.pth takes 3 channels.* take 14 \(B01,B02"):
        read_frozen_backbone(path)


def test_weights_without_one_matching_name_are_refused(tmp_path: Path) -> None:
    path = write_released(tmp_path / "other.pth", {"conv1.weight": torch.zeros(2)})
    with pytest.raises(TrainError, match="0 of 150 weights have a matching name"):
        read_frozen_backbone(path)


class Surprise:
    """A type that no checkpoint needs."""


def test_a_file_with_any_other_pickled_type_is_refused(tmp_path: Path) -> None:
    path = write_released(tmp_path / "evil.pth", {}, epoch=Surprise())
    with pytest.raises(TrainError, match="not a readable checkpoint"):
        read_frozen_backbone(path)
