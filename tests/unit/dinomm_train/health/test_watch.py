"""Looks come when they are due, at the patches that were held out for them."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dinomm_train.config import HealthConfig, LossConfig, RunConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.distributed import Ranks
from dinomm_train.health.look import MustStop, Row
from dinomm_train.health.patches import FixedPatches
from dinomm_train.health.watch import HealthWatch, describe
from dinomm_train.learner import Learner
from dinomm_train.metrics import open_metrics
from tests.checkpoint_fixture import TINY_RUN
from tests.shard_fixture import make_dataset

CPU = Ranks(rank=0, world=1, device=torch.device("cpu"))
HEALTH = HealthConfig(every_steps=3, samples=4, knn_every_epochs=2, knn_bank=8, knn_queries=5)
STEPS_PER_EPOCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), size_px=32)


def watch(folder: Path, health: HealthConfig = HEALTH, *, sample_limit: int = 0) -> HealthWatch:
    config = replace(
        TINY_RUN, health=health, sampling=replace(TINY_RUN.sampling, sample_limit=sample_limit)
    )
    return HealthWatch(
        StoredDataset.open(folder), Learner(config, CPU, channels=14), STEPS_PER_EPOCH
    )


def due(watched: HealthWatch, last: int) -> list[tuple[int, bool, bool]]:
    """Steps with a row, and whether it holds a look and neighbours."""
    rows = {step: watched.look(step, lambda: False) for step in range(1, last + 1)}
    return [
        (step, "health/both/loss" in row, "knn/both/micro_ap" in row)
        for step, row in rows.items()
        if row
    ]


def test_looks_and_neighbours_come_at_their_own_steps(folder: Path) -> None:
    assert due(watch(folder), 16) == [
        (3, True, False),
        (6, True, False),
        (8, False, True),
        (9, True, False),
        (12, True, False),
        (15, True, False),
        (16, False, True),
    ]


def test_zero_looks_at_the_end_of_each_epoch(folder: Path) -> None:
    each_epoch = watch(folder, replace(HEALTH, every_steps=0, knn_every_epochs=0))
    assert due(each_epoch, 8) == [(4, True, False), (8, True, False)]


def test_no_samples_turn_looks_off(folder: Path) -> None:
    assert due(watch(folder, replace(HEALTH, samples=0)), 12) == [(8, False, True)]


def test_bank_and_held_out_patches_never_meet(tmp_path: Path, folder: Path) -> None:
    with_validation = watch(folder)
    assert with_validation.queries.split.name == "validation"
    assert with_validation.bank.split.name == "train"
    alone = watch(make_dataset(tmp_path, size_px=32, samples={"train": 20}), sample_limit=12)
    held_out = set(alone.queries.positions) | set(alone.patches.positions)
    assert held_out == {7, 8, 9, 10, 11}
    assert alone.bank.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_patches_that_training_sees_too_are_said_to_be_seen(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        watch(folder)
        watch(make_dataset(tmp_path, size_px=32, samples={"train": 20}))
    first, second = [record.getMessage() for record in caplog.records]
    assert first == "every 3 steps, 4 patches of validation are looked at"
    assert second.endswith("training sees too: there is no validation split")


def test_without_labels_neighbours_are_not_scored_and_that_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dinomm_train.data.stored_split._multi_hot",
        lambda _, table, classes: np.zeros((len(table), len(classes)), dtype=np.uint8),
    )
    unlabelled = watch(folder)
    assert "patches have no labels" in caplog.text
    assert due(unlabelled, 8) == [(3, True, False), (6, True, False)]


def test_a_look_takes_the_temperature_of_the_step_just_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []

    def look_at(_: Learner, __: FixedPatches, temperature: float, ___: MustStop) -> Row:
        used.append(temperature)
        return {}

    monkeypatch.setattr("dinomm_train.health.watch.look_at", look_at)
    loss = LossConfig(teacher_temperature_start=0.02, teacher_warmup_epochs=2)
    config = replace(TINY_RUN, health=replace(HEALTH, every_steps=1), loss=loss)
    learner = Learner(config, CPU, channels=14)
    rising = HealthWatch(StoredDataset.open(folder), learner, STEPS_PER_EPOCH)
    for step in (3, 4, 5):
        rising.look(step, lambda: False)
    assert used == [0.02, 0.02, 0.04]


def test_a_line_gives_the_main_numbers_for_each_sensor_state() -> None:
    row = {f"health/{state}/loss": 1.0 + n for n, state in enumerate(("both", "s1", "s2"))}
    line = describe(row | {"knn/both/micro_ap": 0.5}, most_prototypes=256)
    assert line == "loss 1.00 / 2.00 / 3.00, kNN micro AP 0.500"


def test_prototypes_in_use_are_told_with_how_many_the_patches_can_show(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch(folder)
    with caplog.at_level(logging.INFO):
        watched.report(3, row := watched.look(3, lambda: False))
    in_use = [row[f"health/{state}/prototypes_in_use"] for state in ("both", "s1", "s2")]
    assert f"prototypes {' / '.join(map(str, in_use))} of at most 4," in caplog.text


def test_no_more_prototypes_are_in_use_than_the_head_has(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(TINY_RUN, health=HEALTH, head=replace(TINY_RUN.head, prototypes=3))
    watched = HealthWatch(
        StoredDataset.open(folder), Learner(config, CPU, channels=14), STEPS_PER_EPOCH
    )
    with caplog.at_level(logging.INFO):
        watched.report(3, watched.look(3, lambda: False))
    assert "of at most 3," in caplog.text


@pytest.mark.parametrize(
    ("changes", "last_step", "is_warned"),
    [
        ({}, 8, True),
        ({}, 9, False),
        ({"patience": 2}, 8, False),
        ({"every_steps": 0}, 11, True),
        ({"every_steps": 0}, 12, False),
        ({"samples": 0}, 1, False),
    ],
)
def test_a_run_that_ends_before_it_could_warn_of_collapse_says_so(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    changes: dict[str, int],
    last_step: int,
    is_warned: bool,
) -> None:
    watched = watch(folder, replace(HEALTH, **changes))
    watched.warn_if_too_short(last_step)
    assert (f"up to step {last_step} there are " in caplog.text) == is_warned


def test_a_watch_that_resumes_counts_the_rows_up_to_its_step(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch(folder, replace(HEALTH, patience=2))
    row = watched.look(3, lambda: False) | {"health/both/mean_cosine": 1.0}
    with open_metrics(tmp_path, RunConfig(), steps_done=0) as metrics:
        metrics.write_health(3, row)
        metrics.write_health(6, row)
    for last, warned in ((6, False), (3, True)):
        again = watch(folder, replace(HEALTH, patience=2))
        again.resume(tmp_path, last)
        caplog.clear()
        again.report(9, row)
        assert ("constant features (all bands), for 2 looks" in caplog.text) == warned
