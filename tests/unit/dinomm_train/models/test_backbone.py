"""Backbones of any channel count and crop size, and the position table as it was published."""

from dataclasses import replace

import pytest
import timm
import torch
from torch.nn.functional import interpolate

from dinomm_train.config import ModelConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.backbone import build_backbone, resample_table_as_published

TINY = ModelConfig(
    name="vit_tiny_patch16_224", patch_px=8, depth=2, width=48, heads=3, drop_path=0.0
)
PUBLISHED = replace(TINY, table_px=224, table_resampling="published")


@pytest.mark.parametrize("config", [TINY, PUBLISHED])
def test_global_and_local_crops_give_one_feature_vector_each(config: ModelConfig) -> None:
    backbone = build_backbone(config, channels=14, global_px=112)
    assert backbone(torch.zeros(3, 14, 112, 112)).shape == (3, 48)
    assert backbone(torch.zeros(2, 14, 48, 48)).shape == (2, 48)
    assert (backbone.width, backbone.patch_px) == (48, 8)


def test_the_position_table_fits_a_global_crop_unless_told_otherwise() -> None:
    fitting = build_backbone(TINY, channels=14, global_px=112)
    published = build_backbone(PUBLISHED, channels=14, global_px=112)
    assert fitting.vit.pos_embed is not None
    assert published.vit.pos_embed is not None
    assert fitting.vit.pos_embed.shape[1] == 14 * 14 + 1
    assert published.vit.pos_embed.shape[1] == 28 * 28 + 1


def test_zero_keeps_the_named_architecture_s_dimensions() -> None:
    backbone = build_backbone(ModelConfig(), channels=14, global_px=112)
    assert (backbone.width, backbone.patch_px, len(backbone.vit.blocks)) == (384, 8, 12)


def test_plain_timm_loads_the_backbone_s_state() -> None:
    backbone = build_backbone(TINY, channels=5, global_px=48).eval()
    plain = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=48,
        in_chans=5,
        num_classes=0,
        patch_size=8,
        depth=2,
        embed_dim=48,
        num_heads=3,
    ).eval()
    plain.load_state_dict(backbone.vit.state_dict())
    crops = torch.randn(2, 5, 48, 48)
    assert torch.allclose(backbone(crops), plain(crops), atol=1e-6)


def test_the_published_table_is_resampled_with_a_tenth_of_a_token_added() -> None:
    table = torch.randn(1, 28 * 28 + 1, 4)
    found = resample_table_as_published(table, (14, 14))
    # One feature and one position at a time, through the cubic kernel with a = -0.75.
    image = table[0, 1:].reshape(28, 28, 4)
    for row, column in ((0, 0), (3, 9), (13, 13)):
        expected = sum(
            wy * wx * image[y, x]
            for y, wy in cubic_taps(row, 28 / 14.1, 28)
            for x, wx in cubic_taps(column, 28 / 14.1, 28)
        )
        assert torch.allclose(found[0, 1 + row * 14 + column], torch.as_tensor(expected), atol=1e-5)
    assert torch.equal(found[0, 0], table[0, 0])


def cubic_taps(index: int, step: float, size: int) -> list[tuple[int, float]]:
    """Source positions and weights of one output position, half-pixel centres, edges repeated."""
    centre = (index + 0.5) * step - 0.5
    first = int(centre // 1) - 1
    taps = []
    for source in range(first, first + 4):
        t, a = abs(centre - source), -0.75
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        taps.append((min(max(source, 0), size - 1), near if t <= 1 else far))
    return taps


def test_a_table_of_the_right_grid_is_left_alone() -> None:
    table = torch.randn(1, 17, 4)
    assert resample_table_as_published(table, (4, 4)) is table


def test_published_resampling_is_another_function_than_timm_s() -> None:
    torch.manual_seed(0)
    published = build_backbone(PUBLISHED, channels=14, global_px=112).eval()
    published.vit.pos_embed = torch.nn.Parameter(smooth_table(48))
    antialiased = published.vit(crops := torch.randn(1, 14, 48, 48))
    assert not torch.allclose(published(crops), antialiased, atol=1e-3)
    full_size = torch.randn(1, 14, 224, 224)
    assert torch.allclose(published(full_size), published.vit(full_size), atol=1e-5)


def smooth_table(features: int) -> torch.Tensor:
    coarse = interpolate(torch.randn(1, features, 12, 12), size=(28, 28), mode="bilinear")
    patches = coarse.flatten(2).transpose(1, 2)
    return torch.cat((torch.zeros(1, 1, features), patches), dim=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(name="vit_nonsense"), "vit_nonsense"),
        (ModelConfig(name="resnet18"), "resnet18"),
        (ModelConfig(heads=7), "vit_small_patch8_224"),
        (ModelConfig(patch_px=9), "112 px is not a multiple of the model's 9 px patches"),
        (
            replace(PUBLISHED, name="vit_small_patch14_reg4_dinov2"),
            "position table holds the class token",
        ),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_name(config: ModelConfig, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        build_backbone(config, channels=14, global_px=112)
