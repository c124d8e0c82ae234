"""Which branches a crop skips, and what the others are multiplied by."""

import numpy as np
import pytest
import timm
import torch
from timm.layers.drop import drop_path
from timm.models.vision_transformer import VisionTransformer

from dinomm_train.models.stochastic_depth import branch_factors, drop_rates


def test_rates_rise_linearly_and_both_branches_of_a_block_have_one() -> None:
    vit = timm.create_model(
        "vit_tiny_patch16_224", depth=5, embed_dim=12, num_heads=1, drop_path_rate=0.4
    )
    assert isinstance(vit, VisionTransformer)
    assert np.allclose(drop_rates(vit), np.repeat([0, 0.1, 0.2, 0.3, 0.4], 2))


def test_branches_are_skipped_as_often_as_said_and_keep_their_mean() -> None:
    rates = np.array([0.0, 0.25, 0.6])
    uniforms = np.random.default_rng(0).random((3, 20_000))
    factors = branch_factors(uniforms, rates)
    assert np.allclose((factors == 0).mean(axis=1), rates, atol=0.01)
    assert np.allclose(factors.mean(axis=1), 1, atol=0.02)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_factors_take_the_values_of_timm_s(rate: float) -> None:
    uniforms = np.random.default_rng(0).random((1, 500))
    factors = branch_factors(uniforms, np.array([rate]))
    theirs = drop_path(torch.ones(500, 1), rate, training=True)
    assert np.allclose(np.unique(factors), np.unique(theirs.numpy()))
