"""Which weights decay, how gradients are clipped, and what stays where it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dinomm_train.config import HeadConfig, ModelConfig, OptimConfig
from dinomm_train.models.backbone import build_backbone
from dinomm_train.models.projection_head import ProjectionHead
from dinomm_train.models.student_teacher import Encoder, StudentTeacher
from dinomm_train.optim import (
    MovingAverage,
    build_optimizer,
    clip_gradients,
    drop_gradients,
    set_step_values,
    take_step,
)
from dinomm_train.schedules import StepValues

VALUES = StepValues(
    epoch=0,
    lr=0.01,
    weight_decay=0.3,
    teacher_momentum=0.9,
    teacher_temperature=0.04,
    last_layer_frozen=True,
)


def tiny_student() -> Encoder:
    model = ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=1, width=24, heads=2)
    head = HeadConfig(hidden=16, bottleneck=8, prototypes=32)
    backbone = build_backbone(model, channels=3, global_px=16)
    return Encoder(backbone, ProjectionHead(head, features=24))


@pytest.mark.parametrize("decay_tokens", [False, True])
def test_biases_and_norms_do_not_decay_and_tokens_do_by_choice(*, decay_tokens: bool) -> None:
    student = tiny_student()
    weights_by_name = dict(student.named_parameters())
    optimizer = build_optimizer(weights_by_name, OptimConfig(decay_tokens=decay_tokens))
    set_step_values(optimizer, VALUES)
    decay_of = {
        id(weights): group["weight_decay"]
        for group in optimizer.param_groups
        for weights in group["params"]
    }
    for name, weights in student.named_parameters():
        is_token = name.endswith(("pos_embed", "cls_token"))
        expected = 0.3 if weights.ndim > 1 and (decay_tokens or not is_token) else 0.0
        assert decay_of[id(weights)] == expected, name
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def give_gradients(student: nn.Module) -> list[np.ndarray]:
    torch.manual_seed(1)
    for weights in student.parameters():
        weights.grad = torch.randn_like(weights)
    return gradients_of(student)


def gradients_of(student: nn.Module) -> list[np.ndarray]:
    return [
        weights.grad.numpy().copy() for weights in student.parameters() if weights.grad is not None
    ]


def test_global_clipping_scales_all_gradients_by_one_factor() -> None:
    student = tiny_student()
    before = give_gradients(student)
    total = np.sqrt(sum(float((one**2).sum()) for one in before))
    found = clip_gradients(list(student.parameters()), OptimConfig(clip_norm=3.0))
    assert float(found) == pytest.approx(total, rel=1e-5)
    for old, new in zip(before, gradients_of(student), strict=True):
        assert np.allclose(new, old * 3.0 / total, rtol=1e-4)


def test_published_clipping_scales_each_gradient_by_its_own_norm() -> None:
    student = tiny_student()
    before = give_gradients(student)
    clip_gradients(list(student.parameters()), OptimConfig(clip_norm=3.0, clip="per_tensor"))
    for old, new in zip(before, gradients_of(student), strict=True):
        factor = min(1.0, 3.0 / (np.linalg.norm(old) + 1e-6))
        assert np.allclose(new, old * factor, rtol=1e-4)


def test_a_clip_norm_of_zero_leaves_gradients_alone() -> None:
    student = tiny_student()
    before = give_gradients(student)
    clip_gradients(list(student.parameters()), OptimConfig(clip_norm=0.0))
    assert all(
        np.array_equal(old, new) for old, new in zip(before, gradients_of(student), strict=True)
    )


def test_a_layer_without_gradients_neither_moves_nor_decays() -> None:
    student = tiny_student()
    optimizer = build_optimizer(dict(student.named_parameters()), OptimConfig())
    set_step_values(optimizer, replace(VALUES, lr=0.1))
    give_gradients(student)
    drop_gradients(student.head.prototypes)
    frozen = student.head.prototypes.directions.detach().clone()
    moved = student.backbone.vit.patch_embed.proj.weight.detach().clone()
    optimizer.step()
    assert torch.equal(student.head.prototypes.directions, frozen)
    assert not torch.equal(student.backbone.vit.patch_embed.proj.weight, moved)


def test_the_teacher_becomes_momentum_times_itself_plus_the_rest_of_the_student() -> None:
    pair = StudentTeacher(tiny_student())
    average = MovingAverage(pair.teacher.parameters(), pair.student.parameters())
    for momentum in (0.9, 0.996):
        before = [weights.detach().numpy().copy() for weights in pair.teacher.parameters()]
        with torch.no_grad():
            for weights in pair.student.parameters():
                weights.add_(torch.randn_like(weights))
        average.follow(momentum, torch.tensor(0.0))
        students = [weights.detach().numpy() for weights in pair.student.parameters()]
        for old, student, new in zip(before, students, pair.teacher.parameters(), strict=True):
            expected = momentum * old.astype(np.float64) + (1 - momentum) * student
            assert np.allclose(new.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_a_skipped_average_leaves_the_teacher_alone() -> None:
    pair = StudentTeacher(tiny_student())
    average = MovingAverage(pair.teacher.parameters(), pair.student.parameters())
    before = [weights.detach().clone() for weights in pair.teacher.parameters()]
    with torch.no_grad():
        for weights in pair.student.parameters():
            weights.fill_(float("nan"))
    average.follow(0.9, torch.tensor(1.0))
    after = pair.teacher.parameters()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_fused_adamw_gives_the_plain_equations_weights() -> None:
    student = tiny_student()
    optimizer = build_optimizer(dict(student.named_parameters()), OptimConfig())
    set_step_values(optimizer, VALUES)
    decays = {
        id(weights): group["weight_decay"]
        for group in optimizer.param_groups
        for weights in group["params"]
    }
    expected = [weights.detach().double().numpy().copy() for weights in student.parameters()]
    means, squares = ([np.zeros_like(one) for one in expected] for _ in range(2))
    for step in (1, 2, 3):
        gradients = give_gradients(student)
        take_step(optimizer, torch.tensor(0.0))
        for index, weights in enumerate(student.parameters()):
            # Loshchilov and Hutter (arXiv:1711.05101), algorithm 2.
            gradient = gradients[index].astype(np.float64)
            means[index] = 0.9 * means[index] + 0.1 * gradient
            squares[index] = 0.999 * squares[index] + 0.001 * gradient**2
            rise = means[index] / (1 - 0.9**step)
            spread = np.sqrt(squares[index] / (1 - 0.999**step)) + 1e-8
            expected[index] -= 0.01 * (rise / spread + decays[id(weights)] * expected[index])
            assert np.allclose(weights.detach().numpy(), expected[index], atol=1e-5)
