"""Schedules meet the published log, and plain loops that list every step."""

from dataclasses import replace

import numpy as np
import pytest

from dinomm_train.config import RECIPES, LossConfig, OptimConfig, RunConfig, ScheduleConfig
from dinomm_train.schedules import step_values

PUBLISHED_STEPS_PER_EPOCH = 300_000 // 256


def epoch_mean_lr(epoch: int) -> float:
    first = epoch * PUBLISHED_STEPS_PER_EPOCH
    steps = range(first, first + PUBLISHED_STEPS_PER_EPOCH)
    rates = [
        step_values(step, RECIPES["paper"], steps_per_epoch=PUBLISHED_STEPS_PER_EPOCH).lr
        for step in steps
    ]
    return float(np.mean(rates))


# Rows of the released pretrain_log.txt: the learning rate is an epoch's mean, the weight decay
# that of its last step.
@pytest.mark.parametrize(
    ("epoch", "lr", "decimals"),
    [
        (0, 2.4980784012e-05, 15),
        (5, 2.750e-04, 7),
        (10, 4.999e-04, 7),
        (20, 4.834e-04, 7),
        (50, 2.895e-04, 7),
        (80, 5.661e-05, 8),
        (95, 4.085e-06, 9),
    ],
)
def test_the_learning_rate_is_the_published_log_s(epoch: int, lr: float, decimals: int) -> None:
    assert epoch_mean_lr(epoch) == pytest.approx(lr, abs=0.6 * 10.0**-decimals)


@pytest.mark.parametrize(
    ("epoch", "weight_decay"),
    [(0, 0.0400), (5, 0.0427), (10, 0.0497), (30, 0.1165), (60, 0.2783), (95, 0.3982)],
)
def test_the_weight_decay_is_the_published_log_s(epoch: int, weight_decay: float) -> None:
    first = epoch * PUBLISHED_STEPS_PER_EPOCH
    values = [
        step_values(step, RECIPES["paper"], steps_per_epoch=PUBLISHED_STEPS_PER_EPOCH).weight_decay
        for step in (first, first + PUBLISHED_STEPS_PER_EPOCH - 1)
    ]
    assert min(values) - 6e-5 <= weight_decay <= max(values) + 6e-5


def listed(epochs: int, steps_per_epoch: int, schedule: ScheduleConfig) -> dict[str, list[float]]:
    """Every step's values the way the original script lists them before training."""
    total, warmup = epochs * steps_per_epoch, schedule.warmup_epochs * steps_per_epoch
    rates = list(np.linspace(0, schedule.lr, warmup))
    for index in range(total - warmup):
        wave = 1 + np.cos(np.pi * index / (total - warmup))
        rates.append(schedule.lr_end + 0.5 * (schedule.lr - schedule.lr_end) * wave)
    waves = [1 + np.cos(np.pi * index / total) for index in range(total)]
    decays = [0.4 + 0.5 * (0.04 - 0.4) * wave for wave in waves]
    momenta = [1.0 + 0.5 * (0.996 - 1.0) * wave for wave in waves]
    return {"lr": rates, "weight_decay": decays, "teacher_momentum": momenta}


def test_every_step_agrees_with_the_list_of_all_steps() -> None:
    schedule = ScheduleConfig(epochs=7, warmup_epochs=2)
    expected = listed(7, 11, schedule)
    config = replace(RunConfig(), schedule=schedule)
    for step in range(77):
        values = step_values(step, config, steps_per_epoch=11)
        assert values.epoch == step // 11
        for name, column in expected.items():
            assert getattr(values, name) == pytest.approx(column[step], rel=1e-12, abs=1e-18)


def test_the_learning_rate_scales_with_the_batch_but_its_end_does_not() -> None:
    schedule = ScheduleConfig(epochs=2, warmup_epochs=0, lr=1e-3, lr_end=1e-5)
    config = replace(RunConfig(), schedule=schedule)
    small = replace(config, sampling=replace(config.sampling, global_batch=64))
    assert step_values(0, small, steps_per_epoch=1000).lr == pytest.approx(2.5e-4)
    assert step_values(1999, small, steps_per_epoch=1000).lr == pytest.approx(1e-5, rel=1e-3)


def test_the_teacher_s_temperature_rises_by_equal_steps_an_epoch() -> None:
    loss = LossConfig(
        teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_warmup_epochs=4
    )
    config = replace(RunConfig(), loss=loss)
    found = [step_values(step, config, steps_per_epoch=2).teacher_temperature for step in range(12)]
    expected = np.concatenate((np.linspace(0.04, 0.07, 4), [0.07, 0.07])).repeat(2)
    assert found == pytest.approx(expected.tolist())


def test_the_last_layer_is_frozen_for_the_first_epochs_only() -> None:
    config = replace(RunConfig(), optim=OptimConfig(frozen_last_layer_epochs=2))
    frozen = [step_values(step, config, steps_per_epoch=3).last_layer_frozen for step in range(9)]
    assert frozen == [True] * 6 + [False] * 3
