"""What changes over a run, as functions of the step alone: nothing to store, nothing to restore."""

import math
from dataclasses import dataclass

from dinomm_train.config import RunConfig

REFERENCE_BATCH = 256
"""Samples per step that `schedule.lr` is stated for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepValues:
    """The scheduled values of one step."""

    epoch: int
    lr: float
    weight_decay: float
    teacher_momentum: float
    """Share of the old teacher in the new one."""
    teacher_temperature: float
    last_layer_frozen: bool


def step_values(step: int, config: RunConfig, *, steps_per_epoch: int) -> StepValues:
    """All scheduled values of one step of a run.

    Args:
        step: Counted from zero over the whole run.
        config: Lengths, starts and ends.
        steps_per_epoch: Steps of one epoch; the same in each.
    """
    schedule, loss = config.schedule, config.loss
    total = schedule.epochs * steps_per_epoch
    epoch = step // steps_per_epoch
    return StepValues(
        epoch=epoch,
        lr=_learning_rate(step, config, steps_per_epoch),
        weight_decay=cosine(step, total, schedule.weight_decay, schedule.weight_decay_end),
        teacher_momentum=cosine(
            step, total, schedule.teacher_momentum, schedule.teacher_momentum_end
        ),
        teacher_temperature=linear(
            epoch,
            loss.teacher_warmup_epochs,
            loss.teacher_temperature_start,
            loss.teacher_temperature,
        ),
        last_layer_frozen=epoch < config.optim.frozen_last_layer_epochs,
    )


def _learning_rate(step: int, config: RunConfig, steps_per_epoch: int) -> float:
    schedule = config.schedule
    peak = schedule.lr * config.sampling.global_batch / REFERENCE_BATCH
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return linear(step, warmup_steps, 0.0, peak)
    decay_steps = schedule.epochs * steps_per_epoch - warmup_steps
    return cosine(step - warmup_steps, decay_steps, peak, schedule.lr_end)


def linear(index: int, count: int, start: float, end: float) -> float:
    """The value at `index` of `count` equal steps from `start` to `end`, both reached; then `end`.

    A single step is `start`.
    """
    if index >= count:
        return end
    return start + (end - start) * index / max(count - 1, 1)


def cosine(index: int, count: int, start: float, end: float) -> float:
    """The value at `index` of a half cosine from `start` to `end`, which `count` would reach."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * index / count))
