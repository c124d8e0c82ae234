"""One step of learning: what moves, what does not, and what decides it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dinomm_train.config import (
    ComputeConfig,
    CropConfig,
    HeadConfig,
    ModelConfig,
    RunConfig,
    ViewConfig,
)
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.views import Views
from dinomm_train.distributed import Ranks
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


def some_views(seed: int = 0, fill: float | None = None, epoch: int = 0) -> Views:
    """Random crops of three samples; `fill` instead makes all pixels equal."""
    generator = torch.Generator().manual_seed(seed)
    large, small = (
        torch.randn(count, 3, side, side, generator=generator) for count, side in ((6, 16), (6, 8))
    )
    if fill is not None:
        large, small = torch.full_like(large, fill), torch.full_like(small, fill)
    states = np.zeros(12, dtype=np.int8)
    key = ViewKey(seed=0, epoch=epoch, sample_ids=np.array([11, 12, 13], dtype=np.uint64))
    return Views(teacher_crops=large, student_crops=(large, small), states=states, key=key)


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
    logits = learner.networks.teacher((views.teacher_crops,)).logits()
    learner.step(views, VALUES, 0)
    assert torch.allclose(learner.loss.centre, 0.1 * logits.mean(dim=0), atol=1e-6)


def test_stochastic_depth_is_decided_by_samples_and_pass_and_not_by_what_came_before() -> None:
    def loss(step: int, epoch: int = 0) -> float:
        learner = Learner(TINY, CPU, channels=3)
        torch.rand(step)
        return float(learner.step(some_views(epoch=epoch), VALUES, step).loss)

    assert loss(7) == loss(8)
    assert loss(7) != loss(7, epoch=1)


def everything(learner: Learner) -> dict[str, Tensor]:
    """All that a step may move, the optimizer's step counts among it."""
    statistics = learner.optimizer.state_dict()["state"]
    adam = {f"{index}.{name}": one for index, s in statistics.items() for name, one in s.items()}
    tensors = weights_of(learner) | {"centre": learner.loss.centre} | adam
    return {name: tensor.clone() for name, tensor in tensors.items()}


def one_infinite_entry(gradient: Tensor) -> Tensor:
    return gradient.index_fill(0, torch.tensor([1]), float("inf"))


@pytest.mark.parametrize("clip", ["global", "per_tensor"])
@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_moves_nothing_and_is_counted(
    spoilt: str, clip: Literal["global", "per_tensor"]
) -> None:
    learner = Learner(replace(TINY, optim=replace(TINY.optim, clip=clip)), CPU, channels=3)
    assert float(learner.step(some_views(), VALUES, 0).skipped) == 0
    before = everything(learner)
    bias = learner.networks.student.get_parameter("head.perceptron.0.bias")
    change = one_infinite_entry if spoilt == "gradient" else torch.clone
    hook = bias.register_hook(change)  # type: ignore[no-untyped-call]
    views = some_views(fill=float("nan") if spoilt == "loss" else 0.5)
    for count in (1, 2):
        assert float(learner.step(views, VALUES, count).skipped) == 1
        assert (int(learner.skipped_in_row), int(learner.skipped_total)) == (count, count)
    after = everything(learner)
    assert before.keys() == after.keys()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    hook.remove()
    assert float(learner.step(some_views(seed=2), VALUES, 3).skipped) == 0
    assert (int(learner.skipped_in_row), int(learner.skipped_total)) == (0, 2)


def test_a_step_that_another_rank_must_skip_is_skipped_here_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = Learner(TINY, CPU, channels=3)
    before = weights_of(learner)

    def mean_with_a_lost_rank(mine: Tensor) -> Tensor:
        lost = torch.tensor([float("nan"), 1.0])
        return (mine + lost) / 2 if mine.shape == lost.shape else mine

    monkeypatch.setattr("dinomm_train.learner.mean_over_ranks", mean_with_a_lost_rank)
    assert float(learner.step(some_views(), VALUES, 0).skipped) == 1
    assert int(learner.skipped_total) == 1
    assert all(torch.equal(one, before[name]) for name, one in weights_of(learner).items())


def test_a_run_goes_on_after_a_skipped_step_as_if_it_had_not_been() -> None:
    one, other = Learner(TINY, CPU, channels=3), Learner(TINY, CPU, channels=3)
    one.step(some_views(fill=float("nan")), VALUES, 0)
    for learner in (one, other):
        learner.step(some_views(seed=1), VALUES, 1)
    mine, theirs = everything(one), everything(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_counts_of_skipped_steps_survive_in_the_state() -> None:
    one, other = Learner(TINY, CPU, channels=3), Learner(TINY, CPU, channels=3)
    one.step(some_views(fill=float("nan")), VALUES, 0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert (int(other.skipped_in_row), int(other.skipped_total)) == (1, 1)


class NoHostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails where the host reads a number of a tensor, for which it would wait on a GPU."""

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        del types
        assert "_local_scalar_dense" not in str(func), "the host reads a tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", ["global", "per_tensor"])
def test_the_host_reads_no_tensor_inside_a_step(clip: Literal["global", "per_tensor"]) -> None:
    config = replace(TINY, optim=replace(TINY.optim, clip=clip))
    learner = Learner(config, CPU, channels=3)
    learner.step(some_views(), VALUES, 0)
    with NoHostReads():  # type: ignore[no-untyped-call]
        learner.step(some_views(seed=1), VALUES, 1)
        with pytest.raises(AssertionError, match="the host reads"):
            float(learner.skipped_total)


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


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_a_batch_in_parts_gives_the_gradients_and_centre_of_the_whole(micro_batch: int) -> None:
    parts = replace(TINY, compute=ComputeConfig(micro_batch=micro_batch))
    one, other = Learner(TINY, CPU, channels=3), Learner(parts, CPU, channels=3)
    whole, added = (learner.step(some_views(), VALUES, 0) for learner in (one, other))
    assert float(added.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    assert float(added.gradient_norm) == pytest.approx(float(whole.gradient_norm), rel=1e-5)
    assert torch.allclose(one.loss.centre, other.loss.centre, rtol=1e-5, atol=1e-8)
    # After one step, Adam's running mean is a tenth of the clipped gradient.
    means = [name for name in everything(one) if name.endswith("exp_avg")]
    assert len(means) == len(list(one.networks.student.parameters()))
    for name in means:
        mean, sum_of_parts = everything(one)[name], everything(other)[name]
        assert float((mean - sum_of_parts).norm()) < 1e-5 * float(mean.norm()) + 1e-9, name


def test_recomputed_activations_give_the_same_bits() -> None:
    recomputing = replace(TINY, compute=ComputeConfig(checkpoint_activations=True))
    one, other = Learner(TINY, CPU, channels=3), Learner(recomputing, CPU, channels=3)
    for learner in (one, other):
        learner.step(some_views(), VALUES, 0)
    mine, theirs = everything(one), everything(other)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
