"""One step of learning: what moves, what does not, and what decides it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dinomm_train.config import CropConfig, HeadConfig, ModelConfig, RunConfig, ViewConfig
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks
from dinomm_train.errors import TrainError
from dinomm_train.learner import Learner, choose_half_precision
from dinomm_train.schedules import StepValues

CPU = Ranks(rank=0, world=1, device=torch.device("cpu"))
TINY = RunConfig(
    model=ModelConfig(
        name="vit_tiny_patch16_224", patch_px=8, depth=2, width=24, heads=2, drop_path=0.5
    ),
    head=HeadConfig(hidden=16, bottleneck=8, prototypes=32),
    views=ViewConfig(crops=CropConfig(global_px=16, local_px=8, local_count=2)),
)
VALUES = StepValues(
    epoch=0,
    lr=0.01,
    weight_decay=0.1,
    teacher_momentum=0.9,
    teacher_temperature=0.04,
    last_layer_frozen=False,
)


def some_views(seed: int = 0, fill: float | None = None) -> Views:
    """Random crops of three samples; `fill` instead makes all pixels equal."""
    generator = torch.Generator().manual_seed(seed)
    large, small = (
        torch.randn(count, 3, side, side, generator=generator) for count, side in ((6, 16), (6, 8))
    )
    if fill is not None:
        large, small = torch.full_like(large, fill), torch.full_like(small, fill)
    states = np.zeros(12, dtype=np.int8)
    return Views(teacher_crops=large, student_crops=(large, small), states=states)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in learner.networks.named_parameters()}


def test_learners_with_one_seed_start_alike_and_with_another_do_not() -> None:
    one, same = (weights_of(Learner(TINY, CPU, channels=3)) for _ in range(2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    other_seed = replace(TINY, sampling=replace(TINY.sampling, seed=1))
    other = weights_of(Learner(other_seed, CPU, channels=3))
    assert not torch.equal(
        one["student.head.prototypes.directions"], other["student.head.prototypes.directions"]
    )


def test_the_teacher_moves_towards_the_student_after_its_step() -> None:
    learner = Learner(TINY, CPU, channels=3)
    before = weights_of(learner)
    learner.step(some_views(), VALUES, 0)
    after = weights_of(learner)
    for name, student in after.items():
        if name.startswith("student."):
            teacher = name.replace("student.", "teacher.")
            expected = 0.9 * before[teacher] + 0.1 * student
            assert torch.allclose(after[teacher], expected, atol=1e-6), name


def test_the_centre_used_by_a_step_is_that_of_the_steps_before() -> None:
    learner = Learner(TINY, CPU, channels=3)
    views = some_views()
    logits = learner.networks.teacher((views.teacher_crops,))
    learner.step(views, VALUES, 0)
    assert torch.allclose(learner.loss.centre, 0.1 * logits.mean(dim=0), atol=1e-6)


def test_stochastic_depth_is_decided_by_the_step_and_not_by_what_came_before() -> None:
    first, second = Learner(TINY, CPU, channels=3), Learner(TINY, CPU, channels=3)
    torch.rand(1000)
    assert float(first.step(some_views(), VALUES, 7).loss) == float(
        second.step(some_views(), VALUES, 7).loss
    )
    third = Learner(TINY, CPU, channels=3)
    assert float(third.step(some_views(), VALUES, 8).loss) != float(
        Learner(TINY, CPU, channels=3).step(some_views(), VALUES, 7).loss
    )


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    learner = Learner(TINY, CPU, channels=3)
    before = weights_of(learner)
    with pytest.raises(TrainError, match="the loss of step 5 is nan"):
        learner.step(some_views(fill=float("nan")), VALUES, 5)
    assert all(torch.equal(one, before[name]) for name, one in weights_of(learner).items())
    assert not learner.optimizer.state_dict()["state"]


def test_a_learner_that_takes_over_a_state_goes_on_exactly() -> None:
    one, other = Learner(TINY, CPU, channels=3), Learner(TINY, CPU, channels=3)
    one.step(some_views(), VALUES, 0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, other):
        learner.step(some_views(seed=1), VALUES, 1)
    mine, theirs = weights_of(one), weights_of(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_bf16_steps_keep_weights_in_single_precision() -> None:
    config = replace(TINY, sampling=replace(TINY.sampling, precision="bf16"))
    learner = Learner(config, CPU, channels=3)
    report = learner.step(some_views(), VALUES, 0)
    exact = Learner(TINY, CPU, channels=3).step(some_views(), VALUES, 0)
    assert float(report.loss) == pytest.approx(float(exact.loss), rel=0.05)
    assert float(report.loss) != float(exact.loss)
    assert {one.dtype for one in weights_of(learner).values()} == {torch.float32}


def test_precision_is_single_on_cpu_unless_asked_for() -> None:
    cpu = torch.device("cpu")
    assert not choose_half_precision("auto", cpu)
    assert not choose_half_precision("fp32", cpu)
    assert choose_half_precision("bf16", cpu)
