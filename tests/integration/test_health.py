"""Looks at a run: they change nothing, all ranks take part, and a collapsing run is warned of."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinomm_train.checkpoint import read_checkpoint
from dinomm_train.config import HealthConfig, LossConfig, RunConfig
from dinomm_train.health.patches import FixedPatches
from dinomm_train.metrics import read_health, read_metrics
from tests.integration.test_trainer import (
    TINY,
    assert_same_weights,
    run_here,
    start_ranks,
)
from tests.run_processes import Forks
from tests.shard_fixture import make_dataset

OFTEN = HealthConfig(every_steps=2, samples=6, knn_every_epochs=1, knn_bank=9, knn_queries=5)
WATCHED = replace(TINY, health=OFTEN)
UNWATCHED = replace(TINY, health=HealthConfig(samples=0, knn_every_epochs=0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    return make_dataset(folder, samples={"train": 28, "validation": 8})


@pytest.fixture(scope="module")
def watched(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "watched"
    assert run_here(dataset, run, WATCHED).is_finished
    return run


def test_a_run_that_is_looked_at_learns_bit_for_bit_what_one_that_is_not_learns(
    dataset: Path, watched: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, UNWATCHED)
    assert read_health(tmp_path) == []
    rows = read_health(watched)
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 8, 9]
    assert ["knn/s1/micro_ap" in row for row in rows] == [False, True, False, True, False, True]
    assert_same_weights(watched, tmp_path)


def test_how_a_run_is_looked_at_may_change_when_it_goes_on(
    dataset: Path, watched: Path, tmp_path: Path
) -> None:
    run_here(dataset, tmp_path, UNWATCHED, max_steps=5)
    run_here(dataset, tmp_path, WATCHED)
    late, always = read_health(tmp_path), read_health(watched)
    assert [row["step"] for row in late] == [6, 8, 9]
    for row, expected in zip(late, always[3:], strict=True):
        assert without_time(row) == without_time(expected)


def without_time(row: dict[str, int | float]) -> dict[str, int | float]:
    return {name: value for name, value in row.items() if name != "health/seconds"}


def test_two_ranks_find_what_one_process_finds(forks: Forks, dataset: Path, tmp_path: Path) -> None:
    config = replace(
        WATCHED,
        model=replace(TINY.model, drop_path=0.0),
        schedule=replace(TINY.schedule, epochs=1, lr=1e-3),
    )
    processes = start_ranks(forks, dataset, tmp_path / "two", config, 2)
    assert [process.wait() for process in processes] == [0, 0]
    run_here(dataset, tmp_path / "one", config)
    two, one = (read_health(tmp_path / name) for name in ("two", "one"))
    assert [row["step"] for row in two] == [2, 3]
    for row, expected in zip(two, one, strict=True):
        assert without_time(row) == pytest.approx(without_time(expected), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kept_off", [HealthConfig(knn_every_epochs=0), HealthConfig(samples=0)])
def test_a_signal_during_a_look_or_neighbours_ends_the_run_at_that_step(
    kept_off: HealthConfig, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = replace(OFTEN, every_steps=3, samples=min(kept_off.samples, 6))
    config = replace(TINY, health=replace(health, knn_every_epochs=kept_off.knn_every_epochs and 1))
    monkeypatch.setattr("dinomm_train.health.patches._CHUNK", 2)
    shown = 0
    real_show = FixedPatches._show

    def show_with_signal(self: FixedPatches, images: torch.Tensor, name: str) -> torch.Tensor:
        nonlocal shown
        shown += 1
        if shown == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_show(self, images, name)

    monkeypatch.setattr(FixedPatches, "_show", show_with_signal)
    result = run_here(dataset, tmp_path, config)
    assert (result.step, result.signal_number) == (3, signal.SIGTERM)
    assert read_checkpoint(tmp_path).step == 3
    assert read_health(tmp_path) == []
    assert shown == 3


def test_a_run_whose_loss_falls_while_it_collapses_is_warned_of(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A centre that never moves holds nothing against the one prototype that dominates.
    collapsing = collapsing_run()
    run_here(dataset, tmp_path, collapsing)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert any(text.startswith("collapse: few prototypes (all bands)") for text in warnings)


def collapsing_run() -> RunConfig:
    return replace(
        TINY,
        loss=LossConfig(centre_momentum=1.0),
        schedule=replace(TINY.schedule, epochs=20, warmup_epochs=0, teacher_momentum=0.5),
        health=replace(OFTEN, every_steps=3, knn_every_epochs=0),
    )
