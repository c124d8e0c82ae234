"""The DINO loss against its equation, written as a plain loop over crops, samples, prototypes."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float64

from dinomm_train.config import LossConfig
from dinomm_train.loss import DinoLoss
from dinomm_train.models.projection_head import Projections

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


def projections(
    rng: np.random.Generator, crops: int, prototypes: Float64[np.ndarray, "prototype bottleneck"]
) -> Projections:
    directions = rng.standard_normal((crops, prototypes.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Projections(torch.from_numpy(directions), torch.from_numpy(prototypes))


def by_view(found: Projections) -> Float64[np.ndarray, "view sample prototype"]:
    logits: Float64[np.ndarray, "crop prototype"] = found.logits().numpy()
    return logits.reshape(-1, BATCH, PROTOTYPES)


@pytest.mark.parametrize(("global_count", "local_count"), [(2, 8), (2, 0), (3, 2)])
def test_the_loss_is_the_equation_s(global_count: int, local_count: int) -> None:
    rng = np.random.default_rng(global_count + local_count)
    student, teacher = (
        projections(rng, views * BATCH, rng.uniform(-1, 1, (PROTOTYPES, 5)))
        for views in (global_count + local_count, global_count)
    )
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=global_count).double()
    loss.centre.copy_(torch.from_numpy(rng.uniform(-0.1, 0.1, PROTOTYPES)))
    found = loss(student, teacher, teacher_temperature=TEMPERATURE)
    expected = loss_by_the_equation(by_view(student), by_view(teacher), loss.centre.numpy())
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_equal_logits_cost_the_logarithm_of_the_number_of_prototypes() -> None:
    loss = DinoLoss(LossConfig(), prototypes=65_536, global_count=2)
    same = Projections(torch.zeros(2, 4), torch.zeros(65_536, 4))
    assert float(loss(same, same, teacher_temperature=0.04)) == pytest.approx(11.09, abs=0.001)


NOT_SKIPPED, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)


def test_the_centre_is_a_running_mean_of_the_teacher_s_logits() -> None:
    rng = np.random.default_rng(0)
    loss = DinoLoss(LossConfig(centre_momentum=0.8), prototypes=PROTOTYPES, global_count=2).double()
    expected = np.zeros(PROTOTYPES)
    for _ in range(3):
        teacher = projections(rng, 2 * BATCH, rng.uniform(-1, 1, (PROTOTYPES, 5)))
        loss.update_centre(teacher, NOT_SKIPPED)
        expected = 0.8 * expected + 0.2 * teacher.logits().numpy().mean(axis=0)
    assert np.allclose(loss.centre.numpy(), expected, atol=1e-12)


def test_a_skipped_step_leaves_the_centre_alone() -> None:
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    loss.update_centre(
        Projections(torch.full((2, 4), float("nan")), torch.ones(PROTOTYPES, 4)), SKIPPED
    )
    assert torch.equal(loss.centre, torch.zeros(PROTOTYPES))


def test_the_centre_survives_in_the_state() -> None:
    loss = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    loss.update_centre(Projections(torch.ones(2, 4), torch.ones(PROTOTYPES, 4)), NOT_SKIPPED)
    other = DinoLoss(LossConfig(), prototypes=PROTOTYPES, global_count=2)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centre, loss.centre)
    assert float(other.centre[0]) == pytest.approx(0.4)
