"""The DINO loss against its equation, written as a plain loop over crops, samples, prototypes."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float64

from dinomm_train.config import LossConfig
from dinomm_train.loss import DinoLoss

BATCH, PROTOTYPES = 3, 7
TEMPERATURE = 0.05


def softmax(row: Float64[np.ndarray, " prototype"]) -> Float64[np.ndarray, " prototype"]:
    powers = np.exp(row - row.max())
    shares: Float64[np.ndarray, " prototype"] = powers / powers.sum()
    return shares


def loss_by_the_equation(
    student: Float64[np.ndarray, "view sample prototype"],
    teacher: Float64[np.ndarray, "view sample prototype"],
    centre: Float64[np.ndarray, " prototype"],
) -> float:
    """Mean over pairs of different crops of the batch's mean of -sum_k q_k log p_k."""
    pair_losses = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if v == t:
                continue
            losses = []
            for sample in range(student.shape[1]):
                q = softmax((teacher[t, sample] - centre) / TEMPERATURE)
                p = softmax(student[v, sample] / 0.1)
                losses.append(-sum(q[k] * math.log(p[k]) for k in range(len(q))))
            pair_losses.append(np.mean(losses))
    return float(np.mean(pair_losses))


@pytest.mark.parametrize(("global_count", "local_count"), [(2, 8), (2, 0), (3, 2)])
def test_the_loss_is_the_equation_s(global_count: int, local_count: int) -> None:
    rng = np.random.default_rng(global_count + local_count)
    student = rng.uniform(-1, 1, (global_count + local_count, BATCH, PROTOTYPES))
    teacher = rng.uniform(-1, 1, (global_count, BATCH, PROTOTYPES))
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=global_count).double()
    loss.centre.copy_(torch.from_numpy(rng.uniform(-0.1, 0.1, PROTOTYPES)))
    found = loss(
        torch.from_numpy(student).flatten(0, 1),
        torch.from_numpy(teacher).flatten(0, 1),
        teacher_temperature=TEMPERATURE,
    )
    expected = loss_by_the_equation(student, teacher, loss.centre.numpy())
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_gradients_reach_the_student_alone() -> None:
    student = torch.randn(4 * BATCH, PROTOTYPES, requires_grad=True)
    teacher = torch.randn(2 * BATCH, PROTOTYPES, requires_grad=True)
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    loss(student, teacher, teacher_temperature=TEMPERATURE).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_equal_logits_cost_the_logarithm_of_the_number_of_prototypes() -> None:
    loss = DinoLoss(LossConfig(), prototypes=65_536, global_count=2)
    logits = torch.zeros(2, 65_536)
    assert float(loss(logits, logits, teacher_temperature=0.04)) == pytest.approx(11.09, abs=0.001)


def test_half_precision_logits_are_divided_in_single_precision() -> None:
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    logits = torch.rand(2 * BATCH, PROTOTYPES).bfloat16()
    found = loss(logits, logits, teacher_temperature=0.04)
    expected = loss(logits.float(), logits.float(), teacher_temperature=0.04)
    assert found.dtype == torch.float32
    assert float(found) == float(expected)


def test_the_centre_is_a_running_mean_of_the_teacher_s_logits() -> None:
    loss = DinoLoss(LossConfig(centre_momentum=0.8), prototypes=PROTOTYPES, global_count=2)
    batches = [torch.randn(2 * BATCH, PROTOTYPES) for _ in range(3)]
    expected = np.zeros(PROTOTYPES)
    for batch in batches:
        loss.update_centre(batch, torch.tensor(0.0))
        expected = 0.8 * expected + 0.2 * batch.numpy().mean(axis=0)
    assert np.allclose(loss.centre.numpy(), expected, atol=1e-6)


def test_the_centre_survives_in_the_state() -> None:
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    loss.update_centre(torch.ones(2, PROTOTYPES), torch.tensor(0.0))
    other = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centre, loss.centre)
    assert float(other.centre[0]) == pytest.approx(0.1)
