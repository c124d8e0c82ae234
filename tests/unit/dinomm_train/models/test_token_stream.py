"""Crops of all sizes in one stream against plain timm, one crop at a time."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from dinomm_train.config import ComputeConfig
from dinomm_train.models.backbone import Backbone
from dinomm_train.models.token_stream import can_stream

SIZES = (16, 8)
COUNTS = (4, 6)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer scale": {"init_values": 0.3},
    "normalized queries and keys": {"qk_norm": True},
    "registers": {"reg_tokens": 3},
    "positions of patches alone": {"reg_tokens": 2, "no_embed_class": True},
    "norm before the blocks": {"pre_norm": True},
    "no bias in attention": {"qkv_bias": False},
}


def tiny_vit(**changes: Any) -> VisionTransformer:  # noqa: ANN401 (timm takes anything)
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        in_chans=3,
        embed_dim=24,
        num_heads=2,
        depth=3,
        num_classes=0,
        dynamic_img_size=True,
        **changes,
    )
    assert isinstance(vit, VisionTransformer)
    with torch.no_grad():
        for weights in vit.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return vit.double()


def some_crops() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64)
        for count, side in zip(COUNTS, SIZES, strict=True)
    )


def gradients(vit: VisionTransformer, features: Tensor) -> list[Tensor]:
    vit.zero_grad()
    (features * torch.arange(features.numel()).view_as(features).cos()).sum().backward()  # type: ignore[no-untyped-call]
    return [weights.grad.clone() for weights in vit.parameters() if weights.grad is not None]


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_features_and_gradients_are_timm_s(changes: dict[str, Any]) -> None:
    vit, crops = tiny_vit(**changes), some_crops()
    backbone = Backbone(vit, "timm")
    assert backbone.streams
    found = backbone.forward_sizes(crops)
    expected = torch.cat([vit(one) for one in crops])
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    mine, other = gradients(vit, found), gradients(vit, expected)
    assert len(mine) == len(other)
    for one, two in zip(mine, other, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def test_half_precision_on_a_cpu_is_close_in_features_and_gradients() -> None:
    vit, crops = tiny_vit().float(), tuple(one.float() for one in some_crops())
    results = []
    for narrow in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            features = Backbone(vit, "timm").forward_sizes(crops)
        results.append([features.detach(), *gradients(vit, features)])
    for exact, found in zip(*results, strict=True):
        assert float((found - exact).norm() / exact.norm()) < 0.03
    assert not torch.equal(*(features for features, *_ in results))


class GivenDepth(nn.Module):
    """Multiplies a branch by the number meant for the crop that is being computed."""

    def __init__(self, branch: int, factors: Tensor) -> None:
        super().__init__()
        self.branch, self.factors, self.crop = branch, factors, 0

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.factors[self.branch, self.crop]


def test_each_crop_skips_the_branches_its_numbers_say_and_the_rest_is_scaled_up() -> None:
    vit, crops = tiny_vit(drop_path_rate=0.6), some_crops()
    rates = torch.linspace(0, 0.6, 3, dtype=torch.float64).repeat_interleave(2)[:, None]
    uniforms = torch.rand(6, sum(COUNTS), dtype=torch.float64)
    found = Backbone(vit, "timm").train().forward_sizes(crops, uniforms.numpy())
    factors = (uniforms >= rates) / (1 - rates)
    assert 5 < int((factors == 0).sum()) < 30
    paths = [GivenDepth(branch, factors) for branch in range(6)]
    for index, block in enumerate(vit.blocks):
        block.drop_path1, block.drop_path2 = paths[2 * index : 2 * index + 2]
    for number, crop in enumerate(one for size in crops for one in size):
        for path in paths:
            path.crop = number
        # The factors are float32.
        assert torch.allclose(found[number], vit(crop[None])[0], rtol=0, atol=1e-6), number


def test_without_given_numbers_stochastic_depth_draws_its_own_in_training_alone() -> None:
    vit, crops = tiny_vit(drop_path_rate=0.6), some_crops()
    backbone = Backbone(vit, "timm")
    assert not torch.equal(backbone.forward_sizes(crops), backbone.forward_sizes(crops))
    backbone.eval()
    assert torch.equal(backbone.forward_sizes(crops), backbone.forward_sizes(crops))


def test_the_last_block_s_perceptron_sees_class_tokens_alone() -> None:
    vit, crops = tiny_vit(), some_crops()
    seen: list[int] = []
    for block in vit.blocks:
        perceptron = block.get_submodule("mlp")
        perceptron.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-2]))
    Backbone(vit, "timm").forward_sizes(crops)
    every_token = COUNTS[0] * (4 * 4 + 1) + COUNTS[1] * (2 * 2 + 1)
    assert seen == [every_token, every_token, sum(COUNTS)]


def test_recomputed_blocks_give_the_same_gradients_from_less_memory() -> None:
    vit, crops = tiny_vit(drop_path_rate=0.6), some_crops()
    uniforms = torch.rand(6, sum(COUNTS), dtype=torch.float64).numpy()
    results, sizes = [], []
    for recompute in (False, True):
        backbone = Backbone(vit, "timm")
        backbone.compute_as(ComputeConfig(checkpoint_activations=recompute))
        kept: list[int] = []

        def keep(saved: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(saved.numel())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            features = backbone.train().forward_sizes(crops, uniforms)
        results.append(gradients(vit, features))
        sizes.append(sum(kept))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    "changes",
    [{"block_fn": ParallelScalingBlock}, {"global_pool": "avg"}, {"attn_layer": "diff"}],
    ids=str,
)
def test_other_networks_take_one_pass_per_size(changes: dict[str, Any]) -> None:
    vit, crops = tiny_vit(**changes).eval(), some_crops()
    assert not can_stream(vit)
    found = Backbone(vit, "timm").forward_sizes(crops)
    assert torch.equal(found, torch.cat([vit(one) for one in crops]))
