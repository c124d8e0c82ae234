"""Collapsed networks are warned of by name, healthy ones are not."""

import logging
import math
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from dinomm_train.health.collapse import CollapseAlarm, find_signs
from dinomm_train.health.measures import AssignmentTally, mean_cosine, rank_me

PROTOTYPES = 256


def made_up(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def row_of(features: Tensor, logits: Tensor, state: str = "both") -> dict[str, int | float]:
    """A row of health as if a teacher had these features and logits, and a student the same."""
    tally, assigned = AssignmentTally(), logits.softmax(dim=1)
    tally.add(target=assigned, teacher=assigned, student_log=logits.log_softmax(dim=1))
    measures = asdict(tally.measures()) | {
        "rankme": rank_me(features),
        "mean_cosine": mean_cosine(features),
    }
    return {f"health/{state}/{name}": value for name, value in measures.items()}


SPREAD_FEATURES = made_up(64, 32)
SPREAD_LOGITS = 4 * made_up(64, PROTOTYPES, seed=1)
HEALTHY = row_of(SPREAD_FEATURES, SPREAD_LOGITS)
CONSTANT = row_of(torch.ones(64, 32) + 1e-4 * SPREAD_FEATURES, SPREAD_LOGITS)
UNIFORM = row_of(SPREAD_FEATURES, 0.05 * SPREAD_LOGITS)
ONE_PROTOTYPE = row_of(SPREAD_FEATURES, 0.1 * SPREAD_LOGITS + 30 * torch.eye(PROTOTYPES)[7])


def names_of(row: dict[str, int | float]) -> list[str]:
    return list(find_signs(row, prototypes=PROTOTYPES))


def test_spread_features_and_assignments_show_no_sign() -> None:
    assert names_of(HEALTHY) == []


def test_constant_features_show_in_cosine_and_rank() -> None:
    assert names_of(CONSTANT) == ["constant features (all bands)", "low rank (all bands)"]


def test_features_along_one_line_through_zero_show_in_their_rank_alone() -> None:
    # Both ways along it, so that cosines average out.
    line = made_up(64, 1) * made_up(1, 32, seed=1) + 1e-4 * SPREAD_FEATURES
    assert names_of(row_of(line, SPREAD_LOGITS)) == ["low rank (all bands)"]


def test_a_teacher_that_is_even_on_all_prototypes_shows_in_its_entropy() -> None:
    assert UNIFORM["health/both/teacher_entropy"] == pytest.approx(math.log(PROTOTYPES), rel=5e-3)
    assert names_of(UNIFORM) == ["uniform assignment (all bands)"]


def test_one_prototype_that_takes_all_shows_in_the_perplexity() -> None:
    assert ONE_PROTOTYPE["health/both/prototypes_in_use"] == 1
    assert names_of(ONE_PROTOTYPE) == ["few prototypes (all bands)"]


def test_features_that_are_not_numbers_are_a_sign_too() -> None:
    broken = row_of(torch.full((64, 32), math.nan), SPREAD_LOGITS)
    assert names_of(broken) == ["constant features (all bands)", "low rank (all bands)"]


def test_each_sensor_has_its_own_signs() -> None:
    radar = row_of(torch.ones(64, 32), SPREAD_LOGITS, "s1")
    optics = row_of(SPREAD_FEATURES, SPREAD_LOGITS, "s2")
    assert names_of(HEALTHY | radar | optics) == [
        "constant features (radar alone)",
        "low rank (radar alone)",
    ]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def alarm() -> CollapseAlarm:
    return CollapseAlarm(prototypes=PROTOTYPES, patience=3)


def test_a_sign_is_warned_of_once_when_it_stays_and_once_when_it_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, counts = alarm(), []
    with caplog.at_level(logging.WARNING):
        for row in (UNIFORM, UNIFORM, UNIFORM, UNIFORM, HEALTHY, HEALTHY):
            watch.note(row)
            counts.append(len(warnings_of(caplog)))
    assert counts == [0, 0, 1, 1, 2, 2]
    first, last = warnings_of(caplog)
    assert first.startswith("collapse: uniform assignment (all bands), for 3 looks in a row; the")
    assert "of at most 5.545 nats" in first
    assert last == "collapse: uniform assignment (all bands) has gone"


def test_a_sign_that_comes_and_goes_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = alarm()
    for row in (CONSTANT, CONSTANT, HEALTHY, CONSTANT, CONSTANT):
        watch.note(row)
    assert warnings_of(caplog) == []


def test_rows_of_neighbours_alone_neither_count_nor_interrupt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = alarm()
    for row in (UNIFORM, {"knn/both/micro_ap": 0.5}, UNIFORM):
        watch.note(row)
    assert warnings_of(caplog) == []
    watch.note(UNIFORM)
    assert len(warnings_of(caplog)) == 1


def test_a_run_that_goes_on_counts_on_without_repeating_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = alarm()
    watch.resume([HEALTHY, UNIFORM, {"knn/both/micro_ap": 0.5}, UNIFORM])
    assert warnings_of(caplog) == []
    watch.note(UNIFORM)
    assert len(warnings_of(caplog)) == 1
    later = alarm()
    later.resume([UNIFORM] * 3)
    later.note(UNIFORM)
    assert len(warnings_of(caplog)) == 1
