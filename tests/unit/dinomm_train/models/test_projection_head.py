"""The head's logits are cosines with its prototypes."""

import numpy as np
import torch

from dinomm_train.config import HeadConfig
from dinomm_train.models.projection_head import ProjectionHead, Prototypes

SMALL = HeadConfig(hidden=16, bottleneck=8, prototypes=32)


def test_logits_are_cosines_between_the_bottleneck_and_each_prototype() -> None:
    head = ProjectionHead(SMALL, features=12)
    features = torch.randn(5, 12)
    bottleneck = head.perceptron(features).detach().numpy()
    prototypes = head.prototypes.directions.detach().numpy()
    found = head(features).logits().detach().numpy()
    for crop in range(5):
        for index in range(32):
            lengths = np.linalg.norm(bottleneck[crop]) * np.linalg.norm(prototypes[index])
            cosine = bottleneck[crop] @ prototypes[index] / lengths
            assert abs(found[crop, index] - cosine) < 1e-5


def test_learnt_lengths_scale_each_prototype_s_logit() -> None:
    torch.manual_seed(0)
    fixed = Prototypes(SMALL)
    torch.manual_seed(0)
    learnt = Prototypes(HeadConfig(hidden=16, bottleneck=8, prototypes=32, unit_prototypes=False))
    assert learnt.lengths is not None
    with torch.no_grad():
        learnt.lengths.copy_(torch.arange(32.0)[:, None])
    assert torch.allclose(learnt(), fixed() * torch.arange(32.0)[:, None], atol=1e-6)


def test_directions_are_unit_vectors_also_in_half_precision() -> None:
    head = ProjectionHead(SMALL, features=12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        directions = head(torch.randn(5, 12)).directions
    assert directions.dtype == torch.float32
    assert torch.allclose(directions.norm(dim=1), torch.ones(5), atol=1e-6)


def test_gradients_of_prototypes_are_those_of_dividing_by_the_length() -> None:
    prototypes = Prototypes(SMALL).double()
    pull = torch.randn(32, 8, dtype=torch.float64)
    (prototypes() * pull).sum().backward()
    for row in range(32):
        length = prototypes.directions[row].detach().norm()
        unit = prototypes.directions[row].detach() / length
        # The derivative of v / |v| is (1 - u u^T) / |v|.
        expected = (
            (torch.eye(8, dtype=torch.float64) - torch.outer(unit, unit)) @ pull[row] / length
        )
        found = prototypes.directions.grad
        assert found is not None
        assert torch.allclose(found[row], expected, rtol=0, atol=1e-12)


def test_the_default_head_has_the_published_size() -> None:
    with torch.device("meta"):
        head = ProjectionHead(HeadConfig(), features=384)
    count = sum(weights.numel() for weights in head.parameters())
    # 384 -> 2048 -> 2048 -> 256 with biases, then 65,536 directions of 256.
    assert count == (385 * 2048) + (2049 * 2048) + (2049 * 256) + 65_536 * 256
