"""A look measures both networks per sensor state, and leaves them as they were."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks
from dinomm_train.health.look import look_at
from dinomm_train.health.measures import mean_cosine, rank_me, retrieval_top1
from dinomm_train.health.patches import FixedPatches
from dinomm_train.learner import Learner
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CPU = Ranks(rank=0, world=1, device=torch.device("cpu"))
TEMPERATURE = 0.04


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> FixedPatches:
    folder = tmp_path_factory.mktemp("dataset")
    dataset = StoredDataset.open(make_dataset(folder, size_px=32, samples={"train": 10}))
    return FixedPatches.of(dataset.split("train"), np.arange(10), dataset, TINY_RUN)


@pytest.fixture
def learner() -> Learner:
    """Teacher, student and centre differ."""
    config = replace(TINY_RUN, model=replace(TINY_RUN.model, drop_path=0.9))
    made = Learner(config, CPU, channels=14)
    with torch.no_grad():
        for weight in made.networks.teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        made.loss.centre.normal_(std=0.1)
    return made


def stop_never() -> bool:
    return False


def by_hand(learner: Learner, patches: FixedPatches, state: str) -> dict[str, float]:
    """Loss, KL and entropy of one state, patch by patch and prototype by prototype."""
    (shown,) = patches.chunks(CPU.device)
    networks = learner.networks
    student = networks.student.eval()
    centre = learner.loss.centre.tolist()
    sums = dict.fromkeys(("loss", "kl", "teacher_entropy"), 0.0)
    with torch.no_grad():
        rows = zip(
            networks.teacher((shown["both"],)).logits().tolist(),
            networks.teacher((shown[state],)).logits().tolist(),
            student((shown[state],)).logits().tolist(),
            strict=True,
        )
    student.train()
    for both, seen, answer in rows:
        target, assigned = (
            softmax([(z - c) / TEMPERATURE for z, c in zip(logits, centre, strict=True)])
            for logits in (both, seen)
        )
        predicted = softmax([z / 0.1 for z in answer])
        for q, t, p in zip(target, assigned, predicted, strict=True):
            sums["loss"] -= q * math.log(p)
            sums["kl"] += q * math.log(q / p)
            sums["teacher_entropy"] -= t * math.log(t)
    return {name: total / len(patches) for name, total in sums.items()}


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("state", ["both", "s1", "s2"])
def test_loss_kl_and_entropy_are_dino_s_as_a_plain_loop(
    state: str, learner: Learner, patches: FixedPatches
) -> None:
    row = look_at(learner, patches, TEMPERATURE, stop_never)
    for name, expected in by_hand(learner, patches, state).items():
        assert row[f"health/{state}/{name}"] == pytest.approx(expected, rel=1e-3), name


def test_features_are_the_teacher_s(learner: Learner, patches: FixedPatches) -> None:
    (shown,) = patches.chunks(CPU.device)
    with torch.no_grad():
        features = {name: learner.networks.teacher.backbone(one) for name, one in shown.items()}
    row = look_at(learner, patches, TEMPERATURE, stop_never)
    for state, one in features.items():
        assert row[f"health/{state}/rankme"] == pytest.approx(rank_me(one), rel=1e-4)
        assert row[f"health/{state}/mean_cosine"] == pytest.approx(mean_cosine(one), rel=1e-4)
    s1, s2 = features["s1"], features["s2"]
    assert row["health/retrieval_s1_to_s2"] == pytest.approx(retrieval_top1(s1, s2))
    assert row["health/retrieval_s2_to_s1"] == pytest.approx(retrieval_top1(s2, s1))


def test_a_look_moves_nothing_and_draws_no_random_number(
    learner: Learner, patches: FixedPatches
) -> None:
    def everything() -> dict[str, Tensor]:
        networks = {f"networks.{k}": v.clone() for k, v in learner.networks.state_dict().items()}
        return networks | {"centre": learner.loss.centre.clone(), "rng": torch.get_rng_state()}

    def modes() -> list[bool]:
        return [module.training for module in learner.networks.modules()]

    before, modes_before = everything(), modes()
    look_at(learner, patches, TEMPERATURE, stop_never)
    after = everything()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert modes() == modes_before
    assert True in modes_before
    assert all(weight.grad is None for weight in learner.networks.parameters())


def test_chunks_make_no_difference(
    learner: Learner, patches: FixedPatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = look_at(learner, patches, TEMPERATURE, stop_never)
    monkeypatch.setattr("dinomm_train.health.patches._CHUNK", 3)
    assert look_at(learner, patches, TEMPERATURE, stop_never) == pytest.approx(whole, rel=1e-4)


def test_a_stop_between_two_chunks_ends_the_look_without_a_row(
    learner: Learner, patches: FixedPatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinomm_train.health.patches._CHUNK", 3)
    asked = 0

    def stop_at_the_third() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    assert look_at(learner, patches, TEMPERATURE, stop_at_the_third) == {}
    assert asked == 3
    assert learner.networks.student.training


def test_a_dataset_of_one_sensor_is_looked_at_as_a_whole(
    learner: Learner, patches: FixedPatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FixedPatches, "states", ("both",))
    row = look_at(learner, patches, TEMPERATURE, stop_never)
    assert {name.split("/")[1] for name in row} == {"both"}
